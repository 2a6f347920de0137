"""Depth metrics against hand-made values and a plain implementation of the definitions; protocols; alignment."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from metrics.plain import plain_metrics

from alberti.errors import ConfigError, DataError
from alberti.metrics import (
    METRICS,
    PROTOCOLS,
    align,
    depth_metrics,
)

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


# --- import time


def test_metrics_import_lightly():
    code = (
        "import sys; from alberti.metrics import depth_metrics; import alberti.metrics.evaluation, alberti.data.kitti; "
        "heavy = {'torch', 'pandas', 'matplotlib', 'cv2', 'scipy', 'pydantic'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
