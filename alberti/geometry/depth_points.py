"""Vanishing points of a depth map: the directions that its planes are built along, and the camera where nobody knows it.

A picture is not needed. The normal of a wall is a direction that other walls run along, and two planes that meet at a right
angle run along their common line; the vanishing points of these directions are where straight edges on them point.
"""

from dataclasses import dataclass

import numpy as np

from alberti.errors import DataError
from alberti.geometry.camera import Camera, directions_to_vanishing_points
from alberti.geometry.depth_units import refuse_too_deep
from alberti.geometry.surfaces import surface_normals

ASSUMED_FOV = 65.0
"""Degrees across the wider side of a picture of which nothing else is known."""
_CONE = np.cos(np.radians(4.0))
"""Normals of one plane differ by less."""
_APART = np.cos(np.radians(12.0))
"""Two planes' normals differ by more."""
_RIGHT = np.sin(np.radians(6.0))
_LEAST = 0.02
"""Share of the pixels with a plane that a direction must be the normal of."""
_PLANES, _MOST = 6, 6
_FAR = 200.0
"""Metres beyond which nothing is a plane: depth maps store the sky as their largest value, a wall that faces the camera."""
_SAMPLES, _CANDIDATES = 20_000, 400
_FOVS = (25.0, 130.0)


@dataclass(frozen=True)
class DepthPoints:
    """Vanishing points (K, 3), homogeneous pixels, most surface first; the camera, and where it is from.

    camera_source: "given", "estimated" from planes at a right angle, or "assumed".
    """

    points: np.ndarray
    camera: Camera
    camera_source: str


def vanishing_points_from_depth(depth: np.ndarray, camera: Camera | None) -> np.ndarray:
    """Vanishing points of the planes in a depth map.

    Args:
        depth: (H, W) metres along the optical axis, 0 = no measurement; beyond 200 metres counts as sky.
        camera: of the picture's size; None: estimated or assumed, see :func:`points_of_depth`, which says which.

    Returns:
        (K, 3) homogeneous pixels of unit norm, w = 0 allowed, those with most surface first; (0, 3) if there is no plane.

    Raises:
        DataError: a depth map that is no (H, W) of finite metres, by its values in another unit, or not of the camera's size.
    """
    return points_of_depth(depth, camera).points


def points_of_depth(depth: np.ndarray, camera: Camera | None = None) -> DepthPoints:
    """Vanishing points of a depth map together with the camera that they were found under.

    Where two planes meet is where their vanishing lines cross, whatever the focal length. It only decides where a wall's normal
    points, and follows from two planes at a right angle, unless one of them is the ground under a level camera.
    """
    depth = np.asarray(depth, dtype=np.float64)
    if depth.ndim != 2 or not np.isfinite(depth).all() or (depth < 0).any():
        raise DataError(f"depth: expected (H, W) of finite metres, 0 = no measurement; got {depth.shape} with {_range(depth)}")
    if camera is not None and depth.shape != (camera.height, camera.width):
        raise DataError(f"depth: expected the camera's ({camera.height}, {camera.width}), got {depth.shape}")
    refuse_too_deep(depth, "depth")
    depth = np.where(depth > _FAR, 0, depth)
    source = "given"
    if camera is None:
        camera, source = _camera_of(depth)
    normals, areas = _planes(surface_normals(depth, camera))
    directions = _directions(normals, areas)
    return DepthPoints(directions_to_vanishing_points(directions, camera), camera, source)


def _range(depth: np.ndarray) -> str:
    finite = depth[np.isfinite(depth)]
    return f"{len(finite)} finite values of {depth.size}, the least {finite.min():g}" if len(finite) else "no finite value"


def _planes(normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions (N, 3) that many pixels' planes face, up to sign, and the pixels' share of all that have a plane (N,)."""
    found = normals[(normals != 0).any(axis=-1)]
    found = found[:: max(1, len(found) // _SAMPLES)]
    total = len(found)
    directions: list[np.ndarray] = []
    areas: list[float] = []
    while len(directions) < _PLANES and len(found) >= max(1, _LEAST * total):
        candidates = found[:: max(1, len(found) // _CANDIDATES)]
        near = np.abs(candidates @ found.T) > _CONE
        best = _middle(found, candidates[near.sum(axis=1).argmax()])
        share = (np.abs(found @ best) > _CONE).sum() / total
        if share < _LEAST:
            break
        directions.append(best)
        areas.append(share)
        found = found[np.abs(found @ best) < _APART]
    return np.array(directions).reshape(-1, 3), np.array(areas)


def _middle(normals: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The direction in the middle of the normals around ``start``: the component-wise median, which outliers do not move."""
    middle = start
    for _ in range(5):
        along = normals @ middle
        near = np.abs(along) > _CONE
        middle = np.median(normals[near] * np.sign(along[near])[:, None], axis=0)
        middle = middle / np.linalg.norm(middle)
    return middle


def _directions(normals: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """The planes' normals and the lines that planes at a right angle share, those within most surface first, (K, 3)."""
    found = list(normals)
    for first in range(len(normals)):
        for second in range(first):
            line = np.cross(normals[first], normals[second])
            length = np.linalg.norm(line)
            if length > np.sqrt(1 - _RIGHT**2) and all(abs(line @ other) / length < _APART for other in found):
                found.append(line / length)
    directions = np.array(found).reshape(-1, 3)
    within = (np.abs(directions @ normals.T) < _RIGHT) @ areas
    return directions[np.argsort(-within, kind="stable")][:_MOST]


def _camera_of(depth: np.ndarray) -> tuple[Camera, str]:
    """A camera with square pixels and a central principal point, and whether it is "estimated" or "assumed"."""
    height, width = depth.shape
    longer = max(height, width)
    focal = 0.5 * longer / np.tan(np.radians(ASSUMED_FOV) / 2)
    assumed = Camera(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)
    normals, areas = _planes(surface_normals(depth, assumed))
    best, weight = None, 0.0
    for first in range(len(normals)):
        for second in range(first):
            candidate = _focal(normals[first], normals[second], focal)
            low, high = (0.5 * longer / np.tan(np.radians(fov) / 2) for fov in reversed(_FOVS))
            pair = min(areas[first], areas[second])
            if candidate is not None and low <= candidate <= high and pair > weight:
                best, weight = candidate, pair
    if best is None:
        return assumed, "assumed"
    return Camera(best, best, assumed.cx, assumed.cy, width, height), "estimated"


def _focal(one: np.ndarray, other: np.ndarray, focal: float) -> float | None:
    """The focal length at which two planes, whose normals are these under ``focal``, are at a right angle; None: any or none.

    With x and y of a normal in proportion to the focal length, n . m = 0 is f^2 (a . b) / focal^2 = -n_z m_z.
    """
    across, along = one[:2] @ other[:2], one[2] * other[2]
    if min(abs(across), abs(along)) < 0.05 or across * along > 0:
        return None
    return float(focal * np.sqrt(-along / across))
