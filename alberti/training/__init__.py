"""Training of every model here: the loop, what it does at which step, running averages, steps as CUDA graphs.

Names are imported when first used: the loop needs torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alberti.training.log import logged_to
    from alberti.training.loop import LossFunction, NonFiniteLossError, TrainResult, discard_checkpoints, train_loop
    from alberti.training.schedule import LR_SCHEDULES, Batch, LoopConfig, global_batch, loop_key, lr_at

_HOMES = {
    "log": ("logged_to",),
    "loop": ("LossFunction", "NonFiniteLossError", "TrainResult", "discard_checkpoints", "train_loop"),
    "schedule": ("LR_SCHEDULES", "Batch", "LoopConfig", "global_batch", "loop_key", "lr_at"),
}

__all__ = [
    "LR_SCHEDULES",
    "Batch",
    "LoopConfig",
    "LossFunction",
    "NonFiniteLossError",
    "TrainResult",
    "discard_checkpoints",
    "global_batch",
    "logged_to",
    "loop_key",
    "lr_at",
    "train_loop",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"alberti.training.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
