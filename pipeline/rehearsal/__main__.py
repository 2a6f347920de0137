"""Rehearse the profile `paper` without its data: the same stages, model classes, sizes and file layouts, with random weights.

    python -m pipeline.rehearsal --out /scratch/rehearsal      # a GPU of 80 GB, 80 GB of disk, minutes
    python -m pipeline.rehearsal --depth                       # the depth models alone, at their size: a CPU with 20 GB
    python -m pipeline.rehearsal --tiny                        # everything with small models, on a CPU, for tests

It writes data and weights, runs every stage with make, and checks each out. It shows whether the profile runs, fits into
memory and finishes. The numbers mean nothing. It needs no network.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from alberti.errors import AlbertiError, ConfigError
from alberti.files import read_json, write_json, write_text
from pipeline.export import makefile, stamp_of
from pipeline.profiles import PROJECT
from pipeline.rehearsal.checks import check_out
from pipeline.rehearsal.params import DATA, WEIGHTS, rehearsal_params
from pipeline.rehearsal.sizes import SIZES, Size
from pipeline.units import Unit, chosen, read_units

_GIGABYTES = {"paper": 80, "tiny": 1}
_DEPTH_GIGABYTES = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Write data and weights, run the stages, print a table; 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small pictures and models, for a CPU")
    parser.add_argument("--out", type=Path, default=Path(".alberti/rehearsal"), help="a new folder (default: %(default)s)")
    parser.add_argument("--depth", action="store_true", help="only the depth models, at their full size")
    parser.add_argument("--arms", nargs="+", help="only these arms of pictures (default: all of the profile)")
    parser.add_argument("--jobs", type=int, default=1, help="units at once (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the table to this file as well")
    options = parser.parse_args(arguments)
    try:
        return _rehearse(options)
    except AlbertiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _rehearse(options: argparse.Namespace) -> int:
    os.environ["HF_HUB_OFFLINE"] = "1"  # whatever would be fetched is a mistake here
    from alberti.device import choose_device

    size, where = SIZES["tiny" if options.tiny else "paper"], str(choose_device())
    needed = _GIGABYTES[size.name]
    folder = _new_folder(options.out, min(needed, _DEPTH_GIGABYTES) if options.depth else needed)
    small = options.depth and where == "cpu"
    values = rehearsal_params(PROJECT, folder, size, options.arms, small_batches=small)
    units = read_units(PROJECT, values)
    if options.depth:
        units = chosen(units, [unit.id for unit in units if _is_of_depth(unit)])
    _write_inputs(folder, size, where, depth_only=options.depth)
    write_text(folder / "rehearsal.mk", makefile(units, values, f"rehearsal, {size.name}"))
    make = ["make", "--no-print-directory", "-k", f"-j{options.jobs}", "-f", str(folder / "rehearsal.mk")]
    done = subprocess.run([*make, f"RUN={folder}", f"PYTHON={sys.executable}"], cwd=PROJECT)
    rows = [_row(folder, unit) for unit in units]
    if options.json is not None:
        write_json(options.json, {"device": where, "rows": rows})
    print(_table(rows))
    return int(done.returncode != 0 or any(row["status"] != "ok" for row in rows))


def _is_of_depth(unit: Unit) -> bool:
    return unit.stage == "evaluate_depth" and ("-original" in unit.id or "-kitti-" in unit.id)


def _write_inputs(folder: Path, size: Size, where: str, *, depth_only: bool) -> None:
    from pipeline.rehearsal.data import write_datasets, write_kitti_with_lists
    from pipeline.rehearsal.weights import write_depth_weights, write_weights

    if depth_only:
        write_kitti_with_lists(folder / DATA / "kitti", folder / "splits", size)
        write_depth_weights(folder / WEIGHTS, size, where)
    else:
        write_datasets(folder / DATA, size, where)
        write_weights(folder / WEIGHTS, size, where)


def _new_folder(folder: Path, gigabytes: int) -> Path:
    folder = folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: not empty; delete it, or name another folder with --out")
    if shutil.which("make") is None:
        raise ConfigError("make: not installed; the rehearsal runs its plan with it")
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise ConfigError(f"{folder}: {free:.0f} GB are free, {gigabytes} are needed; name another folder with --out")
    return folder


def _row(folder: Path, unit: Unit) -> dict[str, object]:
    """How a unit went, and what stands in its outs."""
    stamp = folder / stamp_of(unit)
    if not stamp.is_file():
        return {"unit": unit.id, "status": "not done", "seconds": 0.0, "note": f"logs/{unit.id}.log"}
    seconds = read_json(stamp)["seconds"]
    try:
        note = "; ".join(filter(None, (check_out(folder / out) for out in unit.outs)))
    except AlbertiError as error:
        return {"unit": unit.id, "status": "damaged", "seconds": seconds, "note": str(error)}
    return {"unit": unit.id, "status": "ok", "seconds": seconds, "note": note}


def _table(rows: Sequence[dict[str, object]]) -> str:
    width = max(len(str(row["unit"])) for row in rows)
    lines = [f"{'unit':{width}}  {'status':8}  {'seconds':>7}  what came of it"]
    lines += [f"{row['unit']:{width}}  {row['status']:8}  {row['seconds']:7.1f}  {row['note']:.110}".rstrip() for row in rows]
    ok = sum(row["status"] == "ok" for row in rows)
    return "\n".join([*lines, f"{ok} of {len(rows)} ok, {sum(float(str(row['seconds'])) for row in rows):.1f} s"])


if __name__ == "__main__":
    sys.exit(main())
