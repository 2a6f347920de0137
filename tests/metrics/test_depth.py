"""Depth metrics against hand-made values and a plain implementation of the definitions; protocols; alignment; bootstrap."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from alberti.data.kitti import KittiReader, KittiRecord, write_kitti
from alberti.errors import ConfigError, DataError
from alberti.geometry.camera import Camera
from alberti.metrics import (
    METRICS,
    PROTOCOLS,
    GroundTruth,
    align,
    bootstrap_interval,
    check_one_table,
    compare,
    depth_metrics,
    evaluate,
    evaluate_frames,
    paired_bootstrap,
)


def plain_metrics(pred, target, mask):
    """The definitions, one pixel after the other."""
    pairs = [(float(p), float(g)) for p, g, m in zip(np.ravel(pred), np.ravel(target), np.ravel(mask), strict=True) if m]
    n = len(pairs)
    logs = [math.log(p) - math.log(g) for p, g in pairs]
    ratios = [max(p / g, g / p) for p, g in pairs]
    return {
        "abs_rel": sum(abs(p - g) / g for p, g in pairs) / n,
        "sq_rel": sum((p - g) ** 2 / g for p, g in pairs) / n,
        "rmse": math.sqrt(sum((p - g) ** 2 for p, g in pairs) / n),
        "rmse_log": math.sqrt(sum(e * e for e in logs) / n),
        "silog": 100 * math.sqrt(sum((e - sum(logs) / n) ** 2 for e in logs) / n),
        "log10": sum(abs(math.log10(p) - math.log10(g)) for p, g in pairs) / n,
        "d1": sum(r < 1.25 for r in ratios) / n,
        "d2": sum(r < 1.25**2 for r in ratios) / n,
        "d3": sum(r < 1.25**3 for r in ratios) / n,
    }


# --- metrics of one image


def test_two_by_two_by_hand():
    pred, target = np.array([[2.0, 4.0], [8.0, 7.0]]), np.array([[1.0, 4.0], [10.0, 0.0]])
    values = depth_metrics(pred, target, target > 0)
    assert tuple(values) == METRICS
    assert values["abs_rel"] == pytest.approx((1 + 0 + 0.2) / 3)
    assert values["sq_rel"] == pytest.approx((1 + 0 + 0.4) / 3)
    assert values["rmse"] == pytest.approx(math.sqrt(5 / 3))
    assert values["rmse_log"] == pytest.approx(math.sqrt((math.log(2) ** 2 + math.log(0.8) ** 2) / 3))
    assert values["log10"] == pytest.approx((math.log10(2) + math.log10(1.25)) / 3)
    # 10 / 8 is 1.25 exactly, and the thresholds are strict
    assert (values["d1"], values["d2"], values["d3"]) == pytest.approx((1 / 3, 2 / 3, 2 / 3))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_plain_definitions(seed, dtype):
    random = np.random.default_rng(seed)
    target = random.uniform(0.5, 80, (17, 23)).astype(dtype)
    pred = (target * np.exp(random.normal(0, 0.4, target.shape))).astype(dtype)
    mask = random.random(target.shape) < 0.3
    assert depth_metrics(pred, target, mask) == pytest.approx(plain_metrics(pred, target, mask), rel=1e-9)


def test_one_pixel_and_extreme_depths():
    for p, g in [(3.0, 2.0), (1e-3, 80.0), (80.0, 1e-3), (1e-30, 1e30), (5.0, 5.0)]:
        pred, target, mask = np.array([[p, -1.0]]), np.array([[g, 0.0]]), np.array([[1, 0]])
        values = depth_metrics(pred, target, mask)
        assert values == pytest.approx(plain_metrics(pred, target, mask), rel=1e-9)
        assert values["silog"] == 0
        assert all(math.isfinite(value) for value in values.values())


def test_silog_ignores_scale_and_a_perfect_prediction_has_no_error():
    target = np.random.default_rng(0).uniform(1, 80, (9, 11))
    mask = np.ones(target.shape)
    scaled = depth_metrics(3 * target, target, mask)
    assert scaled["silog"] == pytest.approx(0, abs=1e-10)
    assert scaled["abs_rel"] == pytest.approx(2)
    assert scaled["rmse_log"] == pytest.approx(math.log(3))
    exact = depth_metrics(target, target, mask)
    assert [exact[name] for name in METRICS] == [0, 0, 0, 0, 0, 0, 1, 1, 1]


def test_symmetric_metrics_swap_and_pixel_order_does_not_matter():
    random = np.random.default_rng(0)
    a, b = random.uniform(1, 80, (8, 8)), random.uniform(1, 80, (8, 8))
    mask = random.random((8, 8)) < 0.5
    one, two = depth_metrics(a, b, mask), depth_metrics(b, a, mask)
    for name in ("rmse", "rmse_log", "silog", "log10", "d1", "d2", "d3"):
        assert one[name] == pytest.approx(two[name])
    assert depth_metrics(a[::-1, ::-1], b[::-1, ::-1], mask[::-1, ::-1]) == pytest.approx(one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_torch_tensors_are_taken(dtype):
    target = torch.rand(6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 50 + 1
    pred = (target * 1.2).to(dtype).requires_grad_()
    values = depth_metrics(pred, target, target > 10)
    assert values == depth_metrics(pred.detach().double().numpy(), target.numpy(), (target > 10).numpy())


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("which", ["pred", "target"])
def test_what_has_no_logarithm_is_refused(bad, which):
    arrays = {"pred": np.ones((3, 3)), "target": np.ones((3, 3))}
    arrays[which][1, 1] = bad
    with pytest.raises(DataError, match=f"{which}: .*1 of 9"):
        depth_metrics(arrays["pred"], arrays["target"], np.ones((3, 3)))
    mask = np.ones((3, 3), dtype=bool)
    mask[1, 1] = False
    assert depth_metrics(arrays["pred"], arrays["target"], mask)["abs_rel"] == 0


def test_no_pixel_and_wrong_shapes_are_errors():
    ones = np.ones((3, 4))
    with pytest.raises(DataError, match="mask is empty"):
        depth_metrics(ones, ones, np.zeros((3, 4)))
    with pytest.raises(DataError, match=r"\(3, 4\), \(4, 3\)"):
        depth_metrics(ones, ones.T, ones)
    with pytest.raises(DataError, match="one \\(H, W\\) shape"):
        depth_metrics(ones[None], ones[None], ones[None])
    with pytest.raises(DataError, match="array of numbers"):
        depth_metrics(np.array([["a"]]), np.ones((1, 1)), np.ones((1, 1)))


# --- protocols


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("eigen_garg", (153, 371), (44, 1197)),
        ("eigen_eigen_crop", (124, 342), (44, 1197)),
        ("eigen_no_crop", (0, 375), (0, 1242)),
        ("eigen_garg_kb", (153, 371), (44, 1197)),
        ("diode_outdoor", (0, 375), (0, 1242)),
    ],
)
def test_crops_of_a_kitti_image(name, rows, columns):
    valid = PROTOCOLS[name].valid(np.full((375, 1242), 10.0))
    where = np.argwhere(valid)
    assert tuple(where.min(axis=0)) == (rows[0], columns[0])
    assert tuple(where.max(axis=0) + 1) == (rows[1], columns[1])
    assert valid.sum() == (rows[1] - rows[0]) * (columns[1] - columns[0])


def test_cap_and_minimum_are_strict():
    target = np.array([[1e-3, 1.1e-3, 79.99, 80.0, 81.0, 0.0, np.nan, np.inf]])
    assert PROTOCOLS["eigen_no_crop"].valid(target).tolist() == [[False, True, True] + [False] * 5]
    uncapped = PROTOCOLS["eigen_benchmark_monodepth2"].valid(target)
    assert uncapped.tolist() == [[True] * 5 + [False] * 3]


def test_protocols_are_frozen_and_name_themselves():
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROTOCOLS["eigen_garg"].max_depth = 50.0


# --- alignment


@pytest.fixture
def scene():
    random = np.random.default_rng(3)
    target = random.uniform(2, 70, (30, 40))
    mask = random.random(target.shape) < 0.4
    return target, mask


def test_median_alignment_undoes_a_scale(scene):
    target, mask = scene
    aligned = align(target / 7, target, mask, "median")
    assert aligned.scale == pytest.approx(7)
    assert np.allclose(aligned.depth, target)


def test_affine_disparity_undoes_scale_and_shift(scene):
    target, mask = scene
    aligned = align(3.5 / target + 11, target, mask, "affine_disparity")
    assert (aligned.scale, aligned.shift) == pytest.approx((1 / 3.5, -11 / 3.5))
    assert np.allclose(aligned.depth, target)


def test_affine_disparity_is_least_squares_in_inverse_depth(scene):
    target, mask = scene
    pred = np.random.default_rng(0).uniform(-1, 5, target.shape)
    aligned = align(pred, target, mask, "affine_disparity")
    matrix = np.stack([pred[mask], np.ones(mask.sum())], axis=1)
    expected = np.linalg.lstsq(matrix, 1 / target[mask], rcond=None)[0]
    assert (aligned.scale, aligned.shift) == pytest.approx(tuple(expected))


def test_affine_disparity_at_or_below_zero_is_the_farthest_depth(scene):
    target, mask = scene
    pred = 1 / target
    pred[~mask] = -100.0
    assert (align(pred, target, mask, "affine_disparity", max_depth=80).depth[~mask] == 80).all()


def test_no_alignment_leaves_the_prediction(scene):
    target, mask = scene
    assert align(target * 2, target, mask, "none") == (pytest.approx(target * 2), 1, 0)


def test_alignment_that_cannot_be_is_refused(scene):
    target, mask = scene
    with pytest.raises(DataError, match="constant"):
        align(np.full(target.shape, 0.3), target, mask, "affine_disparity")
    with pytest.raises(DataError, match="positive median"):
        align(np.zeros(target.shape), target, mask, "median")
    with pytest.raises(DataError, match="empty"):
        align(target, target, np.zeros(target.shape), "median")
    with pytest.raises(DataError, match="target"):
        align(target, np.zeros(target.shape), mask, "affine_disparity")
    with pytest.raises(ConfigError, match="none, median, affine_disparity"):
        align(target, target, mask, "affine")


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
    random = np.random.default_rng(0)
    camera = Camera(40, 40, 31.5, 19.5, 64, 40)
    records = [
        KittiRecord(
            image=random.integers(0, 256, (40, 64, 3), dtype=np.uint8),
            camera=camera,
            split="test",
            depth=np.rint(random.uniform(1, 70, (40, 64)) * 256) / 256,
            points=random.uniform([2, -20, -5, 0], [60, 20, 2, 1], (3000, 4)),
        )
        for _ in range(7)
    ]
    return write_kitti(tmp_path, records), KittiReader(tmp_path)


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


# --- bootstrap


def test_interval_agrees_with_the_normal_one_and_is_seeded():
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval(values, seed=1) != (low, high)


def test_interval_equals_a_plain_loop():
    values = np.random.default_rng(0).normal(size=13)
    generator, means = np.random.default_rng(5), []
    picks = generator.integers(0, 13, (300, 13))
    for row in picks:
        means.append(sum(values[k] for k in row) / 13)
    low, high = bootstrap_interval(values, resamples=300, seed=5)
    assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_columns_share_their_resamples():
    values = np.random.default_rng(0).normal(size=(30, 2))
    together = bootstrap_interval(values)
    for k in range(2):
        assert [bound[k] for bound in together] == pytest.approx(bootstrap_interval(values[:, k]))


def test_coverage_of_the_interval():
    random = np.random.default_rng(0)
    bounds = [bootstrap_interval(random.normal(size=60), resamples=500) for _ in range(300)]
    assert 0.89 < np.mean([low < 0 < high for low, high in bounds]) < 0.98


def test_paired_interval_is_that_of_the_differences():
    random = np.random.default_rng(0)
    hardness, gain = random.normal(0, 10, 200), random.normal(0.5, 0.2, 200)
    mean, low, high = paired_bootstrap(hardness + gain, hardness)
    assert mean == pytest.approx(gain.mean())
    assert 0.4 < low < mean < high < 0.6  # though each arm's own interval is about 3 wide
    assert paired_bootstrap(hardness, hardness) == (0, 0, 0)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], np.ones((2, 2, 2))])
def test_bootstrap_refuses(values):
    with pytest.raises(ValueError, match="finite numbers"):
        bootstrap_interval(np.array(values))
    with pytest.raises(ValueError, match="same images"):
        paired_bootstrap(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval(np.ones(3), level=95)


def test_one_image_has_an_interval_of_one_point():
    assert bootstrap_interval(np.array([2.0])) == (2, 2)


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


# --- import time


def test_metrics_import_lightly():
    code = (
        "import sys; from alberti.metrics import depth_metrics; import alberti.metrics.evaluation, alberti.data.kitti; "
        "heavy = {'torch', 'pandas', 'matplotlib', 'cv2', 'scipy', 'pydantic'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
