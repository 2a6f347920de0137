"""Evaluation over images: in memory, on KITTI's layout, and tables that belong together or do not."""

import re

import numpy as np
import pytest
import torch
from metrics.plain import plain_metrics
from native_layouts import kitti_noise

from alberti.data.kitti import KittiReader
from alberti.errors import ConfigError, DataError
from alberti.metrics import (
    METRICS,
    PROTOCOLS,
    GroundTruth,
    check_one_table,
    compare,
    evaluate,
    evaluate_frames,
    paired_bootstrap,
)
from alberti.metrics.evaluation import _score, summarise

# --- evaluation in memory


def truths(n=6, kind="annotated", shape=(40, 60)):
    random = np.random.default_rng(0)
    return {f"image{k}": GroundTruth(random.uniform(1, 79, shape).astype(np.float32), kind) for k in range(n)}


def noisy(ground_truth, seed, spread=0.2):
    random = np.random.default_rng(seed)
    return {
        name: (truth.depth * np.exp(random.normal(0, spread, truth.depth.shape))).astype(np.float32)
        for name, truth in ground_truth.items()
    }


def test_a_table_is_the_mean_over_images_and_says_what_it_is():
    truth = truths()
    predictions = noisy(truth, 1)
    evaluation = evaluate(predictions, truth, "eigen_benchmark")
    expected = []
    for name, target in truth.items():
        mask = PROTOCOLS["eigen_benchmark"].valid(target.depth)
        assert mask.sum() == (39 - 16) * (57 - 2)
        expected.append(plain_metrics(np.clip(predictions[name], 1e-3, 80), target.depth, mask))
    for name in METRICS:
        assert evaluation.rows[name].tolist() == pytest.approx([row[name] for row in expected], rel=1e-9)
        assert evaluation.summary[name] == pytest.approx(np.mean([row[name] for row in expected]), rel=1e-9)
        low, high = evaluation.summary["intervals"][name]
        assert low <= evaluation.summary[name] <= high
    said = {key: evaluation.summary[key] for key in ("n", "protocol", "ground_truth", "alignment", "split")}
    assert said == {
        "n": 6,
        "protocol": "eigen_benchmark",
        "ground_truth": "annotated",
        "alignment": "none",
        "split": "custom",
    }
    assert len(evaluation.summary["split_hash"]) == 64
    assert "published numbers of eigen_benchmark have 652" in evaluation.summary["notes"][0]


def test_another_kind_of_ground_truth_is_refused():
    with pytest.raises(DataError, match="image0: protocol eigen_garg scores lidar_forward ground truth, got annotated"):
        evaluate(noisy(truths(), 0), truths(), "eigen_garg")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[:-1], "60 x 39 pixels, the ground truth 60 x 40"),
        (lambda p: np.where(p > 40, np.inf, p), "NaN or infinite"),
        (lambda p: np.where(p > 40, np.nan, p), "NaN or infinite"),
        (lambda p: p - 40, "negative"),
        (lambda p: p * 1000, "millimetres"),
        (lambda p: p * 100, "centimetres"),
        (lambda p: p * 256, "16-bit values.*divide them by 256"),
    ],
)
def test_bad_predictions_are_refused(change, message):
    predictions = {name: change(prediction) for name, prediction in noisy(truths(), 0).items()}
    with pytest.raises(DataError, match=message):
        evaluate(predictions, truths(), "eigen_benchmark")


def test_missing_predictions_are_listed_and_unknown_names_refused():
    predictions = noisy(truths(), 0)
    del predictions["image2"], predictions["image4"]
    with pytest.raises(DataError, match=r"2 of 6 predictions are missing.*image2, image4"):
        evaluate(predictions, truths(), "eigen_benchmark")
    with pytest.raises(ConfigError, match="eigen_garg"):
        evaluate(predictions, truths(), "eigen")
    with pytest.raises(ConfigError, match="median"):
        evaluate(predictions, truths(), "eigen_benchmark", "scale")
    with pytest.raises(DataError, match="empty"):
        evaluate({}, {}, "eigen_benchmark")
    empty = {"image0": GroundTruth(np.zeros((40, 60)), "annotated")}
    with pytest.raises(DataError, match="image0: no valid ground truth"):
        evaluate(noisy(truths(), 0), empty, "eigen_benchmark")


