"""Drawing what was found on a picture: segments coloured by vanishing point, the points, the horizon, vanishing lines."""

from collections.abc import Sequence

import cv2
import numpy as np

from alberti.geometry.distortion import bend
from alberti.geometry.presence import present

COLOURS: tuple[tuple[int, int, int], ...] = (
    (230, 70, 60),
    (50, 160, 80),
    (60, 110, 230),
    (240, 170, 30),
    (170, 80, 200),
    (30, 180, 190),
)
"""RGB of the vanishing points, in their order (distinct also in the common kinds of colour blindness by lightness)."""
UNASSIGNED = (150, 150, 150)
HORIZON = (255, 255, 0)
_SHIFT = 4


def draw_segments(
    image: np.ndarray, segments: np.ndarray, assignment: np.ndarray | Sequence[int], *, thickness: int | None = None
) -> np.ndarray:
    """A copy of an (H, W, 3) uint8 picture with (N, 4) segments in the colours of the points that they belong to.

    Args:
        assignment: (N,) index of each segment's vanishing point, -1 for none (gray).
        thickness: in pixels; None: by the picture's size.
    """
    canvas = np.ascontiguousarray(image).copy()
    width = _stroke(canvas) if thickness is None else thickness
    for segment, index in zip(np.asarray(segments).reshape(-1, 4), np.asarray(assignment, dtype=int), strict=True):
        _line(canvas, segment[:2], segment[2:], _colour(index), width)
    return canvas


def draw_horizon(image: np.ndarray, horizon: Sequence[float], *, distortion: float = 0.0) -> np.ndarray:
    """A copy of the picture with the line a x + b y + c = 0, where it crosses the picture.

    Args:
        distortion: k of the division model. Where it is not 0 the line is one of the picture without it, seen bent.
    """
    canvas = np.ascontiguousarray(image).copy()
    if distortion:
        _curve(canvas, np.asarray(horizon, dtype=np.float64), distortion)
        return canvas
    ends = _clip_line(np.asarray(horizon, dtype=np.float64), canvas.shape[1], canvas.shape[0])
    if ends is not None:
        _line(canvas, ends[0], ends[1], HORIZON, _stroke(canvas))
    return canvas


def draw_vanishing_lines(image: np.ndarray, points: np.ndarray, *, count: int = 24) -> np.ndarray:
    """A copy of the picture with ``count`` faint lines through each of (K, 3) vanishing points, at equal angles.

    What should recede to a point runs along its lines: the eye sees where a picture does not.
    """
    canvas = np.ascontiguousarray(image).copy()
    height, width = canvas.shape[:2]
    for index, point in enumerate(np.asarray(points, dtype=np.float64).reshape(-1, 3)):
        if not present(point):
            continue
        for line in _pencil(point, width, height, count):
            ends = _clip_line(line, width, height)
            if ends is not None:
                _line(canvas, ends[0], ends[1], _colour(index), 1)
    return cv2.addWeighted(canvas, 0.55, np.ascontiguousarray(image), 0.45, 0)


