"""Reading any picture, writing and reading depth."""

import numpy as np
import pytest
from PIL import Image

from alberti.errors import DataError
from alberti.images import of_one_size, read_depth, read_image, write_depth, write_image


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)


def test_png_round_trip_is_exact(tmp_path, picture):
    write_image(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)


def test_jpeg_suffix_writes_a_jpeg(tmp_path, picture):
    write_image(tmp_path / "a.jpg", picture)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "JPEG"


def test_exif_orientation_is_applied(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(picture, -1))


def test_sixteen_bit_gray_is_scaled_to_eight(tmp_path):
    Image.fromarray(np.array([[0, 65535], [32768, 257]], dtype=np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 0], [[0, 255], [128, 1]])


def test_transparency_is_laid_over_white(tmp_path):
    Image.new("RGBA", (2, 1), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == 255).all()


@pytest.mark.parametrize("mode", ["P", "L", "1", "CMYK"])
def test_other_modes_come_out_as_rgb(tmp_path, picture, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(picture).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (7, 9, 3)
    assert image.dtype == np.uint8


@pytest.mark.parametrize("content", [None, b"", b"not a picture", "truncated"])
def test_bad_images_are_named(tmp_path, picture, content):
    path = tmp_path / "bad.png"
    if content == "truncated":
        write_image(path, picture)
        content = path.read_bytes()[:-40]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.png"):
        read_image(path)


def test_depth_round_trip_is_within_half_a_step(tmp_path):
    depth = np.array([[0.0, 1.0], [80.0, 0.0001]], dtype=np.float32)
    write_depth(tmp_path / "d.png", depth)
    back = read_depth(tmp_path / "d.png")
    np.testing.assert_allclose(back[:, 0], depth[:, 0], atol=0.5 / 256)
    assert back[0, 0] == 0
    assert back[1, 1] == pytest.approx(1 / 256)  # a measurement stays one


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, 300.0])
def test_depth_that_cannot_be_stored_is_refused(tmp_path, value):
    with pytest.raises(DataError, match=r"d\.png"):
        write_depth(tmp_path / "d.png", np.full((2, 2), value, dtype=np.float32))
    assert not list(tmp_path.iterdir())


def test_an_eight_bit_picture_is_not_depth(tmp_path, picture):
    write_image(tmp_path / "a.png", picture)
    with pytest.raises(DataError, match="16-bit"):
        read_depth(tmp_path / "a.png")


def test_groups_of_one_size_keep_the_order() -> None:
    wide, tall = np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)
    images = enumerate([wide, wide, wide, tall, wide, tall, tall])
    groups = [[name for name, _ in group] for group in of_one_size(images, 2)]
    assert groups == [[0, 1], [2], [3], [4], [5, 6]]
    assert list(of_one_size([], 2)) == []