def test_units_do_not_matter_where_scale_is_fitted():
    truth = truths()
    metres = noisy(truth, 0)
    millimetres = {name: 1000 * prediction for name, prediction in metres.items()}
    a = evaluate(metres, truth, "eigen_benchmark", "median").summary
    b = evaluate(millimetres, truth, "eigen_benchmark", "median").summary
    assert [a[name] for name in METRICS] == pytest.approx([b[name] for name in METRICS])


def test_inverse_relative_depth_is_scored_after_alignment_even_where_negative():
    truth = truths()
    predictions = {name: 5 / t.depth - 1 for name, t in truth.items()}
    summary = evaluate(predictions, truth, "eigen_benchmark", "affine_disparity").summary
    assert summary["abs_rel"] < 1e-5
    wrong_way = {name: t.depth for name, t in truth.items()}
    notes = evaluate(wrong_way, truth, "eigen_benchmark", "affine_disparity").summary["notes"]
    assert any("6 predictions were fitted with a negative scale" in note for note in notes)


def test_zeros_become_the_minimum_and_bad_models_are_scored_not_refused():
    truth = truths()
    zeros = {name: np.zeros_like(t.depth) for name, t in truth.items()}
    evaluation = evaluate(zeros, truth, "eigen_benchmark")
    assert evaluation.summary["d3"] == 0
    assert any("6 predictions are 0" in note for note in evaluation.summary["notes"])
    near = {name: GroundTruth(t.depth / 80, "annotated") for name, t in truth.items()}
    far = {name: np.full_like(t.depth, 80) for name, t in truth.items()}
    assert evaluate(far, near, "eigen_benchmark").summary["abs_rel"] > 30


def test_kb_predictions_are_placed_in_their_window():
    target = np.random.default_rng(0).uniform(1, 79, (375, 1242)).astype(np.float32)
    truth = {"a": GroundTruth(target, "annotated")}
    window = target[23:, 13:1229] * 1.3
    assert evaluate({"a": window}, truth, "eigen_benchmark_kb").summary["n"] == 1
    whole = evaluate({"a": target * 1.3}, truth, "eigen_benchmark").summary
    cropped = evaluate({"a": window}, truth, "eigen_benchmark_kb").summary
    assert [whole[name] for name in METRICS] == pytest.approx([cropped[name] for name in METRICS])
    with pytest.raises(DataError, match="1216 x 352"):
        evaluate({"a": window}, truth, "eigen_benchmark")
    with pytest.raises(DataError, match="larger than the image"):
        evaluate(noisy(truths(), 0), truths(), "eigen_benchmark_kb")


# --- evaluation of a model on KITTI's layout


@pytest.fixture
def kitti(tmp_path):
    return kitti_noise(tmp_path, 7, np.random.default_rng(0)), KittiReader(tmp_path)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("protocol", ["eigen_garg", "eigen_benchmark"])
def test_a_model_is_scored_on_every_frame(kitti, workers, protocol):
    frames, reader = kitti
    kind = PROTOCOLS[protocol].ground_truth
    seen = []

    def predict(image):
        seen.append(image)
        return torch.from_numpy(image[..., 0] / 4 + 1).requires_grad_()  # as a model gives it

    evaluation = evaluate_frames(frames, predict, reader, protocol, workers=workers)
    assert len(seen) == 7
    assert evaluation.rows["id"].tolist() == [frame.id for frame in frames]
    for frame, abs_rel in zip(frames, evaluation.rows["abs_rel"], strict=True):
        target = reader.depth(frame, kind)
        pred = reader.read_image(frame)[..., 0] / 4.0 + 1
        expected = plain_metrics(pred, target, PROTOCOLS[protocol].valid(target))
        assert abs_rel == pytest.approx(expected["abs_rel"], rel=1e-6)


