"""Named test sets: every layout is opened and scored, several alignments at once, and scenes are resampled whole."""

import csv
from pathlib import Path

import numpy as np
import pytest
from native_layouts import kitti_noise

from alberti.data.kitti import DEFAULT_VELO_TO_CAM, KittiReader
from alberti.data.kitti_objects import KittiObjectReader
from alberti.errors import ConfigError, DataError
from alberti.images import write_depth, write_image
from alberti.metrics.bootstrap import bootstrap_interval
from alberti.metrics.depth import align
from alberti.metrics.test_frames import evaluate_test_set, open_test_set
from alberti.metrics.test_sets import TestSet


@pytest.fixture(scope="module")
def kitti(tmp_path_factory):
    root = tmp_path_factory.mktemp("kitti")
    frames = kitti_noise(root, 5, np.random.default_rng(0))
    (root / "list.txt").write_text("".join(frame.line() + "\n" for frame in frames))
    return root, frames


def kitti_set(root: Path, **changes: object) -> TestSet:
    values = {"layout": "kitti", "root": str(root), "split": str(root / "list.txt"), "protocol": "eigen_no_crop"}
    return TestSet.model_validate({**values, "alignments": {"dpt": ("affine_disparity", "weighted_disparity")}, **changes})


def nearness(images):
    """A picture's first channel as inverse relative depth."""
    return [image[..., 0].astype(np.float32) + 1 for image in images]


def test_several_alignments_of_one_prediction_are_those_of_single_evaluations(kitti):
    root, frames = kitti
    both = evaluate_test_set(kitti_set(root), nearness, "dpt")
    assert list(both) == ["affine_disparity", "weighted_disparity"]
    alone = evaluate_test_set(kitti_set(root, alignments={"dpt": ("weighted_disparity",)}), nearness, "dpt")
    assert both["weighted_disparity"].summary == alone["weighted_disparity"].summary
    assert both["affine_disparity"].summary["abs_rel"] != both["weighted_disparity"].summary["abs_rel"]
    assert list(both["affine_disparity"].rows["scene"]) == [frame.drive for frame in frames]
    with pytest.raises(ConfigError, match="none for 'pixelformer'"):
        evaluate_test_set(kitti_set(root), nearness, "pixelformer")


def test_pictures_are_brought_to_a_size_and_predictions_to_the_ground_truths(kitti):
    seen = []

    def predict(images):
        seen.extend(image.shape for image in images)
        return nearness(images)

    evaluation = evaluate_test_set(kitti_set(kitti[0], height=32, width=64), predict, "dpt")["affine_disparity"]
    assert seen == [(32, 64, 3)] * 5
    assert len(evaluation.rows) == 5
    with pytest.raises(ConfigError, match="both or neither"):
        open_test_set(kitti_set(kitti[0], height=32))


def test_weighted_fit_makes_the_relative_error_of_disparity_least():
    random = np.random.default_rng(1)
    target = random.uniform(2, 70, (20, 30))
    pred = 3 / target + 0.02 * random.normal(size=target.shape)
    found = align(pred, target, np.ones_like(target, bool), "weighted_disparity")
    rows = np.stack([pred.ravel() * target.ravel(), target.ravel()], axis=1)  # (s p + t) d - 1, by numpy's own solver
    scale, shift = np.linalg.lstsq(rows, np.ones(target.size), rcond=None)[0]
    assert found.scale == pytest.approx(scale, rel=1e-9)
    assert found.shift == pytest.approx(shift, rel=1e-9)


