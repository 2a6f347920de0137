import numpy as np
import pytest

from alberti.errors import AlbertiError
from alberti.geometry import (
    Camera,
    crop_homography,
    directions_to_vanishing_points,
    flip_homography,
    resize_homography,
    transform_vanishing_points,
    vanishing_points_to_directions,
)

CAMERA = Camera(300.0, 310.0, 155.0, 118.5, 320, 240)


def same_point(a, b):
    """Homogeneous points are equal up to scale: their cross product vanishes."""
    return np.abs(np.cross(a, b)).max() < 1e-9


def test_pixels_are_centred_at_integers():
    camera = Camera.from_fov(90, 512, 512)  # HoliCity's perspective crops: focal 256, centre 255.5
    np.testing.assert_allclose(camera.intrinsics, [256, 256, 255.5, 255.5])
    left, right = camera.project(np.array([[-1.0, 0, 1], [1.0, 0, 1]]))
    np.testing.assert_allclose([left[0], right[0]], [-0.5, 511.5])  # the outer edges of the outer pixels


def test_matrix_projects_as_project_does():
    points = np.random.default_rng(0).normal((0, 0, 5), size=(20, 3))
    homogeneous = points @ CAMERA.matrix().T
    np.testing.assert_allclose(CAMERA.project(points), homogeneous[:, :2] / homogeneous[:, 2:])


def test_unproject_then_project_returns_every_pixel():
    depth = np.random.default_rng(1).uniform(1, 80, size=(240, 320))
    points = CAMERA.unproject(depth)
    np.testing.assert_allclose(points[..., 2], depth)
    x, y = np.meshgrid(np.arange(320), np.arange(240))
    np.testing.assert_allclose(CAMERA.project(points), np.stack([x, y], axis=-1), atol=1e-9)


def test_no_measurement_unprojects_to_zeros_and_points_behind_project_to_nan():
    depth = np.zeros((240, 320))
    assert (CAMERA.unproject(depth) == 0).all()
    assert np.isnan(CAMERA.project(np.array([[1.0, 2, 0], [1.0, 2, -3]]))).all()


def test_crop_resize_and_flip_move_the_projection_as_the_homographies_do():
    points = np.random.default_rng(2).normal((0, 0, 6), size=(9, 3))
    pixels = np.concatenate([CAMERA.project(points), np.ones((9, 1))], axis=1)

    def moved(homography):
        return (pixels @ homography.T)[:, :2]

    np.testing.assert_allclose(CAMERA.crop(20, 12, 200, 100).project(points), moved(crop_homography(20, 12)))
    np.testing.assert_allclose(CAMERA.resize(96, 180).project(points), moved(resize_homography((320, 240), (96, 180))))
    mirrored_world = points * [-1, 1, 1]
    np.testing.assert_allclose(CAMERA.flip().project(mirrored_world), moved(flip_homography(320)))
    assert CAMERA.flip().flip() == CAMERA


def test_resizing_keeps_the_image_s_edges():
    half = CAMERA.resize(160, 120)
    # the pixel at 0 of the half-size image covers pixels 0 and 1: its centre is at 0.5
    np.testing.assert_allclose((half.cx, half.cy), ((155 + 0.5) / 2 - 0.5, (118.5 + 0.5) / 2 - 0.5))
    np.testing.assert_allclose(half.resize(320, 240).intrinsics, CAMERA.intrinsics)


def test_parallel_lines_meet_at_the_vanishing_point():
    direction = np.array([0.3, -0.1, 0.9])
    x, y, w = directions_to_vanishing_points(direction, CAMERA)
    far = CAMERA.project(np.array([[1.0, 2, 3], [-2.0, 1, 2]]) + 1e9 * direction)
    np.testing.assert_allclose(far, [[x / w, y / w]] * 2, atol=1e-4)


