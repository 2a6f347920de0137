"""Image and depth files <-> arrays.

Images are (H, W, 3) uint8 RGB; depth maps are (H, W) float32 metres along the optical axis, 0 = no measurement.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from alberti.errors import DataError
from alberti.files import atomic_file

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_MAX_PIXELS = 400_000_000
Image.MAX_IMAGE_PIXELS = None  # our own limit below gives a clearer error than Pillow's warning

T = TypeVar("T")


def read_image(path: str | Path) -> np.ndarray:
    """Read any image that Pillow knows as (H, W, 3) uint8 RGB.

    EXIF orientation is applied, 16-bit gray scaled to 8 bits, palettes and CMYK converted, and transparency laid
    over white. Raises DataError if the file is missing, truncated, not an image or over 400 megapixels.
    """
    path = Path(path)
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > _MAX_PIXELS:
                raise DataError(f"{path}: {opened.width} x {opened.height} pixels; at most {_MAX_PIXELS} are read")
            opened.load()
            return _to_rgb(ImageOps.exif_transpose(opened))
    except FileNotFoundError:
        raise DataError(f"{path}: no such image") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not an image that Pillow can read") from None
    except (OSError, SyntaxError, EOFError) as error:
        raise DataError(f"{path}: cannot read the image ({error})") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        full_scale = 65535.0 if values.max(initial=0) > 255 else 255.0
        gray = np.clip(values / full_scale * 255.0 + 0.5, 0, 255).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image.convert("RGB"))


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
    try:
        with Image.open(path) as opened:
            opened.load()
            values = np.asarray(opened)
    except FileNotFoundError:
        raise DataError(f"{path}: no such depth map") from None
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path}: cannot read the depth map ({error})") from error
    if values.ndim != 2 or values.dtype == np.uint8:
        raise DataError(f"{path}: a depth map is a 16-bit gray PNG, this one is {values.dtype} of shape {values.shape}")
    return (values.astype(np.float64) / scale).astype(np.float32)


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