def test_scenes_from_a_file_and_frames_alone(kitti, tmp_path):
    root, frames = kitti
    with open(tmp_path / "scenes.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("id", "scene"), *((frame.id, "ab"[place % 2]) for place, frame in enumerate(frames))])
    evaluation = evaluate_test_set(kitti_set(root, scenes=str(tmp_path / "scenes.csv")), nearness, "dpt")["affine_disparity"]
    assert evaluation.summary["scenes"] == 2
    assert list(evaluation.rows["scene"]) == ["a", "b", "a", "b", "a"]
    low, high = bootstrap_interval(evaluation.rows["abs_rel"].to_numpy(), groups=list("ababa"))
    assert evaluation.summary["intervals"]["abs_rel"] == [low, high]
    assert evaluate_test_set(kitti_set(root, scenes="frame"), nearness, "dpt")["affine_disparity"].summary["scenes"] == 5
    (tmp_path / "short.csv").write_text(f"id,scene\n{frames[0].id},a\n")
    with pytest.raises(DataError, match="no scene for 4 of 5 frames"):
        open_test_set(kitti_set(root, scenes=str(tmp_path / "short.csv")))


def test_whole_scenes_are_resampled():
    values = np.array([0.0] * 10 + [1.0] * 10)
    low, high = bootstrap_interval(values, groups=["a"] * 10 + ["b"] * 10)
    assert (low, high) == (0.0, 1.0)  # two scenes: both, or one of them twice
    assert bootstrap_interval(values)[0] > 0.2
    same = bootstrap_interval(values, groups=[str(k) for k in range(10, 30)])
    np.testing.assert_allclose(same, bootstrap_interval(values))
    with pytest.raises(ValueError, match="a scene for each"):
        bootstrap_interval(values, groups=["a"])


def test_the_object_layout_gives_the_depth_of_the_raw_one(kitti, tmp_path):
    root, frames = kitti
    raw, folder = KittiReader(root), tmp_path / "training"
    for name in ("image_2", "velodyne", "calib"):
        (folder / name).mkdir(parents=True)
    calibration = raw.calibration(frames[0])

    def line(key, values):
        return f"{key}: " + " ".join(f"{value:.12e}" for value in np.asarray(values).ravel())

    (folder / "calib" / "000007.txt").write_text(
        "\n".join(
            [line("P2", calibration.projections[2]), line("P3", calibration.projections[3]),
             line("R0_rect", calibration.rect[:3, :3]), line("Tr_velo_to_cam", calibration.velo_to_cam[:3])]
        )
    )  # fmt: skip
    (folder / "image_2" / "000007.png").write_bytes(raw.image_path(frames[0]).read_bytes())
    (folder / "velodyne" / "000007.bin").write_bytes(raw.scan_path(frames[0]).read_bytes())
    reader = KittiObjectReader(tmp_path)
    (frame,) = reader.frames()
    assert np.allclose(calibration.velo_to_cam, DEFAULT_VELO_TO_CAM)
    for kind in ("lidar_forward", "lidar_z"):
        np.testing.assert_array_equal(reader.depth(frame, kind), raw.depth(frames[0], kind))
    with pytest.raises(DataError, match="not annotated"):
        reader.depth(frame, "annotated")
    test = TestSet(
        layout="kitti_objects", root=str(tmp_path), protocol="eigen_no_crop", alignments={"dpt": ("affine_disparity",)}
    )
    assert evaluate_test_set(test, nearness, "dpt")["affine_disparity"].summary["n"] == 1
    (folder / "velodyne" / "000007.bin").unlink()
    with pytest.raises(DataError, match=r"000007\.bin"):
        evaluate_test_set(test, nearness, "dpt")


def test_a_folder_with_depth(tmp_path):
    random = np.random.default_rng(3)
    (tmp_path / "images").mkdir()
    (tmp_path / "depth").mkdir()
    for name in ("a", "b"):
        write_image(tmp_path / "images" / f"{name}.png", random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        write_depth(tmp_path / "depth" / f"{name}.png", np.full((24, 32), 8.0, np.float32))
    test = TestSet(layout="folder", root=str(tmp_path), protocol="metric_80", alignments={"pixelformer": ("none",)})
    made = evaluate_test_set(test, lambda images: [np.full((24, 32), 10.0, np.float32) for _ in images], "pixelformer")["none"]
    assert made.summary["abs_rel"] == pytest.approx(0.25)
    assert made.summary["scenes"] == made.summary["n"] == 2
    with pytest.raises(DataError, match="metric_80"):
        evaluate_test_set(test.model_copy(update={"protocol": "eigen_garg"}), nearness, "pixelformer")
