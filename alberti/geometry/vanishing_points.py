"""Vanishing points of a picture from its line segments, with or without known intrinsics.

A point is homogeneous pixels (x, y, w) of unit norm, w = 0 for a direction parallel to the image plane; segments are
(x1, y1, x2, y2) in pixels. "No structure here" is an answer: no points.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from alberti.errors import DataError
from alberti.geometry.camera import Camera, vanishing_points_to_directions
from alberti.geometry.manhattan import FocalPrior, Triad, find_candidates_twice, find_triad
from alberti.geometry.point_tests import FoundPoint, check_triad, check_upright, further_points, lone_point
from alberti.geometry.segment_likelihood import Frame, SegmentModel
from alberti.geometry.upright import DOWN, Upright, find_upright

_ASSIGN_DEGREES = 2.0
_TRUSTED_LENGTH = 0.035
"""Of the picture's root area."""
_ENOUGH = 80
_FOCAL_KNOWN = 0.1
"""A focal length is given out if the standard deviation of its logarithm is below this."""
_SHOW_FOCAL = 3
"""Points that must stand the test before a focal length is given out: two leave it to a third that did not."""
_GIVEN = 1e-3
"""The same of a focal length that is given."""
_STRAIGHT_DOWN = 1e-6
"""Radians from the upright direction: the horizon of a camera that looks along it is no line of the picture."""
_FAR_OUT = 1000
"""Longer sides from the picture: segments that lie as far away are another picture's, or in another unit."""


@dataclass(frozen=True)
class VanishingPointEstimate:
    """What :func:`estimate_vanishing_points` found; K = 0 where the segments show no common direction."""

    points: np.ndarray
    """(K, 3) homogeneous pixels, unit norm, most trusted first."""
    confidence: np.ndarray
    """(K,) in [0, 1]: the share of points with this value that lie within 2 degrees of a true one."""
    inlier_share: np.ndarray
    """(K,) share of the total segment length that belongs to each point."""
    assignment: np.ndarray
    """(N,) index of the point that each segment belongs to, -1 for none."""
    focal: float | None
    """Focal length in pixels (fx): the camera's, or the estimate where the points show one."""
    focal_spread: float | None
    """Standard deviation of the focal length's logarithm (0 for a given camera); None without a focal length."""
    horizon: tuple[float, float, float] | None
    """a x + b y + c = 0 in pixels, a^2 + b^2 = 1, b >= 0; None where it is not known, or at infinity."""
    roll: float | None
    """Degrees that the horizon falls to the right (y down); None without a horizon."""
    pitch: float | None
    """Degrees that the camera looks above the horizon."""