def test_predictions_of_another_size_need_a_rule(kitti):
    frames, reader = kitti

    def half(image):
        return np.full((20, 32), 20.0, dtype=np.float32)

    with pytest.raises(DataError, match="32 x 20"):
        evaluate_frames(frames, half, reader, "eigen_benchmark")
    for rule in ("bilinear", "nearest"):
        summary = evaluate_frames(frames, half, reader, "eigen_benchmark", resize=rule).summary
        assert summary["rmse"] == pytest.approx(
            evaluate_frames(frames, lambda image: np.full((40, 64), 20.0), reader, "eigen_benchmark").summary["rmse"]
        )
    with pytest.raises(ConfigError, match="bilinear, nearest"):
        evaluate_frames(frames, half, reader, "eigen_benchmark", resize="cubic")


# --- tables


def test_two_tables_are_compared_image_by_image():
    truth = truths(30)
    good, bad = (evaluate(noisy(truth, 1, spread), truth, "eigen_benchmark") for spread in (0.1, 0.3))
    shuffled = bad.rows.sample(frac=1, random_state=0)
    result = compare(good.rows, shuffled)
    assert result["n"] == 30
    change = result["difference"]["abs_rel"]
    assert change["mean"] == pytest.approx(good.summary["abs_rel"] - bad.summary["abs_rel"])
    assert change["low"] < change["mean"] < change["high"] < 0
    _, low, high = paired_bootstrap(good.rows["abs_rel"], bad.rows["abs_rel"])
    assert (change["low"], change["high"]) == pytest.approx((low, high))


def test_tables_that_do_not_belong_together_are_refused():
    truth = truths()
    rows = evaluate(noisy(truth, 1), truth, "eigen_benchmark").rows
    lidar = {name: GroundTruth(t.depth, "lidar_forward") for name, t in truth.items()}
    with pytest.raises(DataError, match="protocol is eigen_benchmark here and eigen_garg there"):
        compare(rows, evaluate(noisy(truth, 1), lidar, "eigen_garg").rows)
    with pytest.raises(DataError, match="1 stand in one only: image5"):
        compare(rows, rows.iloc[:-1])
    with pytest.raises(DataError, match="no column 'silog'"):
        compare(rows, rows.drop(columns="silog"))
    mixed = rows.copy()
    mixed.loc[0, "ground_truth"] = "lidar_forward"
    with pytest.raises(DataError, match="ground_truth"):
        compare(mixed, mixed)


def test_a_table_of_several_models_is_of_one_protocol_and_one_set_of_images():
    truth = truths()
    lidar = {name: GroundTruth(t.depth, "lidar_forward") for name, t in truth.items()}
    fewer = {name: truth[name] for name in list(truth)[:4]}
    a = evaluate(noisy(truth, 1), truth, "eigen_benchmark").summary
    b = evaluate(noisy(truth, 2), truth, "eigen_benchmark", "median").summary
    check_one_table({"dpt": a, "pixelformer": b})
    check_one_table({})
    with pytest.raises(
        DataError, match="dpt and other do not belong in one table: ground_truth is annotated and lidar_forward"
    ):
        check_one_table({"dpt": a, "pixelformer": b, "other": evaluate(noisy(truth, 1), lidar, "eigen_garg").summary})
    with pytest.raises(DataError, match="split_hash"):
        check_one_table({"dpt": a, "other": evaluate(noisy(truth, 1), fewer, "eigen_benchmark").summary})


# --- numbers that are plausible by accident


def large(kind="annotated"):
    rows = np.linspace(70, 3, 375, dtype=np.float32)[:, None]
    return {name: GroundTruth(rows * np.ones((1, 1242), np.float32) + k, kind) for k, name in enumerate("ab")}


