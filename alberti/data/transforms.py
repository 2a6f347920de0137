"""Crop, resize and flip an image together with its depth, camera and vanishing points.

Everything that has pixel coordinates moves in one function, so that no part can be forgotten. Pixel convention:
``alberti.geometry.camera``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from alberti.errors import DataError
from alberti.geometry.camera import (
    Camera,
    check_crop,
    crop_homography,
    flip_homography,
    resize_homography,
    transform_vanishing_points,
)

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class View:
    """What is known of one picture; parts that are not known are None, and the known ones have one size.

    image: (H, W, 3), uint8 or float. depth: (H, W) metres along the optical axis, 0 = no measurement.
    vanishing_points: (K, 3) homogeneous pixels, w = 0 allowed, zero rows absent.
    """

    image: np.ndarray | None = None
    depth: np.ndarray | None = None
    camera: Camera | None = None
    vanishing_points: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.image is not None and (self.image.ndim != 3 or self.image.shape[2] != 3):
            raise DataError(f"image: expected (H, W, 3), got {self.image.shape}")
        if self.depth is not None and self.depth.ndim != 2:
            raise DataError(f"depth: expected (H, W), got {self.depth.shape}")
        points = self.vanishing_points
        if points is not None and (points.ndim != 2 or points.shape[1] != 3):
            raise DataError(f"vanishing_points: expected (K, 3), got {points.shape}")
        sizes = self._sizes()
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"{name} {width} x {height}" for name, (width, height) in sizes.items())
            raise DataError(f"image, depth and camera must have one size, got {found}")

    def _sizes(self) -> dict[str, tuple[int, int]]:
        sizes = {}
        if self.image is not None:
            sizes["image"] = (self.image.shape[1], self.image.shape[0])
        if self.depth is not None:
            sizes["depth"] = (self.depth.shape[1], self.depth.shape[0])
        if self.camera is not None:
            sizes["camera"] = (self.camera.width, self.camera.height)
        return sizes

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels; ValueError if neither image, depth nor camera is known."""
        sizes = self._sizes()
        if not sizes:
            raise ValueError("this view has neither image, depth nor camera, so its size is unknown")
        return next(iter(sizes.values()))


def transform(
    view: View,
    *,
    crop: tuple[int, int, int, int] | None = None,
    size: tuple[int, int] | None = None,
    flip: bool = False,
) -> View:
    """Crop, then resize, then mirror a view; every known part moves.

    crop: (x0, y0, width, height) in pixels, inside the view. size: the new (width, height). flip: mirror left-right.
    The image is averaged over areas where it shrinks and interpolated linearly where it grows. Depth takes one
    measurement per pixel, see ``resize_depth``. The flipped camera sees the mirrored world (x -> -x).
    """
    if crop is not None:
        view = _crop(view, crop)
    if size is not None and tuple(size) != view.size:
        view = _resize(view, size)
    return _flip(view) if flip else view


def _crop(view: View, crop: tuple[int, int, int, int]) -> View:
    check_crop(crop, view.size)
    x0, y0, width, height = crop
    window = (slice(y0, y0 + height), slice(x0, x0 + width))
    return View(
        image=None if view.image is None else view.image[window],
        depth=None if view.depth is None else view.depth[window],
        camera=None if view.camera is None else view.camera.crop(x0, y0, width, height),
        vanishing_points=_move(view.vanishing_points, crop_homography(x0, y0)),
    )


def _resize(view: View, size: tuple[int, int]) -> View:
    homography = resize_homography(view.size, size)
    return View(
        image=None if view.image is None else resize_image(view.image, size),
        depth=None if view.depth is None else resize_depth(view.depth, size),
        camera=None if view.camera is None else view.camera.resize(*size),
        vanishing_points=_move(view.vanishing_points, homography),
    )


def _flip(view: View) -> View:
    points = view.vanishing_points
    return replace(
        view,
        image=None if view.image is None else np.ascontiguousarray(view.image[:, ::-1]),
        depth=None if view.depth is None else np.ascontiguousarray(view.depth[:, ::-1]),
        camera=None if view.camera is None else view.camera.flip(),
        vanishing_points=_move(points, flip_homography(view.size[0])),
    )


