"""Which vanishing points surfaces contain: planes of known normals, a box on a ground, and what is built along nothing."""

import numpy as np
import pytest

from alberti.data.transforms import View, transform
from alberti.errors import DataError
from alberti.geometry.camera import Camera, directions_to_vanishing_points
from alberti.geometry.surfaces import points_on_surfaces, surface_normals

CAMERA = Camera(90.0, 95.0, 31.0, 24.5, 64, 48)


def _rotation(yaw: float, pitch: float) -> np.ndarray:
    """Columns: the scene's directions across, down and along in camera axes."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    return np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])


AXES = _rotation(0.3, 0.1)
POINTS = directions_to_vanishing_points(AXES.T, CAMERA)
ACROSS, DOWN, ALONG = range(3)


def _plane(normal: np.ndarray, distance: float, camera: Camera = CAMERA) -> np.ndarray:
    """Depth of the plane n . X = distance, 0 where it is not in front of the camera."""
    inverse = camera.rays() @ normal / distance
    return np.where(inverse > 1e-3, 1 / np.maximum(inverse, 1e-9), 0)


def _nearest(*depths: np.ndarray) -> np.ndarray:
    return np.min([np.where(depth > 0, depth, np.inf) for depth in depths], axis=0)


@pytest.mark.parametrize("normal", [AXES[:, ALONG], AXES[:, DOWN], [0.3, 0.2, 0.93], [-0.6, 0.0, 0.8]])
def test_normals_are_those_of_the_plane(normal):
    normal = np.asarray(normal, dtype=float) / np.linalg.norm(normal)
    depth = _plane(normal, 4.0)
    found = surface_normals(depth, CAMERA)
    whole = np.zeros_like(depth, dtype=bool)
    whole[depth > 0] = True
    known = (found != 0).any(axis=-1)
    assert known[whole].mean() > 0.95
    np.testing.assert_allclose(found[known & whole], np.broadcast_to(-normal, found[known & whole].shape), atol=1e-6)


@pytest.mark.parametrize(("facing", "contained"), [(ACROSS, {DOWN, ALONG}), (DOWN, {ACROSS, ALONG}), (ALONG, {ACROSS, DOWN})])
@pytest.mark.parametrize("step", [None, 1 / 256])
def test_a_wall_contains_the_two_points_that_it_is_built_along(facing, contained, step):
    depth = _plane(AXES[:, facing] * np.sign(AXES[2, facing]), 3.0)
    depth = np.where(depth < 80, depth, 0)
    if step is not None:  # as stored
        depth = np.round(depth / step) * step
    found = points_on_surfaces(depth.astype(np.float32), POINTS, CAMERA)
    seen = depth > 0
    assert seen.sum() > 300
    for index in range(3):
        assert found[index][seen].mean() > 0.97 if index in contained else not found[index].any()


def test_a_vanishing_point_lies_on_the_surfaces_vanishing_line():
    depth = _plane(AXES[:, DOWN], 1.6)
    y, x = np.argwhere(depth > 0)[[0, len(depth), -1]].T
    line = np.linalg.solve(np.stack([x, y, np.ones(3)], axis=1), 1 / depth[y, x])
    np.testing.assert_allclose(POINTS[[ACROSS, ALONG]] @ line, 0, atol=1e-9)
    assert abs(POINTS[DOWN] @ line) > 1e-3


def test_a_surface_built_along_none_of_the_points_contains_none():
    slanting = (AXES[:, ALONG] + AXES[:, DOWN]) / np.sqrt(2)  # a roof: contains the point across, but its rafters no other
    turned = (AXES[:, ALONG] + AXES[:, ACROSS]) / np.sqrt(2)  # a house at another angle
    for normal in (slanting, turned):
        assert not points_on_surfaces(_plane(normal, 5.0), POINTS, CAMERA).any()


def test_a_wall_of_which_one_point_is_known_contains_that():
    wall = _plane(AXES[:, ALONG], 5.0)
    known = points_on_surfaces(wall, POINTS[[ALONG, DOWN]], CAMERA)  # its normal's point says that it is built along them
    assert known[1].all()
    assert not known[0].any()
    assert not points_on_surfaces(wall, POINTS[[DOWN]], CAMERA).any()
    absent = points_on_surfaces(wall, np.vstack([POINTS, np.zeros((2, 3))]), CAMERA)
    np.testing.assert_array_equal(absent[:3], points_on_surfaces(wall, POINTS, CAMERA))
    assert not absent[3:].any()


def test_a_ball_is_built_along_nothing():
    rays = CAMERA.rays()
    centre, radius = np.array([0.0, 0.0, 6.0]), 2.0
    a, b, c = (rays**2).sum(-1), rays @ centre, centre @ centre - radius**2
    root = b**2 - a * c
    depth = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, 0)
    found = points_on_surfaces(depth, POINTS, CAMERA)
    assert found.any(axis=0)[depth > 0].mean() < 0.1


def test_next_to_an_occluding_edge_the_nearer_surface_decides():
    ground, wall = _plane(AXES[:, DOWN], 1.6), _plane(AXES[:, ALONG], 4.0)
    box = np.zeros(ground.shape, dtype=bool)
    box[14:40, 20:44] = True
    front = box & (wall < _nearest(ground))
    found = points_on_surfaces(np.where(front, wall, ground), POINTS, CAMERA)
    assert found[DOWN][front].mean() > 0.95
    assert not found[DOWN][44:].any()
    beside = front.copy()  # pixels of ground or sky, one step from the box's upper part
    beside[:, 1:] |= front[:, :-1]
    beside[:, :-1] |= front[:, 1:]
    beside &= ~front
    beside[30:] = False  # the box stands on the ground below
    assert beside.sum() > 20
    assert found[DOWN][beside].mean() > 0.9


def test_the_mirrored_picture_has_the_mirrored_surfaces():
    ground, wall = _plane(AXES[:, DOWN], 1.6), _plane(AXES[:, ACROSS] * np.sign(AXES[2, ACROSS]), 2.0)
    depth = _nearest(ground, wall)
    depth = np.where(np.isfinite(depth), depth, 0).astype(np.float32)
    view = View(depth=depth, camera=CAMERA, vanishing_points=POINTS)
    mirrored = transform(view, flip=True)
    found = points_on_surfaces(depth, POINTS, CAMERA)
    again = points_on_surfaces(mirrored.depth, mirrored.vanishing_points, mirrored.camera)
    assert found.any()
    assert (again[:, :, ::-1] == found).mean() > 0.99  # of equally good windows the first is taken


def test_nothing_measured_is_no_surface():
    assert not points_on_surfaces(np.zeros((48, 64)), POINTS, CAMERA).any()
    assert points_on_surfaces(np.ones((48, 64)), np.zeros((0, 3)), CAMERA).shape == (0, 48, 64)


def test_a_depth_map_of_another_size_is_refused():
    with pytest.raises(DataError, match=r"\(48, 64\).*\(64, 48\)"):
        points_on_surfaces(np.ones((64, 48)), POINTS, CAMERA)
