"""Which vanishing points a surface contains: what a depth map says about where the edges of a picture may point.

The inverse depth of a plane is affine in the picture: from n . X = c and X = Z K^-1 (x, y, 1) follows 1 / Z = l . (x, y, 1)
with l = K^-T n / c. Where it is zero the plane is infinitely far, so l is the plane's vanishing line (Hartley and Zisserman
2004, section 8.6). A direction d lies in the plane if n . d = 0, that is, if its vanishing point v = K d lies on that line,
l . v = 0: an edge drawn on a surface may point at a vanishing point only if that lies on the surface's vanishing line.
"""

import math

import cv2
import numpy as np

from alberti.errors import DataError
from alberti.geometry.camera import Camera, vanishing_points_to_directions
from alberti.geometry.presence import present

_RADIUS = 2
"""Pixels: planes are fitted to windows of 5 x 5."""
_PLANAR = 0.02
"""A window is one plane if its inverse depth differs from the affine fit by no more than this share (rms)."""
_BEHIND = 0.05
"""A pixel is behind a neighbour whose inverse depth exceeds by this share what the pixel's own plane has there."""
_PARALLEL = math.sin(math.radians(8))
"""How far a direction may be from a plane, or a plane's normal from a direction, to count as in it, or parallel to it."""

_SHIFTS = [(dy, dx) for dy in range(-_RADIUS, _RADIUS + 1) for dx in range(-_RADIUS, _RADIUS + 1)]


def points_on_surfaces(depth: np.ndarray, vanishing_points: np.ndarray, camera: Camera) -> np.ndarray:
    """For each pixel, which vanishing points the surface seen there contains.

    Only surfaces that are built along the vanishing points' directions are asked: those whose normal is parallel to one of
    them, or that contain at least two. All others (trees, slanting roofs, houses at another angle), and pixels without a
    measurement or a plane around them, have none: nothing says where their edges point. Next to an occluding edge the
    nearer surface decides, whose outline it is.

    Args:
        depth: (H, W) metres along the optical axis, 0 = no measurement.
        vanishing_points: (K, 3) homogeneous pixels, w = 0 allowed; rows of zeros are absent.
        camera: of the picture's size.

    Returns:
        (K, H, W) bool.

    Raises:
        DataError: the depth map's size is not the camera's.
    """
    if depth.shape != (camera.height, camera.width):
        raise DataError(f"depth: expected the camera's ({camera.height}, {camera.width}), got {depth.shape}")
    points = np.asarray(vanishing_points, dtype=np.float64).reshape(-1, 3)
    normals = surface_normals(depth, camera)
    directions = vanishing_points_to_directions(points, camera)
    there = present(points)
    across = np.abs(np.einsum("hwi,ki->khw", normals, directions))
    inside = (across < _PARALLEL) & there[:, None, None] & (normals != 0).any(axis=-1)
    facing = ((across > math.sqrt(1 - _PARALLEL**2)) & there[:, None, None]).any(axis=0)
    built = facing | (inside.sum(axis=0) >= 2)
    found: np.ndarray = inside & built
    return found


def surface_normals(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """Unit normals (H, W, 3) in camera axes, towards the camera, of the planes seen at each pixel; zeros where there is none.

    Each pixel takes the window of 5 x 5 pixels that contains it and is most nearly a plane, so that windows need not reach
    across edges (as the filter of Kuwahara et al. 1976 chooses its windows).

    Args:
        depth: (H, W) metres, 0 = no measurement. camera: of the picture's size.
    """
    inverse = np.where(depth > 0, 1 / np.maximum(depth, 1e-6), 0).astype(np.float64)
    lines, misfit = _best_planes(*_fit_planes(inverse, depth > 0))
    lines[misfit > _PLANAR] = 0
    lines = _of_nearest(inverse, lines)
    normals = lines @ camera.matrix()
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    result: np.ndarray = -normals / np.where(length > 0, length, 1)
    return result


def _fit_planes(inverse: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares l (H, W, 3) of the window around each pixel, and the rms misfit as a share of the mean (H, W)."""
    height, width = inverse.shape
    side, count = 2 * _RADIUS + 1, (2 * _RADIUS + 1) ** 2
    offsets = np.arange(-_RADIUS, _RADIUS + 1, dtype=np.float64)
    ones, moment = np.ones(side), side * np.square(offsets).sum()
    total = _filter(inverse, ones, ones)
    slope_x, slope_y = _filter(inverse, offsets, ones) / moment, _filter(inverse, ones, offsets) / moment
    mean = total / count
    square = _filter(np.square(inverse), ones, ones) / count
    rest = square - mean**2 - (slope_x**2 + slope_y**2) * moment / count
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    lines = np.stack([slope_x, slope_y, mean - slope_x * x - slope_y * y], axis=-1)
    whole = cv2.erode(known.astype(np.uint8), np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    misfit = np.where(whole > 0, np.sqrt(np.maximum(rest, 0)) / np.maximum(mean, 1e-12), np.inf)
    return lines, misfit


def _filter(values: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.sepFilter2D(values, cv2.CV_64F, across, down, borderType=cv2.BORDER_CONSTANT))


def _best_planes(lines: np.ndarray, misfit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the windows that contain a pixel, the one with the least misfit."""
    height, width = misfit.shape
    places = np.pad(np.arange(misfit.size).reshape(misfit.shape), _RADIUS)
    padded = np.pad(misfit, _RADIUS, constant_values=np.inf)
    best, chosen = misfit, places[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
    for dy, dx in _SHIFTS:
        part = slice(_RADIUS + dy, _RADIUS + dy + height), slice(_RADIUS + dx, _RADIUS + dx + width)
        better = padded[part] < best
        best, chosen = np.where(better, padded[part], best), np.where(better, places[part], chosen)
    return lines.reshape(-1, 3)[chosen], best


def _of_nearest(inverse: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """The plane of each pixel, or of the nearest surface around it where that stands before it."""
    side = 2 * _RADIUS + 1
    around = cv2.dilate(inverse, np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    y, x = np.nonzero(around > (1 + _BEHIND) * inverse)  # nothing can stand before the others
    line, own = lines[y, x], inverse[y, x]
    here = line[:, 0] * x + line[:, 1] * y + line[:, 2]
    front, chosen_y, chosen_x = np.zeros(len(x)), y, x
    padded = np.pad(inverse, _RADIUS)
    for dy, dx in _SHIFTS:
        values = padded[y + dy + _RADIUS, x + dx + _RADIUS]
        expected = np.maximum(here + dx * line[:, 0] + dy * line[:, 1], own)
        before = (values > (1 + _BEHIND) * expected) & (values > front)
        front = np.where(before, values, front)
        chosen_y, chosen_x = np.where(before, y + dy, chosen_y), np.where(before, x + dx, chosen_x)
    result = lines.copy()
    result[y, x] = lines[chosen_y, chosen_x]
    return result
