"""Reading what `alberti annotate` wrote: a row for each picture, with its vanishing points."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alberti.errors import DataError
from alberti.reading import Lines


def read_annotations(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of an annotations file; DataError names the line that is not one."""
    path = Path(path)
    check_there(path)
    for _, line in Lines(path, "file of annotations"):
        yield parse_row(path, line)


def check_there(path: Path) -> None:
    """DataError if there is no file of annotations."""
    if path.is_dir():
        raise DataError(f"{path}: a folder, where a file that `alberti annotate` wrote was expected")
    if not path.is_file():
        raise DataError(f"{path}: no such file; make it with `alberti annotate IMAGES --out {path.name}`")


def parse_row(path: Path, line: str) -> dict[str, Any]:
    """One row of an annotations file; DataError, naming the file, if it lacks ``image`` or ``vanishing_points``."""
    expected = "expected rows of JSON with image and vanishing_points [[x, y, w], ...], as `alberti annotate` writes them"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(f"{path}: {expected}; this line is no JSON: {line[:80]!r}") from None
    try:
        points = np.array(row["vanishing_points"], dtype=np.float64).reshape(-1, 3)
        if not isinstance(row["image"], str) or not np.isfinite(points).all():
            raise ValueError("image must be a path, vanishing_points finite")
    except Exception as error:  # any JSON may stand there
        raise DataError(f"{path}: {expected}; got {line[:80]!r} ({error!r})") from None
    return row