def test_the_optical_axis_vanishes_at_the_principal_point_and_image_directions_at_infinity():
    axis, right, down = directions_to_vanishing_points(np.eye(3)[[2, 0, 1]], CAMERA)
    np.testing.assert_allclose(axis / axis[2], [155.0, 118.5, 1])
    np.testing.assert_allclose(right, [1, 0, 0])
    np.testing.assert_allclose(down, [0, 1, 0])


def test_directions_and_points_are_inverse_and_zero_rows_stay():
    directions = np.random.default_rng(3).normal(size=(4, 5, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    directions[1, 2] = 0
    directions[0, 0] = [0, 1, 0]
    points = directions_to_vanishing_points(directions, CAMERA)
    norms = np.linalg.norm(points, axis=-1)
    assert norms[1, 2] == 0
    np.testing.assert_allclose(np.delete(norms.ravel(), 7), 1)
    np.testing.assert_allclose(vanishing_points_to_directions(points, CAMERA), directions, atol=1e-12)


@pytest.mark.parametrize(
    ("moved", "homography"),
    [
        (CAMERA.crop(20, 12, 200, 100), crop_homography(20, 12)),
        (CAMERA.resize(96, 180), resize_homography((320, 240), (96, 180))),
    ],
)
def test_moved_points_are_those_of_the_moved_camera(moved, homography):
    directions = np.array([[0.2, 0.1, 1.0], [1.0, 0, 0], [0, 1.0, 0], [1.0, 1.0, 1e-9]])
    points = transform_vanishing_points(directions_to_vanishing_points(directions, CAMERA), homography)
    for point, expected in zip(points, directions_to_vanishing_points(directions, moved), strict=True):
        assert same_point(point, expected)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1)


def test_infinite_points_move_as_directions_do():
    points = np.array([[0.6, 0.8, 0], [1.0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(transform_vanishing_points(points, crop_homography(30, 40)), points)
    np.testing.assert_allclose(
        transform_vanishing_points(points, flip_homography(100)), [[-0.6, 0.8, 0], [-1, 0, 0], [0, 0, 0]]
    )
    stretched = transform_vanishing_points(points, resize_homography((100, 100), (200, 100)))
    np.testing.assert_allclose(stretched[0], np.array([1.2, 0.8, 0]) / np.hypot(1.2, 0.8))


def test_extreme_scales_keep_unit_norm():
    points = np.array([[1e200, -2e200, 1e180], [1e-300, 0, 1e-303]])
    np.testing.assert_allclose(np.linalg.norm(transform_vanishing_points(points, np.eye(3)), axis=1), 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Camera(0.0, 1, 1, 1, 8, 8), "fx, fy > 0"),
        (lambda: Camera(1.0, float("nan"), 1, 1, 8, 8), "finite"),
        (lambda: Camera(1.0, 1, 1, 1, 0, 8), "positive width and height, got 0 x 8"),
        (lambda: Camera.from_intrinsics([1, 2, 3], 8, 8), "4 numbers"),
        (lambda: Camera.from_fov(180, 8, 8), "between 0 and 180"),
        (lambda: CAMERA.resize(0, 5), "positive width and height"),
        (lambda: CAMERA.unproject(np.ones((3, 4))), r"\(240, 320\), got \(3, 4\)"),
    ],
)
def test_bad_values_are_errors_for_the_user(make, message):
    with pytest.raises(AlbertiError, match=message):
        make()


@pytest.mark.parametrize("crop", [(-1, 0, 5, 5), (0, 0, 321, 5), (300, 0, 30, 5), (0, 0, 0, 5), (0, 236, 5, 5)])
def test_a_crop_outside_the_image_is_refused(crop):
    with pytest.raises(ValueError, match="inside the image of 320 x 240"):
        CAMERA.crop(*crop)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"directions: expected \(..., 3\), got \(4, 2\)"):
        directions_to_vanishing_points(np.ones((4, 2)), CAMERA)
    with pytest.raises(ValueError, match=r"homography: expected \(3, 3\), got \(2, 3\)"):
        transform_vanishing_points(np.ones((4, 3)), np.ones((2, 3)))
