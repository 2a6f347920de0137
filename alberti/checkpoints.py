"""Training checkpoints: atomic, hashed, and without pickle.

A run lives in ``<root>/<hash of what determines the run>/step-<n>/``: tensors in ``state.safetensors``, the rest in
``state.json``. A damaged checkpoint is reported and the one before it used.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from alberti.errors import CheckpointError, DataError
from alberti.files import atomic_folder, read_json, sha256_file, sha256_json, write_json
from alberti.processes import is_main
from alberti.weights import read_tensors


def flatten_state(state: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Split nested dicts, lists and tensors into a JSON-able skeleton and a flat dict of tensors.

    Dicts become lists of pairs, since optimizer states have integer keys and JSON has none.
    """
    tensors: dict[str, torch.Tensor] = {}

    def visit(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            name = f"t{len(tensors)}"
            # A clone, because safetensors refuses tensors that share memory.
            tensors[name] = value.detach().to("cpu", copy=True).contiguous()
            return {"tensor": name}
        if isinstance(value, dict):
            return {"dict": [[key, visit(item)] for key, item in value.items()]}
        if isinstance(value, tuple):
            return {"tuple": [visit(item) for item in value]}
        if isinstance(value, list):
            return {"list": [visit(item) for item in value]}
        if value is None or isinstance(value, bool | int | float | str):
            return {"value": value}
        raise TypeError(f"a checkpoint holds tensors, numbers, strings and containers of them, not {type(value).__name__}")

    return visit(state), tensors


def unflatten_state(skeleton: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The inverse of :func:`flatten_state`."""
    ((kind, value),) = skeleton.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: unflatten_state(item, tensors) for key, item in value}
    if kind == "tuple":
        return tuple(unflatten_state(item, tensors) for item in value)
    if kind == "list":
        return [unflatten_state(item, tensors) for item in value]
    return value


class Checkpoints:
    """The checkpoints of one run, told apart from other runs by a hash of ``run_key``.

    Args:
        root: a folder outside DVC's outs, shared by all runs.
        run_key: JSON-able; everything that determines the run (params, hashes of inputs, seed).
        keep: how many of the newest to keep.
    """

    def __init__(self, root: Path, run_key: dict[str, Any], keep: int = 2):
        self.folder = root / sha256_json(run_key)[:16]
        self.run_key, self.keep = run_key, keep

    def _steps(self) -> list[int]:
        return sorted((int(path.name[5:]) for path in self.folder.glob("step-*") if path.name[5:].isdigit()), reverse=True)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the checkpoint of ``step`` and delete all but the newest ``keep``."""
        skeleton, tensors = flatten_state(state)
        write_json(self.folder / "run.json", self.run_key)
        with atomic_folder(self.folder / f"step-{step}") as folder:
            save_file(tensors, folder / "state.safetensors")
            digest = sha256_file(folder / "state.safetensors")
            write_json(folder / "state.json", {"step": step, "sha256": digest, "state": skeleton})
        for old in self._steps()[self.keep :]:
            shutil.rmtree(self.folder / f"step-{old}")

    def load_latest(self) -> tuple[int, dict[str, Any]] | None:
        """(step, state) of the newest sound checkpoint; None if there is none at all.

        Raises:
            CheckpointError: there are checkpoints but every one is damaged.
        """
        steps = self._steps()
        problems = []
        for step in steps:
            try:
                return step, self._load(self.folder / f"step-{step}")
            except Exception as error:  # a damaged checkpoint may hold anything
                problems.append(f"step {step}: {error}")
                if is_main():
                    print(
                        f"checkpoint of step {step} in {self.folder} is damaged ({error}); trying the one before",
                        file=sys.stderr,
                    )
        if problems:
            raise CheckpointError(
                f"{self.folder}: no usable checkpoint ({'; '.join(problems)}). Delete the folder to start this run over."
            )
        return None

    @staticmethod
    def _load(folder: Path) -> dict[str, Any]:
        header = read_json(folder / "state.json")
        if sha256_file(folder / "state.safetensors") != header["sha256"]:
            raise DataError("state.safetensors does not have the SHA-256 that state.json says")
        state = unflatten_state(header["state"], read_tensors(folder / "state.safetensors"))
        assert isinstance(state, dict)
        return state

    def discard(self) -> None:
        """Delete the run's checkpoints, once its result is safely elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)
