"""The pinhole camera, and vanishing points as homogeneous image points.

Pixels: x right, y down, the centre of the first pixel is (0, 0), so an image of width W spans [-0.5, W - 0.5] and
resizing by s maps x' = (x + 0.5) s - 0.5. Camera axes: x right, y down, z forward. All of it is float64.

A vanishing point is (x, y, w), the image of a direction: pixel (x / w, y / w), or, with w = 0, a direction parallel to
the image plane. It has unit norm and no sign: v and -v are the same point. A row of zeros means "absent" and stays zero.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alberti.errors import DataError


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion: focal lengths and principal point in pixels, image size in pixels."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in self.intrinsics) or self.fx <= 0 or self.fy <= 0:
            raise DataError(
                f"intrinsics [fx, fy, cx, cy]: expected finite numbers with fx, fy > 0, got {list(self.intrinsics)}"
            )
        _check_size(self.width, self.height)

    @classmethod
    def from_intrinsics(cls, intrinsics: Sequence[float], width: int, height: int) -> "Camera":
        """The camera of ``[fx, fy, cx, cy]`` in pixels."""
        if len(intrinsics) != 4:
            raise DataError(f"intrinsics: expected the 4 numbers [fx, fy, cx, cy], got {list(intrinsics)}")
        fx, fy, cx, cy = (float(value) for value in intrinsics)
        return cls(fx, fy, cx, cy, width, height)

    @classmethod
    def from_fov(cls, fov_x: float, width: int, height: int) -> "Camera":
        """The camera with square pixels, the principal point in the middle and ``fov_x`` degrees from edge to edge."""
        if not 0 < fov_x < 180:
            raise DataError(f"fov_x: expected degrees between 0 and 180, got {fov_x}")
        focal = 0.5 * width / math.tan(math.radians(fov_x) / 2)
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)

    @property
    def intrinsics(self) -> tuple[float, float, float, float]:
        """``(fx, fy, cx, cy)``, the order that manifests hold."""
        return (self.fx, self.fy, self.cx, self.cy)

    def matrix(self) -> np.ndarray:
        """The (3, 3) calibration matrix K."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], dtype=np.float64)

    def crop(self, x0: int, y0: int, width: int, height: int) -> "Camera":
        """The camera of the ``width`` x ``height`` window whose first pixel is (x0, y0); it must lie in the image."""
        check_crop((x0, y0, width, height), (self.width, self.height))
        return Camera(self.fx, self.fy, self.cx - x0, self.cy - y0, width, height)

    def resize(self, width: int, height: int) -> "Camera":
        """The camera of the image resized to ``width`` x ``height``."""
        _check_size(width, height)
        sx, sy = width / self.width, height / self.height
        return Camera(self.fx * sx, self.fy * sy, (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5, width, height)

    def flip(self) -> "Camera":
        """The camera of the horizontally mirrored image, which sees the mirrored world (x -> -x in camera axes)."""
        return Camera(self.fx, self.fy, self.width - 1 - self.cx, self.cy, self.width, self.height)

    def rays(self) -> np.ndarray:
        """The (H, W, 3) viewing rays through the pixels' centres, scaled to z = 1."""
        x = (np.arange(self.width, dtype=np.float64) - self.cx) / self.fx
        y = (np.arange(self.height, dtype=np.float64) - self.cy) / self.fy
        grid_x, grid_y = np.meshgrid(x, y)
        return np.stack([grid_x, grid_y, np.ones_like(grid_x)], axis=-1)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project (..., 3) points in camera axes to (..., 2) pixels; NaN for points at or behind the camera's centre."""
        points = _last_axis(points, 3, "points")
        z = np.where(points[..., 2] > 0, points[..., 2], np.nan)
        x = self.fx * points[..., 0] / z + self.cx
        y = self.fy * points[..., 1] / z + self.cy
        return np.stack([x, y], axis=-1)

    def unproject(self, depth: np.ndarray) -> np.ndarray:
        """Lift (H, W) depth along the optical axis to (H, W, 3) points in camera axes; no measurement (0) gives zeros."""
        depth = np.asarray(depth, dtype=np.float64)
        if depth.shape != (self.height, self.width):
            raise DataError(f"depth: expected the camera's ({self.height}, {self.width}), got {depth.shape}")
        return self.rays() * depth[..., None]


def directions_to_vanishing_points(directions: np.ndarray, camera: Camera) -> np.ndarray:
    """The vanishing points K d of (..., 3) directions in camera axes: (..., 3), unit norm; zero rows stay zero."""
    return _normalise(_last_axis(directions, 3, "directions") @ camera.matrix().T)


def vanishing_points_to_directions(points: np.ndarray, camera: Camera) -> np.ndarray:
    """The directions K^-1 v in camera axes of (..., 3) vanishing points, unit norm; zero rows stay zero.

    Like the points, directions have no sign.
    """
    return _normalise(_last_axis(points, 3, "points") @ np.linalg.inv(camera.matrix()).T)


def transform_vanishing_points(points: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """Move (..., 3) vanishing points by the (3, 3) pixel homography x' ~ H x; unit norm again, zero rows stay zero."""
    homography = np.asarray(homography, dtype=np.float64)
    if homography.shape != (3, 3):
        raise ValueError(f"homography: expected (3, 3), got {homography.shape}")
    return _normalise(_last_axis(points, 3, "points") @ homography.T)


def crop_homography(x0: float, y0: float) -> np.ndarray:
    """The (3, 3) pixel homography of a crop whose first pixel is (x0, y0)."""
    return np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]], dtype=np.float64)


def resize_homography(old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """The (3, 3) pixel homography of a resize from ``old`` to ``new``, both (width, height)."""
    _check_size(*old)
    _check_size(*new)
    sx, sy = new[0] / old[0], new[1] / old[1]
    return np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]], dtype=np.float64)


def flip_homography(width: int) -> np.ndarray:
    """The (3, 3) pixel homography of the horizontal flip of an image ``width`` pixels wide: x' = width - 1 - x."""
    return np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]], dtype=np.float64)


def check_crop(crop: tuple[int, int, int, int], size: tuple[int, int]) -> None:
    """ValueError unless the crop (x0, y0, width, height) lies in an image of ``size`` (width, height)."""
    x0, y0, width, height = crop
    if width <= 0 or height <= 0 or x0 < 0 or y0 < 0 or x0 + width > size[0] or y0 + height > size[1]:
        raise ValueError(
            f"crop: expected (x0, y0, width, height) inside the image of {size[0]} x {size[1]} pixels, got {tuple(crop)}"
        )


def _check_size(width: int, height: int) -> None:
    if width <= 0 or height <= 0:
        raise DataError(f"image size: expected a positive width and height, got {width} x {height}")


def _last_axis(values: Any, count: int, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != count:
        raise ValueError(f"{name}: expected (..., {count}), got {array.shape}")
    return array


def _normalise(vectors: np.ndarray) -> np.ndarray:
    """Scale to unit norm; zero rows stay zero. Dividing by the largest entry first avoids overflow and underflow."""
    scale = np.abs(vectors).max(axis=-1, keepdims=True, initial=0)
    vectors = vectors / np.where(scale > 0, scale, 1)
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norm > 0, norm, 1)
