"""Training curves: `<folder>/<quantity>.tsv`, a line for each logged step, while training runs.

A training that goes on after an interruption writes its curves anew from what its checkpoint holds, so that no step is
missing and none comes twice. Times are not written: equal runs give equal bytes.
"""

import csv
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alberti.processes import is_main
from alberti.training.log import logged_to


@contextmanager
def curves(folder: Path, group: Callable[[str], str] = lambda description: "") -> Iterator[None]:
    """Write what the trainings inside log to ``folder``; without a training it stays empty.

    Args:
        group: a training's description to the subfolder of its curves, for several trainings in one folder.
    """
    if not is_main():
        yield
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def log(description: str, rows: Sequence[Mapping[str, float]]) -> None:
        for row in rows:
            for name, value in row.items():
                if name != "step":
                    _append(folder / group(description) / f"{name}.tsv", int(row["step"]), value)

    with logged_to(log):
        yield
    for path in folder.rglob("*.tsv"):
        if not read_curve(path)[path.stem].any():  # a term that this training does not have
            path.unlink()


def _append(path: Path, step: int, value: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        if not file.tell():
            writer.writerow(["step", path.stem])
        writer.writerow([step, value])


def read_curve(path: Path) -> Any:
    """One quantity as a table indexed by step."""
    import pandas as pd

    return pd.read_csv(path, sep="\t", index_col="step")


def read_curves(folder: Path) -> dict[str, Any]:
    """The curves below a folder, by their subfolder, as tables: a row for each step, a column for each quantity."""
    import pandas as pd

    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.tsv")):
        files.setdefault(path.parent.relative_to(folder).as_posix(), []).append(path)
    columns = {run: [read_curve(path) for path in paths] for run, paths in files.items()}
    return {run: pd.concat(found, axis=1).sort_index().reset_index() for run, found in columns.items()}
