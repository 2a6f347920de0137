"""How well a picture obeys given vanishing points: which share of its line length points at one of them."""

from collections.abc import Sequence

import numpy as np

from alberti.errors import DataError
from alberti.geometry.camera import Camera, vanishing_points_to_directions
from alberti.geometry.line_segments import detect_line_segments
from alberti.geometry.presence import present
from alberti.geometry.vanishing_points import segment_angles


def perspective_consistency(
    image: np.ndarray,
    vanishing_points: np.ndarray,
    thresholds: Sequence[float] = (2.0, 5.0),
    *,
    min_length: float | None = None,
) -> dict[str, float | int | None]:
    """Share of the detected line length whose segment points at a vanishing point.

    A segment counts at t degrees if, at its midpoint, its direction and that to any of the points differ by at most t.

    Args:
        image: (H, W) or (H, W, 3), uint8 or floats in [0, 1].
        vanishing_points: (K, 3) homogeneous pixels, w = 0 allowed; rows of zeros are absent.
        thresholds: angles in degrees.
        min_length: as in :func:`alberti.geometry.line_segments.detect_line_segments`.

    Returns:
        ``consistency_<t>`` for each threshold: a share in [0, 1]; None where the picture has no line or no vanishing
        point was given. ``line_length``: total detected length in pixels, the figure to read the share with: a picture
        without edges has little to be wrong about. ``line_length_per_megapixel``: the same by the picture's area.
        ``segments``: their number.
    """
    segments = detect_line_segments(image, min_length=min_length)
    height, width = np.asarray(image).shape[:2]
    return segments_consistency(segments, vanishing_points, width, height, thresholds)


def segments_consistency(
    segments: np.ndarray,
    vanishing_points: np.ndarray,
    width: int,
    height: int,
    thresholds: Sequence[float] = (2.0, 5.0),
) -> dict[str, float | int | None]:
    """:func:`perspective_consistency` from (N, 4) segments that are already there."""
    points = np.asarray(vanishing_points, dtype=np.float64).reshape(-1, 3)
    if not np.isfinite(points).all():
        raise DataError("vanishing_points: expected finite homogeneous points, got NaN or infinity")
    points = points[present(points)]
    lengths = np.hypot(segments[:, 2] - segments[:, 0], segments[:, 3] - segments[:, 1])
    total = float(lengths.sum())
    result: dict[str, float | int | None] = {}
    if total > 0 and len(points):
        nearest = segment_angles(segments, points).min(axis=1)
        for threshold in thresholds:
            result[f"consistency_{threshold:g}"] = float(lengths[nearest <= threshold].sum()) / total
    else:
        result.update({f"consistency_{threshold:g}": None for threshold in thresholds})
    result["line_length"] = total
    result["line_length_per_megapixel"] = total / (width * height / 1e6)
    result["segments"] = len(segments)
    return result


def surface_consistency(
    segments: np.ndarray, vanishing_points: np.ndarray, surfaces: np.ndarray, thresholds: Sequence[float] = (2.0, 5.0)
) -> dict[str, float | None]:
    """Share of the line length on built surfaces that points at a vanishing point which its own surface contains.

    Stricter than :func:`perspective_consistency`: an upright line painted on the road points at the vertical vanishing
    point, but nothing on a road does. A segment belongs to the surface at its midpoint; those on pixels whose surface
    contains no point (trees, slanting roofs, sky) do not count.

    Args:
        segments: (N, 4) pixels. vanishing_points: (K, 3) homogeneous pixels.
        surfaces: (K, H, W) bool, see :func:`alberti.geometry.surfaces.points_on_surfaces`.
        thresholds: angles in degrees.

    Returns:
        ``surface_consistency_<t>`` for each threshold, None where no line lies on a built surface; ``surface_line_length``
        in pixels, of those that count.
    """
    height, width = surfaces.shape[1:]
    middle = np.rint((segments[:, :2] + segments[:, 2:]) / 2).astype(int)
    inside = surfaces[:, middle[:, 1].clip(0, height - 1), middle[:, 0].clip(0, width - 1)].T
    lengths = np.hypot(segments[:, 2] - segments[:, 0], segments[:, 3] - segments[:, 1]) * inside.any(axis=1)
    angles = np.where(inside, segment_angles(segments, vanishing_points), np.inf).min(axis=1, initial=np.inf)
    total = float(lengths.sum())
    result: dict[str, float | None] = {
        f"surface_consistency_{threshold:g}": float(lengths[angles <= threshold].sum()) / total if total > 0 else None
        for threshold in thresholds
    }
    return {**result, "surface_line_length": total}


def level_line_length(segments: np.ndarray, vanishing_points: np.ndarray, camera: Camera, threshold: float = 2.0) -> float:
    """Length of the lines that recede: those within ``threshold`` degrees of a vanishing point that is not the upright one.

    Upright lines stay nearly parallel in a level picture. Those of walls and roads that run away from the camera show
    perspective, are harder to draw, and are fewer, so that a share of all lines hardly tells of them.

    Args:
        segments: (N, 4) pixels. vanishing_points: (K, 3) homogeneous pixels; a direction counts as upright if it is nearer to
            the camera's y axis than 45 degrees.

    Returns:
        Pixels.
    """
    points = np.asarray(vanishing_points, dtype=np.float64).reshape(-1, 3)
    points = points[present(points)]
    if not len(points) or not len(segments):
        return 0.0
    angles = segment_angles(segments, points)
    upright = np.abs(vanishing_points_to_directions(points, camera)[:, 1]) > np.sqrt(0.5)
    counts = (angles.min(axis=1) <= threshold) & ~upright[angles.argmin(axis=1)]
    return float(np.hypot(segments[:, 2] - segments[:, 0], segments[:, 3] - segments[:, 1])[counts].sum())


def angular_accuracy(errors: Sequence[float] | np.ndarray, limit: float) -> float:
    """Area under the curve "share of errors below x" for x from 0 to ``limit``, divided by ``limit`` (AUC@limit)."""
    values = np.asarray(errors, dtype=np.float64)
    if values.size == 0:
        raise DataError("errors: expected at least one")
    return float(np.clip(1 - values / limit, 0, None).mean())
