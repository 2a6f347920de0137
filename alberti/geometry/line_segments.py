"""Straight line segments in pictures: detection, merging of collinear pieces, filtering.

A segment is (x1, y1, x2, y2) in pixels, the centre of the first pixel at (0, 0). Segments come longest first.
"""

import cv2
import numpy as np

from alberti.errors import DataError
from alberti.geometry.segment_edges import Edges, move_onto_edges

_LSD_SIZE = 305.0
"""Root area in pixels at which LSD looks at a picture, between its own size and 0.55 of it. Its Gaussian pre-filter works
against noise and the staircase of aliased edges (Grompone von Gioi et al. 2012 take 0.8 throughout). On York Urban
0.55 finds vanishing points as well as 0.8, in half the time; small pictures have no pixel to spare."""
_MERGE_ANGLE = np.radians(3.0)
_MERGE_OFFSET = 1.0
"""Pixels that a piece's ends may lie off the line of the other."""
_MERGE_GAP, _MERGE_OVERLAP = 0.5, 0.25
"""Of the shorter piece's length."""


def default_min_length(width: int, height: int) -> float:
    """The shortest segment worth keeping in a picture of this size, in pixels: 2 % of its root area, at least 8."""
    return max(8.0, 0.02 * float(np.sqrt(width * height)))


def detect_line_segments(
    image: np.ndarray, *, min_length: float | None = None, merge: bool = True, max_side: int = 2048
) -> np.ndarray:
    """Detect straight edges with OpenCV's LSD, and fit them to the edges again (:mod:`alberti.geometry.segment_edges`).

    Exact to a few hundredths of a pixel.

    Args:
        image: (H, W) or (H, W, 3) uint8 (RGB) or floats in [0, 1].
        min_length: shorter segments are dropped, in pixels; None: :func:`default_min_length`.
        merge: join collinear pieces of one edge (:func:`merge_line_segments`).
        max_side: a larger picture is searched shrunk to this longer side; segments are in the original's pixels.

    Returns:
        (N, 4) float64 x1, y1, x2, y2, longest first; (0, 4) where there is nothing.

    Raises:
        DataError: the array is not a picture.
    """
    return detect_segments_and_edges(image, min_length=min_length, merge=merge, max_side=max_side)[0]


def detect_segments_and_edges(
    image: np.ndarray, *, min_length: float | None = None, merge: bool = True, max_side: int = 2048
) -> tuple[np.ndarray, Edges]:
    """The same, and the edges that the longer segments were fitted to: their bends are the lens distortion."""
    gray = to_gray(image)
    height, width = gray.shape
    if min_length is None:
        min_length = default_min_length(width, height)
    if min(height, width) < 4:
        return np.zeros((0, 4)), Edges.none()
    shrunk, ratio = _shrink(gray, max_side)
    segments = _lsd(shrunk)
    shortest = min_length if ratio is None else min_length / float(ratio.max())
    if merge:
        segments = merge_line_segments(segments[_lengths(segments) >= 0.5 * shortest])
    segments, edges = move_onto_edges(shrunk, segments[_lengths(segments) >= 0.9 * shortest])
    if ratio is not None:
        segments = (segments + 0.5) * ratio - 0.5
        edges = Edges((edges.places + 0.5) * ratio[:2] - 0.5, edges.seen)
    lengths = _lengths(segments)
    order = np.argsort(-lengths, kind="stable")
    return segments[order[lengths[order] >= min_length]], edges


def to_gray(image: np.ndarray) -> np.ndarray:
    """(H, W) uint8 luma (ITU-R 601) of a gray or RGB picture, uint8 or floats in [0, 1]."""
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.size == 0 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise DataError(f"image: expected (H, W) or (H, W, 3), got shape {image.shape}")
    if image.dtype != np.uint8:
        if not np.issubdtype(image.dtype, np.floating):
            raise DataError(f"image: expected uint8 or floats in [0, 1], got {image.dtype}")
        if not np.isfinite(image).all():
            raise DataError("image: contains NaN or infinity")
        if image.max() > 2:  # beyond 1 by a little: interpolation overshoots
            raise DataError(f"image: floats up to {image.max():g}, expected [0, 1]; divide by the full scale, or give uint8")
        image = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return image if image.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)


