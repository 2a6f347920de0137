import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from native_layouts import DIODE_NAMES, diode

from alberti.commands.evaluate_depth import evaluate_depth
from alberti.commands.predict_depth import predict_depth
from alberti.data.kitti import KittiRecord, write_kitti
from alberti.depth import DepthModel, build_depth_model, predict_array
from alberti.errors import CheckpointError, ConfigError, DataError
from alberti.geometry.camera import Camera
from alberti.images import read_image, write_image


@pytest.fixture
def model(tmp_path: Path) -> Path:
    build_depth_model("pixelformer", "tiny").save(tmp_path / "model")
    return tmp_path / "model"


def write_pictures(folder: Path, names: list[str]) -> None:
    for seed, name in enumerate(names):
        image = np.random.default_rng(seed).integers(0, 256, (40, 64, 3), dtype=np.uint8)
        write_image(folder / name, image)


def test_a_folder_of_pictures(model: Path, tmp_path: Path, capsys):
    write_pictures(tmp_path / "photos", ["a.png", "deep/b.jpg"])
    predict_depth(model, tmp_path / "photos", tmp_path / "out")
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.npy"))
    assert files == ["a.npy", "deep/b.npy"]
    expected = predict_array(DepthModel.load(model), read_image(tmp_path / "photos/a.png"))
    np.testing.assert_allclose(np.load(tmp_path / "out/a.npy"), expected, rtol=1e-4)
    assert "2 predictions in metres" in capsys.readouterr().out
    predict_depth(model, tmp_path / "photos", tmp_path / "out")
    assert "0 predictions in metres, 2 were there" in capsys.readouterr().out


def test_one_picture(model: Path, tmp_path: Path):
    write_pictures(tmp_path, ["street.png"])
    predict_depth(model, tmp_path / "street.png", tmp_path / "out", flip=True)
    assert np.load(tmp_path / "out/street.npy").shape == (40, 64)


def test_kitti_frames_are_named_as_evaluate_depth_reads_them(model: Path, tmp_path: Path):
    drive = "2011_09_26/2011_09_26_drive_0002_sync"
    write_pictures(tmp_path / "kitti", [f"{drive}/image_02/data/{index:010d}.png" for index in (69, 70)])
    (tmp_path / "split.txt").write_text(f"{drive} 0000000069 l\n")
    predict_depth(model, tmp_path / "kitti", tmp_path / "out", split=tmp_path / "split.txt")
    assert [path.name for path in (tmp_path / "out").glob("*.npy")] == ["2011_09_26_drive_0002_sync_0000000069.npy"]
    depth = np.load(tmp_path / "out/2011_09_26_drive_0002_sync_0000000069.npy")
    assert depth.dtype == np.float32
    assert depth.shape == (40, 64)
    assert depth.min() > 0


def test_diode_goes_through_both_commands(model: Path, tmp_path: Path):
    """The tree of pictures makes a tree of predictions, and evaluate-depth finds them in it by their names."""
    root = diode(tmp_path / "diode", (64, 40))
    predict_depth(model, root / "val/outdoor", tmp_path / "out")
    assert sorted(path.stem for path in (tmp_path / "out").glob("scene_*/scan_*/*.npy")) == sorted(DIODE_NAMES)
    evaluate_depth(predictions=tmp_path / "out", diode=root, out=tmp_path / "scores.json")
    summary = json.loads((tmp_path / "scores.json").read_text())
    assert (summary["n"], summary["ground_truth"]) == (2, "diode")
    with pytest.raises(ConfigError, match=r"predictions\.json: the predictions are metres"):
        evaluate_depth(predictions=tmp_path / "out", diode=root, out=tmp_path / "b.json", align="affine_disparity")
    flat = tmp_path / "out" / f"{DIODE_NAMES[0]}.npy"
    np.save(flat, np.ones((40, 64), np.float32))
    with pytest.raises(DataError, match=f"two predictions of {DIODE_NAMES[0]}"):
        evaluate_depth(predictions=tmp_path / "out", diode=root, out=tmp_path / "c.json")


def test_kitti_without_a_list_goes_through_both_commands(model: Path, tmp_path: Path):
    random = np.random.default_rng(0)
    camera = Camera(40, 40, 31.5, 19.5, 64, 40)
    images = random.integers(0, 256, (2, 40, 64, 3), dtype=np.uint8)
    write_kitti(tmp_path / "kitti", [KittiRecord(image, camera, "test", depth=np.full((40, 64), 9.0)) for image in images])
    predict_depth(model, tmp_path / "kitti/raw", tmp_path / "out")
    split = tmp_path / "kitti/splits/test.txt"
    options = {"predictions": tmp_path / "out", "kitti": tmp_path / "kitti", "split": split, "protocol": "eigen_benchmark"}
    evaluate_depth(**options, out=tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text())["n"] == 2


