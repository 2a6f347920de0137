"""Straight line segments in pictures: detection, merging of collinear pieces, filtering.

A segment is (x1, y1, x2, y2) in pixels, the centre of the first pixel at (0, 0). Segments come longest first.
"""

import cv2
import numpy as np

from alberti.errors import DataError

_LSD_SCALE = 0.8
"""LSD's own scale for its Gaussian pre-filter: against the staircase of aliased edges (Grompone von Gioi et al. 2012)."""
_SMALL_SIDE = 320
"""Below this the picture is searched at full scale: its short segments would not survive the pre-filter."""
_MERGE_ANGLE = np.radians(1.5)
_MERGE_OFFSET = 1.0
_MERGE_GAP = 0.5
_MAX_MERGE = 1500


def default_min_length(width: int, height: int) -> float:
    """The shortest segment worth keeping in a picture of this size, in pixels: 2.5 % of its root area, at least 8."""
    return max(8.0, 0.025 * float(np.sqrt(width * height)))


def detect_line_segments(
    image: np.ndarray, *, min_length: float | None = None, merge: bool = True, max_side: int = 2048
) -> np.ndarray:
    """Detect straight edges with OpenCV's LSD, to a few hundredths of a pixel.

    Args:
        image: (H, W) or (H, W, 3) uint8 (RGB) or floats in [0, 1].
        min_length: shorter segments are dropped, in pixels; None: :func:`default_min_length`.
        merge: join collinear pieces of one edge (:func:`merge_line_segments`).
        max_side: a larger picture is searched at this size (its longer side); the segments are in the original's pixels.

    Returns:
        (N, 4) float64 x1, y1, x2, y2, longest first; (0, 4) where there is nothing.

    Raises:
        DataError: the array is not a picture.
    """
    gray = to_gray(image)
    height, width = gray.shape
    if min_length is None:
        min_length = default_min_length(width, height)
    if min(height, width) < 4:
        return np.zeros((0, 4))
    shrunk, ratio = _shrink(gray, max_side)
    segments = _lsd(shrunk)
    if ratio is not None:
        segments = (segments + 0.5) * ratio - 0.5
    if merge:
        segments = merge_line_segments(segments[_lengths(segments) >= 0.5 * min_length])
    lengths = _lengths(segments)
    order = np.argsort(-lengths, kind="stable")
    return segments[order[lengths[order] >= min_length]]


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
    scale = 1.0 if min(gray.shape) < _SMALL_SIDE else _LSD_SCALE
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
    for _ in range(3):
        order = np.argsort(-_lengths(segments), kind="stable")
        segments = segments[order]
        merged = _merge_once(segments)
        if len(merged) == len(segments):
            break
        segments = merged
    return segments[np.argsort(-_lengths(segments), kind="stable")]


def _merge_once(segments: np.ndarray) -> np.ndarray:
    """Give every segment to the longest one that it continues, and fit each group anew."""
    first, second = _continuations(segments[:_MAX_MERGE])
    if len(first) == 0:
        return segments
    owner = np.arange(len(segments))
    taken = np.zeros(len(segments), dtype=bool)
    for leader, member in zip(first.tolist(), second.tolist(), strict=True):
        if owner[leader] == leader and owner[member] == member and not taken[member]:
            owner[member] = leader
            taken[leader] = True
    groups = np.flatnonzero(np.bincount(owner, minlength=len(segments)) > 1)
    keep = owner == np.arange(len(segments))
    keep[groups] = False
    fitted = [piece for group in groups for piece in _fit_group(segments[owner == group])]
    return np.concatenate([segments[keep], np.array(fitted).reshape(-1, 4)])


def _continuations(segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (i, j), i < j: the shorter j lies on the line of i with a gap under half of j's length."""
    length = _lengths(segments)
    unit = (segments[:, 2:] - segments[:, :2]) / np.maximum(length, 1e-9)[:, None]
    angle = np.arctan2(unit[:, 1], unit[:, 0])
    difference = np.abs((angle[:, None] - angle[None, :] + np.pi) % (2 * np.pi) - np.pi)
    near = np.triu(difference < _MERGE_ANGLE * 2, 1)
    first, second = np.nonzero(near)
    start = segments[second, :2] - segments[first, :2]
    end = segments[second, 2:] - segments[first, :2]
    direction = unit[first]
    offsets = [np.abs(p[:, 0] * direction[:, 1] - p[:, 1] * direction[:, 0]) for p in (start, end)]
    along = np.stack([(p * direction).sum(1) for p in (start, end)])
    gap = np.maximum(along.min(0) - length[first], -along.max(0))
    # A short piece's own angle is loose: its ends decide, and so does the line of the long one carried out to them.
    reach = 1.0 + np.maximum(gap, 0) / length[first]
    aligned = np.maximum(*offsets) < _MERGE_OFFSET * np.minimum(reach, 2.0)
    joined = aligned & (gap < _MERGE_GAP * length[second]) & (gap > -0.25 * length[second])
    return first[joined], second[joined]


def _fit_group(group: np.ndarray) -> np.ndarray:
    """One segment through all of ``group`` (G, 4), or ``group`` itself where that would miss an end by a pixel."""
    ends = group.reshape(-1, 2)
    weights = np.repeat(_lengths(group), 2)
    centre = weights @ ends / weights.sum()
    moved = ends - centre
    _, vectors = np.linalg.eigh((moved * weights[:, None]).T @ moved)
    direction = vectors[:, 1] * np.sign(vectors[:, 1] @ (group[0, 2:] - group[0, :2]) or 1.0)
    if np.abs(moved @ vectors[:, 0]).max() > _MERGE_OFFSET:
        return group
    along = moved @ direction
    return np.concatenate([centre + along.min() * direction, centre + along.max() * direction])[None]
