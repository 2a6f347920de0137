"""Worlds of an upright direction and horizontal ones at any angle, seen by an unknown camera."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic_lines import rotation, segments_towards

from alberti.data.scenes import SceneConfig, render_junctions
from alberti.geometry import upright
from alberti.geometry.camera import Camera, directions_to_vanishing_points
from alberti.geometry.line_segments import detect_line_segments
from alberti.geometry.manhattan import FocalPrior, find_candidates_twice
from alberti.geometry.segment_likelihood import Frame, SegmentModel
from alberti.geometry.upright import Upright, _expectation, _moved, find_upright, refine
from alberti.geometry.vanishing_points import angles_between_points, estimate_vanishing_points

CAMERA = Camera(600.0, 600.0, 319.5, 239.5, 640, 480)
STREETS = (10.0, 50.0, 125.0)
"""Azimuths in degrees; no two at right angles."""


def points_of(world: np.ndarray, azimuths: tuple[float, ...]) -> np.ndarray:
    """(1 + K, 3) vanishing points of the upright direction and of horizontal ones."""
    angle = np.radians(azimuths)
    level = np.stack([np.sin(angle), np.zeros_like(angle), np.cos(angle)], axis=1)
    return directions_to_vanishing_points(np.concatenate([[[0.0, 1.0, 0.0]], level]) @ world.T, CAMERA)


def horizon_gap(down: np.ndarray, horizon: tuple[float, float, float], camera: Camera = CAMERA) -> float:
    """The larger vertical gap at the left and right edge by the picture's height; the true ``down`` in camera axes."""
    a, b, c = np.linalg.inv(camera.matrix()).T @ down
    gaps = [abs((a * x + c) / b - (horizon[0] * x + horizon[2]) / horizon[1]) for x in (0, 639)]
    return max(gaps) / 480


def assert_gradient(model: SegmentModel, world: Upright) -> None:
    """The gradient of seven parameters is that of finite differences, without a belief in a focal length."""
    wide = FocalPrior(median=600 / 320, sigma=1e6)
    pull = _expectation(model, [world], wide)[0][2]
    for index in range(7):
        step = np.zeros(7)
        step[index] = 1e-6
        up, down = (value[0] for value in _expectation(model, [_moved(world, sign * step, wide) for sign in (1, -1)], wide))
        assert -(up - down) / 2e-6 == pytest.approx(pull[index], rel=1e-3, abs=0.05)


@pytest.mark.parametrize("view", [(0, 4, 0), (25, -8, 3), (-40, 12, -2)])
def test_streets_at_odd_angles_have_their_horizon_and_points(view: tuple[float, float, float]) -> None:
    world = rotation(*view)
    points = points_of(world, STREETS)
    segments = segments_towards(points, CAMERA, 25, np.random.default_rng(3), noise=0.3, outliers=40)
    found = estimate_vanishing_points(segments, 640, 480)
    assert found.horizon is not None
    assert horizon_gap(world[:, 1], found.horizon) < 0.02
    assert angles_between_points(points, found.points, CAMERA).min(axis=1).max() < 1.5
    assert found.roll == pytest.approx(view[2], abs=0.7)


def test_the_horizon_of_a_view_up_at_towers_is_level() -> None:
    world = rotation(35, 33, 2)
    segments = segments_towards(points_of(world, (0.0, 90.0)), CAMERA, 25, np.random.default_rng(4), noise=0.4, outliers=60)
    found = estimate_vanishing_points(segments, 640, 480)
    assert found.roll == pytest.approx(2, abs=1)
    assert found.pitch == pytest.approx(33, abs=2)


def world_of(azimuths: tuple[float, ...]) -> Upright:
    points = points_of(rotation(20, 6, 1), azimuths)
    segments = segments_towards(points, CAMERA, 25, np.random.default_rng(5), noise=0.3, outliers=20)
    model = SegmentModel.from_segments(segments, Frame(319.5, 239.5, 320.0, 1.0))
    found = find_upright(model, find_candidates_twice(model), [], prior=FocalPrior.for_size(640, 480))
    assert found is not None
    return found


def test_right_angles_are_one_family_and_others_are_not() -> None:
    assert world_of((0.0, 90.0)).manhattan
    odd = world_of((0.0, 55.0))
    assert len(set(odd.families.tolist())) >= 2
    gap = np.degrees(np.abs(odd.azimuths[0] - odd.azimuths[1])) % 180
    assert min(gap, 180 - gap) == pytest.approx(55, abs=1.5)


def test_the_likelihood_s_gradient_is_the_slope_of_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upright, "_ROLL", 1e6)  # the value is without the beliefs
    points = points_of(rotation(20, 6, 1), STREETS)
    segments = segments_towards(points, CAMERA, 15, np.random.default_rng(6), noise=1.0, outliers=10)
    model = SegmentModel.from_segments(segments, Frame(319.5, 239.5, 320.0, 1.0))
    shares = np.array([0.2, 0.2, 0.2, 0.2, 0.2])
    basis = rotation(20.4, 6.3, 1.5)
    angle = np.radians(STREETS) + 0.004
    world = Upright(basis, 600 / 320, angle, np.arange(3), shares, 0.0, 0.0, np.eye(7))
    assert_gradient(model, world)


