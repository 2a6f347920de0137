from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alberti.data.depth_formats import check_depth_format, read_depth_as
from alberti.errors import DataError


def save(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path)
    return path


def test_png16(tmp_path: Path) -> None:
    path = save(tmp_path / "d.png", np.array([[0, 256, 65535]], np.uint16))
    np.testing.assert_array_equal(read_depth_as(path, "png16", 256.0), np.array([[0, 1, 65535 / 256]], np.float32))


def test_vkitti2_is_centimetres_with_sky_as_none(tmp_path: Path) -> None:
    path = save(tmp_path / "d.png", np.array([[0, 150, 65534, 65535]], np.uint16))
    np.testing.assert_allclose(read_depth_as(path, "vkitti2", 100.0), [[0, 1.5, 655.34, 0]], rtol=1e-6)


@pytest.mark.parametrize("channels", [3, 4])
def test_synthia_packs_depth_least_significant_first(tmp_path: Path, channels: int) -> None:
    # 5000 m x (R + 256 G + 65536 B) / (2^24 - 1)
    pixels = np.array([[[0, 0, 0], [255, 0, 0], [0, 16, 1], [255, 255, 255]]], np.uint8)
    if channels == 4:
        pixels = np.concatenate([pixels, np.full((1, 4, 1), 255, np.uint8)], axis=2)
    depth = read_depth_as(save(tmp_path / "d.png", pixels), "synthia_rgb")
    unit = 5000 / (2**24 - 1)
    np.testing.assert_allclose(depth, [[0, 255 * unit, (16 * 256 + 65536) * unit, 0]], rtol=1e-6)
    assert depth.dtype == np.float32


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1)])
def test_numpy_arrays(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.arange(6, dtype=np.float32).reshape(shape)
    np.save(tmp_path / "d.npy", values)
    np.savez(tmp_path / "d.npz", depth=values)
    for name, format in (("d.npy", "npy"), ("d.npz", "npz:depth")):
        depth = read_depth_as(tmp_path / name, format, 2.0)
        np.testing.assert_array_equal(depth, np.arange(6).reshape(2, 3) / 2)
        assert depth.dtype == np.float32


def test_bad_formats_and_files(tmp_path: Path) -> None:
    for format in ("exr", "npz:", "npz", "png8"):
        with pytest.raises(DataError, match="unknown"):
            check_depth_format(format)
    with pytest.raises(DataError, match="no such depth map"):
        read_depth_as(tmp_path / "nowhere.npy", "npy")
    np.savez(tmp_path / "d.npz", disparity=np.zeros((2, 2)))
    with pytest.raises(DataError, match="it holds disparity"):
        read_depth_as(tmp_path / "d.npz", "npz:depth")
    np.save(tmp_path / "d.npy", np.zeros((2, 2, 3)))
    with pytest.raises(DataError, match="expected an"):
        read_depth_as(tmp_path / "d.npy", "npy")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "d.npz").read_bytes()[:40])
    with pytest.raises(DataError, match="cannot read"):
        read_depth_as(tmp_path / "cut.npz", "npz:depth")
    with pytest.raises(DataError, match="channels"):
        read_depth_as(save(tmp_path / "g.png", np.zeros((2, 2), np.uint16)), "synthia_rgb")
    with pytest.raises(DataError, match="depth scale"):
        read_depth_as(tmp_path / "d.npy", "npy", 0.0)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot read"):
        read_depth_as(tmp_path / "d.npy", "npy")