def _move(points: np.ndarray | None, homography: np.ndarray) -> np.ndarray | None:
    return None if points is None else transform_vanishing_points(points, homography)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, 3) uint8 or float to ``size`` (width, height): area averages where an axis shrinks, else linear."""
    import cv2

    width, height = size
    small = (min(width, image.shape[1]), min(height, image.shape[0]))
    resized = image
    if small != (image.shape[1], image.shape[0]):
        resized = cv2.resize(np.ascontiguousarray(resized), small, interpolation=cv2.INTER_AREA)
    if small != (width, height):
        resized = cv2.resize(np.ascontiguousarray(resized), (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


def resize_depth(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W) depth to ``size`` (width, height) without mixing measurements or inventing any.

    A pixel takes the value of the source pixel at its centre. Where that is 0 (no measurement) and the axis shrinks, it
    takes the measurement nearest to its centre among the source pixels that it covers, so that a sparse scan keeps its
    points; it stays 0 if there is none.
    """
    width, height = size
    resize_homography((depth.shape[1], depth.shape[0]), size)  # checks the sizes
    shrunk = _shrink_depth(depth, min(width, depth.shape[1]), min(height, depth.shape[0]))
    rows, columns = _nearest(shrunk.shape[0], height), _nearest(shrunk.shape[1], width)
    return shrunk[rows[:, None], columns[None, :]]


def _nearest(old: int, new: int) -> np.ndarray:
    """For each of ``new`` pixels of an axis, the index of the source pixel that holds its centre."""
    return np.minimum(((2 * np.arange(new) + 1) * old) // (2 * new), old - 1)


def _shrink_depth(depth: np.ndarray, width: int, height: int) -> np.ndarray:
    old_height, old_width = depth.shape
    if (width, height) == (old_width, old_height):
        return depth
    result = depth[_nearest(old_height, height)[:, None], _nearest(old_width, width)[None, :]]
    y, x = np.nonzero(depth > 0)
    cell_y, cell_x = (2 * y + 1) * height // (2 * old_height), (2 * x + 1) * width // (2 * old_width)
    wanted = result[cell_y, cell_x] <= 0
    y, x, cell_y, cell_x = y[wanted], x[wanted], cell_y[wanted], cell_x[wanted]
    distance = (x + 0.5 - (cell_x + 0.5) * old_width / width) ** 2 + (y + 0.5 - (cell_y + 0.5) * old_height / height) ** 2
    farthest_first = np.argsort(distance, kind="stable")[::-1]  # the nearest is written last and stays
    y, x, cell_y, cell_x = (index[farthest_first] for index in (y, x, cell_y, cell_x))
    result[cell_y, cell_x] = depth[y, x]
    return result


def to_tensor(image: np.ndarray) -> "torch.Tensor":
    """(H, W, 3) uint8 RGB to a (3, H, W) float32 tensor in [0, 1]."""
    import torch

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(torch.float32) / 255


def stack_vanishing_points(
    points: Sequence[Sequence[Sequence[float]] | np.ndarray | None], most: int | None = None
) -> np.ndarray:
    """Each picture's vanishing points (best first), the first ``most`` of them, as (B, K, 3) float32; missing rows are zeros,
    "absent". K is the largest number that a picture has, at least 1.
    """
    longest = max((len(rows) for rows in points if rows is not None), default=0)
    stacked = np.zeros((len(points), max(1, longest if most is None else min(longest, most)), 3), dtype=np.float32)
    for row, found in zip(stacked, points, strict=True):
        if found is None or len(found) == 0:
            continue
        rows = np.asarray(found, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != 3 or not np.isfinite(rows).all():
            raise DataError(f"vanishing_points: expected finite (n, 3), got {rows.tolist()}")
        row[: len(rows)] = rows[: len(row)]
    return stacked
