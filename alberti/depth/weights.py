"""Reading weight files without running code from them, and loading them strictly."""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from alberti.errors import CheckpointError
from alberti.reading import first_line, reading

_WEIGHTS_NAME = re.compile(r"model(?:\.(?P<variant>[\w-]+?))?(?:-\d{5}-of-\d{5})?\.safetensors")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of a ``torch.save`` file (a state dict, or one under "model" or "state_dict").

    A prefix ``module.`` (of data-parallel training) is dropped. Nothing is unpickled but tensors and plain containers.

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
    return {str(key).removeprefix("module."): value for key, value in state.items()}


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
