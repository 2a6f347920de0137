"""What a training does at which step: its learning rate and its samples, both functions of (seed, step) alone."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch

from alberti.seeding import torch_generator
from alberti.training.settings import Optimisation


@dataclass(frozen=True)
class Batch:
    """What one call of the loss function works on: ``visits[i]`` says how often sample ``indices[i]`` came before."""

    indices: list[int]
    visits: list[int]
    step: int


def lr_at(step: int, training: Optimisation) -> float:
    """Learning rate of optimizer step ``step`` (from 0): linear warm-up, then the schedule from ``lr`` to ``lr_final``."""
    if step < training.warmup_steps:
        return training.lr * (step + 1) / training.warmup_steps
    if training.lr_schedule == "constant":
        return training.lr
    progress = min((step - training.warmup_steps) / max(1, training.steps - training.warmup_steps), 1.0)
    left = (1 - progress) ** 0.9 if training.lr_schedule == "polynomial" else 0.5 * (1 + math.cos(math.pi * progress))
    return training.lr_final + (training.lr - training.lr_final) * left


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
