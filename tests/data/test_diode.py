"""DIODE's native layout."""

import numpy as np
import pytest
from native_layouts import DIODE_NAMES as NAMES
from native_layouts import diode as write_diode

from alberti.data.diode import DiodeReader
from alberti.errors import DataError
from alberti.metrics import evaluate_folder


@pytest.fixture
def diode(tmp_path):
    return write_diode(tmp_path / "diode")


@pytest.mark.parametrize("below", [".", "val", "val/outdoor"])
def test_reads_the_native_layout(diode, below):
    reader = DiodeReader(diode / below)
    frames = reader.frames()
    assert [frame.id for frame in frames] == sorted(NAMES)
    depth = reader.depth(frames[0])
    assert depth.shape == (24, 32)
    assert not depth[:, :8].any()
    assert (depth[:, 8:] > 0).all()
    assert reader.read_image(frames[0]).shape == (24, 32, 3)


def test_masked_pixels_do_not_count(diode, tmp_path):
    reader = DiodeReader(diode)
    folder = tmp_path / "predictions"
    folder.mkdir()
    for frame in reader.frames():
        prediction = reader.depth(frame) * 1.1
        prediction[:, :8] = 60.0
        np.save(folder / f"{frame.id}.npy", prediction)
    summary = evaluate_folder(folder, reader.frames(), reader, "diode_outdoor", workers=1).summary
    assert summary["d1"] == 1
    assert 0.09 < summary["abs_rel"] <= 0.1000001  # a little less than 0.1: predictions are clipped to 80 m


def test_a_list_picks_and_orders_frames(diode, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"val/outdoor/scene_00023/scan_00198/{NAMES[1]}.png\n")
    assert [frame.id for frame in DiodeReader(diode).frames(listed)] == [NAMES[1]]
    listed.write_text("nothing_outdoor_1\n")
    with pytest.raises(DataError, match="nothing_outdoor_1"):
        DiodeReader(diode).frames(listed)
    listed.write_text(f"{NAMES[0]}\n{NAMES[0]}\n")
    with pytest.raises(DataError, match="twice"):
        DiodeReader(diode).frames(listed)
    with pytest.raises(DataError, match="no such split"):
        DiodeReader(diode).frames(tmp_path / "nowhere.txt")


def test_bad_folders_are_named(diode, tmp_path):
    (tmp_path / "other" / "indoors").mkdir(parents=True)
    with pytest.raises(DataError, match="found indoors"):
        DiodeReader(tmp_path / "other")
    with pytest.raises(DataError, match="no such folder"):
        DiodeReader(tmp_path / "nowhere")
    reader = DiodeReader(diode)
    frame = reader.frames()[0]
    with pytest.raises(DataError, match="kind diode"):
        reader.depth(frame, "annotated")
    (frame.folder / f"{frame.id}.png").unlink()
    reader.check([frame], kind="diode")
    with pytest.raises(DataError, match="1 files are missing"):
        reader.check([frame], image=True, kind="diode")
    (frame.folder / f"{frame.id}_depth_mask.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match="depth_mask"):
        reader.depth(frame)
    np.save(frame.folder / f"{frame.id}_depth_mask.npy", np.ones((3, 3)))
    with pytest.raises(DataError, match="its mask"):
        reader.depth(frame)
    copy = diode / "train" / "outdoor"
    copy.mkdir(parents=True)
    np.save(copy / f"{NAMES[0]}_depth.npy", np.ones((24, 32)))
    with pytest.raises(DataError, match="two folders"):
        DiodeReader(diode)
