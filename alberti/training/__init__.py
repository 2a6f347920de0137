"""Training of every model here: the loop, what it does at which step, running averages, steps as CUDA graphs.

Names are imported when first used: the loop needs torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alberti.training.log import logged_to
    from alberti.training.loop import LossFunction, NonFiniteLossError, TrainResult, discard_checkpoints, train_loop
    from alberti.training.schedule import Batch, global_batch, lr_at
    from alberti.training.settings import Optimisation

_HOMES = {
    "log": ("logged_to",),
    "loop": ("LossFunction", "NonFiniteLossError", "TrainResult", "discard_checkpoints", "train_loop"),
    "schedule": ("Batch", "global_batch", "lr_at"),
    "settings": ("Optimisation",),
}

__all__ = [
    "Batch",
    "LossFunction",
    "NonFiniteLossError",
    "Optimisation",
    "TrainResult",
    "discard_checkpoints",
    "global_batch",
    "logged_to",
    "lr_at",
    "train_loop",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"alberti.training.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
