"""Radial distortion of a lens, measured from edges that ought to be straight; and pictures that no pinhole camera took.

The division model (Fitzgibbon, CVPR 2001, eq. 5) with one parameter k: a pixel at p, measured from the picture's middle in
half its diagonal, belongs at p / (1 + k |p|^2). k < 0 is a barrel (wide lenses), k > 0 a pincushion. A straight line at
distance c from the middle is seen with a curvature of about 2 k c: every segment's own bend says what k is.
"""

from dataclasses import dataclass

import numpy as np

from alberti.geometry.line_segments import to_gray
from alberti.geometry.segment_edges import edge_places

_USED = 150
"""The longest segments tell most: what a bend says grows with the square of the length."""
_PIXELS = 0.15
"""Standard deviation of an edge's place across it. Edges that are curved in the world lie far outside (Cauchy's tails)."""
_SHORTEST = 0.06
"""Of the half diagonal: shorter segments have no bend to measure."""
_GRID = np.linspace(-0.6, 0.2, 9)
_FEWEST = 8
_SURE = 4.0
"""Standard deviations from zero before a distortion is believed."""
_SMALLEST = 0.03
"""A smaller one is left alone: cameras that are sold as free of it have as much."""
_MOST = 0.08
"""Stronger pincushions than any lens has are arches and curved walls."""
_STRONG = 0.25
_DARK = 20
"""Of 255: the unlit border of a circular fisheye."""


@dataclass(frozen=True)
class Distortion:
    """How much a picture is distorted."""

    k: float
    """Of the division model, in half diagonals; 0 where no distortion is sure."""
    measured: float | None
    """The estimate whether sure or not; None with too few long segments."""
    spread: float | None
    """Its standard deviation."""


def estimate_distortion(image: np.ndarray, segments: np.ndarray) -> Distortion:
    """The lens distortion that makes a picture's edges straightest.

    Args:
        image: (H, W) or (H, W, 3) uint8 (RGB) or floats in [0, 1].
        segments: (N, 4) of this picture, in pixels.

    Raises:
        DataError: the array is not a picture.
    """
    gray = to_gray(image)
    height, width = gray.shape
    half = 0.5 * float(np.hypot(width, height))
    length = np.hypot(segments[:, 2] - segments[:, 0], segments[:, 3] - segments[:, 1])
    used = segments[np.argsort(-length, kind="stable")[:_USED]]
    used = used[np.hypot(used[:, 2] - used[:, 0], used[:, 3] - used[:, 1]) > _SHORTEST * half]
    if len(used) < _FEWEST:
        return Distortion(0.0, None, None)
    where, offset, weight, normal = edge_places(gray, used)
    places = used[:, None, :2] + where[:, None] * (used[:, None, 2:] - used[:, None, :2]) + offset[:, :, None] * normal[:, None]
    clear = (weight > 0).sum(axis=1) >= 0.75 * len(where)
    if clear.sum() < _FEWEST:
        return Distortion(0.0, None, None)
    places = (places[clear] - _middle(width, height)) / half
    seen = (weight[clear] > 0).astype(np.float64)
    k, spread = _straightest(places, seen, _PIXELS / half)
    sure = abs(k) > max(_SURE * spread, _SMALLEST) and k < _MOST
    return Distortion(k if sure else 0.0, k, spread)


def straighten(segments: np.ndarray, width: int, height: int, k: float) -> np.ndarray:
    """(N, 4) segments where they would be without the distortion ``k``; the picture's middle stays.

    A segment of a bent edge runs along its middle part: that part's place and direction are carried over.
    """
    centre, half = _middle(width, height), 0.5 * float(np.hypot(width, height))
    middle = ((segments[:, :2] + segments[:, 2:]) / 2 - centre) / half
    along = (segments[:, 2:] - segments[:, :2]) / half
    scale = _scale((middle**2).sum(axis=1), k)[:, None]
    # d (p s) = s dp + p ds, s = 1 / (1 + k r^2), ds = -2 k s^2 p . dp
    moved = scale * along - 2 * k * scale**2 * (middle * along).sum(axis=1, keepdims=True) * middle
    middle = middle * scale
    return np.concatenate([middle - moved / 2, middle + moved / 2], axis=1) * half + np.tile(centre, 2)


def unusual_projection(image: np.ndarray, k: float = 0.0) -> str | None:
    """Why the picture is no pinhole camera's, in a sentence: a full panorama or a fisheye; None where nothing says so.

    Args:
        k: the picture's distortion, as :func:`estimate_distortion` gives it.
    """
    gray = to_gray(image).astype(np.float64)
    if _is_panorama(gray):
        return "looks like an equirectangular panorama (2:1, its sides continue each other): straight edges are curves in it"
    if _is_circular(gray):
        return "looks like a circular fisheye (a lit circle with a black surround): straight edges are curves in it"
    if abs(k) > _STRONG:
        return f"strongly curved edges (division model k = {k:.2f}), as of a fisheye: points far from its middle are rough"
    return None


