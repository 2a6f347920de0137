"""How well the pictures of a folder obey linear perspective: a number with its interval, a table, a page to look at."""

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np

from alberti.annotations import check_there, parse_row
from alberti.errors import AlbertiError, DataError
from alberti.files import atomic_file, write_json, write_text
from alberti.geometry.line_segments import detect_line_segments
from alberti.geometry.vanishing_points import estimate_vanishing_points
from alberti.image_folder import LeftOut, find_images, image_path, no_pictures
from alberti.images import read_image
from alberti.metrics.bootstrap import bootstrap_interval
from alberti.metrics.labels import METRICS, SCORE
from alberti.metrics.perspective import segments_consistency
from alberti.outputs import check_beside, check_output_file
from alberti.parallel import check_workers, ordered_map
from alberti.progress import Progress
from alberti.reading import Lines, reading
from alberti.report.render import page_begins, render
from alberti.report.tiles import Picture, coloured, data_uri, overlay, vanishing_lines

THRESHOLDS = (2.0, 5.0)
_ESTIMATED_POINTS = 3
"""Estimated points are the orthogonal triad only: a bent picture has many local directions, which must not count."""
_BOOTSTRAP_UP_TO = 20_000
"""Past so many pictures the normal interval is the same to the third digit, and takes no memory."""
_SHOWN = 12
_SHOWN_SIDE = 720
_COLUMNS = ("image", "width", "height", "points", "consistency_2", "consistency_5", "line_length",
            "line_length_per_megapixel", "segments")  # fmt: skip
_FIGURES = tuple(metric.key for metric in SCORE)


@dataclass(frozen=True)
class ScoreJob:
    """One picture to score; ``row`` is its line of the file of vanishing points, None to estimate them."""

    name: str
    path: Path
    row: str | None
    source: Path | None

    def __str__(self) -> str:
        return str(self.path)


def score_folder(
    images: str | Path, out: str | Path, *, vanishing_points: str | Path | None = None, workers: int | None = None
) -> dict[str, Any]:
    """Score every picture below a folder; write ``out`` (JSON) and beside it a CSV with one row per picture and an HTML page.

    A picture's score is :func:`alberti.metrics.perspective_consistency`: the share of its line length that points at
    one of its vanishing points. Those are given, or estimated from the picture itself (the best orthogonal triad).
    A picture that has lines, but no vanishing point to be found, scores 0; one without lines has no score.

    Args:
        vanishing_points: JSON lines as ``alberti annotate`` writes them, a row for every picture.

    Returns:
        What ``out`` holds: ``images failed without_lines without_points vanishing_points``, and for consistency at 2 and
        5 degrees and the line length per megapixel ``mean low high n`` (95 % bootstrap interval over pictures).

    Raises:
        DataError: no pictures, none readable, a file of vanishing points that is none.
        ConfigError: a place to write that is among the inputs, or holds something else.
    """
    root, out = Path(images), Path(out)
    if out.suffix.lower() in (".csv", ".html"):
        raise DataError(f"{out}: --out is the JSON file; the .csv and .html are written beside it")
    points = None if vanishing_points is None else GivenPoints(Path(vanishing_points))
    _check_outputs(out, [root, None if points is None else points.path])
    problems: list[str] = []
    left_out = LeftOut()
    total = sum(1 for _ in find_images(root, on_error=lambda *_: None, left_out=left_out))
    if total == 0:
        raise no_pictures(root, left_out)
    with atomic_file(out.with_suffix(".csv")) as table:
        kept = _score_all(_jobs(root, points, problems), total, table, check_workers(workers), problems)
        if not kept.names:
            raise DataError(f"not one picture could be scored; the first: {problems[0]}")
    notes = [note for note in (left_out.note(), points and points.unused(kept.names)) if note]
    summary = _summarise(kept, points, problems) | ({"notes": notes} if notes else {})
    write_json(out, summary)
    write_text(out.with_suffix(".html"), _page(root, points, kept, summary))
    return summary


def _check_outputs(out: Path, inputs: list[Path | None]) -> None:
    check_output_file(out, inputs)
    for suffix, begins in ((".csv", ",".join(_COLUMNS)), (".html", page_begins())):
        beside = out.with_suffix(suffix)
        check_output_file(beside, inputs)
        check_beside(beside, begins)


class GivenPoints:
    """A file of vanishing points, as ``alberti annotate`` writes it: of its rows only the places are held in memory."""

    def __init__(self, path: Path):
        check_there(path)
        self.path = path
        self._lines = Lines(path, "file of vanishing points")
        self._places = {_slashes(parse_row(path, line)["image"]): place for place, line in self._lines}

    def row(self, name: str) -> str | None:
        """The line of a picture; None if it has none."""
        place = self._places.get(_slashes(name))
        return None if place is None else self._lines.at(place)

    def points(self, name: str) -> np.ndarray:
        """(K, 3) of a picture that has a row."""
        return np.array(parse_row(self.path, self.row(name) or "")["vanishing_points"], dtype=np.float64).reshape(-1, 3)

    def unused(self, names: list[str]) -> str | None:
        """One line on rows of which no picture was scored; None if all were used."""
        count = len(self._places.keys() - {_slashes(name) for name in names})
        return f"{count} of the {len(self._places)} rows in {self.path} are of no picture that was scored" if count else None


