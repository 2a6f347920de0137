"""Vanishing points from segments whose points are known, and from segments that have none."""

import numpy as np
import pytest
from synthetic_lines import rotation, segments_towards, true_points

from alberti.errors import DataError
from alberti.geometry.camera import Camera, directions_to_vanishing_points
from alberti.geometry.manhattan import Triad, balance, refine
from alberti.geometry.segment_likelihood import NOISE_LEVELS, Frame, SegmentModel
from alberti.geometry.vanishing_points import (
    angles_between_points,
    assign_segments,
    estimate_vanishing_points,
    segment_angles,
)

CAMERA = Camera(600.0, 600.0, 319.5, 239.5, 640, 480)
VIEWS = [(35, 8, 2), (0, 0, 0), (12, -5, -3), (45, 0, 0), (0, 20, 0), (-60, 3, 6)]


@pytest.mark.parametrize(
    ("point", "angle"),
    [
        ((20, 0, 1), 0),
        ((0, 5, 1), 45),
        ((5, 9, 1), 90),
        ((1, 0, 0), 0),
        ((0, 1, 0), 90),
        ((-1, 1, 0), 45),
        ((5, 0, 1), 0),
    ],
)
def test_angles_of_a_horizontal_segment(point: tuple[float, float, float], angle: float) -> None:
    segment = np.array([[0.0, 0, 10, 0]])  # its midpoint is (5, 0)
    for scale in (1.0, -7.0):
        assert segment_angles(segment, scale * np.array([point], dtype=float))[0, 0] == pytest.approx(angle)
        assert segment_angles(segment[:, [2, 3, 0, 1]], scale * np.array([point]))[0, 0] == pytest.approx(angle)


def test_angles_between_points_have_no_sign() -> None:
    points = directions_to_vanishing_points(np.array([[0.0, 0, 1], [np.sin(0.1), 0, np.cos(0.1)], [0, 1, 0]]), CAMERA)
    expected = np.array([[0, np.degrees(0.1), 90], [np.degrees(0.1), 0, 90], [90, 90, 0]])
    np.testing.assert_allclose(angles_between_points(points, -points, CAMERA), expected, atol=1e-6)


@pytest.mark.parametrize("view", VIEWS)
def test_known_camera_finds_the_triad(view: tuple[float, float, float]) -> None:
    generator = np.random.default_rng(1)
    points = true_points(CAMERA, rotation(*view))
    segments = segments_towards(points, CAMERA, 25, generator, noise=0.4, outliers=25)
    found = estimate_vanishing_points(segments, 640, 480, camera=CAMERA)
    assert angles_between_points(points, found.points, CAMERA).min(axis=1).max() < 0.4
    assert (found.confidence[:3] > 0.8).all()
    assert found.focal == pytest.approx(600)
    np.testing.assert_allclose(np.linalg.norm(found.points, axis=1), 1)


@pytest.mark.parametrize("offset", [-500, 900])
def test_a_crop_beside_the_principal_point(offset: float) -> None:
    crop = Camera(600.0, 600.0, 319.5 - offset, 239.5, 640, 480)
    points = true_points(crop, rotation(12, -5, -3))
    segments = segments_towards(points, crop, 25, np.random.default_rng(1), noise=0.4, outliers=25)
    found = estimate_vanishing_points(segments, 640, 480, camera=crop)
    assert angles_between_points(points, found.points, crop).min(axis=1).max() < 0.4


def test_exact_segments_give_exact_points() -> None:
    points = true_points(CAMERA, rotation(30, 10, 0))
    segments = segments_towards(points, CAMERA, 20, np.random.default_rng(0))
    found = estimate_vanishing_points(segments, 640, 480, camera=CAMERA)
    assert len(found.points) == 3
    assert angles_between_points(points, found.points, CAMERA).min(axis=1).max() < 1e-4
    assert sorted(np.bincount(found.assignment)) == [20, 20, 20]
    assert found.inlier_share.sum() == pytest.approx(1)


