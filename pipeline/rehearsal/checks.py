"""What stands in the outs of a stage: that they are whole, and the figures to show beside them."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alberti.data.manifest import Dataset
from alberti.errors import DataError

_SHOWN = ("mse", "loss", "constraint", "abs_rel", "frechet_distance", "consistency_2", "validation_abs_rel", "median_error")


def check_out(path: Path) -> str:
    """Check one out; a few words on it.

    Raises:
        DataError: nothing there, a damaged data set or model folder, a number that is not finite.
    """
    if not path.exists():
        raise DataError(f"{path}: not written")
    if (path / "manifest.jsonl").is_file():
        return _data_set(path)
    if any(path.rglob("*.safetensors")):
        return f"{sum(file.stat().st_size for file in path.rglob('*') if file.is_file()) / 1e9:.2f} GB"
    notes = [_numbers(file) for file in _files(path)]
    return next(filter(None, notes), "")


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _data_set(path: Path) -> str:
    dataset = Dataset.open(path, check_files=True)
    sizes = sorted({f"{sample.width}x{sample.height}" for sample in dataset})
    if not len(dataset):
        raise DataError(f"{path}: no sample")
    for sample in dataset:
        if sample.image is not None:
            image = dataset.read_image(sample)
            if image.shape != (sample.height, sample.width, 3) or image.min() == image.max():
                raise DataError(f"{path}: the picture of {sample.id!r} is {image.shape} with values of {np.unique(image)[:3]}")
        if sample.depth is not None and not (dataset.read_depth(sample) > 0).any():
            raise DataError(f"{path}: the depth map of {sample.id!r} is empty")
    return f"{len(dataset)} x {', '.join(sizes)}"


def _numbers(path: Path) -> str:
    """Check every number of a JSON or CSV file; show those that say most."""
    if path.suffix == ".json":
        values = json.loads(path.read_text(encoding="utf-8"))
        for key, value in _leaves(values, ""):
            _check_finite(value, f"{path}: {key}")
        figures = [name for name in _SHOWN if isinstance(values, dict) and isinstance(values.get(name), int | float)]
        return ", ".join(f"{name} {values[name]:.3g}" for name in figures[:3])
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                for key, value in row.items():
                    _check_finite(_parsed(value), f"{path}, line {number}: {key}")
    return ""


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, key)
    else:
        yield key, value


def _parsed(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _check_finite(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{where}: {value}")
