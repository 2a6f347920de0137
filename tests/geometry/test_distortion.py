"""Radial distortion: what the division model does to lines, how much of it is found, and pictures of other projections."""

import cv2
import numpy as np
import pytest
from synthetic_lines import rotation, street_picture, true_points

from alberti.annotate import annotate_image
from alberti.errors import DataError
from alberti.geometry.camera import Camera
from alberti.geometry.distortion import (
    _Bends,
    bend,
    distortion_of_edges,
    estimate_distortion,
    straighten,
    unusual_projection,
)
from alberti.geometry.line_segments import detect_line_segments, detect_segments_and_edges
from alberti.geometry.vanishing_points import angles_between_points, estimate_vanishing_points

CAMERA = Camera(500.0, 500.0, 319.5, 239.5, 640, 480)
VIEWS = [(0, 0, 0), (20, 5, 2), (-30, -8, 0), (10, 10, -3)]
CENTRE, HALF = np.array([319.5, 239.5]), 400.0


def bent(picture: np.ndarray, k: float) -> np.ndarray:
    """The picture through a lens of the division model: its pixel p shows what a straight one has at p / (1 + k r^2)."""
    y, x = np.mgrid[:480, :640]
    away = np.stack([x, y], axis=2) - CENTRE
    source = away / (1 + k * (away**2).sum(axis=2) / HALF**2)[..., None] + CENTRE
    maps = source.astype(np.float32)
    return cv2.remap(picture, maps[..., 0], maps[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize("k", [-0.35, -0.2, -0.1, -0.05, 0.05])
@pytest.mark.parametrize("seed", range(4))
def test_a_known_distortion_is_found_to_a_tenth(k: float, seed: int) -> None:
    picture = bent(street_picture(CAMERA, rotation(*VIEWS[seed]), seed), k)
    found = distortion_of_edges(detect_segments_and_edges(picture)[1], 640, 480)
    assert found.k == found.measured == found.likely
    assert found.k == pytest.approx(k, abs=0.01 + abs(k) / 10)
    again = estimate_distortion(picture, detect_line_segments(picture))
    assert again.k == pytest.approx(k, abs=0.01 + abs(k) / 6)


@pytest.mark.parametrize("k", [-0.4, -0.1, 0.03])
def test_the_bends_of_straight_lines_vanish_at_their_distortion(k: float) -> None:
    """Lines at every distance from the middle: each by itself says what k is."""
    t = np.linspace(-0.4, 0.4, 24)
    lines = []
    for angle, distance in ((0.3, 0.1), (1.2, 0.3), (2.0, 0.5), (2.9, -0.6)):
        normal = np.array([np.cos(angle), np.sin(angle)])
        straight = distance * normal + t[:, None] * np.array([-normal[1], normal[0]])
        radius = np.hypot(*straight.T)
        lines.append(straight * ((1 - np.sqrt(1 - 4 * k * radius**2)) / (2 * k * radius) / radius)[:, None])
    bends = _Bends.of(np.array(lines), np.ones((4, 24)), 0.15 / 400)
    assert np.abs(bends.at(0.0)).min() > 0.5
    assert np.abs(bends.at(k) / bends.at(0.0)).max() < 0.04
    step = (bends.at(k + 1e-6) - bends.at(k - 1e-6)) / 2e-6
    np.testing.assert_allclose(bends.slope(k), step, rtol=1e-5)


def test_a_slight_distortion_is_not_sure_and_taken_out_in_part() -> None:
    picture = bent(street_picture(CAMERA, rotation(20, 5, 2), 1), -0.02)
    found = distortion_of_edges(detect_segments_and_edges(picture)[1], 640, 480)
    assert found.k == 0
    assert found.measured is not None
    assert found.measured <= found.likely < -0.008
    assert annotate_image(picture)["distortion"] == round(found.likely, 4)


@pytest.mark.parametrize("seed", range(4))
def test_a_straight_picture_has_none(seed: int) -> None:
    picture = street_picture(CAMERA, rotation(*VIEWS[seed]), seed)
    found = estimate_distortion(picture, detect_line_segments(picture))
    assert found.k == 0
    assert abs(found.measured or 0) < 0.01
    assert abs(found.likely) <= abs(found.measured or 0)


def test_an_arch_is_no_lens() -> None:
    picture = street_picture(CAMERA, rotation(20, 5, 2), 1)
    for radius in range(330, 700, 24):
        cv2.circle(picture, (320, 700), radius, (30, 30, 30), 3, cv2.LINE_AA)
    found = estimate_distortion(picture, detect_line_segments(picture))
    assert found.k == 0
    assert abs(found.likely) < 0.01


def test_straightened_segments_lie_on_the_straight_line() -> None:
    """Short segments on the image of one straight line: undone, they are in line again, and in its direction."""
    k, normal, distance = -0.2, np.array([0.6, 0.8]), 0.5
    t = np.linspace(-0.5, 0.5, 40)
    straight = distance * normal + t[:, None] * np.array([-0.8, 0.6])
    # The inverse of the model: r_u = r_d / (1 + k r_d^2), a quadratic in r_d.
    radius = np.hypot(*straight.T)
    seen = straight * ((1 - np.sqrt(1 - 4 * k * radius**2)) / (2 * k * radius) / radius)[:, None]
    pixels = seen * HALF + CENTRE
    segments = np.concatenate([pixels[:-1], pixels[1:]], axis=1)
    fixed = straighten(segments, 640, 480, k).reshape(-1, 2)
    assert np.abs((fixed - CENTRE) @ normal / HALF - distance).max() * HALF < 0.02
    assert np.abs((pixels - CENTRE) @ normal / HALF - distance).max() * HALF > 5
    np.testing.assert_allclose(straighten(segments, 640, 480, 0.0), segments, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_points_of_a_bent_picture_are_those_of_the_straight_one(seed: int) -> None:
    world = rotation(*[(20, 5, 2), (-30, -8, 0), (35, 6, 1)][seed])
    picture = bent(street_picture(CAMERA, world, seed), -0.2)
    row = annotate_image(picture, camera=CAMERA)
    assert row["distortion"] < -0.1
    segments = detect_line_segments(picture)
    assert [line[:4] for line in row["line_segments"]] == np.round(segments, 3).tolist()
    without = estimate_vanishing_points(segments, 640, 480, camera=CAMERA)

    def worst(points: np.ndarray) -> float:
        return float(angles_between_points(true_points(CAMERA, world), points, CAMERA).min(axis=1).max())

    assert worst(np.array(row["vanishing_points"])) < min(1.0, worst(without.points))


def test_few_segments_say_nothing() -> None:
    picture = np.zeros((480, 640), dtype=np.uint8)
    found = estimate_distortion(picture, np.zeros((0, 4)))
    assert (found.k, found.likely, found.measured, found.spread) == (0.0, 0.0, None, None)


def test_no_picture_is_an_error() -> None:
    with pytest.raises(DataError, match="image: expected"):
        estimate_distortion(np.zeros((4, 4, 2), dtype=np.uint8), np.zeros((0, 4)))


def panorama(width: int = 512) -> np.ndarray:
    """An equirectangular picture of a room: every direction's colour by what of a box it hits."""
    yaw, pitch = np.meshgrid(
        (np.arange(width) + 0.5) / width * 2 * np.pi, (0.5 - (np.arange(width // 2) + 0.5) / (width // 2)) * np.pi
    )
    rays = np.stack([np.cos(pitch) * np.sin(yaw + 0.4), np.sin(pitch), np.cos(pitch) * np.cos(yaw + 0.4)], axis=2)
    reach = np.abs(rays) / [3.0, 1.5, 2.0]
    hit = rays / reach.max(axis=2, keepdims=True)
    wall = reach.argmax(axis=2) * 2 + (np.take_along_axis(rays, reach.argmax(axis=2)[..., None], 2)[..., 0] > 0)
    checks = np.floor(hit + 1e-3).sum(axis=2).astype(int) % 2
    return np.repeat((40 + 30 * wall + 20 * checks).astype(np.uint8)[..., None], 3, axis=2)


def test_a_panorama_is_named_and_a_wide_crop_is_not() -> None:
    assert "panorama" in (unusual_projection(panorama()) or "")
    assert annotate_image(panorama())["warnings"] == [unusual_projection(panorama())]
    crop = street_picture(CAMERA, rotation(20, 5, 2))[80:400]
    assert crop.shape[:2] == (320, 640)
    assert unusual_projection(crop) is None


def test_a_lit_circle_is_a_fisheye_and_dark_corners_are_not() -> None:
    picture = street_picture(CAMERA, rotation(20, 5, 2))
    y, x = np.mgrid[:480, :640]
    radius = np.hypot(x - 319.5, y - 239.5)
    circular = picture * (radius < 238)[..., None].astype(np.uint8)
    assert "circular fisheye" in (unusual_projection(circular) or "")
    vignette = (picture * np.clip(1.2 - radius / 400, 0.25, 1)[..., None]).astype(np.uint8)
    assert unusual_projection(vignette) is None
    assert unusual_projection(np.zeros_like(picture)) is None
    assert unusual_projection(picture) is None


def test_strong_curvature_is_named() -> None:
    picture = bent(street_picture(CAMERA, rotation(20, 5, 2), 1), -0.35)
    warnings = annotate_image(picture)["warnings"]
    assert len(warnings) == 1
    assert "strongly curved" in warnings[0]


@pytest.mark.parametrize("degrees", [10, 30, 45, 60])
@pytest.mark.parametrize("size", [(640, 480), (480, 480), (900, 400)])
def test_a_picture_turned_on_black_is_no_fisheye(degrees: float, size: tuple[int, int]) -> None:
    picture = cv2.resize(street_picture(CAMERA, rotation(20, 5, 2)), size)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    wide, high = round(size[0] * c + size[1] * s), round(size[0] * s + size[1] * c)
    move = cv2.getRotationMatrix2D(((size[0] - 1) / 2, (size[1] - 1) / 2), degrees, 1.0)
    move[:, 2] += [(wide - size[0]) / 2, (high - size[1]) / 2]
    assert unusual_projection(cv2.warpAffine(picture, move, (wide, high))) is None


@pytest.mark.parametrize(("radius", "offset"), [(238, 0), (200, 0), (225, 12)])
def test_a_circular_fisheye_may_be_small_noisy_and_off_the_middle(radius: int, offset: int) -> None:
    y, x = np.mgrid[:480, :640]
    picture = street_picture(CAMERA, rotation(20, 5, 2)) * (np.hypot(x - 319.5 - offset, y - 239.5) < radius)[..., None]
    noisy = picture + np.random.default_rng(0).normal(0, 6, picture.shape)
    assert "circular fisheye" in (unusual_projection(np.clip(noisy, 0, 255).astype(np.uint8)) or "")


@pytest.mark.parametrize("k", [-0.4, -0.1, 0.05])
def test_bent_points_are_those_that_are_straightened_to_them(k: float) -> None:
    pixels = np.random.default_rng(0).uniform([0, 0], [640, 480], (50, 2))
    away = (pixels - CENTRE) / HALF
    straight = away / (1 + k * (away**2).sum(axis=1))[:, None] * HALF + CENTRE
    for scale in (1.0, -0.2):
        points = scale * np.concatenate([straight, np.ones((50, 1))], axis=1)
        np.testing.assert_allclose(bend(points, 640, 480, k), pixels, atol=1e-6)


def test_a_point_at_infinity_is_seen_through_a_barrel_and_not_through_a_pincushion() -> None:
    seen = bend(np.array([[1.0, 0, 0], [0, -1, 0]]), 640, 480, -0.25)
    np.testing.assert_allclose(seen, CENTRE + HALF * np.array([[2.0, 0], [0, -2]]))
    assert np.isnan(bend(np.array([[1.0, 0, 0]]), 640, 480, 0.1)).all()
