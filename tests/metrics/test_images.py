import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from alberti.data.manifest import Dataset, Sample, write_dataset
from alberti.data.scenes import SceneConfig, render_dataset
from alberti.errors import CheckpointError, ConfigError, DataError
from alberti.extras import EXTRAS, MissingExtra
from alberti.images import write_image
from alberti.metrics import features as features_module
from alberti.metrics.features import RandomConvolutions, extract_features, feature_extractor
from alberti.metrics.images import evaluate_pictures, frechet_distance, kernel_distance


def whitened(n: int, d: int, seed: int) -> np.ndarray:
    """(n, d) with mean exactly 0 and sample covariance exactly the identity."""
    x = np.random.default_rng(seed).normal(size=(n, d))
    x -= x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T


def test_frechet_of_known_gaussians() -> None:
    a, b = whitened(50, 4, 0) * 2.0, whitened(70, 4, 1) * [1.0, 2.0, 3.0, 4.0] + [3.0, 0.0, 0.0, 4.0]
    # mean 5 apart; commuting covariances: the sum of (sigma_a - sigma_b)^2
    assert frechet_distance(a, b) == pytest.approx(25 + 1 + 0 + 1 + 4, rel=1e-10)


def test_frechet_equals_the_matrix_square_root_formula() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)) + 1
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [5, 40])
def test_frechet_is_zero_for_equal_sets_symmetric_and_ignores_order(n: int) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(n, 8)), rng.normal(size=(n + 1, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert frechet_distance(a, a[::-1]) == pytest.approx(0, abs=1e-12)
        assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


def test_frechet_with_fewer_images_than_features_equals_the_full_formula_and_warns() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(6, 10)), rng.normal(size=(7, 10))
    values, vectors = np.linalg.eigh(np.cov(a.T))
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ np.cov(b.T) @ root).clip(0)).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T)) + np.trace(np.cov(b.T)) - 2 * cross
    with pytest.warns(UserWarning, match="biased upwards"):
        assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def reference_mmd(a: np.ndarray, b: np.ndarray) -> float:
    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    m, n = len(a), len(b)
    within_a = sum(k(a[i], a[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    within_b = sum(k(b[i], b[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return within_a + within_b - 2 * sum(k(x, y) for x in a for y in b) / (m * n)


def test_kernel_distance_equals_the_double_sum_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(9, 3)), rng.normal(size=(11, 3)) + 0.5
    whole = kernel_distance(a, b, bootstrap=50)
    assert whole.value == pytest.approx(reference_mmd(a, b), rel=1e-10)
    monkeypatch.setattr("alberti.metrics.images._BLOCK", 4)
    blocks = kernel_distance(a, b, bootstrap=50)
    assert [blocks.value, blocks.low, blocks.high] == pytest.approx([whole.value, whole.low, whole.high], rel=1e-9)


def test_kernel_distance_is_unbiased() -> None:
    rng = np.random.default_rng(4)
    values = [kernel_distance(*rng.normal(size=(2, 10, 4)), bootstrap=0).value for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))


def test_kernel_interval_covers_zero_for_equal_distributions_and_not_for_far_ones() -> None:
    rng = np.random.default_rng(5)
    same = kernel_distance(*rng.normal(size=(2, 40, 4)), bootstrap=300)
    far = kernel_distance(rng.normal(size=(40, 4)), rng.normal(size=(40, 4)) + 2, bootstrap=300)
    assert same.low < 0 < same.high
    assert far.low > 0
    assert same == kernel_distance(*np.random.default_rng(5).normal(size=(2, 40, 4)), bootstrap=300)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros((3, 4)), np.zeros((3, 5))),
        (np.zeros((1, 4)), np.zeros((3, 4))),
        (np.full((3, 4), np.nan), np.zeros((3, 4))),
    ],
)
def test_distances_refuse_unfit_features(a: np.ndarray, b: np.ndarray) -> None:
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(DataError):
            distance(a, b)


def test_default_extractor_is_the_known_network() -> None:
    extractor = feature_extractor()
    images = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    features = extractor(images)
    assert features.shape == (2, 1280)
    assert extractor.name == "efficientnet_lite0_imagenet_pool1280"
    assert torch.equal(features, extractor(images))
    torch.testing.assert_close(extractor(images[1:]), features[1:], rtol=1e-3, atol=1e-4)
    # What this network gives for a fixed picture: tells weights that landed in other layers of the same shape.
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 48), indexing="ij")
    known = extractor(torch.stack([x, y, (12 * x).sin() / 2 + 0.5])[None])[0]
    assert known.mean().item() == pytest.approx(0.11787, rel=1e-3)
    assert (known.argmax().item(), known.max().item()) == (113, pytest.approx(4.9804, rel=1e-3))


