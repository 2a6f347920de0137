"""Radial distortion of a lens, measured from edges that ought to be straight; and pictures that no pinhole camera took.

The division model (Fitzgibbon, CVPR 2001, eq. 5) with one parameter k: a pixel at p, measured from the picture's middle in
half its diagonal, belongs at p / (1 + k |p|^2). k < 0 is a barrel (wide lenses), k > 0 a pincushion. A straight line at
distance c from the middle is seen with a curvature of about 2 k c: every segment's own bend says what k is.
"""

from dataclasses import dataclass

import numpy as np

from alberti.geometry.line_segments import to_gray
from alberti.geometry.segment_edges import Edges, move_onto_edges

_USED = 150
"""The longest segments tell most: what a bend says grows with the square of the length."""
_PIXELS = 0.15
"""Standard deviation of an edge's place across it. Edges that are curved in the world lie far outside (Cauchy's tails)."""
_SHORTEST = 0.055
"""Of the half diagonal: shorter edges have no bend to measure."""
_GRID = np.linspace(-0.6, 0.2, 41)
_FEWEST = 8
_SURE = 4.0
"""Standard deviations from zero before a distortion is believed; the stated one is half of the true one."""
_VAGUE = 0.03
"""A larger standard deviation is never sure: few edges, on two sides of the picture."""
SURE_FROM = 0.035
"""A smaller one is not sure: cameras that are sold as free of it have as much."""
_MOST = 0.08
"""Stronger pincushions than any lens has are arches and curved walls."""
_SEEN = 0.75
"""Of the places along an edge that have to show it."""
_USUAL = 0.015
"""Standard deviation of the k of lenses that are sold as straight: what is not sure is drawn towards zero by as much."""
_MOST_LIKELY = 0.03
_LEAST = 0.002
"""A smaller likely one is none: a quarter of a pixel in the corners of 640 x 480, and renders have no lens."""
_STRONG = 0.25
_DARK = 20
"""Of 255: the unlit border of a circular fisheye."""
_SECTORS = 72
"""Directions from the middle in which the lit part's border is looked at."""
_ROUND = 0.05
"""Of the radius: where a circle's border is, and that of a picture turned on black for the most part is not."""


@dataclass(frozen=True)
class Distortion:
    """How much a picture is distorted."""

    k: float
    """Of the division model, in half diagonals; 0 where no distortion is sure."""
    likely: float
    """What is best taken out: ``k`` where it is sure; elsewhere the measured one, drawn towards zero by how unsure it is."""
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
    return distortion_of_edges(move_onto_edges(gray, segments)[1], gray.shape[1], gray.shape[0])


def distortion_of_edges(edges: Edges, width: int, height: int) -> Distortion:
    """The same of edges that were measured with the segments: ``detect_segments_and_edges`` of line_segments."""
    half = 0.5 * float(np.hypot(width, height))
    length = edges.lengths
    longest = np.argsort(-length, kind="stable")[:_USED]
    used = longest[(length[longest] > _SHORTEST * half) & (edges.seen[longest].mean(axis=1) >= _SEEN)]
    if len(used) < _FEWEST:
        return Distortion(0.0, 0.0, None, None)
    k, spread = _straightest((edges.places[used] - _middle(width, height)) / half, edges.seen[used], _PIXELS / half)
    sure = spread < _VAGUE and abs(k) > max(_SURE * spread, SURE_FROM) and k < _MOST
    if sure:
        return Distortion(k, k, k, spread)
    # The mean of what is believed after the measurement, whose stated deviation is half of the true one.
    likely = float(np.clip(k / (1 + (2 * spread / _USUAL) ** 2), -_MOST_LIKELY, _MOST_LIKELY))
    return Distortion(0.0, likely if abs(likely) > _LEAST and k < _MOST else 0.0, k, spread)


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


def bend(points: np.ndarray, width: int, height: int, k: float) -> np.ndarray:
    """(N, 3) homogeneous pixels of the picture without the distortion ``k`` -> (N, 2) where they are seen in the picture.

    NaN where they are not: a pincushion has an end.
    """
    centre, half = _middle(width, height), 0.5 * float(np.hypot(width, height))
    towards, w = (points[:, :2] - points[:, 2:] * centre) / half, points[:, 2]
    # p = q / (1 + k |q|^2): of the two q that solve it, the one that is p where k is 0.
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(w * w - 4 * k * (towards**2).sum(axis=1))
        scale = 2 * np.where(w < 0, -1.0, 1.0) / (np.abs(w) + root)
    return np.asarray(towards * scale[:, None] * half + centre)


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
    return bool((outside < _DARK).mean() > 0.97 and (inside < _DARK).mean() < 0.4 and _is_round(gray >= _DARK))


