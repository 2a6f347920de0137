"""Line segments and vanishing points of many pictures, as JSON lines: folders of photos and data sets alike.

An interrupted run leaves ``<out>.partial``; the same call again goes on behind its last whole row.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from alberti.annotations import read_annotations
from alberti.errors import AlbertiError, ConfigError, DataError
from alberti.files import sha256_json
from alberti.geometry.camera import Camera
from alberti.geometry.distortion import SURE_FROM, distortion_of_edges, straighten, unusual_projection
from alberti.geometry.line_segments import detect_segments_and_edges, to_gray
from alberti.geometry.vanishing_points import angles_between_points, check_principal_point, estimate_vanishing_points
from alberti.image_folder import LeftOut, find_images, image_path, no_pictures
from alberti.images import read_image, write_image
from alberti.metrics.perspective import angular_accuracy
from alberti.outputs import check_output_file, check_output_folder, check_two_outputs
from alberti.overlays import draw_annotation
from alberti.parallel import check_workers, ordered_map
from alberti.partial_file import PartialFile
from alberti.progress import Progress
from alberti.reading import reading

if TYPE_CHECKING:
    from alberti.data.manifest import Dataset

_WIDEST = 0.1
"""Focal length by the longer side. Lenses that draw straight lines straight begin at 0.25."""
_VERSION = 2
"""Of the rows' content: a partial file of another version is not continued."""


@dataclass(frozen=True)
class AnnotationJob:
    """One picture to annotate, with what is known of its camera."""

    name: str
    path: Path
    intrinsics: tuple[float, float, float, float] | None = None
    focal: float | None = None
    principal_point: tuple[float, float] | None = None
    overlay: Path | None = None
    size: tuple[int, int] | None = None
    """(width, height) that the picture must have."""

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class AnnotationCounts:
    """What became of the pictures."""

    images: int
    """Rows written."""
    failed: tuple[str, ...]
    """One message for each file or folder that could not be read (the first hundred)."""
    failures: int
    without_points: int
    resumed: int
    """Rows kept from an interrupted run."""
    left_out: str | None = None
    """A line on pictures and films in formats that are not read here."""


