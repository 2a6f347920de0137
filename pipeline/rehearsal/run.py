"""Runs every stage in one process, goes on after a failure, and notes what each one took."""

import contextlib
import gc
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from stages.params import Params
from stages.units import Unit, function_of, producers, reads

from pipeline.rehearsal.checks import check_out

TARGETS = ("evaluate_images", "evaluate_depth", "report")


@dataclass(frozen=True)
class Row:
    """How one unit went."""

    unit: str
    status: str
    """"ok", "failed" or "skipped"."""
    seconds: float = 0.0
    peak_gib: float | None = None
    """Largest memory that tensors took on the GPU; None without one."""
    note: str = ""
    """What was checked, or what went wrong."""


def depth_first(units: Sequence[Unit]) -> list[Unit]:
    """Each unit after what it reads and as late as possible, so that large outs are soon read for the last time."""
    order: dict[str, Unit] = {}

    def visit(unit: Unit) -> None:
        if unit.id not in order:
            for other in producers(unit, list(units)):
                visit(other)
            order[unit.id] = unit

    for target in TARGETS:
        for unit in units:
            if unit.module == target:
                visit(unit)
    return [*order.values(), *(unit for unit in units if unit.id not in order)]


def depth_units(units: Sequence[Unit]) -> list[Unit]:
    """What the evaluations of the original depth models and of those trained on KITTI need, and these."""
    wanted = [unit for unit in units if unit.module == "evaluate_depth" and unit.name.endswith(("-original", "-kitti"))]
    for unit in wanted:
        wanted += [other for other in producers(unit, list(units)) if other not in wanted]
    return [unit for unit in units if unit in wanted]


def rehearse(params: Params, units: Sequence[Unit], folder: Path, *, keep: bool = False) -> Iterator[Row]:
    """Run ``units`` in ``folder``; a row each. A unit whose inputs failed is skipped.

    Args:
        keep: False deletes models once no unit is left that reads them, as all of them take some fifty gigabytes.
    """
    units, lost = depth_first(units), set[str]()
    for index, unit in enumerate(units):
        broken = [other.id for other in producers(unit, units) if other.id in lost]
        if broken:
            row = Row(unit.id, "skipped", note=f"needs {broken[0]}")
        else:
            row = measured(unit.id, lambda unit=unit: _run(unit, params, folder))  # type: ignore[misc]
        if row.status != "ok":
            lost.add(unit.id)
        if not keep:
            _delete_spare_models(units[: index + 1], units[index + 1 :], folder)
        yield row


def measured(name: str, call: Callable[[], str]) -> Row:
    """The row of one call; what it raises is printed with its traceback and noted."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    try:
        status, note = "ok", call()
    except Exception as error:
        traceback.print_exc()
        status, note = "failed", f"{type(error).__name__}: {' '.join(str(error).split())}"
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else None
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
    return Row(name, status, round(seconds, 2), None if peak is None else round(peak, 2), note)


def _run(unit: Unit, params: Params, folder: Path) -> str:
    function = function_of(unit.module)
    with contextlib.chdir(folder):
        function(params, unit.name)
        return "; ".join(filter(None, (check_out(Path(out)) for out in unit.outs)))


def _delete_spare_models(done: Sequence[Unit], left: Sequence[Unit], folder: Path) -> None:
    for out in {out for unit in done for out in unit.outs if out.startswith("models/")}:
        if not any(reads(dep, out) for unit in left for dep in unit.deps):
            shutil.rmtree(folder / out, ignore_errors=True)


def show(rows: Sequence[Row]) -> str:
    """The rows as a table, with their sum."""
    width = max(len(row.unit) for row in rows)
    lines = [f"{'unit':{width}}  {'status':7}  {'seconds':>7}  {'GiB':>6}  what came of it"]
    for row in rows:
        peak = "-" if row.peak_gib is None else f"{row.peak_gib:.2f}"
        lines.append(f"{row.unit:{width}}  {row.status:7}  {row.seconds:7.1f}  {peak:>6}  {row.note:.110}".rstrip())
    ok = sum(row.status == "ok" for row in rows)
    lines.append(f"{ok} of {len(rows)} ok, {sum(row.seconds for row in rows):.1f} s")
    return "\n".join(lines)


def announce(row: Row) -> None:
    """One line as soon as a unit ends, for whoever watches."""
    print(f"{row.status:7} {row.unit} {row.seconds:.1f} s {row.note:.160}", file=sys.stderr, flush=True)
