import numpy as np
import pytest
import torch

from alberti.data.transforms import View, resize_depth, resize_image, stack_vanishing_points, to_tensor, transform
from alberti.errors import DataError
from alberti.geometry import Camera, directions_to_vanishing_points
from alberti.losses import perspective_profile

CAMERA = Camera(90.0, 95.0, 61.0, 40.0, 120, 80)
DIRECTIONS = np.array([[0.3, -0.05, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])


def wall_view():
    """A plane seen at a slant, painted with its own depth, so that image, depth and camera can be checked against it."""
    rays = CAMERA.rays()
    depth = 6.0 / (rays @ np.array([0.3, 0.2, 1.0]))
    image = np.repeat(depth[..., None] / 20, 3, axis=2)
    points = directions_to_vanishing_points(DIRECTIONS, CAMERA)
    return View(image, depth.astype(np.float32), CAMERA, points)


@pytest.mark.parametrize(
    "options",
    [
        {"crop": (10, 6, 96, 64)},
        {"size": (60, 40)},
        {"size": (90, 111)},
        {"flip": True},
        {"crop": (11, 5, 90, 60), "size": (45, 70), "flip": True},
    ],
)
def test_all_parts_move_together(options):
    moved = transform(wall_view(), **options)
    width, height = moved.size
    assert moved.image.shape == (height, width, 3)
    assert moved.depth.shape == (height, width)
    # the plane, seen by the moved camera, has the moved depth; mirrored with the world
    sign = -1 if options.get("flip") else 1
    expected = 6.0 / (moved.camera.rays() @ np.array([0.3 * sign, 0.2, 1.0]))
    inner = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(moved.image[inner][..., 0] * 20, expected[inner], rtol=2e-3)
    np.testing.assert_allclose(moved.depth[inner], expected[inner], rtol=2e-2)  # the nearest measurement
    directions = DIRECTIONS * [sign, 1, 1]
    points = directions_to_vanishing_points(directions, moved.camera)
    np.testing.assert_allclose(np.cross(points, moved.vanishing_points), 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(moved.vanishing_points, axis=1), [1, 1, 1, 0])


def test_drawn_lines_still_point_at_the_moved_vanishing_point():
    """The perspective profile of lines drawn through a point peaks as high after the move, and only for the moved point."""
    point = np.array([150.0, 30.0])
    y, x = np.mgrid[0:200, 0:240]
    image = np.zeros((200, 240, 3), np.uint8)
    for angle in np.radians([168.0, 192.0]):
        distance = np.abs(-(x - 290.0) * np.sin(angle) + (y - 110.0) * np.cos(angle))
        image[distance < 1.5] = 255
    point = np.array([[290.0, 110.0, 1.0]])
    view = View(image=image, vanishing_points=point)
    moved = transform(view, crop=(20, 10, 200, 180), size=(150, 150), flip=True)

    def peak(image, points):
        profile = perspective_profile(to_tensor(image)[None], torch.tensor(points)[None], num_lines=600)
        return profile[0, 0].max().item()

    assert peak(image, point) > 2.5
    assert peak(moved.image, moved.vanishing_points) > 2
    assert peak(moved.image, point) < 1


def test_nothing_to_do_returns_the_same_arrays():
    view = wall_view()
    moved = transform(view, crop=(0, 0, 120, 80), size=(120, 80))
    np.testing.assert_array_equal(moved.image, view.image)
    np.testing.assert_array_equal(moved.depth, view.depth)
    assert moved.camera == view.camera


def test_flipping_twice_is_nothing():
    view = wall_view()
    twice = transform(transform(view, flip=True), flip=True)
    np.testing.assert_array_equal(twice.image, view.image)
    np.testing.assert_array_equal(twice.depth, view.depth)
    assert twice.camera == view.camera
    np.testing.assert_allclose(twice.vanishing_points, view.vanishing_points)


def test_parts_that_are_unknown_stay_unknown():
    moved = transform(View(image=np.zeros((10, 20, 3), np.uint8)), crop=(2, 3, 10, 6), size=(5, 3), flip=True)
    assert moved.depth is None
    assert moved.camera is None
    assert moved.vanishing_points is None
    with pytest.raises(ValueError, match="size is unknown"):
        transform(View(vanishing_points=np.ones((1, 3))), flip=True)


def test_shrinking_averages_areas_in_uint8_and_float():
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, ::2] = 200  # columns as fine as pixels: sampling without averaging would give 0 or 200
    np.testing.assert_array_equal(resize_image(image, (3, 2)), np.full((2, 3, 3), 100))
    np.testing.assert_allclose(resize_image(image / 255.0, (3, 2)), 100 / 255)
    ramp = np.repeat(np.arange(6.0)[None, :, None], 3, axis=2).repeat(3, axis=0)
    np.testing.assert_allclose(resize_image(ramp, (4, 3))[0, :, 0], (np.arange(4) + 0.5) * 1.5 - 0.5, atol=0.17)


