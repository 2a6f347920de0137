"""Weights: reading files without running code from them, loading them strictly, their hash.

What safetensors and ``torch.load`` return lies in the file's mapping, at addresses that need not divide by 64. BLAS and oneDNN
then may compute in another order on some processors (MKL promises equal bits only for 64-byte alignment), so that equal
weights give unequal results. Every tensor that comes from a file is therefore copied once, into memory of torch's own, which is
aligned.
"""

import hashlib
import importlib
import pickle
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from alberti.errors import CheckpointError, first_line
from alberti.extras import extra
from alberti.reading import reading

_WEIGHTS_NAME = re.compile(r"model(?:\.(?P<variant>[\w-]+?))?(?:-\d{5}-of-\d{5})?\.safetensors")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, in memory of their own."""
    return {name: value.clone() for name, value in load_file(path).items()}


def own_weights(network: nn.Module) -> None:
    """Copy parameters and buffers, in place, into memory of their own: for what ``from_pretrained`` of a library returned."""
    for value in (*network.parameters(), *network.buffers()):
        value.data = value.data.clone()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars of transformers and, where it is loaded, diffusers: one for every few megabytes."""
    with extra("depth", "loading a model of transformers'"):
        from transformers.utils import logging

    libraries: list[Any] = [logging]
    if "diffusers" in sys.modules:
        libraries.append(importlib.import_module("diffusers.utils.logging"))
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def weights_hash(network: nn.Module) -> str:
    """Hex SHA-256 over names, types, shapes and bytes of a network's state, in the order of names."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of a ``torch.save`` file (a state dict, or one under "model" or "state_dict").

    A prefix ``module.`` (of data-parallel training) is dropped. Nothing is unpickled but tensors and plain containers. The
    tensors are in memory of their own.

    Raises:
        CheckpointError: the file is missing, damaged, holds objects, or no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    state = _read_file(path)
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f'{path}: expected a state dict (name -> tensor), or one under "model"')
    return {str(key).removeprefix("module."): value.clone() for key, value in state.items()}


def _read_file(path: Path) -> Any:
    if path.suffix != ".safetensors" and not _is_torch_file(path):
        raise CheckpointError(f"{path}: not a checkpoint: neither a .safetensors file nor one of torch.save")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own text advises to run the file's code
        named = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
        holds = f"holds {named[1]}" if named else "is damaged, or holds more than tensors and plain containers"
        raise CheckpointError(f"{path}: {holds}; refused, since reading it could run code. Save its state dict alone") from None
    except Exception as error:
        raise CheckpointError(f"{path}: damaged, or not a checkpoint ({first_line(error)})") from None


def _is_torch_file(path: Path) -> bool:
    """Whether a file begins as torch.save's do: a ZIP archive, a pickle, or, before 2017, a tar archive."""
    with reading(path, "checkpoint file", CheckpointError), open(path, "rb") as file:
        head = file.read(265)
    return head.startswith((b"PK\x03\x04", b"\x80")) or head[257:262] == b"ustar"


def only_variant(folder: Path) -> str | None:
    """The variant, such as fp16, of a folder that holds its weights in that form alone; None if the plain form is there.

    Raises:
        CheckpointError: no safetensors at all.
    """
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if not names:
        others = ", ".join(sorted(path.name for path in folder.glob("*.bin")))
        found = f"only {others}, which would have to be unpickled" if others else "none"
        raise CheckpointError(f"{folder}: expected model.safetensors, found {found}; save it with safe_serialization=True")
    found_as = [match["variant"] for name in names if (match := _WEIGHTS_NAME.fullmatch(name))]
    variants = set(found_as) - {None}
    return variants.pop() if None not in found_as and len(variants) == 1 else None


def load_strictly(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Give ``model`` (which may be on the meta device) the weights of ``state`` in float32; every key and shape must match."""
    expected = model.state_dict()
    problems = [
        *(f"missing {key}" for key in expected if key not in state),
        *(f"unexpected {key}" for key in state if key not in expected),
        *(
            f"{key} has shape {(*state[key].shape,)}, expected {(*value.shape,)}"
            for key, value in expected.items()
            if key in state and state[key].shape != value.shape
        ),
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(f"{source}: the weights do not fit the model: {'; '.join(problems[:5])}{more}")
    floats = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    model.load_state_dict(floats, assign=True)