def draw_annotation(
    image: np.ndarray,
    segments: np.ndarray,
    assignment: np.ndarray | Sequence[int],
    points: np.ndarray,
    horizon: Sequence[float] | None,
    *,
    distortion: float = 0.0,
) -> np.ndarray:
    """Segments, horizon and those vanishing points that lie in the picture, on a copy of it.

    Args:
        distortion: k of the division model. Where it is not 0, points and horizon are those of the picture without it, and
            are drawn where this picture shows them.
    """
    canvas = draw_segments(image, segments, assignment)
    if horizon is not None:
        canvas = draw_horizon(canvas, horizon, distortion=distortion)
    points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    if distortion:
        seen = bend(points, canvas.shape[1], canvas.shape[0], distortion)
        points = np.where(np.isfinite(seen).all(axis=1)[:, None], np.insert(seen, 2, 1.0, axis=1), [1.0, 0.0, 0.0])
    for index, (x, y, w) in enumerate(points):
        if abs(w) * 4 * max(canvas.shape) <= np.hypot(x, y):
            continue
        place = (round(x / w * 2**_SHIFT), round(y / w * 2**_SHIFT))
        radius = max(3, max(canvas.shape) // 100)
        cv2.circle(canvas, place, radius << _SHIFT, (255, 255, 255), -1, cv2.LINE_AA, _SHIFT)
        cv2.circle(canvas, place, radius << _SHIFT, _colour(index), max(2, radius // 2), cv2.LINE_AA, _SHIFT)
    return canvas


def _colour(index: int) -> tuple[int, int, int]:
    return UNASSIGNED if index < 0 else COLOURS[index % len(COLOURS)]


def _stroke(image: np.ndarray) -> int:
    return max(1, round(max(image.shape[:2]) / 400))


def _line(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, colour: tuple[int, int, int], thickness: int) -> None:
    first, second = (tuple(int(v) for v in np.rint(np.asarray(p) * 2**_SHIFT)) for p in (start, end))
    cv2.line(canvas, first, second, colour, thickness, cv2.LINE_AA, _SHIFT)


def _curve(canvas: np.ndarray, horizon: np.ndarray, distortion: float) -> None:
    """Draw a line of the picture without the distortion where this picture shows it."""
    a, b, c = horizon
    norm = np.hypot(a, b)
    if norm < 1e-12 * abs(c) or norm == 0:
        return
    height, width = canvas.shape[:2]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    a, b, c = a / norm, b / norm, c / norm
    foot = middle - np.array([a, b]) * (a * middle[0] + b * middle[1] + c)
    angles = np.linspace(-np.pi / 2, np.pi / 2, 401)[1:-1]
    along = np.array([-b, a]) * np.hypot(width, height)
    line = foot * np.cos(angles)[:, None] + along * np.sin(angles)[:, None]
    seen = bend(np.concatenate([line, np.cos(angles)[:, None]], axis=1), width, height, distortion)
    near = np.isfinite(seen).all(axis=1) & (np.abs(seen - middle) < 2 * np.array([width, height])).all(axis=1)
    for run in np.split(np.arange(len(near)), np.flatnonzero(~near)):
        places = np.rint(seen[run[near[run]]] * 2**_SHIFT).astype(np.int32)
        if len(places) > 1:
            cv2.polylines(canvas, [places], False, HORIZON, _stroke(canvas), cv2.LINE_AA, _SHIFT)


def _pencil(point: np.ndarray, width: int, height: int, count: int) -> np.ndarray:
    """(count, 3) lines through ``point`` that sweep the picture."""
    x, y, w = point / np.abs(point).max()
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], dtype=np.float64)
    inside = w != 0 and 0 <= x / w < width and 0 <= y / w < height
    if inside:
        angles = np.arange(count) * np.pi / count
        normals = np.stack([-np.sin(angles), np.cos(angles)], axis=1)
        return np.concatenate([normals, -(normals @ [x / w, y / w])[:, None]], axis=1)
    # Lines to equally spaced feet on the diagonal that the point sees widest.
    towards = np.array([x, y]) - w * corners
    angle = np.arctan2(towards[:, 1], towards[:, 0])
    spread = np.abs((angle[:, None] - angle[None] + np.pi / 2) % np.pi - np.pi / 2)
    one, two = np.unravel_index(int(spread.argmax()), spread.shape)
    steps = np.linspace(0, 1, count)[:, None]
    feet = corners[one] * (1 - steps) + corners[two] * steps
    return np.cross(np.concatenate([feet, np.ones((count, 1))], axis=1), np.array([x, y, w]))


def _clip_line(line: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Where a line a x + b y + c = 0 enters and leaves the picture; None where it misses."""
    a, b, c = line
    norm = np.hypot(a, b)
    if norm < 1e-12 * abs(c) or norm == 0:
        return None
    a, b, c = a / norm, b / norm, c / norm
    foot, along = np.array([-a * c, -b * c]), np.array([-b, a])
    low, high = -np.inf, np.inf
    for axis, size in ((0, width), (1, height)):
        if abs(along[axis]) < 1e-12:
            if not -0.5 <= foot[axis] <= size - 0.5:
                return None
            continue
        ends = sorted(((-0.5 - foot[axis]) / along[axis], (size - 0.5 - foot[axis]) / along[axis]))
        low, high = max(low, ends[0]), min(high, ends[1])
    return (foot + low * along, foot + high * along) if low < high else None