def test_one_axis_may_shrink_while_the_other_grows():
    image = np.repeat(np.linspace(0, 1, 8)[:, None, None], 3, axis=2).repeat(4, axis=1)
    resized = resize_image(image, (8, 4))
    assert resized.shape == (4, 8, 3)
    np.testing.assert_allclose(resized[:, 0, 0], image.reshape(4, 2, 4, 3).mean(1)[:, 0, 0])


def test_depth_is_never_mixed_or_invented():
    depth = np.array([[0, 0, 5, 0], [0, 7, 0, 0], [0, 0, 0, 0], [0, 0, 0, 9]], np.float32)
    # each quarter keeps its one measurement, the empty quarter stays empty
    np.testing.assert_array_equal(resize_depth(depth, (2, 2)), [[7, 5], [0, 9]])
    np.testing.assert_array_equal(resize_depth(depth, (8, 8)), depth.repeat(2, 0).repeat(2, 1))


def test_depth_takes_the_measurement_nearest_to_the_new_pixel_s_centre():
    depth = np.zeros((6, 6), np.float32)
    depth[0, 0], depth[1, 2] = 3, 4  # centre of the first 3x3 block is (1, 1): (2, 1) is nearer than (0, 0)
    depth[4, 4], depth[5, 5] = 8, 9  # here the centre itself is measured
    resized = resize_depth(depth, (2, 2))
    np.testing.assert_array_equal(resized, [[4, 0], [0, 8]])


def test_a_sparse_scan_keeps_its_points():
    generator = np.random.default_rng(0)
    depth = np.where(generator.random((120, 160)) < 0.05, generator.uniform(1, 80, (120, 160)), 0).astype(np.float32)
    resized = resize_depth(depth, (50, 41))
    blocks = np.zeros((41, 50), bool)
    y, x = np.nonzero(depth)
    blocks[(2 * y + 1) * 41 // 240, (2 * x + 1) * 50 // 320] = True
    np.testing.assert_array_equal(resized > 0, blocks)
    assert set(resized[resized > 0]) <= set(depth[depth > 0])


def test_sizes_that_disagree_are_named():
    with pytest.raises(DataError, match=r"image 20 x 10, depth 20 x 11"):
        View(image=np.zeros((10, 20, 3)), depth=np.zeros((11, 20)))
    with pytest.raises(DataError, match=r"camera 120 x 80"):
        View(depth=np.zeros((11, 20)), camera=CAMERA)
    with pytest.raises(DataError, match=r"image: expected \(H, W, 3\), got \(4, 4\)"):
        View(image=np.zeros((4, 4)))
    with pytest.raises(DataError, match=r"vanishing_points: expected \(K, 3\), got \(3,\)"):
        View(vanishing_points=np.zeros(3))
    with pytest.raises(ValueError, match="inside the image of 120 x 80"):
        transform(wall_view(), crop=(100, 0, 40, 40))
    with pytest.raises(DataError, match="positive width and height"):
        transform(wall_view(), size=(0, 40))


def test_to_tensor():
    image = np.zeros((2, 3, 3), np.uint8)
    image[1, 2] = [255, 51, 0]
    tensor = to_tensor(image)
    assert tensor.shape == (3, 2, 3)
    assert tensor.dtype == torch.float32
    torch.testing.assert_close(tensor[:, 1, 2], torch.tensor([1, 0.2, 0]))
    with pytest.raises(ValueError, match="uint8"):
        to_tensor(image.astype(np.float32))


def test_vanishing_points_are_stacked_with_zero_rows_for_absent_ones():
    stacked = stack_vanishing_points([None, [], [(1, 0, 0)], [(0, 0.6, 0.8), (0, 0, -1)], np.eye(3)])
    assert stacked.dtype == np.float32
    assert stacked.shape == (5, 3, 3)
    assert not stacked[:2].any()
    np.testing.assert_array_equal(stacked[2], [[1, 0, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(stacked[3], [[0, 0.6, 0.8], [0, 0, -1], [0, 0, 0]])
    np.testing.assert_array_equal(stack_vanishing_points([np.eye(3), None], 2), [np.eye(3)[:2], np.zeros((2, 3))])
    assert stack_vanishing_points([None, []], 8).shape == (2, 1, 3)
    with pytest.raises(DataError, match="finite"):
        stack_vanishing_points([[(1, float("nan"), 0)]])