def _shrink(gray: np.ndarray, max_side: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The picture at most ``max_side`` long, and the factors (4,) that bring its (x + 0.5) back."""
    height, width = gray.shape
    if max(height, width) <= max_side:
        return gray, None
    scale = max_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shrunk = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    return shrunk, np.array([width / size[0], height / size[1]] * 2)


def _lsd(gray: np.ndarray) -> np.ndarray:
    scale = float(np.clip(_LSD_SIZE / np.sqrt(gray.size), 0.55, 1.0))
    detector = cv2.createLineSegmentDetector(refine=cv2.LSD_REFINE_STD, scale=scale)
    found = detector.detect(np.ascontiguousarray(gray))[0]
    if found is None or len(found) == 0:
        return np.zeros((0, 4))
    # OpenCV 4 returns (N, 1, 4), OpenCV 5 (N, 4). LSD divides by its scale without the half pixel.
    return np.asarray(found, dtype=np.float64).reshape(-1, 4) + (0.5 / scale - 0.5)


def _lengths(segments: np.ndarray) -> np.ndarray:
    return np.hypot(segments[:, 2] - segments[:, 0], segments[:, 3] - segments[:, 1])


def merge_line_segments(segments: np.ndarray) -> np.ndarray:
    """Join pieces of one straight edge: same direction and side of the edge, in line to a pixel, with a short gap.

    Args:
        segments: (N, 4). LSD orients a segment by the side on which the picture is darker, so that the two edges of
            a thin bar never merge.

    Returns:
        (M, 4), M <= N, longest first. A merged segment is the least-squares line of its pieces' end points, weighted
        by length; pieces that such a line would miss by over a pixel stay apart.
    """
    segments = np.asarray(segments, dtype=np.float64).reshape(-1, 4)
    segments = segments[np.argsort(-_lengths(segments), kind="stable")]
    new = np.ones(len(segments), dtype=bool)
    for _ in range(2):
        segments, new = _merge_once(segments, new)
        order = np.argsort(-_lengths(segments), kind="stable")
        segments, new = segments[order], new[order]
        if not new.any():
            break
    return segments


def _merge_once(segments: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give every segment to the longest one that it continues, if one of them is new, and fit each group anew.

    Returns:
        The segments, and which of them are new.
    """
    owner = np.arange(len(segments))
    leads = np.zeros(len(segments), dtype=bool)
    for leader, member in zip(*(index.tolist() for index in _continuations(segments, new)), strict=True):
        if owner[leader] == leader and owner[member] == member and not leads[member]:
            owner[member] = leader
            leads[leader] = True
    grouped = leads[owner]
    if not grouped.any():
        return segments, grouped
    fitted, straight = _fit_groups(segments, owner)
    keep = ~(grouped & straight[owner])
    merged = fitted[leads & straight]
    return np.concatenate([segments[keep], merged]), np.arange(keep.sum() + len(merged)) >= keep.sum()


def _continuations(segments: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (i, j), i < j, in order: the shorter j lies on the line of i with a gap under half of j's length; one is new."""
    length = _lengths(segments)
    unit = (segments[:, 2:] - segments[:, :2]) / np.maximum(length, 1e-9)[:, None]
    first, second = _similar_angles(np.arctan2(unit[:, 1], unit[:, 0]))
    either = new[first] | new[second]
    first, second = first[either], second[either]
    # The middle first: it settles most pairs, and the ends cost twice.
    middle = segments[:, :2] + segments[:, 2:]
    across = np.stack([-unit[:, 1], unit[:, 0]], axis=1)
    near = np.abs(((middle[second] - middle[first]) * across[first]).sum(axis=1)) < 4 * _MERGE_OFFSET
    first, second = first[near], second[near]
    from_start, from_end = segments[second, :2] - segments[first, :2], segments[second, 2:] - segments[first, :2]
    offset = np.maximum(*(np.abs((ends * across[first]).sum(axis=1)) for ends in (from_start, from_end)))
    along = np.stack([(ends * unit[first]).sum(axis=1) for ends in (from_start, from_end)])
    gap = np.maximum(along.min(axis=0) - length[first], -along.max(axis=0))
    # The line of i, carried out to the ends of j, is looser the farther they lie.
    reach = np.minimum(1 + np.maximum(gap, 0) / np.maximum(length[first], 1e-9), 2)
    joined = (offset < _MERGE_OFFSET * reach) & (np.abs(gap) < np.where(gap > 0, _MERGE_GAP, _MERGE_OVERLAP) * length[second])
    order = np.lexsort((second[joined], first[joined]))
    return first[joined][order], second[joined][order]


def _similar_angles(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (i, j), i < j, whose angles (radians, full circle) differ by less than the limit for a merge."""
    order = np.argsort(angle, kind="stable")
    ring = np.concatenate([angle[order], angle[order] + 2 * np.pi])
    last = np.searchsorted(ring, angle[order] + _MERGE_ANGLE)
    count = np.maximum(last - np.arange(len(angle)) - 1, 0)
    start = np.repeat(np.arange(len(angle)), count)
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + 1
    one, two = order[start], order[(start + step) % len(angle)]
    return np.minimum(one, two), np.maximum(one, two)


def _fit_groups(segments: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every group of pieces (those with one ``owner``): its segment (N, 4), and whether it meets all ends (N,).

    The line is the principal axis of the ends, weighted by their pieces' lengths.
    """
    count = len(segments)
    group = np.repeat(owner, 2)
    ends = segments.reshape(-1, 2)
    weight = np.repeat(_lengths(segments), 2)
    total = np.maximum(np.bincount(group, weight, count), 1e-9)
    centre = np.stack([np.bincount(group, weight * ends[:, axis], count) / total for axis in (0, 1)], axis=1)
    x, y = (ends - centre[group]).T
    xx, xy, yy = (np.bincount(group, weight * product, count) for product in (x * x, x * y, y * y))
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    unit *= np.where((unit * (segments[:, 2:] - segments[:, :2])).sum(axis=1) < 0, -1, 1)[:, None]
    along = x * unit[group, 0] + y * unit[group, 1]
    low, high, worst = np.full(count, 1e12), np.full(count, -1e12), np.zeros(count)
    np.minimum.at(low, group, along)
    np.maximum.at(high, group, along)
    np.maximum.at(worst, group, np.abs(y * unit[group, 0] - x * unit[group, 1]))
    fitted = np.concatenate([centre + low[:, None] * unit, centre + high[:, None] * unit], axis=1)
    return fitted, worst <= _MERGE_OFFSET
