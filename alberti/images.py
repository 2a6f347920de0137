"""Image and depth files <-> arrays.

Images are (H, W, 3) uint8 RGB; depth maps are (H, W) float32 metres along the optical axis, 0 = no measurement.
"""

import contextlib
import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from alberti.errors import DataError
from alberti.files import atomic_file
from alberti.reading import reading

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""The common formats, by suffix; :func:`picture_suffixes` has all that can be read here."""
_FURTHER_SUFFIXES = (
    ".jfif", ".jpe", ".gif", ".avif", ".avifs", ".heic", ".heif", ".jp2", ".j2k", ".jpx", ".jpf", ".ppm", ".pgm", ".pnm",
    ".tga", ".apng", ".mpo", ".qoi",
)  # fmt: skip
"""Read where the installed Pillow can."""
_UNREAD_SUFFIXES = (
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".jxl", ".psd", ".svg", ".exr", ".hdr", ".mp4", ".mov",
)  # fmt: skip
"""Pictures, by name, that are never read: counted, so that nobody takes them for done."""
_MAX_PIXELS = 400_000_000
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FULL_SCALES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
_NOT_MENDED = (DataError, FileNotFoundError, IsADirectoryError, PermissionError, MemoryError)
_PNG = b"\x89PNG\r\n\x1a\n"
Image.MAX_IMAGE_PIXELS = None  # our own limit below gives a clearer error than Pillow's warning

T = TypeVar("T")


@cache
def picture_suffixes() -> tuple[str, ...]:
    """Suffixes, in lower case, of the picture files that can be read here: HEIC needs the package pillow-heif, say."""
    try:
        import pillow_heif  # type: ignore[import-not-found,unused-ignore]

        pillow_heif.register_heif_opener()
    except Exception:  # not installed, or not for this Pillow
        pass
    known = Image.registered_extensions()
    return (*IMAGE_SUFFIXES, *(suffix for suffix in _FURTHER_SUFFIXES if suffix in known))


@cache
def unread_suffixes() -> frozenset[str]:
    """Suffixes, in lower case, of pictures and films that cannot be read here."""
    return frozenset({*_FURTHER_SUFFIXES, *_UNREAD_SUFFIXES} - set(picture_suffixes()))


class PictureHeader(NamedTuple):
    """What a picture's header says."""

    width: int
    """As the picture is shown: rotation applied."""
    height: int
    deep_gray: bool
    """One channel of more than 8 bits: how depth maps are stored, and hardly a photograph."""


def read_image(path: str | Path) -> np.ndarray:
    """Read any image that Pillow knows as (H, W, 3) uint8 RGB.

    EXIF orientation is applied, gray of more than 8 bits scaled to 8, palettes and CMYK converted, and transparency laid
    over white. Floats up to 1 mean [0, 1]; otherwise the full scale is the smallest of 8, 10, 12, 14 and 16 bits that holds the
    largest value. Text, colour profiles and metadata that are damaged or large do not keep a picture from being read.

    Raises:
        DataError: the file is missing, truncated, not an image or over 400 megapixels.
    """
    path = Path(path)
    with _reading_picture(path, "image"):
        return _decoded(path)


@contextlib.contextmanager
def _reading_picture(path: Path, what: str) -> Iterator[None]:
    with reading(path, what):
        try:
            yield
        except UnidentifiedImageError:
            raise DataError(f"{path}: cannot read the {what}: not an image that Pillow can read") from None


def read_picture_header(path: str | Path) -> PictureHeader:
    """A picture's size and kind, from its header; the pixels are not decoded. DataError as :func:`read_image`."""
    path = Path(path)
    with _reading_picture(path, "image"):
        try:
            with Image.open(path) as opened:
                _check_pixels(opened, path)  # a PNG's orientation may stand behind its pixels
                return _header(opened)
        except _NOT_MENDED:
            raise
        except Exception as error:
            if (mended := _mended(path)) is not None:
                return _header(mended)
            if isinstance(error, UnidentifiedImageError) and (values := _deep_tiff(path)) is not None:
                return PictureHeader(values.shape[1], values.shape[0], False)
            raise


def _header(opened: Image.Image) -> PictureHeader:
    width, height = opened.size if _orientation(opened) < 5 else opened.size[::-1]
    return PictureHeader(width, height, opened.mode.startswith("I") or opened.mode == "F")