@pytest.mark.parametrize("view", [(35, 8, 2), (50, -12, 0), (-30, 15, -4)])
@pytest.mark.parametrize("focal", [350.0, 700.0])
def test_unknown_focal_length_is_found(view: tuple[float, float, float], focal: float) -> None:
    camera = Camera(focal, focal, 319.5, 239.5, 640, 480)
    points = true_points(camera, rotation(*view))
    segments = segments_towards(points, camera, 30, np.random.default_rng(2), noise=0.3, outliers=20)
    found = estimate_vanishing_points(segments, 640, 480)
    assert found.focal == pytest.approx(focal, rel=0.05)
    assert angles_between_points(points, found.points, camera).min(axis=1).max() < 1.5


def test_two_points_do_not_give_a_focal_length_out() -> None:
    """The third direction of the triad, which the focal length needs, stands no test."""
    points = true_points(CAMERA, rotation(35, 8, 5))[:2]
    found = estimate_vanishing_points(segments_towards(points, CAMERA, 40, np.random.default_rng(2), noise=0.3), 640, 480)
    assert len(found.points) == 2
    assert found.focal is None


def test_a_frontal_view_does_not_make_a_focal_length_up() -> None:
    """With two points at infinity any focal length explains all segments; the third point is known all the same."""
    points = true_points(CAMERA, np.eye(3))
    segments = segments_towards(points, CAMERA, 30, np.random.default_rng(2), noise=0.3)
    found = estimate_vanishing_points(segments, 640, 480)
    assert found.focal is None
    assert found.focal_spread is None
    assert segment_angles(segments, found.points).min(axis=1).max() < 5


@pytest.mark.parametrize("view", [(35, 8, 5), (20, -10, -4)])
def test_roll_pitch_and_horizon(view: tuple[float, float, float]) -> None:
    world = rotation(*view)
    points = true_points(CAMERA, world)
    found = estimate_vanishing_points(
        segments_towards(points, CAMERA, 30, np.random.default_rng(5), noise=0.2), 640, 480, camera=CAMERA
    )
    assert found.pitch == pytest.approx(view[1], abs=0.3)
    assert found.roll == pytest.approx(view[2], abs=0.3)
    a, b, c = found.horizon or (0, 0, 0)
    assert np.hypot(a, b) == pytest.approx(1)
    assert b > 0
    # Every horizontal direction of the world vanishes on the horizon.
    for yaw in (0, 25, 70):
        x, y, w = directions_to_vanishing_points(
            world @ np.array([np.sin(np.radians(yaw)), 0, np.cos(np.radians(yaw))]), CAMERA
        )
        assert abs(a * x + b * y + c * w) / abs(w) < 3


def test_positive_pitch_puts_the_horizon_below_the_middle_and_positive_roll_lets_it_fall_to_the_right() -> None:
    def height(view: tuple[float, float, float], x: float) -> float:
        segments = segments_towards(true_points(CAMERA, rotation(*view)), CAMERA, 30, np.random.default_rng(5))
        a, b, c = estimate_vanishing_points(segments, 640, 480, camera=CAMERA).horizon or (0, 1, 0)
        return -(a * x + c) / b

    assert height((30, 10, 0), 319.5) == pytest.approx(239.5 + 600 * np.tan(np.radians(10)), abs=0.5)
    assert height((30, 0, 5), 639) - height((30, 0, 5), 0) == pytest.approx(639 * np.tan(np.radians(5)), abs=0.5)


def test_a_horizontal_direction_that_is_not_at_right_angles_is_found_too() -> None:
    world = rotation(35, 5, 0)
    slanted = world @ np.array([np.sin(np.radians(40)), 0, np.cos(np.radians(40))])
    points = np.concatenate([true_points(CAMERA, world), directions_to_vanishing_points(slanted, CAMERA)[None]])
    segments = segments_towards(points, CAMERA, 25, np.random.default_rng(4), noise=0.3, outliers=10)
    for camera in (CAMERA, None):
        found = estimate_vanishing_points(segments, 640, 480, camera=camera)
        assert angles_between_points(points, found.points, CAMERA).min(axis=1).max() < 1.5
    assert len(estimate_vanishing_points(segments, 640, 480, camera=CAMERA, max_points=2).points) == 2


