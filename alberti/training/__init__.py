"""Training of every model here: the loop, what it does at which step, running averages, steps as CUDA graphs."""

from alberti.training.loop import (
    LossFunction,
    NonFiniteLossError,
    TrainResult,
    discard_checkpoints,
    logged_to,
    train_loop,
)
from alberti.training.schedule import LR_SCHEDULES, Batch, LoopConfig, global_batch, loop_key, lr_at

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
