"""What a training does at which step: its settings, its learning rate, its samples. All are functions of (seed, step) alone."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from alberti.errors import ConfigError
from alberti.seeding import torch_generator

LR_SCHEDULES = ("constant", "cosine", "polynomial")


@dataclass(frozen=True)
class LoopConfig:
    """How to train; ``batch_size`` is global, whatever the number of processes and of micro-batches."""

    steps: int
    batch_size: int
    lr: float
    lr_schedule: str = "constant"
    """"constant", "cosine" or "polynomial" (power 0.9), the last two down to ``lr_final``."""
    lr_final: float = 0.0
    warmup_steps: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    grad_clip: float = 1.0
    accumulate: int = 1
    """Micro-batches a step."""
    ema_decay: float = 0.0
    """0: no exponential moving average."""
    mixed_precision: str = "no"
    """"no" or "bf16"."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: none."""
    keep: int = 2
    log_every: int = 10
    seed: int = 0
    cuda_graph: bool = False
    """On a CUDA device capture the step and replay it, in one process and without accumulation. The loss must be one in two
    parts, see :class:`alberti.training.step_graph.PreparedLoss`. Elsewhere nothing changes.
    """

    def __post_init__(self) -> None:
        if self.lr_schedule not in LR_SCHEDULES:
            raise ConfigError(f"lr_schedule: expected one of {', '.join(LR_SCHEDULES)}, got {self.lr_schedule!r}")


@dataclass(frozen=True)
class Batch:
    """What one call of the loss function works on: ``visits[i]`` says how often sample ``indices[i]`` came before."""

    indices: list[int]
    visits: list[int]
    step: int


def lr_at(step: int, config: LoopConfig) -> float:
    """Learning rate of optimizer step ``step`` (from 0): linear warm-up, then the schedule from ``lr`` to ``lr_final``."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return config.lr
    progress = min((step - config.warmup_steps) / max(1, config.steps - config.warmup_steps), 1.0)
    left = (1 - progress) ** 0.9 if config.lr_schedule == "polynomial" else 0.5 * (1 + math.cos(math.pi * progress))
    return config.lr_final + (config.lr - config.lr_final) * left


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> list[int]:
    return torch.randperm(count, generator=torch_generator(seed, "order", epoch)).tolist()


def global_batch(seed: int, step: int, batch_size: int, count: int) -> Batch:
    """The samples of optimizer step ``step``: a new permutation every epoch, batches running on across its end."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    indices = [_permutation(seed, position // count, count)[position % count] for position in positions]
    return Batch(indices, [position // count for position in positions], step)


def share_of(batch: Batch, part: int, parts: int) -> Batch:
    size = len(batch.indices) // parts
    chosen = slice(part * size, (part + 1) * size)
    return Batch(batch.indices[chosen], batch.visits[chosen], batch.step)


def loop_key(config: LoopConfig) -> dict[str, Any]:
    """What of the loop's settings changes the result; how often to checkpoint does not."""
    settings = dict(vars(config))
    for name in ("checkpoint_every", "keep", "cuda_graph"):
        settings.pop(name)
    return settings