def test_one_direction_alone_is_one_point() -> None:
    point = true_points(CAMERA, rotation(10, 4, 0))[2:]
    segments = segments_towards(point, CAMERA, 30, np.random.default_rng(6), noise=0.3, outliers=15)
    for camera in (CAMERA, None):
        found = estimate_vanishing_points(segments, 640, 480, camera=camera)
        assert len(found.points) == 1
        assert angles_between_points(point, found.points, CAMERA).min() < 0.5
        assert found.horizon is None


def test_mirrored_segments_have_mirrored_points() -> None:
    points = true_points(CAMERA, rotation(25, 6, 2))
    segments = segments_towards(points, CAMERA, 25, np.random.default_rng(7), noise=0.3, outliers=20)
    mirrored = segments.copy()
    mirrored[:, [0, 2]] = 639 - mirrored[:, [0, 2]]
    found = estimate_vanishing_points(segments, 640, 480, camera=CAMERA)
    other = estimate_vanishing_points(mirrored, 640, 480, camera=CAMERA)
    flip = np.array([[-1, 0, 639], [0, 1, 0], [0, 0, 1]])
    assert angles_between_points(found.points @ flip.T, other.points, CAMERA).min(axis=1).max() < 0.01
    assert other.roll == pytest.approx(-(found.roll or 0), abs=0.01)


def test_order_and_ends_of_segments_do_not_matter_and_repeating_gives_the_same_bits() -> None:
    generator = np.random.default_rng(8)
    segments = segments_towards(true_points(CAMERA, rotation(25, 6, 2)), CAMERA, 20, generator, noise=0.4, outliers=20)
    found = estimate_vanishing_points(segments, 640, 480)
    again = estimate_vanishing_points(segments, 640, 480)
    np.testing.assert_array_equal(found.points, again.points)
    np.testing.assert_array_equal(found.assignment, again.assignment)
    order = generator.permutation(len(segments))
    other = estimate_vanishing_points(segments[order][:, [2, 3, 0, 1]], 640, 480)
    assert angles_between_points(found.points, other.points, CAMERA).min(axis=1).max() < 1e-3
    assert (other.assignment >= 0).sum() == (found.assignment >= 0).sum()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 20, 150])
@pytest.mark.parametrize("camera", [CAMERA, None])
def test_unrelated_segments_have_no_points(count: int, camera: Camera | None) -> None:
    for seed in range(4):
        segments = segments_towards(np.zeros((0, 3)), CAMERA, 0, np.random.default_rng(seed), outliers=count)
        found = estimate_vanishing_points(segments, 640, 480, camera=camera)
        assert found.points.shape == (0, 3)
        assert found.assignment.tolist() == [-1] * count
        assert found.horizon is None


@pytest.mark.parametrize("camera", [CAMERA, None])
def test_pieces_of_one_line_are_no_structure(camera: Camera | None) -> None:
    start = np.arange(40) * 15.0
    pieces = np.stack([start + 5, 40 + start / 4, start + 17, 43 + start / 4], axis=1)
    pieces = np.concatenate([pieces, pieces + np.array([0, 2, 0, 2])])  # both edges of a stroke
    assert len(estimate_vanishing_points(pieces, 640, 480, camera=camera).points) == 0


