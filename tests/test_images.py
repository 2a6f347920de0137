"""Reading any picture, writing and reading depth."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alberti.errors import DataError
from alberti.images import of_one_size, read_depth, read_image, read_picture_header, write_depth, write_image


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


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


EXIF_ROTATED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
ODD_CHUNKS = {
    "much text": _chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"x" * 2_000_000)),
    "international text": _chunk(b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(b"x" * 2_000_000)),
    "large profile": _chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"x" * 2_000_000)),
    "broken profile": _chunk(b"iCCP", b"icc\0\0no zlib"),
    "wrong check sum": _chunk(b"tEXt", b"a\0b")[:-1] + b"\0",
    "short time and size": _chunk(b"tIME", b"\0") + _chunk(b"pHYs", b"\0"),
    "broken EXIF": _chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    "short gamma": _chunk(b"gAMA", b"") + _chunk(b"cHRM", b"\0"),
}


@pytest.mark.parametrize("name", ODD_CHUNKS)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_what_viewers_skip_in_a_png_is_skipped(tmp_path: Path, name: str, mode: str) -> None:
    random = np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    image = Image.fromarray(random).convert(mode)
    image.save(tmp_path / "plain.png")
    data = (tmp_path / "plain.png").read_bytes()
    (tmp_path / "odd.png").write_bytes(data[:33] + ODD_CHUNKS[name] + data[33:])
    np.testing.assert_array_equal(read_image(tmp_path / "odd.png"), read_image(tmp_path / "plain.png"))
    assert read_picture_header(tmp_path / "odd.png")[:2] == (7, 9)


def test_a_rotation_survives_much_text(tmp_path: Path) -> None:
    Image.new("RGB", (8, 4), "red").save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    odd = data[:33] + ODD_CHUNKS["much text"] + _chunk(b"eXIf", EXIF_ROTATED[6:]) + data[33:]
    (tmp_path / "a.png").write_bytes(odd)
    assert read_image(tmp_path / "a.png").shape == (8, 4, 3)
    assert read_picture_header(tmp_path / "a.png")[:2] == (4, 8)


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".webp", ".png"])
@pytest.mark.parametrize("orientation", range(0, 10))
def test_header_and_pixels_agree_on_every_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (16, 8)).save(tmp_path / f"a{suffix}", exif=exif)
    shape = read_image(tmp_path / f"a{suffix}").shape
    assert read_picture_header(tmp_path / f"a{suffix}")[:2] == (shape[1], shape[0])
    assert shape[:2] == ((16, 8) if 5 <= orientation <= 8 else (8, 16))


def test_floats_and_few_bits_equal_their_8_bit_twin(tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (6, 5), dtype=np.uint8)
    gray[0, 0] = 255
    twins = {
        "unit": gray.astype(np.float32) / 255,
        "overshooting": np.where(gray == 255, 1.02, gray / 255).astype(np.float32),
        "not finite": np.where(gray == 0, np.nan, gray / 255).astype(np.float32),
        "bytes": gray.astype(np.float32),
        "12 bits": (gray.astype(np.float64) / 255 * 4095).round().astype(np.uint16),
        "16 bits": gray.astype(np.uint16) * 257,
    }
    for name, values in twins.items():
        Image.fromarray(values).save(tmp_path / f"{name}.tif")
        found = read_image(tmp_path / f"{name}.tif")
        assert abs(found[..., 0].astype(int) - gray).max() <= 1, name
    Image.fromarray(-twins["bytes"]).save(tmp_path / "negative.tif")
    with pytest.raises(DataError, match="no picture"):
        read_image(tmp_path / "negative.tif")


def test_float_colour_tiff(tmp_path: Path) -> None:
    import cv2

    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.tif"), image[..., ::-1].astype(np.float32) / 255)
    np.testing.assert_allclose(read_image(tmp_path / "a.tif").astype(int), image, atol=1)
    assert read_picture_header(tmp_path / "a.tif") == (5, 6, False)


def test_a_depth_map_is_no_mask_palette_or_float(tmp_path: Path) -> None:
    for mode in ("1", "L", "P", "F"):
        Image.new(mode, (4, 3)).save(tmp_path / "a.tif")
        with pytest.raises(DataError, match=r"a\.tif"):
            read_depth(tmp_path / "a.tif")


def test_a_damaged_png_that_claims_to_be_vast_is_refused_at_once(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 2**30, 2**30, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + ODD_CHUNKS["large profile"] + _chunk(b"IDAT", zlib.compress(b"\0"))
    (tmp_path / "vast.png").write_bytes(data)
    for read in (read_image, read_picture_header, read_depth):
        with pytest.raises(DataError, match=r"vast\.png: "):
            read(tmp_path / "vast.png")
