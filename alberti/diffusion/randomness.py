"""Random draws of a training step: functions of (seed, purpose, sample id, visit), drawn on the CPU.

So the arms of an experiment, any batch size and any number of processes see the same noise for the same sample.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from alberti.seeding import numpy_generator, torch_generator


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy CPU values to ``device``; to a GPU through pinned memory, so that the copy waits for nothing."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def gaussian(seed: int, purpose: str, ids: Sequence[str], visits: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Standard normal (B, *shape) float32."""
    draws = [
        torch.randn(shape, generator=torch_generator(seed, purpose, sample, visit))
        for sample, visit in zip(ids, visits, strict=True)
    ]
    return torch.stack(draws)


def chance(seed: int, purpose: str, ids: Sequence[str], visits: Sequence[int], probability: float) -> Tensor:
    """(B,) bool, each True with ``probability``."""
    draws = [
        numpy_generator(seed, purpose, sample, visit).random() < probability for sample, visit in zip(ids, visits, strict=True)
    ]
    return torch.tensor(draws, dtype=torch.bool)


def timesteps(seed: int, ids: Sequence[str], visits: Sequence[int], num_steps: int) -> Tensor:
    """(B,) long, uniform over the schedule's steps."""
    draws = [
        int(numpy_generator(seed, "timestep", sample, visit).integers(num_steps))
        for sample, visit in zip(ids, visits, strict=True)
    ]
    return torch.tensor(draws, dtype=torch.long)
