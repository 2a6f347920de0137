"""Velodyne scans as sparse depth maps."""

from pathlib import Path

import numpy as np

from alberti.errors import DataError
from alberti.reading import reading

LIDAR_KINDS = ("lidar_forward", "lidar_z")


def read_scan(path: str | Path) -> np.ndarray:
    """Read a ``.bin`` scan as (N, 4) float32: x forward, y left, z up in metres, reflectance.

    Raises:
        DataError: no such file, empty, cut off within a point, or NaN in it.
    """
    path = Path(path)
    with reading(path, "velodyne scan"):
        values = np.fromfile(path, dtype=np.uint8)
    if values.size == 0 or values.size % 16:
        raise DataError(f"{path}: {values.size} bytes; a scan is a positive multiple of 16 (4 float32 a point): truncated?")
    points = values.view("<f4").reshape(-1, 4)
    if not np.isfinite(points).all():
        raise DataError(f"{path}: the scan holds NaN or infinite values")
    return points


def lidar_depth(points: np.ndarray, velo_to_image: np.ndarray, size: tuple[int, int], kind: str) -> np.ndarray:
    """Project a scan into an image of ``size`` (width, height): (H, W) float32 metres, 0 where no point falls.

    ``kind`` "lidar_forward" is the Eigen ground truth of published numbers, value for value what monodepth2 exports:
    points with x >= 0, pixel = round(u) - 1, depth = the velodyne's forward coordinate x (about 0.27 m more than the
    camera's z), the nearest of several points in a pixel. "lidar_z" is this package's own convention: points in front
    of the camera, pixel = round(u), depth = z along the optical axis, the nearest point again.

    Args:
        points: (N, 4) or (N, 3) velodyne points.
        velo_to_image: (3, 4), of :meth:`alberti.data.kitti.Calibration.velo_to_image`.
    """
    if kind not in LIDAR_KINDS:
        raise ValueError(f"kind: expected one of {', '.join(LIDAR_KINDS)}, got {kind!r}")
    width, height = size
    forward = points[points[:, 0] >= 0, :3]
    homogeneous = np.concatenate([forward, np.ones((len(forward), 1), dtype=forward.dtype)], axis=1)
    u, v, z = np.dot(velo_to_image, homogeneous.T)
    if kind == "lidar_forward":
        depth, first, seen = forward[:, 0].astype(np.float64), 1, np.ones(len(z), dtype=bool)
        # monodepth2 numbers pixels with a stride of width - 1, so that the last pixel of a row and the first of the
        # next count as one; copied, because the exported ground truth has it. Both columns lie outside Garg's crop.
        stride = width - 1
    else:
        depth, first, seen, stride = z, 0, z > 0, width
    with np.errstate(divide="ignore", invalid="ignore"):
        column, row = np.round(u / z) - first, np.round(v / z) - first
    seen &= (column >= 0) & (row >= 0) & (column < width) & (row < height)
    return _nearest(row[seen].astype(np.int64), column[seen].astype(np.int64), depth[seen], (height, width), stride)


def _nearest(rows: np.ndarray, columns: np.ndarray, depth: np.ndarray, shape: tuple[int, int], stride: int) -> np.ndarray:
    image = np.zeros(shape, dtype=np.float32)
    image[rows, columns] = depth
    _, first, group, count = np.unique(rows * stride + columns, return_index=True, return_inverse=True, return_counts=True)
    nearest = np.full(len(count), np.inf)
    np.minimum.at(nearest, group, depth)
    shared = first[count > 1]
    image[rows[shared], columns[shared]] = nearest[count > 1]
    return image