def test_unknown_extractor_and_missing_or_altered_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="efficientnet_lite0"):
        feature_extractor("inception")
    with monkeypatch.context() as patch:
        patch.setitem(EXTRAS, "depth", ("no_such_package_here",))
        with pytest.raises(MissingExtra, match=r"no_such_package_here; install with: pip install 'alberti\[depth\]'"):
            feature_extractor()
    altered = tmp_path / "weights.pth"
    altered.write_bytes(b"something else")
    monkeypatch.setattr(features_module, "_efficientnet_file", lambda: altered)
    with pytest.raises(CheckpointError, match="SHA-256"):
        feature_extractor()


def test_features_do_not_depend_on_the_batch_and_follow_the_order_of_paths(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    paths = []
    for index, width in enumerate((32, 32, 40, 32)):
        paths.append(tmp_path / f"{index}.png")
        write_image(paths[-1], rng.integers(0, 256, (32, width, 3), dtype=np.uint8))
    extractor = RandomConvolutions()
    one, many = (extract_features(paths, extractor, batch_size=size) for size in (1, 3))
    np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(extract_features(paths[::-1], extractor), many[::-1], rtol=1e-5, atol=1e-6)
    with pytest.raises(DataError, match="empty"):
        extract_features([], extractor)


def striped(points: np.ndarray, tilt: float) -> np.ndarray:
    """Stripes whose edges all point ``tilt`` degrees beside the first vanishing point, which lies at the middle."""
    y, x = np.mgrid[:96, :96] - 47.5
    angle = np.arctan2(y, x) + np.radians(tilt) * np.log(np.hypot(x, y) + 1e-9)
    return np.repeat((np.sin(8 * angle) > 0).astype(np.uint8)[..., None] * 200 + 20, 3, axis=2)


def write(folder: Path, tilts: list[float], points: list | None) -> Dataset:
    folder.mkdir()
    samples = []
    for index, tilt in enumerate(tilts):
        write_image(folder / f"{index}.png", striped(np.array(points or [[0, 0, 1]]), tilt))
        camera = (60.0, 60.0, 47.5, 47.5)
        samples.append(
            Sample(id=str(index), image=f"{index}.png", width=96, height=96, intrinsics=camera, vanishing_points=points)
        )
    return write_dataset(folder, samples, name="striped", role="generated")


def test_evaluate_pictures(tmp_path: Path) -> None:
    points = [(47.5, 47.5, 1.0)]
    straight, bent = write(tmp_path / "straight", [0, 0, 0], points), write(tmp_path / "bent", [40, 50, 60], points)
    options = {"extractor": RandomConvolutions(), "resamples": 100, "num_lines": 100}
    good, rows = evaluate_pictures(straight, straight, **options)
    bad, bad_rows = evaluate_pictures(bent, straight, **options)
    assert list(rows["id"]) == ["0", "1", "2"]
    assert good["n"] == good["n_reference"] == 3
    assert good["consistency_2"] > 0.9 > 0.5 > bad["consistency_2"]
    assert good["consistency_2_low"] <= good["consistency_2"] <= good["consistency_2_high"]
    assert good["perspective_loss"] == 0
    assert bad["perspective_loss"] > 0
    assert bad["reference_consistency_2"] == good["consistency_2"] == good["reference_consistency_2"]
    assert good["frechet_distance"] == pytest.approx(0, abs=1e-9)
    assert bad["frechet_distance"] > 0
    assert bad["extractor"] == "random_convolutions_256"
    assert bad_rows["line_length"].gt(0).all()


def test_evaluate_pictures_without_pair_estimate_or_lines(tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    write_image(flat / "a.png", np.full((64, 64, 3), 90, np.uint8))
    write_image(flat / "b.png", np.full((64, 64, 3), 30, np.uint8))
    rows = [
        Sample(
            id=name,
            image=f"{name}.png",
            width=64,
            height=64,
            intrinsics=(60, 60, 31.5, 31.5),
            vanishing_points=[(0, 1, 0)],
        )
        for name in "ab"
    ]
    blank = write_dataset(flat, rows, name="flat", role="generated")
    other = write(tmp_path / "other", [0, 0], [(47.5, 47.5, 1.0)])
    summary, table = evaluate_pictures(blank, other, extractor=RandomConvolutions(), resamples=50, num_lines=50)
    assert summary["consistency_2"] is None
    assert summary["consistency_2_n"] == 0
    assert summary["line_length"] == 0
    assert summary["vp_error"] is None
    assert summary["vp_auc_10"] == 0
    assert summary["perspective_loss"] is None
    assert table["reference_line_length"].isna().all()


def test_unknown_vanishing_points_are_found_in_the_pair(tmp_path: Path) -> None:
    (tmp_path / "known").mkdir()
    known = render_dataset(tmp_path / "known", name="streets", role="test", count=2, seed=1, config=SceneConfig(width=192))
    (tmp_path / "unknown").mkdir()
    rows = [sample.model_copy(update={"vanishing_points": None}) for sample in known]
    roots = {"root": str(known.root), "depth_root": str(known.root)}
    unknown = write_dataset(tmp_path / "unknown", rows, name="streets", role="test", **roots)
    options = {"extractor": RandomConvolutions(), "resamples": 50, "num_lines": 50}
    given, found = (evaluate_pictures(pictures, known, **options)[0] for pictures in (known, unknown))
    assert (given["n_points_found"], found["n_points_found"]) == (0, 2)
    assert found["consistency_5"] == pytest.approx(given["consistency_5"], abs=0.1)
    assert given["surface_consistency_5"] > 0.9  # of renders, by their own depth
    assert 0 < given["surface_line_length"] < given["line_length"]


def test_unknown_vanishing_points_need_a_pair(tmp_path: Path) -> None:
    unknown, other = write(tmp_path / "unknown", [0, 0, 0], None), write(tmp_path / "other", [0, 0], None)
    with pytest.raises(DataError, match=r"'2' has no vanishing points .* no reference picture"):
        evaluate_pictures(unknown, other, extractor=RandomConvolutions())


def test_processes_measure_the_same(tmp_path: Path) -> None:
    pictures = write(tmp_path / "pictures", [0, 3, 6], [(47.5, 47.5, 1.0)])
    options = {"extractor": RandomConvolutions(), "resamples": 50, "num_lines": 50}
    (alone, rows), (shared, others) = (evaluate_pictures(pictures, pictures, workers=n, **options) for n in (1, 2))
    assert alone == shared
    assert rows.equals(others)


def test_depth_seen_is_the_error_against_each_pictures_own_map(tmp_path: Path) -> None:
    from alberti.depth.models import DepthModel, build_depth_model
    from alberti.depth.predict import predict_batch
    from alberti.metrics.depth import align, depth_metrics
    from alberti.metrics.depth_seen import depth_seen

    streets = render_dataset(tmp_path, name="streets", role="t", count=3, seed=1, config=SceneConfig(width=64, height=64))
    metric, relative = (build_depth_model(name, "tiny", seed=1) for name in ("pixelformer", "dpt"))
    assert isinstance(metric, DepthModel)
    for model, how in ((metric, "median"), (relative, "affine_disparity")):
        found = depth_seen(streets, model, batch_size=2)
        assert list(found) == [sample.id for sample in streets]
        sample = streets[1]
        depth = streets.read_depth(sample)
        mask = (depth > 1e-3) & (depth < 80)
        (prediction,) = predict_batch(model, [streets.read_image(sample)])
        seen = align(prediction, depth, mask, how).depth.clip(1e-3, 80)
        assert found[sample.id] == pytest.approx(depth_metrics(seen, depth, mask)["abs_rel"], rel=1e-5)
    summary, rows = evaluate_pictures(streets, streets, extractor=RandomConvolutions(), depth_model=metric)
    assert rows["depth_seen"].tolist() == pytest.approx(list(depth_seen(streets, metric).values()), rel=1e-5)
    assert summary["depth_seen_low"] <= summary["depth_seen"] <= summary["depth_seen_high"]
    assert "depth_seen" not in evaluate_pictures(streets, streets, extractor=RandomConvolutions())[0]