def _is_round(lit: np.ndarray) -> bool:
    """Whether most of the border of a lit part is on one circle. A picture turned by 30 degrees is lit in a rectangle."""
    y, x = np.nonzero(lit)
    offset = np.stack([x, y], axis=1) - _middle(lit.shape[1], lit.shape[0])
    sector = ((np.arctan2(offset[:, 1], offset[:, 0]) / (2 * np.pi) + 0.5) * _SECTORS).astype(int) % _SECTORS
    radius = np.hypot(offset[:, 0], offset[:, 1])
    order = np.lexsort((radius, sector))
    count = np.bincount(sector, minlength=_SECTORS)
    # Noise is lit here and there outside: the border has a hundredth of its sector's lit pixels beyond it.
    last = (np.cumsum(count) - 1 - count // 100)[count > 0]
    border = offset[order[last]]
    # The circle of least squares: x^2 + y^2 = 2 a x + 2 b y + c.
    system = np.concatenate([2 * border, np.ones((len(border), 1))], axis=1)
    a, b, c = np.linalg.lstsq(system, (border**2).sum(axis=1), rcond=None)[0]
    fitted = np.sqrt(max(c + a * a + b * b, 1e-9))
    distance = np.hypot(border[:, 0] - a, border[:, 1] - b)
    return bool((np.abs(distance / fitted - 1) < _ROUND).mean() > 0.6)


def _middle(width: int, height: int) -> np.ndarray:
    return np.array([(width - 1) / 2, (height - 1) / 2])


def _scale(squared: np.ndarray, k: float) -> np.ndarray:
    """1 / (1 + k r^2), kept finite outside of the model's reach."""
    return 1 / np.maximum(1 + k * squared, 0.05)


def _straightest(places: np.ndarray, seen: np.ndarray, sigma: float) -> tuple[float, float]:
    """k and its standard deviation from (N, P, 2) places on N edges: robust, of all edges' bends together."""
    bends = _Bends.of(places, seen.astype(np.float64), sigma)
    k = float(_GRID[int(np.log1p(bends.at(_GRID[:, None]) ** 2).sum(axis=1).argmin())])
    for _ in range(6):
        bend, slope = bends.at(k), bends.slope(k)
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


@dataclass(frozen=True)
class _Bends:
    """The bends of N edges with a distortion taken out, in standard deviations: 0 for straight ones.

    A straight line n . q + c = 0 of q = p / (1 + k |p|^2) is n . p + c (1 + k |p|^2) = 0 in the picture. Along the edge, s, and
    across it, h, that is h = -c (1 + k r^2) up to terms linear in s. So an edge's bend, its part along an arch that is free
    of linear terms, has to be -c k times that of r^2.
    """

    seen: np.ndarray
    """(N,) bend of the edge in the picture."""
    distance: np.ndarray
    """(N,) mean of h, at the s where the edge passes the middle of the picture."""
    arch: np.ndarray
    """(N,) bend of r^2."""
    radius: np.ndarray
    """(N,) mean of r^2 there: c is -distance / (1 + k radius)."""

    @classmethod
    def of(cls, places: np.ndarray, seen: np.ndarray, sigma: float) -> "_Bends":
        """Of (N, P, 2) places from the middle of the picture, of which some are seen; ``sigma`` in the same unit."""
        along = places[:, -1] - places[:, 0]
        x, y = (along / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]).T[..., None]
        s = places[:, :, 0] * x + places[:, :, 1] * y
        h = places[:, :, 1] * x - places[:, :, 0] * y
        squared = s * s + h * h
        share = seen / seen.sum(axis=1, keepdims=True)
        middle = (share * s).sum(axis=1)
        line = s - middle[:, None]
        moved = share * line
        spread = np.maximum((moved * line).sum(axis=1), 1e-12)
        arch = line * line
        arch -= (share * arch).sum(axis=1, keepdims=True) + ((moved * arch).sum(axis=1) / spread)[:, None] * line
        arch *= seen
        arch /= sigma * np.sqrt(np.maximum((arch * arch).sum(axis=1, keepdims=True), 1e-12))
        across = (share * h).sum(axis=1) - (moved * h).sum(axis=1) / spread * middle
        radius = (share * squared).sum(axis=1) - (moved * squared).sum(axis=1) / spread * middle
        return cls((arch * h).sum(axis=1), across, (arch * squared).sum(axis=1), radius)

    def at(self, k: float | np.ndarray) -> np.ndarray:
        """(..., N) bends with the distortions (..., 1) taken out."""
        return np.asarray(self.seen - self.distance * self.arch * k / np.maximum(1 + k * self.radius, 0.05))

    def slope(self, k: float) -> np.ndarray:
        """(N,) change of the bends with k."""
        return np.asarray(-self.distance * self.arch / np.maximum(1 + k * self.radius, 0.05) ** 2)