def test_shares_and_assignment_are_of_the_given_segments() -> None:
    points = true_points(CAMERA, rotation(25, 6, 2))
    segments = segments_towards(points, CAMERA, 20, np.random.default_rng(8), noise=0.3, outliers=20)
    found = estimate_vanishing_points(segments, 640, 480, camera=CAMERA)
    np.testing.assert_array_equal(found.assignment, assign_segments(segments, found.points))
    lengths = np.hypot(segments[:, 2] - segments[:, 0], segments[:, 3] - segments[:, 1])
    for index in range(len(found.points)):
        expected = lengths[found.assignment == index].sum() / lengths.sum()
        assert found.inlier_share[index] == pytest.approx(expected)
    assert (np.diff(found.confidence) <= 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"segments": np.zeros((3, 5))}, r"segments: expected \(N, 4\)"),
        ({"segments": np.full((3, 4), np.nan)}, "NaN"),
        ({"principal_point": (-40.0, 10.0)}, r"principal point \(-40, 10\): outside the picture"),
        ({"camera": Camera(600, 600, 300, 200, 641, 480)}, "made for 641 x 480"),
        ({"max_points": 0}, "max_points"),
    ],
)
def test_bad_input_is_named(arguments: dict, message: str) -> None:
    segments = arguments.pop("segments", np.zeros((0, 4)))
    with pytest.raises(DataError, match=message):
        estimate_vanishing_points(segments, 640, 480, **arguments)


def test_pixels_that_are_not_square() -> None:
    camera = Camera(500.0, 700.0, 300.0, 260.0, 640, 480)
    points = true_points(camera, rotation(35, 8, 2))
    segments = segments_towards(points, camera, 25, np.random.default_rng(1), noise=0.3)
    found = estimate_vanishing_points(segments, 640, 480, camera=camera)
    assert angles_between_points(points, found.points, camera).min(axis=1).max() < 0.3
    assert found.pitch == pytest.approx(8, abs=0.3)
    assert found.roll == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize("view", [(0, 4, 0), (25, -8, 3), (-40, 12, -2)])
def test_a_known_camera_sees_streets_at_odd_angles(view: tuple[float, float, float]) -> None:
    """No two of the horizontal directions are at right angles; all lie on the horizon that is found."""
    world, angle = rotation(*view), np.radians([10.0, 50.0, 125.0])
    level = np.stack([np.sin(angle), np.zeros(3), np.cos(angle)], axis=1)
    points = directions_to_vanishing_points(np.concatenate([[[0.0, 1.0, 0.0]], level]) @ world.T, CAMERA)
    segments = segments_towards(points, CAMERA, 25, np.random.default_rng(3), noise=0.3, outliers=40)
    found = estimate_vanishing_points(segments, 640, 480, camera=CAMERA)
    assert angles_between_points(points, found.points, CAMERA).min(axis=1).max() < 1
    assert found.focal == pytest.approx(600)
    assert found.pitch == pytest.approx(view[1], abs=0.5)
    assert found.roll == pytest.approx(view[2], abs=0.5)


def test_ten_segments_count_like_a_hundred_where_those_err_together() -> None:
    """One direction is off by a degree as a whole: the rotation does not go all of the way with it."""
    world = rotation(30, 5, 0)
    off = world @ rotation(1, 0, 0)
    generator = np.random.default_rng(9)
    points = true_points(CAMERA, world)
    many = segments_towards(true_points(CAMERA, off)[2:], CAMERA, 150, generator, noise=0.3)
    few = segments_towards(points[:2], CAMERA, 25, generator, noise=0.3)
    segments = np.concatenate([many, few])
    model = SegmentModel.from_segments(segments, Frame(319.5, 239.5, 320.0, 1.0), noise=NOISE_LEVELS[2])
    start = refine([model], world[None], np.array([600 / 320]), None, 20)[0]

    def yaw(triad: Triad) -> float:
        """Degrees that the triad is turned from the true one."""
        return float(np.degrees(np.arccos(np.clip(triad.rotation[:, 0] @ world[:, 0], -1, 1))))

    assert yaw(balance(model, start, np.radians(2.0))) < 0.75 * yaw(start)
    assert yaw(balance(model, start, 0.0)) == pytest.approx(yaw(start), abs=0.05)


