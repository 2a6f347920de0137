"""Perspective consistency: hand-made cases, and that only straightness raises it."""

import cv2
import numpy as np
import pytest
from synthetic_lines import rotation, sharpened, street_picture, true_points, warped

from alberti.errors import DataError
from alberti.geometry.camera import Camera
from alberti.metrics.perspective import (
    angular_accuracy,
    level_line_length,
    perspective_consistency,
    segments_consistency,
    surface_consistency,
)

CAMERA = Camera(300.0, 300.0, 191.5, 143.5, 384, 288)
WORLD = rotation(12, 3, 0)


def test_shares_by_hand() -> None:
    segments = np.array([[0.0, 0, 100, 0], [0, 50, 60, 50 + 60 * np.tan(np.radians(3))], [20, 0, 20, 40]])
    result = segments_consistency(segments, np.array([[1.0, 0, 0]]), 1000, 500)
    slanted = 60 / np.cos(np.radians(3))
    total = 100 + slanted + 40
    assert result["consistency_2"] == pytest.approx(100 / total)
    assert result["consistency_5"] == pytest.approx((100 + slanted) / total)
    assert result["line_length"] == pytest.approx(total)
    assert result["line_length_per_megapixel"] == pytest.approx(2 * total)
    assert result["segments"] == 3


def test_any_point_counts_and_absent_rows_do_not() -> None:
    segments = np.array([[0.0, 0, 100, 0], [20, 0, 20, 100]])
    one = np.array([[1.0, 0, 0], [0, 0, 0]])
    both = np.array([[1.0, 0, 0], [0, -2.0, 0]])
    assert segments_consistency(segments, one, 100, 100)["consistency_2"] == 0.5
    assert segments_consistency(segments, both, 100, 100)["consistency_2"] == 1.0
    assert list(segments_consistency(segments, both, 100, 100, (1, 2.5)))[:2] == ["consistency_1", "consistency_2.5"]


def test_no_lines_or_no_points_have_no_share() -> None:
    blank = perspective_consistency(np.full((64, 64, 3), 90, np.uint8), np.array([[1.0, 0, 0]]))
    assert blank["consistency_2"] is None
    assert blank["line_length"] == blank["segments"] == 0
    segments = np.array([[0.0, 0, 100, 0]])
    for points in (np.zeros((0, 3)), np.zeros((2, 3))):
        result = segments_consistency(segments, points, 100, 100)
        assert result["consistency_5"] is None
        assert result["line_length"] == 100


def test_a_line_counts_where_its_surface_contains_the_point() -> None:
    segments = np.array([[10.0, 10, 40, 10], [20, 20, 20, 40], [60, 5, 60, 45], [60, 50, 90, 50]])
    points = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    surfaces = np.zeros((2, 60, 100), bool)
    surfaces[0, :, :50] = True  # on the left only level lines, on the right only upright ones, below nothing is known
    surfaces[1, :48, 50:] = True
    result = surface_consistency(segments, points, surfaces)
    assert result["surface_line_length"] == 30 + 20 + 40
    assert result["surface_consistency_2"] == pytest.approx((30 + 40) / 90)
    assert segments_consistency(segments, points, 100, 60)["consistency_2"] == 1


def test_receding_lines_are_those_that_are_not_upright() -> None:
    camera = Camera(100.0, 100.0, 50.0, 30.0, 101, 61)
    points = np.array([[50.0, 30, 1], [0, 1.0, 0], [0, 0, 0]])
    segments = np.array([[60.0, 40, 80, 60], [20, 5, 20, 45], [0, 50, 30, 50]])  # receding, upright, stray
    assert level_line_length(segments, points, camera) == pytest.approx(np.hypot(20, 20))
    assert level_line_length(segments, points[1:], camera) == 0
    assert level_line_length(segments, np.zeros((2, 3)), camera) == level_line_length(np.zeros((0, 4)), points, camera) == 0
    assert level_line_length(segments, np.array([[1.0, 0, 0]]), camera) == 30


def test_without_lines_on_surfaces_there_is_no_share() -> None:
    points, nothing = np.array([[1.0, 0, 0]]), np.zeros((1, 50, 50), bool)
    for segments in (np.array([[0.0, 9, 30, 9]]), np.zeros((0, 4))):
        result = surface_consistency(segments, points, nothing)
        assert result == {"surface_consistency_2": None, "surface_consistency_5": None, "surface_line_length": 0}
    assert surface_consistency(np.zeros((0, 4)), np.zeros((0, 3)), np.zeros((0, 9, 9), bool))["surface_consistency_2"] is None


def test_points_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="vanishing_points"):
        segments_consistency(np.array([[0.0, 0, 9, 0]]), np.array([[np.inf, 0, 1]]), 10, 10)


def test_sharpness_does_not_make_up_for_straightness() -> None:
    points = true_points(CAMERA, WORLD)
    straight = street_picture(CAMERA, WORLD)
    noise = np.random.default_rng(0).normal(0, 6, straight.shape)
    noisy = np.clip(straight + noise, 0, 255).astype(np.uint8)
    keep = {
        "itself": straight,
        "blurred": cv2.GaussianBlur(straight, (0, 0), 1.0),
        "noisy": noisy,
        "over-sharpened": sharpened(straight),
    }
    bent = warped(straight, 1.5)
    lose = {
        "bent": bent,
        "bent and over-sharpened": sharpened(bent),
        "bent, blurred": cv2.GaussianBlur(bent, (0, 0), 1),
    }
    good = {name: perspective_consistency(image, points)["consistency_2"] for name, image in keep.items()}
    bad = {name: perspective_consistency(image, points)["consistency_2"] for name, image in lose.items()}
    assert min(good.values()) > max(bad.values()) + 0.1, (good, bad)
    worse = perspective_consistency(warped(straight, 4.0), points)["consistency_2"]
    assert worse < min(bad.values())


def test_mirrored_picture_and_points_score_alike() -> None:
    picture, points = street_picture(CAMERA, WORLD), true_points(CAMERA, WORLD)
    flip = np.array([[-1, 0, CAMERA.width - 1], [0, 1, 0], [0, 0, 1.0]])
    here = perspective_consistency(picture, points)["consistency_2"]
    there = perspective_consistency(np.ascontiguousarray(picture[:, ::-1]), points @ flip.T)["consistency_2"]
    assert there == pytest.approx(here, abs=0.03)


def test_angular_accuracy_by_hand() -> None:
    assert angular_accuracy([0, 0], 3) == 1
    assert angular_accuracy([1.5, 90], 3) == pytest.approx(0.25)
    with pytest.raises(DataError):
        angular_accuracy([], 3)
