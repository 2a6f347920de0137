"""Rendered data sets and laser scans."""

import numpy as np
import pytest
import torch

from alberti.data.manifest import Dataset
from alberti.data.scenes import VELO_TO_CAMERA, SceneConfig, lidar_scan, render_dataset, render_scenes
from alberti.errors import ConfigError

CONFIG = SceneConfig(width=40, height=32)


def test_dataset_holds_what_was_rendered(tmp_path):
    dataset = render_dataset(tmp_path, name="tiny", role="train", count=5, seed=3, config=CONFIG)
    assert [sample.id for sample in dataset] == [f"train-{i:06d}" for i in range(5)]
    again = Dataset.open(tmp_path, check_files=True)
    for sample, scene in zip(again, render_scenes([s.id for s in dataset], 3, CONFIG), strict=True):
        np.testing.assert_array_equal(again.read_image(sample), scene.image)
        np.testing.assert_allclose(again.read_depth(sample), scene.depth, atol=0.5 / 256 + 1e-4)
        assert again.camera(sample) == scene.camera
        np.testing.assert_allclose(sample.vanishing_points, scene.vanishing_points)
        assert sample.vanishing_points_source == "true"
        assert sample.caption == scene.caption


def test_dataset_bytes_repeat(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    a = render_dataset(one, name="tiny", role="train", count=3, seed=3, config=CONFIG)
    b = render_dataset(two, name="tiny", role="train", count=3, seed=3, config=CONFIG, batch_size=1)
    assert a.info.fingerprint == b.info.fingerprint


def test_roles_share_no_scene(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    a = render_dataset(one, name="a", role="train", count=2, seed=3, config=CONFIG)
    b = render_dataset(two, name="b", role="condition", count=2, seed=3, config=CONFIG)
    assert not np.array_equal(a.read_image(a[0]), b.read_image(b[0]))


def test_depth_only_dataset(tmp_path):
    dataset = render_dataset(tmp_path, name="c", role="condition", count=2, seed=3, config=CONFIG, with_images=False)
    assert dataset[0].image is None
    assert dataset.read_depth(dataset[0]).any()
    assert not (tmp_path / "images").exists()


def test_empty_dataset_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="count"):
        render_dataset(tmp_path, name="c", role="train", count=0, seed=3, config=CONFIG)


@pytest.fixture(scope="module")
def driven():
    config = SceneConfig(style="kitti", width=414, height=125, supersample=1, camera="kitti")
    return next(render_scenes(["drive"], 1, config, with_images=False))


def in_camera(points: np.ndarray) -> np.ndarray:
    return points[:, :3].astype(np.float64) @ VELO_TO_CAMERA[:3, :3].T + VELO_TO_CAMERA[:3, 3]


def test_velodyne_axes():
    rotation = VELO_TO_CAMERA[:3, :3]
    np.testing.assert_array_equal(rotation @ [1, 0, 0], [0, 0, 1])  # forward is depth
    np.testing.assert_array_equal(rotation @ [0, 1, 0], [-1, 0, 0])  # left is against x
    np.testing.assert_array_equal(rotation @ [0, 0, 1], [0, -1, 0])  # up is against y
    # A point at the camera's centre lies 0.27 m before the scanner and 0.08 m below it.
    np.testing.assert_allclose(VELO_TO_CAMERA @ [0.27, 0, -0.08, 1], [0, 0, 0, 1], atol=1e-12)


def test_scan_lands_on_the_depth_map(driven):
    scan = lidar_scan(driven, noise=0.0, dropout=0.0)
    assert scan.dtype == np.float32
    assert scan.shape[1] == 4
    points = in_camera(scan)
    pixels = np.rint(driven.camera.project(points))
    x, y = pixels[:, 0], pixels[:, 1]
    inside = (x >= 0) & (x < 414) & (y >= 0) & (y < 125)
    assert inside.sum() > 5000
    depth = driven.depth[y[inside].astype(int), x[inside].astype(int)]
    error = np.abs(depth - points[inside, 2]) / points[inside, 2]
    assert np.median(error) < 0.01
    assert (error < 0.05).mean() > 0.9  # the others look past an edge
    assert ((scan[:, 3] >= 0) & (scan[:, 3] <= 1)).all()


def test_scan_of_the_ground_is_flat_under_the_scanner(driven):
    scan = lidar_scan(driven, noise=0.0, dropout=0.0)
    below = scan[scan[:, 2] < -1.5]
    scene_height = 1.65 + 0.08
    assert np.abs(np.median(below[:, 2]) + scene_height) < 0.15
    assert len(below) > 2000


def test_scan_repeats_and_depends_on_its_seed(driven):
    one, two, other = (lidar_scan(driven, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert len(other) != len(one) or not np.array_equal(one, other)


def test_scan_does_not_depend_on_threads_and_leaves_their_number_alone(driven):
    before, scan = torch.get_num_threads(), lidar_scan(driven)
    try:
        torch.set_num_threads(3)
        np.testing.assert_array_equal(lidar_scan(driven), scan)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_scan_covers_the_azimuths_asked_for(driven):
    scan = lidar_scan(driven, azimuth=(-10.0, 20.0))
    right = np.degrees(np.arctan2(-scan[:, 1], scan[:, 0]))
    assert right.min() >= -10.01
    assert right.max() <= 20.01
    with pytest.raises(ConfigError, match="azimuth"):
        lidar_scan(driven, azimuth=(10.0, -10.0))
