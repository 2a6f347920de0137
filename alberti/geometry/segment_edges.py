"""Line segments moved onto the edges that they lie on, to a fraction of a pixel.

LSD draws a segment along the middle of a region of pixels whose gradients agree, in a picture that it has shrunk. Here the
edge is measured again in the picture itself: across the segment, at places along it, the brightness falls or rises most
steeply where the edge is, and a line is fitted to those places.
"""

from dataclasses import dataclass

import cv2
import numpy as np

_PLACES = 24
"""Across so many places along a segment its edge is sought."""
_MARGIN = 0.05
"""Of the length is left out at either end, where other edges meet this one."""
_REACH = 2
"""Pixels to either side."""
_SMOOTHING = 1.0
"""Standard deviation in pixels of the Gaussian that goes over the picture first."""
_SHORTEST = 20.0
"""Pixels: along shorter segments the edge's steps from pixel to pixel turn a fit more than LSD errs."""
_FLOOR = 0.05
"""Pixels that places may lie off an exact line before the fit counts them for less."""
_ANOTHER = 1.0
"""Pixels: a place so far off the line is on another edge, for who asks how this one bends."""


@dataclass(frozen=True)
class Edges:
    """Where the edges of N segments are, at P places along each of them."""

    places: np.ndarray
    """(N, P, 2) pixels."""
    seen: np.ndarray
    """(N, P) whether an edge is there."""

    @classmethod
    def none(cls) -> "Edges":
        """Of no segments."""
        return cls(np.zeros((0, _PLACES, 2)), np.zeros((0, _PLACES), dtype=bool))

    @property
    def lengths(self) -> np.ndarray:
        """(N,) pixels from the first place to the last."""
        span = self.places[:, -1] - self.places[:, 0]
        return np.asarray(np.hypot(span[:, 0], span[:, 1]))


def move_onto_edges(gray: np.ndarray, segments: np.ndarray) -> tuple[np.ndarray, Edges]:
    """Fit every segment to the steepest places across it, robustly.

    Args:
        gray: (H, W) uint8.
        segments: (N, 4) pixels.

    Returns:
        (N, 4) in the same order. A segment keeps its ends along its own direction; they move across it, by at most two
        pixels. Segments under 20 pixels stay as they are, and those of which less than half of the places show an edge.
        And the edges of those that are longer, in the same order.
    """
    long = np.hypot(segments[:, 2] - segments[:, 0], segments[:, 3] - segments[:, 1]) >= _SHORTEST
    if not long.any():
        return segments, Edges.none()
    first, along = segments[long, :2], segments[long, 2:] - segments[long, :2]
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.hypot(along[:, 0], along[:, 1])[:, None]
    where = _MARGIN + (1 - 2 * _MARGIN) * (np.arange(_PLACES) + 0.5) / _PLACES
    smooth = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), _SMOOTHING)
    offset, weight = _steepest(_across(smooth, first, along, normal, where))
    start, end, fitted, rest = _robust_lines(where, offset, weight)
    fitted &= np.maximum(np.abs(start), np.abs(end)) <= _REACH
    start, end = np.where(fitted, start, 0.0), np.where(fitted, end, 0.0)
    moved = segments.copy()
    moved[long] += np.concatenate([start[:, None] * normal, end[:, None] * normal], axis=1)
    places = first[:, None] + where[:, None] * along[:, None] + offset[:, :, None] * normal[:, None]
    return moved, Edges(places, (weight > 0) & (rest < _ANOTHER))


def _across(image: np.ndarray, first: np.ndarray, along: np.ndarray, normal: np.ndarray, where: np.ndarray) -> np.ndarray:
    """(N, P, 2 R + 1) slopes across N segments at P places: differences of brightness a pixel apart."""
    steps = np.arange(2 * _REACH + 2, dtype=np.float32) - (_REACH + 0.5)
    base = first[:, None] + where[:, None] * along[:, None]
    places = base.astype(np.float32)[:, :, None] + steps[:, None] * normal.astype(np.float32)[:, None, None]
    rows = places.reshape(-1, len(steps), 2)
    # Maps of OpenCV have at most 32767 rows.
    parts = [
        cv2.remap(image, part, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        for part in (rows[start : start + 32000] for start in range(0, len(rows), 32000))
    ]
    values = np.concatenate(parts).reshape(len(first), len(where), len(steps))
    return np.asarray(np.diff(values, axis=2))


def _steepest(slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (N, P) in pixels of the steepest place, and their weights: zero where the slope has no peak."""
    sign = np.where(slopes[:, :, 1:-1].sum(axis=(1, 2)) < 0, -1, 1)  # an edge has one darker side
    slopes = slopes * sign[:, None, None]
    peak = slopes[:, :, 1:-1].argmax(axis=2) + 1
    place = np.arange(0, slopes.size, slopes.shape[2]).reshape(peak.shape) + peak
    left, top, right = (slopes.ravel()[place + k] for k in (-1, 0, 1))
    bend = left - 2 * top + right
    shift = 0.5 * (left - right) / np.where(bend < 0, bend, 1)
    seen = (top > 0) & (bend < 0) & (np.abs(shift) <= 1)
    usual = np.median(top, axis=1, keepdims=True)
    return peak - _REACH + shift, np.where(seen, np.minimum(top, usual), 0.0)


def _robust_lines(where: np.ndarray, offset: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, ...]:
    """Offsets (N,) of N fitted lines at both ends of their segments, whether there was enough to fit, distances (N, P).

    Least squares, reweighted (Cauchy) with the scale of each segment's own deviations.
    """
    x = where - 0.5
    used = weight
    for _ in range(3):
        total = used.sum(axis=1) + 1e-9
        mean_x, mean_y = used @ x / total, (used * offset).sum(axis=1) / total
        spread = used @ x**2 / total - mean_x**2
        slope = ((used * offset) @ x / total - mean_x * mean_y) / np.maximum(spread, 1e-6)
        level = mean_y - slope * mean_x
        rest = np.abs(offset - level[:, None] - slope[:, None] * x)
        scale = np.maximum(1.5 * np.median(rest, axis=1, keepdims=True), _FLOOR)
        used = weight / (1 + (rest / scale) ** 2)
    enough = ((weight > 0).sum(axis=1) >= 0.5 * len(where)) & (spread > 0.01)
    return level - 0.5 * slope, level + 0.5 * slope, enough, rest
