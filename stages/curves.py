"""Training curves in DVCLive's layout: `<folder>/plots/metrics/<quantity>.tsv`, a line a logged step, while training runs.

A training that goes on after an interruption writes its curves anew from what its checkpoint holds, so that no step is
missing and none comes twice. Times are not written: equal runs give equal bytes.
"""

import csv
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alberti.processes import is_main
from alberti.training.log import logged_to

METRICS = Path("plots/metrics")
"""Where DVCLive puts them below its folder."""


@contextmanager
def curves(folder: str | Path, group: Callable[[str], str] = lambda description: "") -> Iterator[None]:
    """Write what the trainings inside log to ``folder``; one without steps leaves no curve.

    Args:
        group: a training's description to the subfolder of its curves, for several trainings in one folder.
    """
    if not is_main():
        yield
        return
    shutil.rmtree(folder, ignore_errors=True)
    live = _dvclive(folder)
    (Path(folder) / METRICS).mkdir(parents=True)

    def log(description: str, rows: Sequence[Mapping[str, float]]) -> None:
        for row in rows:
            for name, value in row.items():
                if name != "step":
                    quantity = os.path.join(group(description), name)
                    _write(live, Path(folder) / METRICS, quantity, int(row["step"]), value)
        if live is not None:
            live.next_step()

    with logged_to(log):
        yield
    if live is not None:
        live.end()
        # The last line of each curve once more, which DVC would take for a plot.
        Path(live.metrics_file).unlink(missing_ok=True)


def _write(live: Any, folder: Path, quantity: str, step: int, value: float) -> None:
    if live is not None:
        live.step = step
        live.log_metric(quantity, value)
        return
    path = folder / f"{quantity}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator=os.linesep)
        if not file.tell():
            writer.writerow(["step", path.stem])
        writer.writerow([step, value])


def _dvclive(folder: str | Path) -> Any:
    """A DVCLive logger without experiments, reports and dvc.yaml; None where it is not installed, or there is no DVC project.

    Outside of a DVC project it would start one in the Git repository around.
    """
    here = Path.cwd()
    if not any((parent / ".dvc").is_dir() for parent in (here, *here.parents)):
        return None
    try:
        from dvclive import Live

        return Live(str(folder), report=None, save_dvc_exp=False, dvcyaml=None)
    except ImportError:
        return None


def read_curves(folder: str | Path) -> dict[str, Any]:
    """The curves below a stage's folder by run, an instance or a group, as tables: a row a step, a column a quantity."""
    import pandas as pd

    files: dict[str, list[Path]] = {}
    for path in sorted(Path(folder).rglob(f"{METRICS}/**/*.tsv")):
        names = path.parent.relative_to(folder).as_posix().split("/")
        files.setdefault("/".join(name for name in names if name not in METRICS.parts), []).append(path)
    columns = {run: [pd.read_csv(path, sep="\t", index_col="step") for path in paths] for run, paths in files.items()}
    return {run: pd.concat(found, axis=1).sort_index().reset_index() for run, found in columns.items()}