def annotate_image(
    image: np.ndarray, *, camera: Camera | None = None, principal_point: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Segments, vanishing points, horizon and focal length of an (H, W, 3) uint8 picture, as a JSON-able row.

    Keys: ``width height``; ``vanishing_points`` [x, y, w] in homogeneous pixels of unit norm, most trusted first, with a
    ``confidence`` and ``inlier_share`` each; ``line_segments`` [x1, y1, x2, y2, index of the vanishing point or -1];
    ``horizon`` [a, b, c] or None; ``focal`` in pixels, ``roll`` and ``pitch`` in degrees, or None: as in
    :class:`alberti.geometry.vanishing_points.VanishingPointEstimate`.

    ``distortion``: of the lens, the likely one that :func:`alberti.geometry.distortion.estimate_distortion` gives.
    Where it is not 0, points and horizon are those of the picture with the distortion taken out, line segments those of the
    picture as it is. ``warnings``: sentences on what speaks against a pinhole camera (panorama, fisheye).
    """
    gray = to_gray(image)
    height, width = gray.shape
    segments, edges = detect_segments_and_edges(gray)
    bent = distortion_of_edges(edges, width, height).likely
    straight = straighten(segments, width, height, bent) if bent else segments
    found = estimate_vanishing_points(straight, width, height, camera=camera, principal_point=principal_point)
    unusual = unusual_projection(gray, bent)
    lines = np.round(segments, 3).tolist()
    return {
        "width": width,
        "height": height,
        "vanishing_points": found.points.tolist(),
        "confidence": np.round(found.confidence, 4).tolist(),
        "inlier_share": np.round(found.inlier_share, 4).tolist(),
        "line_segments": [[*line, int(index)] for line, index in zip(lines, found.assignment, strict=True)],
        "horizon": None if found.horizon is None else list(found.horizon),
        "focal": found.focal,
        "roll": found.roll,
        "pitch": found.pitch,
        "distortion": round(bent, 4),
        "warnings": [] if unusual is None else [unusual],
    }


def run_job(job: AnnotationJob) -> dict[str, Any]:
    """Annotate one picture of a folder or data set; DataError names its file."""
    cv2.setNumThreads(1)
    image = read_image(job.path)
    height, width = image.shape[:2]
    if job.size is not None and job.size != (width, height):
        raise DataError(f"{job.path}: {width} x {height} pixels, but the manifest says {job.size[0]} x {job.size[1]}")
    try:
        with reading(job.path, "lines of the picture"):  # one odd picture costs its row, never the run
            row = annotate_image(image, camera=_camera(job, width, height), principal_point=job.principal_point)
    except AlbertiError as error:
        raise error if str(job.path) in str(error) else DataError(f"{job.path}: {error}") from error
    if job.overlay is not None:
        segments = np.array(row["line_segments"], dtype=np.float64).reshape(-1, 5)
        points = np.array(row["vanishing_points"], dtype=np.float64).reshape(-1, 3)
        bent = row["distortion"] if abs(row["distortion"]) >= SURE_FROM else 0.0  # less would not be seen
        drawn = draw_annotation(image, segments[:, :4], segments[:, 4].astype(int), points, row["horizon"], distortion=bent)
        write_image(job.overlay, drawn)
    return {"image": job.name, **row}


def _camera(job: AnnotationJob, width: int, height: int) -> Camera | None:
    if job.intrinsics is not None:
        return Camera.from_intrinsics(job.intrinsics, width, height)
    if job.focal is None:
        return None
    if job.focal < _WIDEST * max(width, height):
        angle = 2 * math.degrees(math.atan(0.5 * max(width, height) / job.focal))
        raise DataError(
            f"focal length {job.focal:g} pixels: an angle of view of {angle:.0f} degrees in a picture of {width} x {height}, "
            "which no lens has; if it is in millimetres, multiply it by (longer side in pixels) / (longer side of the sensor)"
        )
    cx, cy = job.principal_point or ((width - 1) / 2, (height - 1) / 2)
    check_principal_point((cx, cy), width, height)
    return Camera(job.focal, job.focal, cx, cy, width, height)


def annotate_folder(
    images: str | Path,
    out: str | Path,
    *,
    focal: float | None = None,
    principal_point: tuple[float, float] | None = None,
    overlays: str | Path | None = None,
    workers: int | None = None,
) -> AnnotationCounts:
    """Annotate every picture below a folder (or one picture) into JSON lines, sorted by folder and name.

    Args:
        focal: focal length in pixels, the same for all; None: estimated.
        principal_point: in pixels; None: each picture's middle.
        overlays: a folder for pictures of what was found, ``<path below images>.png``.
        workers: processes; None: one per core. The result does not depend on it.

    Raises:
        DataError: no such folder, or not one picture in it could be read. One bad file is only counted and reported.
        ConfigError: a focal length or number of workers that is not positive; a place to write that is among the pictures.
    """
    root, out = Path(images), Path(out)
    check_output_file(out, [root], example="annotations.jsonl")
    if overlays is not None:
        check_output_folder(Path(overlays), [root], option="--overlays", around=False)
        check_two_outputs(out, Path(overlays), "--overlays")
    if focal is not None and not (np.isfinite(focal) and focal > 0):
        raise ConfigError(f"focal: expected pixels above 0, got {focal}")
    if principal_point is not None and not np.isfinite(principal_point).all():
        raise ConfigError(f"principal point: expected two finite numbers, got {principal_point}")
    problems: list[str] = []

    def unreadable(folder: str, error: OSError) -> None:
        problems.append(f"{root / folder}: {error.strerror}")

    def jobs() -> Iterator[AnnotationJob]:
        for name in find_images(root, on_error=unreadable):
            overlay = None if overlays is None else Path(overlays) / f"{name}.png"
            yield AnnotationJob(name, image_path(root, name), None, focal, principal_point, overlay)

    left_out = LeftOut()
    total = sum(1 for _ in find_images(root, on_error=lambda *_: None, left_out=left_out))
    settings = {"images": str(root.resolve()), "focal": focal, "principal_point": principal_point}
    settings["overlays"] = None if overlays is None else str(Path(overlays).resolve())
    counts = _annotate(jobs(), total, out, settings, check_workers(workers), problems)
    if total == 0 and not problems:
        raise no_pictures(root, left_out)
    return replace(counts, left_out=left_out.note())


def annotate_dataset(
    dataset: "Dataset", out: str | Path, *, use_intrinsics: bool = True, workers: int | None = None
) -> dict[str, Any]:
    """Annotate every picture of a data set; rows carry its ``id``, and come in the data set's order.

    Args:
        out: the JSON-lines file, or a folder to write ``annotations.jsonl`` in.
        use_intrinsics: let the estimation use the data set's intrinsics where it has them.

    Returns:
        ``images failed without_points share_without_points points_per_image``; and, where the data set brings vanishing
        points and intrinsics, ``true_points``, ``error_median`` in degrees from each true point to the nearest
        estimated one (90 where there is none), and ``auc_3``, ``auc_5``, ``auc_10``.
    """
    out = Path(out)
    if out.suffix != ".jsonl":
        out = out / "annotations.jsonl"
    jobs = (
        AnnotationJob(
            sample.id,
            dataset.image_path(sample),
            sample.intrinsics if use_intrinsics else None,
            size=(sample.width, sample.height),
        )
        for sample in dataset
        if sample.image is not None
    )
    total = sum(sample.image is not None for sample in dataset)
    if total == 0:
        raise DataError(f"{dataset.folder}: no sample of it has an image")
    settings = {"fingerprint": dataset.info.fingerprint, "use_intrinsics": use_intrinsics}
    counts = _annotate(jobs, total, out, settings, check_workers(workers), [], by_id=dataset)
    return {**_summary(dataset, out), "failed": counts.failures, "failures": list(counts.failed)}


def _summary(dataset: "Dataset", out: Path) -> dict[str, Any]:
    images = without = points = 0
    errors: list[float] = []
    for row in read_annotations(out):
        found = np.array(row["vanishing_points"], dtype=np.float64).reshape(-1, 3)
        images, without, points = images + 1, without + (len(found) == 0), points + len(found)
        sample = dataset.by_id(row["id"])
        camera = dataset.camera(sample)
        if sample.vanishing_points and camera is not None:
            true = np.array(sample.vanishing_points)
            errors += point_errors(true, found, camera).tolist()
    result: dict[str, Any] = {
        "images": images,
        "without_points": without,
        "share_without_points": without / max(images, 1),
        "points_per_image": points / max(images, 1),
    }
    if errors:
        result["true_points"] = len(errors)
        result["error_median"] = float(np.median(errors))
        result.update({f"auc_{limit}": angular_accuracy(errors, limit) for limit in (3, 5, 10)})
    return result


def point_errors(true: np.ndarray, found: np.ndarray, camera: Camera) -> np.ndarray:
    """(K,) degrees from each true vanishing point to the nearest found one; 90 where none was found."""
    if len(found) == 0:
        return np.full(len(true), 90.0)
    return angles_between_points(true, found, camera).min(axis=1)


def _annotate(
    jobs: Iterator[AnnotationJob],
    total: int,
    out: Path,
    settings: dict[str, Any],
    workers: int,
    problems: list[str],
    by_id: object | None = None,
) -> AnnotationCounts:
    """Write the rows of ``jobs`` to ``out`` by way of ``<out>.partial``; report and count what fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = without = failures = 0
    messages: list[str] = []

    def count(row: dict[str, Any]) -> None:
        nonlocal rows, without, failures
        if "error" in row:
            failures += 1
            messages.extend([row["error"]] if len(messages) < 100 else [])
            print(f"failed: {row['error']}", file=sys.stderr)
        else:
            rows, without = rows + 1, without + (not row["vanishing_points"])

    run = sha256_json({"version": _VERSION, "by_id": by_id is not None, **settings})
    with PartialFile(out, run) as partial:
        rest = partial.resume(jobs, count)
        resumed = rows
        with Progress("annotating", total, "images", initial=rows + failures) as progress:
            for job, result in ordered_map(run_job, rest, min(workers, max(1, total - resumed))):
                if isinstance(result, AlbertiError):
                    row: dict[str, Any] = {"image": job.name, "error": str(result)}
                else:
                    row = {"id": result["image"], **result} if by_id is not None else result
                partial.write(row)
                count(row)
                for warning in row.get("warnings", []):
                    print(f"warning: {job}: {warning}", file=sys.stderr)
                progress.advance()
        for problem in problems:
            print(f"failed: {problem}", file=sys.stderr)
        if rows == 0:
            partial.discard()
        else:
            partial.finish()
    if rows == 0 and failures + len(problems):
        raise DataError(f"not one picture could be read; the first: {(messages + problems)[0]}")
    return AnnotationCounts(rows, tuple(messages + problems), failures + len(problems), without, resumed)
