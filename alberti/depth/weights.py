"""Reading weight files without running code from them, and loading them strictly."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from alberti.errors import CheckpointError


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
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than tensors and plain containers, or is no checkpoint; refused, since reading it could run "
            f"code. Save its state dict alone ({_first_line(error)})"
        ) from None
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged, or not a checkpoint ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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