def test_the_gradient_with_a_free_principal_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upright, "_ROLL", 1e6)
    monkeypatch.setattr(upright, "_CENTRE", 1e6)
    points = points_of(rotation(20, 6, 1), (0.0, 90.0))
    segments = segments_towards(points, CAMERA, 15, np.random.default_rng(6), noise=1.0, outliers=10)
    model = SegmentModel.from_segments(segments, Frame(319.5, 239.5, 320.0, 1.0))
    angle = np.array([0.004, 0.004 + np.pi / 2])
    basis = rotation(20.4, 6.3, 1.5)
    world = Upright(
        basis, 600 / 320, angle, np.zeros(2, dtype=int), np.array([0.3, 0.3, 0.2, 0.2]), 0.0, 0.0, np.eye(7), (0.03, -0.02)
    )
    assert_gradient(model, world)


def test_worlds_refined_together_are_the_same_as_one_by_one() -> None:
    points = points_of(rotation(20, 6, 1), STREETS)
    segments = segments_towards(points, CAMERA, 15, np.random.default_rng(6), noise=0.5, outliers=10)
    model = SegmentModel.from_segments(segments, Frame(319.5, 239.5, 320.0, 1.0))
    prior = FocalPrior.for_size(640, 480)
    angle, shares = np.radians(STREETS), np.full(5, 0.2)
    start = Upright(rotation(21, 5, 1), 1.7, angle, np.arange(3), shares, -np.inf, -np.inf, np.eye(3))
    other = replace(start, azimuths=angle[:1], families=np.zeros(1, dtype=int), weights=np.array([0.4, 0.4, 0.2]))
    for both, alone in zip(refine(model, [start, other], prior, 6), [start, other], strict=True):
        one = refine(model, [alone], prior, 6)[0]
        np.testing.assert_allclose(both.points(), one.points(), atol=1e-9)
        np.testing.assert_allclose(both.covariance, one.covariance, rtol=1e-6)
        assert both.gain == pytest.approx(one.gain)


@pytest.mark.parametrize("given", [False, True])
def test_a_principal_point_off_the_middle_is_allowed_for(given: bool) -> None:
    """Three directions at right angles in photographs of an off-centre camera: the focal length and points are nearer."""
    camera = Camera(600.0, 600.0, 305.0, 252.0, 640, 480)
    errors, middle = [], []
    for seed in range(6):
        world = rotation(35 - 3 * seed, 14 - seed, 1)
        points = directions_to_vanishing_points(world.T, camera)
        segments = segments_towards(points, camera, 50, np.random.default_rng(seed), noise=0.5)
        free = estimate_vanishing_points(segments, 640, 480, principal_point=(305.0, 252.0) if given else None)
        fixed = estimate_vanishing_points(segments, 640, 480, principal_point=(319.5, 239.5))
        errors.append(angles_between_points(points, free.points, camera).min(axis=1))
        middle.append(angles_between_points(points, fixed.points, camera).min(axis=1))
    assert np.mean(errors) < (0.5 if given else 0.8) * np.mean(middle)


def test_a_moved_family_stays_at_right_angles() -> None:
    world = Upright(
        np.eye(3), 1.8, np.array([0.1, 0.1 + np.pi / 2]), np.zeros(2, dtype=int), np.full(4, 0.25), 0.0, 0.0, np.eye(5)
    )
    moved = _moved(world, np.array([0.02, 0.0, -0.01, 0.1, 0.3]), FocalPrior())
    np.testing.assert_allclose(moved.directions() @ moved.directions().T, np.eye(3), atol=1e-12)
    assert moved.focal == pytest.approx(1.8 * np.exp(0.1))
    assert replace(moved, families=np.array([0, 1])).manhattan is False


@pytest.mark.parametrize(("pitch", "azimuths"), [(40, (10, 50, 125)), (-45, (-20, 35, 75))])
def test_a_given_focal_length_beyond_those_of_lenses_is_kept(pitch: float, azimuths: tuple[float, ...]) -> None:
    """Of a small crop: 40 times half its longer side. It was set to 20, and no step of the refinement was any better."""
    camera = Camera(12800.0, 12800.0, 319.5, 239.5, 640, 480)
    angle = np.radians(azimuths)
    level = np.stack([np.sin(angle), np.zeros(3), np.cos(angle)], axis=1)
    directions = np.concatenate([[[0.0, 1.0, 0.0]], level]) @ rotation(0, pitch, 1.7).T
    points = directions_to_vanishing_points(directions, camera)
    segments = segments_towards(points, camera, 25, np.random.default_rng(0), noise=0.3)
    model = SegmentModel.from_segments(segments, Frame(319.5, 239.5, 320.0, 1.0))
    prior = FocalPrior(median=40.0, sigma=1e-3, grid=3)
    found = find_upright(model, find_candidates_twice(model), [], prior=prior)
    assert found is not None
    assert found.focal == pytest.approx(40, rel=0.01)
    assert np.abs(directions @ found.directions().T).max(axis=1).min() > np.cos(np.radians(1))


def test_the_upright_direction_of_a_triad_is_tried_with_other_horizontal_ones() -> None:
    """A junction with few segments: of the best triad only the upright direction is right."""
    batch = render_junctions(["j37"], 7, SceneConfig(width=640, height=480, supersample=1))
    image = np.ascontiguousarray(batch["image"][0].permute(1, 2, 0).numpy())
    camera = Camera.from_intrinsics(batch["intrinsics"][0].tolist(), 640, 480)
    found = estimate_vanishing_points(detect_line_segments(image), 640, 480)
    assert found.horizon is not None
    assert horizon_gap(batch["down"][0].numpy(), found.horizon, camera) < 0.01