def _is_panorama(gray: np.ndarray) -> bool:
    height, width = gray.shape
    if height < 16 or abs(width / height - 2) > 0.02:
        return False
    steps = np.abs(np.diff(gray, axis=1)).mean()
    apart = np.abs(gray[:, : width // 2] - gray[:, width // 2 : 2 * (width // 2)]).mean()
    seam = np.abs(gray[:, 0] - gray[:, -1]).mean()
    return bool(apart > 4 * max(steps, 1.0) and seam < 2 * steps + 1)


def _is_circular(gray: np.ndarray) -> bool:
    height, width = gray.shape
    y, x = np.ogrid[:height, :width]
    radius = np.hypot(x - (width - 1) / 2, y - (height - 1) / 2) / (min(height, width) / 2)
    outside, inside = gray[radius > 1.08], gray[radius < 0.9]
    if outside.size < 0.02 * gray.size:
        return False
    return bool((outside < _DARK).mean() > 0.97 and (inside < _DARK).mean() < 0.4)


def _middle(width: int, height: int) -> np.ndarray:
    return np.array([(width - 1) / 2, (height - 1) / 2])


def _scale(squared: np.ndarray, k: float) -> np.ndarray:
    """1 / (1 + k r^2), kept finite outside of the model's reach."""
    return 1 / np.maximum(1 + k * squared, 0.05)


def _straightest(places: np.ndarray, seen: np.ndarray, sigma: float) -> tuple[float, float]:
    """k and its standard deviation from (N, P, 2) places on N edges: robust, of all segments' bends together."""
    costs = [np.log1p(_bends(places, seen, k, sigma) ** 2).sum() for k in _GRID]
    k = float(_GRID[int(np.argmin(costs))])
    for _ in range(6):
        bend = _bends(places, seen, k, sigma)
        slope = (_bends(places, seen, k + 1e-3, sigma) - bend) / 1e-3
        weight = 1 / (1 + bend**2)
        step = -float((weight * slope * bend).sum() / ((weight * slope**2).sum() + 1e-9))
        k = float(np.clip(k + np.clip(step, -0.05, 0.05), _GRID[0], _GRID[-1]))
        if abs(step) < 1e-4:
            break
    return k, _spread(places, weight * slope * bend, weight * slope**2)


def _spread(places: np.ndarray, pulls: np.ndarray, information: np.ndarray) -> float:
    """Standard deviation of the estimate: a jackknife over the sides of the picture that the edges lie on.

    A lens bends edges on all sides outwards or all inwards. An arch or a curved wall bends those of one side: without that
    side the estimate is another one, however many segments agree there.
    """
    middle = places.mean(axis=1)
    along = places[:, -1] - places[:, 0]
    distance = middle[:, 0] * -along[:, 1] + middle[:, 1] * along[:, 0]
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) * np.sign(distance)[:, None]
    flat = np.abs(normal[:, 1]) > np.abs(normal[:, 0])
    side = np.where(flat, np.where(normal[:, 1] > 0, 0, 1), np.where(normal[:, 0] > 0, 2, 3))
    pull, weight = np.bincount(side, pulls, 4), np.bincount(side, information, 4)
    if (weight > 0.02 * weight.sum()).sum() < 2:
        return np.inf
    shifts = (pull.sum() - pull) / np.maximum(weight.sum() - weight, 1e-9)
    return float(np.sqrt(0.75 * (shifts**2).sum() + 1 / weight.sum()))


def _bends(places: np.ndarray, seen: np.ndarray, k: float, sigma: float) -> np.ndarray:
    """(N,) the bend of each edge with the distortion k taken out, in standard deviations: 0 for straight ones."""
    points = places * _scale((places**2).sum(axis=2), k)[:, :, None]
    first, last = points[:, 0], points[:, -1]
    along = last - first
    length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)
    unit = along / length[:, None]
    away = points - (first + last)[:, None] / 2
    x = (away * unit[:, None]).sum(axis=2) / length[:, None]
    y = away[:, :, 1] * unit[:, None, 0] - away[:, :, 0] * unit[:, None, 1]
    total = seen.sum(axis=1, keepdims=True)

    def centred(values: np.ndarray) -> np.ndarray:
        return values - (seen * values).sum(axis=1, keepdims=True) / total

    line, arch = centred(x), centred(x * x)
    squared = np.maximum((seen * line**2).sum(axis=1, keepdims=True), 1e-12)
    arch -= (seen * arch * line).sum(axis=1, keepdims=True) / squared * line
    size = np.sqrt(np.maximum((seen * arch**2).sum(axis=1), 1e-12))
    return np.asarray((seen * arch * y).sum(axis=1) / (size * sigma))