def _decoded(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as opened:
            return _pixels(opened, path)
    except _NOT_MENDED:
        raise
    except Exception as error:
        if (mended := _mended(path)) is not None:
            return _pixels(mended, path)
        if isinstance(error, UnidentifiedImageError) and (values := _deep_tiff(path)) is not None:
            return values
        raise


def _check_pixels(opened: Image.Image, path: Path) -> None:
    """DataError for a picture that is too large, before anything is allocated for it."""
    if opened.width * opened.height > _MAX_PIXELS:
        raise DataError(f"{path}: {opened.width} x {opened.height} pixels; at most {_MAX_PIXELS} are read")


def _pixels(opened: Image.Image, path: Path) -> np.ndarray:
    _check_pixels(opened, path)
    opened.load()
    turn = _TURNS.get(_orientation(opened))
    return _to_rgb(opened if turn is None else opened.transpose(turn), path)


def _orientation(opened: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none, or none that can be read.

    Pillow turns TIFF files by itself, size included.
    """
    if opened.format == "TIFF":
        return 1
    try:
        value = opened.getexif().get(0x0112, 1)
    except Exception:  # odd EXIF is no reason to refuse the pixels
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _mended(path: Path) -> Image.Image | None:
    """A PNG's picture without the chunks that its pixels do not need: what viewers skip where it is damaged or too large.

    None of another file, or if that does not help.
    """
    data = path.read_bytes()
    if not data.startswith(_PNG):
        return None
    for wanted in ((b"tRNS", b"eXIf"), (b"tRNS",), ()):
        try:
            with Image.open(io.BytesIO(_needed_chunks(data, wanted))) as tried:
                _check_pixels(tried, path)
                tried.load()
                return tried.copy()
        except DataError:
            raise
        except Exception:
            continue
    return None


def _needed_chunks(data: bytes, wanted: tuple[bytes, ...]) -> bytes:
    """A PNG's critical chunks, and of the others those of ``wanted`` that are sound."""
    parts, place = [_PNG], len(_PNG)
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunk = data[place : place + 12 + length]
        kind, critical = chunk[4:8], not chunk[4] & 0x20
        sound = len(chunk) == 12 + length and zlib.crc32(chunk[4:-4]) == struct.unpack(">I", chunk[-4:])[0]
        if critical or (kind in wanted and sound):
            parts.append(chunk)
        place += 12 + length
    return b"".join(parts)


def _deep_tiff(path: Path) -> np.ndarray | None:
    """The picture of a TIFF of several float channels, which Pillow does not know; None of another file."""
    data = path.read_bytes()
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return None
    import cv2

    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 3 or values.dtype.kind != "f" or values.shape[2] not in (3, 4):
        return None
    return _to_8_bits(values[..., 2::-1].astype(np.float64), path, floats=True)


def _to_rgb(image: Image.Image, path: Path) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        gray = _to_8_bits(np.asarray(image).astype(np.float64), path, floats=image.mode == "F")
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image.convert("RGB"))


def _to_8_bits(values: np.ndarray, path: Path, *, floats: bool) -> np.ndarray:
    """Values of any range as uint8; what is not finite becomes black."""
    values = np.where(np.isfinite(values), values, 0.0)
    top = float(values.max(initial=0))
    if float(values.min(initial=0)) < -0.25 * max(top, 1e-6):
        raise DataError(f"{path}: values down to {values.min():g}, so no picture; expected [0, 1], or whole numbers from 0")
    # beyond 1 by a little: interpolation overshoots
    full_scale = 1.0 if floats and top < 2 else next((scale for scale in _FULL_SCALES if top <= scale), _FULL_SCALES[-1])
    return np.clip(values / full_scale * 255.0 + 0.5, 0, 255).astype(np.uint8)


def write_image(path: str | Path, image: np.ndarray, *, quality: int = 95) -> None:
    """Write an (H, W, 3) uint8 RGB array atomically; the suffix (.png, .jpg) picks the format. ``quality``: of a JPEG."""
    path = Path(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
    suffix = path.suffix.lower()
    options = {"quality": quality, "subsampling": 0} if suffix in (".jpg", ".jpeg") else {"compress_level": 3}
    with atomic_file(path) as temporary:
        Image.fromarray(image).save(temporary, format="JPEG" if "quality" in options else "PNG", **options)


def read_depth(path: str | Path, scale: float = 256.0) -> np.ndarray:
    """Read a 16-bit PNG as (H, W) float32 metres: stored value / ``scale``, 0 = no measurement (KITTI: 256)."""
    path = Path(path)
    values = read_channels(path)
    if values.ndim != 2 or values.dtype.kind not in "iu" or values.dtype.itemsize < 2:
        raise DataError(f"{path}: a depth map is a 16-bit gray PNG, this one is {values.dtype} of shape {values.shape}")
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise DataError(f"{path}: values from {values.min()} to {values.max()}, where 16 bits were expected")
    return (values.astype(np.float64) / scale).astype(np.float32)


def read_channels(path: str | Path, what: str = "depth map") -> np.ndarray:
    """The stored values of a picture file that is data, not a photograph: (H, W) or (H, W, C), nothing converted."""
    path = Path(path)
    with _reading_picture(path, what), Image.open(path) as opened:
        _check_pixels(opened, path)
        opened.load()
        if opened.mode == "P":
            raise DataError(f"{path}: the {what} has a palette, so its values are no measurements")
        return np.asarray(opened)


def write_depth(path: str | Path, depth: np.ndarray, scale: float = 256.0) -> None:
    """Write (H, W) metres as a 16-bit PNG, atomically.

    A positive depth that would round to 0, "no measurement", is stored as 1; one past 65535 / ``scale`` is refused.
    """
    if depth.ndim != 2:
        raise ValueError(f"depth: expected (H, W), got {depth.shape}")
    if not np.isfinite(depth).all() or (depth < 0).any():
        raise DataError(f"{path}: depth must be finite and not negative (0 = no measurement)")
    values = np.rint(depth.astype(np.float64) * scale)
    if values.max(initial=0) > 65535:
        raise DataError(f"{path}: depth up to {depth.max():.1f} m does not fit 16 bits at {scale:g} per metre")
    values = np.where((depth > 0) & (values == 0), 1, values).astype(np.uint16)
    with atomic_file(path) as temporary:
        Image.fromarray(values).save(temporary, format="PNG", compress_level=3)


def of_one_size(images: Iterable[tuple[T, np.ndarray]], count: int) -> Iterator[list[tuple[T, np.ndarray]]]:
    """Groups of up to ``count`` consecutive (what it is, image) whose images have one shape."""
    group: list[tuple[T, np.ndarray]] = []
    for named in images:
        if group and named[1].shape != group[0][1].shape:
            yield group
            group = []
        group.append(named)
        if len(group) == count:
            yield group
            group = []
    if group:
        yield group
