"""Depth maps in the formats of other people's data sets -> (H, W) float32 metres, 0 = no measurement.

A data set names its format in ``dataset.json`` (``depth_format``), so that its files stay where and as they are:

- ``png16``: 16-bit gray PNG, 0 = none (KITTI: 256 per metre).
- ``vkitti2``: 16-bit gray PNG in which 65535 is sky (100 a metre).
- ``synthia_rgb``: 24 bits in the channels of a PNG, least significant first:
  5000 m x (R + 256 G + 65536 B) / (2^24 - 1).
- ``npy``: a NumPy array file; ``npz:KEY``: the array KEY of a NumPy archive. (H, W) or (H, W, 1). Nothing is unpickled.
"""

from pathlib import Path

import numpy as np

from alberti.errors import DataError
from alberti.images import read_channels, read_depth
from alberti.reading import read_array

SYNTHIA_RANGE = 5000.0
SYNTHIA_SKY = 1000.0
"""Metres from which a depth of SYNTHIA counts as sky: no street reaches as far, and its far plane is no surface."""


def read_depth_as(path: str | Path, format: str, scale: float = 1.0) -> np.ndarray:
    """Read a depth map as (H, W) float32 metres, 0 = no measurement (sky included).

    Args:
        format: one of those above.
        scale: stored units per metre; ``synthia_rgb`` fixes its own unit and wants 1.

    Raises:
        DataError: unknown format; the file is missing, damaged or not of that format.
    """
    path = Path(path)
    check_depth_format(format)
    if not scale > 0:
        raise DataError(f"{path}: depth scale {scale!r}: expected stored units per metre, above 0")
    if format == "png16":
        return read_depth(path, scale)
    if format == "vkitti2":
        depth = read_depth(path, scale)
        # Compared after the same division: exactly the depth that 65535 becomes.
        depth[depth >= np.float32(65535 / scale)] = 0
        return depth
    if format == "synthia_rgb":
        return _read_synthia(path, scale)
    return _read_numpy(path, format.partition(":")[2], scale)


def check_depth_format(format: str) -> None:
    """Raise DataError unless ``format`` is known."""
    kind, _, key = format.partition(":")
    if format not in ("png16", "vkitti2", "synthia_rgb", "npy") and not (kind == "npz" and key):
        raise DataError(f"depth format {format!r}: unknown; there are png16, vkitti2, synthia_rgb, npy and npz:KEY")


def _read_synthia(path: Path, scale: float) -> np.ndarray:
    values = read_channels(path)
    if values.ndim != 3 or values.shape[2] not in (3, 4) or values.dtype != np.uint8:
        raise DataError(
            f"{path}: SYNTHIA packs depth in the 8-bit channels of an RGB PNG, this one is {values.shape} {values.dtype}"
        )
    red, green, blue = (values[..., channel].astype(np.float64) for channel in range(3))
    depth = SYNTHIA_RANGE * (red + 256.0 * green + 65536.0 * blue) / (2**24 - 1) / scale
    return np.where(depth < SYNTHIA_SKY, depth, 0.0).astype(np.float32)


def _read_numpy(path: Path, key: str, scale: float) -> np.ndarray:
    values = read_array(path, key or None, "depth map")
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise DataError(f"{path}: expected an (H, W) or (H, W, 1) array of numbers, got {values.shape} {values.dtype}")
    return (values.astype(np.float64) / scale).astype(np.float32)