def test_a_split_with_a_frame_that_is_not_there(model: Path, tmp_path: Path):
    drive = "2011_09_26/2011_09_26_drive_0002_sync"
    write_pictures(tmp_path / "kitti", [f"{drive}/image_02/data/0000000069.png"])
    (tmp_path / "split.txt").write_text(f"{drive} 0000000001 l\n")
    with pytest.raises(DataError, match="0000000001"):
        predict_depth(model, tmp_path / "kitti", tmp_path / "out", split=tmp_path / "split.txt")
    assert not (tmp_path / "out").exists()


def test_bad_input(model: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        predict_depth(model, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DataError, match="no such folder or picture"):
        predict_depth(model, tmp_path / "none", tmp_path / "out")
    write_pictures(tmp_path / "photos", ["a.png"])
    with pytest.raises(CheckpointError, match="no such model folder"):
        predict_depth(tmp_path / "none", tmp_path / "photos", tmp_path / "out")
    with pytest.raises(ConfigError, match="device: 'abacus'"):
        predict_depth(model, tmp_path / "photos", tmp_path / "out", device="abacus")
    assert not (tmp_path / "out").exists()


def test_a_pixelformer_checkpoint_file_of_another_network_is_refused(tmp_path: Path):
    write_pictures(tmp_path / "photos", ["a.png"])
    torch.save({"model": {"weight": torch.zeros(1)}}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="not weights of a published PixelFormer"):
        predict_depth(tmp_path / "model.pth", tmp_path / "photos", tmp_path / "out")


def test_the_module_is_light_to_import():
    code = "import sys, alberti.commands.predict_depth; print({'torch', 'transformers', 'timm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_bad_and_hidden_pictures_do_not_end_the_run(model: Path, tmp_path: Path, capsys):
    write_pictures(tmp_path / "photos", ["a.png", "c.png"])
    (tmp_path / "photos/._b.png").write_bytes(b"\0\5\x16\7")
    predict_depth(model, tmp_path / "photos", tmp_path / "out")
    (tmp_path / "photos/b.png").write_bytes(b"not a picture")
    write_pictures(tmp_path / "photos", ["d.png"])
    with pytest.raises(DataError, match=r"^1 of 4 pictures could not be read, see above; the others are predicted$"):
        predict_depth(model, tmp_path / "photos", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.npy")) == ["a.npy", "c.npy", "d.npy"]


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_replaced_picture_is_predicted_again(model: Path, tmp_path: Path, keep_times: bool):
    write_pictures(tmp_path / "photos", ["a.png", "b.png"])
    predict_depth(model, tmp_path / "photos", tmp_path / "out")
    kept = (tmp_path / "out/b.npy").stat().st_mtime_ns
    other = np.random.default_rng(9).integers(0, 256, (64, 40, 3), dtype=np.uint8)
    write_image(tmp_path / "new.png", other)
    if keep_times:  # as `cp -p` and `mv` leave it: older than the prediction
        os.utime(tmp_path / "new.png", (1_000_000_000, 1_000_000_000))
    time.sleep(0.02)
    (tmp_path / "new.png").rename(tmp_path / "photos/a.png")
    predict_depth(model, tmp_path / "photos", tmp_path / "out")
    assert np.load(tmp_path / "out/a.npy").shape == (64, 40)
    assert (tmp_path / "out/b.npy").stat().st_mtime_ns == kept
    time.sleep(0.02)
    (tmp_path / "photos/a.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="1 of 2 pictures could not be read"):
        predict_depth(model, tmp_path / "photos", tmp_path / "out")
    assert not (tmp_path / "out/a.npy").exists()


def test_every_root_of_kitti_goes_through_both_commands(model: Path, tmp_path: Path):
    camera = Camera(40, 40, 31.5, 19.5, 64, 40)
    image = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    (frame,) = write_kitti(tmp_path / "kitti", [KittiRecord(image, camera, "test", depth=np.full((40, 64), 9.0))])
    drive = Path("raw") / frame.date / frame.drive
    write_image(tmp_path / "kitti" / drive / "image_00/data/0000000000.png", image)
    options = {"kitti": tmp_path / "kitti", "split": tmp_path / "kitti/splits/test.txt", "protocol": "eigen_benchmark"}
    data = drive / "image_02/data"
    roots = [".", "raw", drive.parent, drive, data.parent, data, data / "0000000000.png"]
    for number, root in enumerate(roots):
        out = tmp_path / f"out{number}"
        predict_depth(model, tmp_path / "kitti" / root, out)
        assert len(list(out.rglob("*.npy"))) == 1, root
        evaluate_depth(predictions=out, out=tmp_path / "scores.json", **options)


def test_predictions_do_not_go_among_the_pictures(model: Path, tmp_path: Path):
    write_pictures(tmp_path / "photos", ["a.png"])
    for out in ("photos", "photos/depth", "model", "photos/a.png"):
        with pytest.raises(ConfigError, match="--out"):
            predict_depth(model, tmp_path / "photos", tmp_path / out)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.png"]