@pytest.mark.parametrize(
    ("part", "protocol", "message"),
    [
        (lambda d: d[23:, 13:1229], "eigen_benchmark", "KITTI's benchmark crop.*--protocol eigen_benchmark_kb"),
        (lambda d: d[23::2, 13:1229:2], "eigen_benchmark", "KITTI's benchmark crop"),
        (lambda d: d[23:, 13:1229], "eigen_benchmark_monodepth2", "KITTI's benchmark crop.*end in _kb"),
        (lambda d: d.T, "eigen_benchmark", "rows and columns are swapped"),
        (lambda d: d[::3, ::3].T, "eigen_benchmark_kb", "aspect differs by a factor of 10"),
        (lambda d: d[:, :621], "eigen_benchmark", "aspect differs by a factor of 2.00"),
        (lambda d: d[None, ...].repeat(2, 0), "eigen_benchmark", r"one \(H, W\) map"),
        (lambda d: d[:0], "eigen_benchmark", r"one \(H, W\) map"),
    ],
)
@pytest.mark.parametrize("resize", [None, "bilinear"])
def test_what_is_no_copy_of_the_whole_picture_is_refused(part, protocol, message, resize):
    truth = large()["a"]
    with pytest.raises(DataError, match=message):
        _score("a", part(truth.depth), truth, PROTOCOLS[protocol], "none", resize)


def test_a_resized_benchmark_crop_is_placed_where_the_protocol_has_it():
    truth = large()["a"]
    half = truth.depth[23::2, 13:1229:2]
    row, placed = _score("a", half, truth, PROTOCOLS["eigen_benchmark_kb"], "none", "bilinear")
    assert placed.shape == (352, 1216)
    assert row["abs_rel"] < 0.01


def test_a_little_stretching_is_told_of():
    truth = large()
    rows = [
        _score(n, t.depth[::3, ::3][:, :320], t, PROTOCOLS["eigen_benchmark"], "none", "bilinear")[0] for n, t in truth.items()
    ]
    assert any("changed the aspect of predictions by a factor of up to 1.29" in note for note in _notes_of(rows))


def _notes_of(rows):
    return summarise(rows, PROTOCOLS["eigen_benchmark"], "none").summary["notes"][1:]


@pytest.mark.parametrize(
    ("factor", "text"), [(100 / 256, "0.39.* times.*100 per metre"), (500 / 256, "1.9.* times"), (0.8, "0.8.* times")]
)
def test_one_factor_over_all_images_is_told_of(factor, text):
    truth = truths()
    predictions = {name: prediction * factor for name, prediction in noisy(truth, 0, 0.05).items()}
    notes = " ".join(evaluate(predictions, truth, "eigen_benchmark").summary["notes"])
    assert re.search(text, notes)


def test_models_that_are_off_by_different_factors_are_not_suspected():
    truth = truths()
    factors = dict(zip(truth, (0.9, 1.2, 1.0, 1.3, 0.8, 1.1), strict=True))
    predictions = {name: prediction * factors[name] for name, prediction in noisy(truth, 0, 0.05).items()}
    assert len(evaluate(predictions, truth, "eigen_benchmark").summary["notes"]) == 1


@pytest.mark.parametrize("alignment", ["none", "median", "affine_depth"])
def test_predictions_that_fall_where_depth_grows_are_told_of(alignment):
    truth = truths()
    inverse = {name: 30 / t.depth for name, t in truth.items()}
    notes = evaluate(inverse, truth, "eigen_benchmark", alignment).summary["notes"]
    assert any("6 of 6 predictions fall where depth grows" in note for note in notes)
    good = evaluate(noisy(truth, 0), truth, "eigen_benchmark", alignment).summary["notes"]
    assert not any("fall" in note for note in good)


def test_affine_depth_undoes_scale_and_shift_in_depth():
    truth = truths()
    predictions = {name: 0.01 * t.depth - 0.3 for name, t in truth.items()}
    summary = evaluate(predictions, truth, "eigen_benchmark", "affine_depth").summary
    assert summary["abs_rel"] < 1e-5
    other = {name: t.depth + np.random.default_rng(1).normal(0, 5, t.depth.shape) for name, t in truth.items()}
    evaluation = evaluate(other, truth, "eigen_benchmark", "affine_depth")
    name, target = next(iter(truth.items()))
    mask = PROTOCOLS["eigen_benchmark"].valid(target.depth)
    scale, shift = np.polyfit(other[name][mask].astype(float), target.depth[mask].astype(float), 1)
    assert evaluation.rows["scale"][0] == pytest.approx(scale)
    assert evaluation.rows["shift"][0] == pytest.approx(shift)