@pytest.mark.parametrize("camera", [CAMERA, None])
def test_confidence_is_the_share_of_points_within_two_degrees(camera: Camera | None) -> None:
    """From few and noisy segments: what is said is never too sure by over 0.05, nor too modest by over 0.15."""
    confidence, near = [], []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        view = (generator.uniform(-45, 45), generator.uniform(-12, 12), generator.uniform(-3, 3))
        points = true_points(CAMERA, rotation(*view))
        counts = generator.integers(6, 25, 3)
        parts = [segments_towards(points[k : k + 1], CAMERA, counts[k], generator, noise=0.8) for k in range(3)]
        rest = segments_towards(np.zeros((0, 3)), CAMERA, 0, generator, outliers=25)
        found = estimate_vanishing_points(np.concatenate([*parts, rest]), 640, 480, camera=camera)
        if len(found.points):
            confidence += found.confidence.tolist()
            near += (angles_between_points(found.points, points, CAMERA).min(axis=1) < 2).tolist()
    assert len(near) > 80
    assert -0.05 < np.mean(near) - np.mean(confidence) < 0.15


@pytest.mark.parametrize("camera", [CAMERA, None])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_camera_that_looks_straight_down_has_a_pitch_and_no_horizon(camera: Camera | None, noise: float) -> None:
    """Segments that are symmetrical about both axes put the upright direction on the camera's axis to the last bit."""
    points = true_points(CAMERA, np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]) @ rotation(20, 0, 0))
    segments = segments_towards(points, CAMERA, 40, np.random.default_rng(0), noise=noise)
    centred = segments.reshape(-1, 2, 2) - [319.5, 239.5]
    signs = np.array([[1, 1], [-1, 1], [1, -1], [-1, -1]])[:, None, None]
    mirrored = (centred * signs + [319.5, 239.5]).reshape(-1, 4)
    found = estimate_vanishing_points(mirrored, 640, 480, camera=camera)
    assert len(found.points) == 5
    assert found.horizon is None
    assert found.roll is None
    assert abs(found.pitch or 0) == pytest.approx(90)


def test_a_principal_point_may_be_an_array() -> None:
    segments = segments_towards(true_points(CAMERA, rotation(20, 5, 0)), CAMERA, 20, np.random.default_rng(0), noise=0.3)
    one = estimate_vanishing_points(segments, 640, 480, principal_point=(310.0, 240.0))
    two = estimate_vanishing_points(segments, 640, 480, principal_point=np.array([310.0, 240.0]))  # type: ignore[arg-type]
    np.testing.assert_array_equal(one.points, two.points)


def test_segments_without_a_length_say_nothing() -> None:
    segments = segments_towards(true_points(CAMERA, rotation(20, 5, 0)), CAMERA, 8, np.random.default_rng(0), noise=0.3)
    dots = np.repeat(np.random.default_rng(1).uniform(0, 480, (40, 2)), 2, axis=0).reshape(-1, 4)
    alone = estimate_vanishing_points(segments, 640, 480, camera=CAMERA)
    among = estimate_vanishing_points(np.concatenate([dots, segments]), 640, 480, camera=CAMERA)
    np.testing.assert_array_equal(among.points, alone.points)
    np.testing.assert_array_equal(among.assignment, [*[-1] * 40, *alone.assignment])
    with np.errstate(divide="raise", invalid="raise"):
        assert len(estimate_vanishing_points(np.concatenate([dots, segments[:4]]), 640, 480).points) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segments": np.full((30, 4), 1e10)}, "segments: coordinates up to 1e"),
        ({"segments": [[1, 2, 3, 4], [1, 2]]}, "segments: expected"),
        ({"segments": [["a", "b", "c", "d"]]}, "segments: expected"),
        ({"width": 0}, "picture: expected a width and height above 0"),
        ({"height": -480}, "picture: expected a width and height above 0"),
        ({"principal_point": (1.0, 2.0, 3.0)}, "principal point: expected two numbers"),
        ({"principal_point": "ab"}, "principal point: expected two numbers"),
    ],
)
def test_what_cannot_be_is_named(options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        estimate_vanishing_points(**{"segments": np.eye(4) * 100, "width": 640, "height": 480, **options})
