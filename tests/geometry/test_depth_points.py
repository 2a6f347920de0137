"""Vanishing points of depth maps: exact on planes, near under noise, sky and trees, with and without a camera."""

import numpy as np
import pytest

from alberti.data.scenes import SceneConfig, render_scenes
from alberti.errors import DataError
from alberti.geometry import vanishing_points_from_depth
from alberti.geometry.camera import Camera, vanishing_points_to_directions
from alberti.geometry.depth_points import points_of_depth

CAMERA = Camera(100, 100, 63.5, 47.5, 128, 96)


def _box(turn: float, tilt: float = 0.0, camera: Camera = CAMERA) -> tuple[np.ndarray, np.ndarray]:
    """Depth inside of a box of 8 x 6 x 20 metres, turned about the upright axis and tilted; its three directions (3, 3)."""
    a, b = np.radians(turn), np.radians(tilt)
    upright = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    axes = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]) @ upright
    rays = camera.rays()
    reach = np.array([4, 3, 10]) / np.maximum(np.abs(rays @ axes), 1e-9)
    return reach.min(axis=-1), axes.T


def _degrees(points: np.ndarray, directions: np.ndarray, camera: Camera = CAMERA) -> np.ndarray:
    """Of each true direction, to the nearest that was found."""
    found = vanishing_points_to_directions(points, camera)
    return np.degrees(np.arccos(np.clip(np.abs(directions @ found.T), 0, 1))).min(axis=1)


@pytest.mark.parametrize(("turn", "tilt"), [(0, 0), (20, 0), (35, 10)])
def test_the_directions_of_a_box_are_exact(turn, tilt):
    depth, axes = _box(turn, tilt)
    points = vanishing_points_from_depth(depth, CAMERA)
    assert points.shape == (3, 3)
    assert np.abs(np.linalg.norm(points, axis=1) - 1).max() < 1e-9
    assert _degrees(points, axes).max() < 1e-3


def test_a_direction_that_no_wall_faces_is_where_two_planes_meet():
    depth, axes = _box(0)
    depth[depth > 9.9] = 0  # the wall at the end
    points = vanishing_points_from_depth(depth, CAMERA)
    assert _degrees(points, axes).max() < 1e-3
    assert np.abs(points[:, :2] / points[:, 2:] - [63.5, 47.5])[np.abs(points[:, 2]) > 1e-3].max() < 0.01


def test_sky_of_the_largest_value_is_no_wall():
    depth, axes = _box(20)
    depth[:40] = 655.35
    assert _degrees(vanishing_points_from_depth(depth, CAMERA), axes).max() < 0.01
    assert len(vanishing_points_from_depth(np.full((96, 128), 655.35), CAMERA)) == 0


def test_trees_and_centimetres_cost_little():
    depth, axes = _box(25, 5)
    random = np.random.default_rng(0)
    y, x = np.mgrid[:96, :128]
    for place in ((30, 20), (50, 90)):
        crown = (y - place[0]) ** 2 + (x - place[1]) ** 2 < 14**2
        depth = np.where(crown, 2.5 + random.uniform(-0.5, 0.5, depth.shape), depth)
    assert np.median(_degrees(vanishing_points_from_depth(np.round(depth, 2), CAMERA), axes)) < 0.5


def test_rendered_streets_are_exact():
    errors = []
    for scene in render_scenes(
        [str(i) for i in range(8)], seed=5, config=SceneConfig(width=128, height=128), with_images=False
    ):
        true = vanishing_points_to_directions(scene.vanishing_points, scene.camera)
        errors.extend(_degrees(vanishing_points_from_depth(scene.depth, scene.camera), true, scene.camera))
    assert np.median(errors) < 0.01


def test_two_walls_at_a_right_angle_tell_the_focal_length():
    depth, axes = _box(35, 10)
    found = points_of_depth(depth)
    assert found.camera_source == "estimated"
    assert found.camera.fx == pytest.approx(100, rel=1e-3)
    assert _degrees(found.points, axes).max() < 0.01


def test_a_level_street_tells_no_focal_length_but_where_it_leads():
    depth, axes = _box(0)
    depth[depth > 9.9] = 0
    found = points_of_depth(depth)
    assert found.camera_source == "assumed"
    assert _degrees(found.points, axes[2:]).max() < 0.01


def test_what_is_no_depth_map_is_refused():
    with pytest.raises(DataError, match="camera's"):
        vanishing_points_from_depth(np.ones((4, 5)), CAMERA)
    for bad in (np.full((96, 128), np.nan), np.full((96, 128), -1.0), np.ones(5)):
        with pytest.raises(DataError, match="finite metres"):
            vanishing_points_from_depth(bad, CAMERA)
    assert vanishing_points_from_depth(np.zeros((96, 128)), CAMERA).shape == (0, 3)