def _slashes(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def score_image(image: np.ndarray, points: np.ndarray | None) -> dict[str, Any]:
    """Score one (H, W, 3) uint8 picture against (K, 3) points, or against its own estimate where None."""
    height, width = image.shape[:2]
    segments = detect_line_segments(image)
    estimated = points is None
    if points is None:
        points = estimate_vanishing_points(segments, width, height, max_points=_ESTIMATED_POINTS).points
    row = segments_consistency(segments, points, width, height, THRESHOLDS)
    if estimated and len(points) == 0 and len(segments):
        row.update({f"consistency_{threshold:g}": 0.0 for threshold in THRESHOLDS})
    return {"width": width, "height": height, "points": len(points), **row}


def run_job(job: ScoreJob) -> dict[str, Any]:
    """Score one picture; DataError names its file."""
    cv2.setNumThreads(1)
    image = read_image(job.path)
    points = _given_points(job, image.shape[1], image.shape[0])
    with reading(job.path, "lines of the picture"):  # one odd picture costs its row, never the run
        return {"image": job.name, **score_image(image, points)}


def _given_points(job: ScoreJob, width: int, height: int) -> np.ndarray | None:
    if job.source is None:
        return None
    if job.row is None:
        raise DataError(f"{job.path}: no row with image {job.name!r} in {job.source}")
    row = parse_row(job.source, job.row)
    if (row.get("width", width), row.get("height", height)) != (width, height):
        raise DataError(
            f"{job.path}: {width} x {height} pixels, but its row in {job.source} is of a picture of "
            f"{row.get('width')} x {row.get('height')}"
        )
    return np.array(row["vanishing_points"], dtype=np.float64).reshape(-1, 3)


def _jobs(root: Path, given: GivenPoints | None, problems: list[str]) -> Iterator[ScoreJob]:
    def unreadable(folder: str, error: OSError) -> None:
        problems.append(f"{root / folder}: {error.strerror}")
        print(f"failed: {problems[-1]}", file=sys.stderr)

    for name in find_images(root, on_error=unreadable):
        row, source = (None, None) if given is None else (given.row(name), given.path)
        yield ScoreJob(name, image_path(root, name), row, source)


@dataclass(frozen=True)
class _Kept:
    """What is remembered of all pictures."""

    names: list[str]
    figures: dict[str, list[float]]
    """NaN where a picture has no value."""
    points: list[int]


def _score_all(jobs: Iterator[ScoreJob], total: int, table: Path, workers: int, problems: list[str]) -> _Kept:
    kept = _Kept([], {name: [] for name in _FIGURES}, [])
    with _open_table(table) as file, Progress("scoring", total, "images") as progress:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        for _, result in ordered_map(run_job, jobs, min(workers, total)):
            progress.advance()
            if isinstance(result, AlbertiError):
                problems.append(str(result))
                print(f"failed: {result}", file=sys.stderr)
                continue
            writer.writerow(result)
            kept.names.append(result["image"])
            kept.points.append(result["points"])
            for name in _FIGURES:
                kept.figures[name].append(np.nan if result[name] is None else result[name])
    return kept


def _open_table(path: Path) -> TextIO:
    """For names in another encoding than UTF-8, which a table cannot hold, their bytes are spelt out."""
    return open(path, "w", newline="", encoding="utf-8", errors="backslashreplace")


def _summarise(kept: _Kept, given: GivenPoints | None, problems: list[str]) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "images": len(kept.names),
        "failed": len(problems),
        "failures": problems[:100],
        "without_lines": int((np.array(kept.figures["line_length_per_megapixel"]) == 0).sum()),
        "without_points": int((np.array(kept.points) == 0).sum()),
        "vanishing_points": "estimated" if given is None else "given",
    }
    for name, values in kept.figures.items():
        present = np.array(values)[np.isfinite(values)]
        summary[name] = _interval(present)
    return summary


def _interval(values: np.ndarray) -> dict[str, float | int | None]:
    if len(values) == 0:
        return {"mean": None, "low": None, "high": None, "n": 0}
    mean = float(values.mean())
    if len(values) > _BOOTSTRAP_UP_TO:
        half = 1.96 * float(values.std()) / float(np.sqrt(len(values)))
        return {"mean": mean, "low": mean - half, "high": mean + half, "n": len(values)}
    low, high = bootstrap_interval(values)
    return {"mean": mean, "low": float(low), "high": float(high), "n": len(values)}


def _page(root: Path, given: GivenPoints | None, kept: _Kept, summary: dict[str, Any]) -> str:
    """A self-contained HTML page: the figures, and the worst and best pictures with what was found in them."""
    values = np.array(kept.figures["consistency_2"])
    ranked = [int(index) for index in np.argsort(values, kind="stable") if np.isfinite(values[index])]
    worst = ranked[: min(_SHOWN, (len(ranked) + 1) // 2)]
    best = ranked[::-1][: min(_SHOWN, len(ranked) // 2)]
    chosen = (("The least straight", worst), ("The straightest", best))
    galleries = [(title, [_picture(root, given, kept, index) for index in places]) for title, places in chosen if places]
    rows = [(metric, summary[metric.key]) for metric in SCORE]
    return render("score.html", {"title": f"Perspective of {root}", "summary": summary, "rows": rows, "galleries": galleries})


def _picture(root: Path, given: GivenPoints | None, kept: _Kept, index: int) -> Picture:
    """A tile, made small, with its lines and vanishing lines in the small one's pixels."""
    name = kept.names[index]
    image = read_image(image_path(root, name))
    height, width = image.shape[:2]
    segments = detect_line_segments(image)
    if given is None:
        points = estimate_vanishing_points(segments, width, height, max_points=_ESTIMATED_POINTS).points
    else:
        points = given.points(name)
    lines = coloured(segments, points)
    scale = min(1.0, _SHOWN_SIDE / max(width, height))
    small = image
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    shares = [METRICS[key].text(kept.figures[key][index]) for key in ("consistency_2", "consistency_5")]
    return Picture(
        name,
        "arm",
        data_uri(small),
        width,
        height,
        name,
        overlay(lines),
        overlay(vanishing_lines(points, width, height)),
        f"{shares[0]} within 2°, {shares[1]} within 5°",
    )