def segment_angles(segments: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Angles at the segments' midpoints between the segments and the directions to vanishing points.

    Args:
        segments: (N, 4) pixels.
        points: (K, 3) homogeneous pixels, infinite points included.

    Returns:
        (N, K) degrees in [0, 90].
    """
    segments = np.asarray(segments, dtype=np.float64).reshape(-1, 4)
    points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    along = segments[:, 2:] - segments[:, :2]
    middle = (segments[:, 2:] + segments[:, :2]) / 2
    towards = points[None, :, :2] - points[None, :, 2:] * middle[:, None]
    cross = along[:, None, 0] * towards[..., 1] - along[:, None, 1] * towards[..., 0]
    dot = (along[:, None] * towards).sum(axis=2)
    return np.degrees(np.arctan2(np.abs(cross), np.abs(dot)))


def angles_between_points(first: np.ndarray, second: np.ndarray, camera: Camera) -> np.ndarray:
    """(K, L) degrees in [0, 90] between the directions of (K, 3) and (L, 3) vanishing points of a camera."""
    one = vanishing_points_to_directions(np.asarray(first, dtype=np.float64).reshape(-1, 3), camera)
    two = vanishing_points_to_directions(np.asarray(second, dtype=np.float64).reshape(-1, 3), camera)
    sine = np.linalg.norm(np.cross(one[:, None], two[None]), axis=2)
    return np.degrees(np.arctan2(sine, np.abs(one @ two.T)))


def estimate_vanishing_points(
    segments: np.ndarray,
    width: int,
    height: int,
    *,
    camera: Camera | None = None,
    principal_point: tuple[float, float] | None = None,
    max_points: int = 6,
) -> VanishingPointEstimate:
    """Vanishing points by maximum likelihood; docs/vanishing_points.md has the method.

    With a camera an orthogonal triad where there is one, then further points. Without one the upright direction and horizontal
    ones at any angle to each other; a right angle between two is used where the segments fit it.

    Args:
        segments: (N, 4) pixels, as :func:`alberti.geometry.line_segments.detect_line_segments` gives them.
        width, height: of the picture.
        camera: known intrinsics, of a crop too, whose principal point may lie outside; None: square pixels, the focal length
            is estimated.
        principal_point: without a camera, its principal point in pixels; None: the middle of the picture.
        max_points: at most so many points.

    Raises:
        DataError: segments of another shape, not finite or of another picture; a ``principal_point`` that is none or
            outside the picture; a camera of another size; a picture without a size.
    """
    if not (width > 0 and height > 0):
        raise DataError(f"picture: expected a width and height above 0, got {width} x {height}")
    segments = _check_segments(segments, width, height)
    if max_points < 1:
        raise DataError(f"max_points: expected at least 1, got {max_points}")
    frame = _frame(width, height, camera, principal_point)
    longest = _longest(segments, width, height)
    model = SegmentModel.from_segments(longest, frame, pixel=max(1.0, max(width, height) / 2048))
    focal = None if camera is None else camera.fx / frame.scale
    prior = FocalPrior.for_size(width, height)
    candidates = find_candidates_twice(model)
    triad, model = find_triad(model, candidates, focal=focal, prior=prior)
    if triad is None:
        return _describe(segments, frame, [], None, focal)
    if focal is None:
        world = find_upright(model, candidates, [triad], prior=prior, free_centre=principal_point is None)
        found, view = _triad_points(model, triad, focal) if world is None else _upright_points(model, world)
    else:
        found, view = _known_camera_points(model, candidates, triad, focal)
    if not found:
        found = lone_point(model, triad)
    if found:
        found = found + further_points(model, found, None if view is None else view.focal, max_points - len(found))
    found.sort(key=lambda point: -point.confidence)
    if view is not None and focal is None and len(found) < _SHOW_FOCAL:
        view = replace(view, log_focal_spread=math.inf)
    return _describe(segments, frame, found[:max_points], view, focal)


def _check_segments(segments: np.ndarray, width: int, height: int) -> np.ndarray:
    try:
        segments = np.asarray(segments, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"segments: expected (N, 4) numbers x1, y1, x2, y2 ({error})") from None
    if segments.size == 0:
        return np.zeros((0, 4))
    if segments.ndim != 2 or segments.shape[1] != 4:
        raise DataError(f"segments: expected (N, 4) x1, y1, x2, y2, got {segments.shape}")
    if not np.isfinite(segments).all():
        raise DataError("segments: contains NaN or infinity")
    if (farthest := float(np.abs(segments).max())) > _FAR_OUT * max(width, height):
        raise DataError(
            f"segments: coordinates up to {farthest:g}, but the picture is {width} x {height}; expected this picture's pixels"
        )
    return segments


def _longest(segments: np.ndarray, width: int, height: int) -> np.ndarray:
    """The segments longest first, without the shortest where others are enough: those lean to the pixel grid."""
    lengths = np.hypot(segments[:, 2] - segments[:, 0], segments[:, 3] - segments[:, 1])
    order = np.argsort(-lengths, kind="stable")[: int((lengths > 0).sum())]  # without a length there is no direction
    enough = int((lengths >= _TRUSTED_LENGTH * math.sqrt(width * height)).sum())
    return segments[order[: max(enough, _ENOUGH)]]


def _frame(width: int, height: int, camera: Camera | None, principal_point: tuple[float, float] | None) -> Frame:
    centre = ((width - 1) / 2, (height - 1) / 2) if principal_point is None else principal_point
    if camera is not None:
        if (camera.width, camera.height) != (width, height):
            raise DataError(f"camera: made for {camera.width} x {camera.height} pixels, but the picture is {width} x {height}")
        centre = (camera.cx, camera.cy)  # of a crop it may lie outside
    else:
        check_principal_point(centre, width, height)
    return Frame(*centre, scale=max(width, height) / 2, aspect=1.0 if camera is None else camera.fx / camera.fy)


def check_principal_point(point: tuple[float, float], width: int, height: int) -> None:
    """DataError unless a principal point that somebody stated lies inside the picture: else it is another picture's."""
    if np.shape(point) != (2,) or not np.issubdtype(np.asarray(point).dtype, np.number):
        raise DataError(f"principal point: expected two numbers (x, y) in pixels, got {point!r}")
    if not (-0.5 <= point[0] <= width - 0.5 and -0.5 <= point[1] <= height - 0.5):
        raise DataError(
            f"principal point ({point[0]:g}, {point[1]:g}): outside the picture of {width} x {height} pixels; "
            "give intrinsics of this very picture, in its pixels"
        )


@dataclass(frozen=True)
class _View:
    """How the camera looks at the world that was found."""

    down: np.ndarray
    """(3,) in camera axes."""
    focal: float
    """In frame units."""
    log_focal_spread: float
    """0 for a given focal length."""
    centre: tuple[float, float] = (0.0, 0.0)
    """The principal point in the frame."""


def _triad_points(model: SegmentModel, triad: Triad, focal: float | None) -> tuple[list[FoundPoint], _View | None]:
    """The points of a triad that stand the test, and the view of it if it does."""
    found, trusted = check_triad(model, triad, focal_known=focal is not None)
    spread = 0.0 if focal is not None else float(np.sqrt(triad.covariance[3, 3]))
    return found, _View(triad.rotation[:, triad.upright], triad.focal, spread) if trusted else None


def _known_camera_points(
    model: SegmentModel, candidates: np.ndarray, triad: Triad, focal: float
) -> tuple[list[FoundPoint], _View | None]:
    """The triad where it explains the picture; where it does not, streets at other angles if they explain it better."""
    found, view = _triad_points(model, triad, focal)
    if view is not None and not further_points(model, found, focal, 1):
        return found, view
    world = find_upright(model, candidates, [triad], prior=FocalPrior(median=focal, sigma=_GIVEN, grid=3))
    if world is None or (world.manhattan and view is not None):
        return found, view
    others, seen = _upright_points(model, world)
    return (others, seen) if seen is not None else (found, view)


def _upright_points(model: SegmentModel, world: Upright) -> tuple[list[FoundPoint], _View | None]:
    """The points of a world seen with an unknown focal length that stand the test, and the view where the horizon is known."""
    found, trusted = check_upright(model, world)
    if not trusted:
        return found, None
    spread = float(np.sqrt(world.covariance[3, 3]))
    return found, _View(world.rotation[:, DOWN], world.focal, spread, world.centre or (0.0, 0.0))


def _describe(
    segments: np.ndarray, frame: Frame, found: list[FoundPoint], view: _View | None, focal: float | None
) -> VanishingPointEstimate:
    points = np.array([point.point for point in found]).reshape(-1, 3)
    pixels = frame.to_pixels(points) if len(points) else points
    assignment = assign_segments(segments, pixels)
    lengths = np.hypot(segments[:, 2] - segments[:, 0], segments[:, 3] - segments[:, 1])
    shares = [float(lengths[assignment == index].sum() / lengths.sum()) for index in range(len(points))]
    spread = 0.0 if focal is not None else None
    if focal is None and view is not None and view.log_focal_spread < _FOCAL_KNOWN:
        focal, spread = view.focal, view.log_focal_spread
    horizon, roll, pitch = _horizon(frame, view)
    return VanishingPointEstimate(
        points=pixels,
        confidence=np.array([point.confidence for point in found]),
        inlier_share=np.array(shares),
        assignment=assignment,
        focal=None if focal is None else float(focal * frame.scale),
        focal_spread=spread,
        horizon=horizon,
        roll=roll,
        pitch=pitch,
    )


def assign_segments(segments: np.ndarray, points: np.ndarray, limit: float = _ASSIGN_DEGREES) -> np.ndarray:
    """(N,) index of the point that each of (N, 4) segments points at best, -1 where none is within ``limit`` degrees."""
    if len(segments) == 0 or len(points) == 0:
        return np.full(len(segments), -1, dtype=np.int64)
    angles = segment_angles(segments, points)
    nearest = angles.argmin(axis=1)
    directed = (segments[:, :2] != segments[:, 2:]).any(axis=1)
    return np.where(directed & (angles.min(axis=1) <= limit), nearest, -1)


def _horizon(frame: Frame, view: _View | None) -> tuple[tuple[float, float, float] | None, float | None, float | None]:
    """Horizon line in pixels, roll and pitch in degrees; of a camera that looks straight down or up the pitch alone."""
    if view is None:
        return None, None, None
    down = view.down if view.down[1] >= 0 else -view.down
    # In the frame the horizon is n . K^-1 u = 0; a pixel is u = (p - centre) (1, aspect) / scale.
    a = down[0] / (view.focal * frame.scale)
    b = down[1] * frame.aspect / (view.focal * frame.scale)
    x, y = view.centre
    c = down[2] - a * (frame.cx + x * frame.scale) - b * (frame.cy + y * frame.scale / frame.aspect)
    pitch = -math.degrees(math.asin(float(np.clip(down[2], -1, 1))))
    if math.hypot(down[0], down[1]) < _STRAIGHT_DOWN:
        return None, None, pitch
    norm = math.hypot(a, b)
    roll = math.degrees(math.atan2(-down[0], down[1]))
    return (float(a / norm), float(b / norm), float(c / norm)), roll, pitch
