"""What is measured of one generated picture by its lines: plain files and numbers in, a row out, for any process to do.

Without torch, so that a process that only does this starts in a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alberti.data.manifest import Dataset
from alberti.geometry.camera import Camera
from alberti.geometry.line_segments import detect_line_segments
from alberti.geometry.surfaces import points_on_surfaces
from alberti.geometry.vanishing_points import angles_between_points, estimate_vanishing_points
from alberti.images import read_image
from alberti.metrics.perspective import level_line_length, segments_consistency, surface_consistency

Row = dict[str, float | int | str | None]


@dataclass(frozen=True)
class PictureJob:
    """One picture, and the one that belongs to its depth map where there is one."""

    id: str
    image: Path
    points: np.ndarray
    """(K, 3) homogeneous pixels."""
    camera: Camera | None
    pair: Path | None
    thresholds: tuple[float, ...]
    depth: Dataset | None = None
    """The data set with this one sample, if it has metric depth."""


def find_points(job: tuple[Path, Camera | None]) -> np.ndarray:
    """(K, 3) vanishing points that a picture's own lines meet in."""
    path, camera = job
    image = read_image(path)
    return estimate_vanishing_points(detect_line_segments(image), image.shape[1], image.shape[0], camera=camera).points


def measure_picture(job: PictureJob) -> Row:
    """The row's columns that follow from line segments; see :func:`alberti.metrics.images.evaluate_pictures`."""
    image = read_image(job.image)
    height, width = image.shape[:2]
    segments = detect_line_segments(image)
    row: Row = {"id": job.id}
    lines = segments_consistency(segments, job.points, width, height, job.thresholds)
    row.update({key: lines[key] for key in lines if key != "line_length_per_megapixel"})
    row["level_line_length"] = None if job.camera is None else level_line_length(segments, job.points, job.camera)
    row.update(_on_surfaces(job, segments))
    row.update(_point_errors(job.points, segments, width, height, job.camera))
    row["perspective_loss"] = None
    row.update(_pair_lines(job))
    return row


def _on_surfaces(job: PictureJob, segments: np.ndarray) -> Mapping[str, float | None]:
    if job.depth is None or job.camera is None:
        columns = [f"surface_consistency_{threshold:g}" for threshold in job.thresholds] + ["surface_line_length"]
        return dict.fromkeys(columns)
    surfaces = points_on_surfaces(job.depth.read_depth(job.depth[0]), job.points, job.camera)
    return surface_consistency(segments, job.points, surfaces, job.thresholds)


def _point_errors(
    points: np.ndarray, segments: np.ndarray, width: int, height: int, camera: Camera | None
) -> Mapping[str, float | None]:
    if camera is None or len(points) == 0:
        return {"vp_error": None, "vp_auc_10": None}
    estimated = estimate_vanishing_points(segments, width, height, camera=camera).points
    if len(estimated) == 0:
        return {"vp_error": None, "vp_auc_10": 0.0}
    errors = angles_between_points(points, estimated, camera).min(axis=1)
    return {"vp_error": float(errors.mean()), "vp_auc_10": float(np.clip(1 - errors / 10, 0, None).mean())}


def _pair_lines(job: PictureJob) -> Mapping[str, float | int | None]:
    columns = [f"consistency_{threshold:g}" for threshold in job.thresholds] + ["line_length"]
    if job.pair is None:
        return {f"reference_{column}": None for column in columns}
    image = read_image(job.pair)
    lines = segments_consistency(detect_line_segments(image), job.points, image.shape[1], image.shape[0], job.thresholds)
    return {f"reference_{column}": lines[column] for column in columns}
