"""Random draws of a training step: functions of (seed, purpose, sample id, visit).

So the arms of an experiment, any batch size and any number of processes see the same noise for the same sample. Normal draws
are counter-based: each value is a hash of (stream, position), computed for the whole batch at once where it is needed, so that
a GPU does not wait for one generator per sample. Devices agree to rounding.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from alberti.seeding import derive_seed
from alberti.training.step_graph import to_device

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def _shifted(value: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's own keeps the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _splitmix64(value: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014) on int64, wrapping."""
    value = (value ^ _shifted(value, 30)) * _MIX_1
    value = (value ^ _shifted(value, 27)) * _MIX_2
    return value ^ _shifted(value, 31)


def gaussian(
    seed: int,
    purpose: str,
    ids: Sequence[str],
    visits: Sequence[int],
    shape: tuple[int, ...],
    device: str | torch.device = "cpu",
) -> Tensor:
    """Standard normal (B, *shape) float32 on ``device``, by Box and Muller's transform of hashed counters."""
    return normal(to_device(streams(seed, purpose, ids, visits), torch.device(device)), shape)


def streams(seed: int, purpose: str, ids: Sequence[str], visits: Sequence[int]) -> Tensor:
    """(B,) int64 on the CPU: where the draws of each sample start."""
    return torch.tensor([derive_seed(seed, purpose, sample, visit) for sample, visit in zip(ids, visits, strict=True)])


def normal(streams: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal (B, *shape) float32 for (B,) :func:`streams`, on their device."""
    count = math.prod(shape)
    pairs = (count + 1) // 2
    counter = torch.arange(1, pairs + 1, device=streams.device) * _GOLDEN
    bits = _splitmix64(streams[:, None] + counter)
    # 24 bits a uniform, in (0, 1): what float32 holds exactly, and never the logarithm of 0.
    radius = (-2 * ((_shifted(bits, 40).float() + 0.5) * 2.0**-24).log()).sqrt()
    angle = ((bits & 0xFFFFFF).float() + 0.5) * (2.0**-24 * 2 * math.pi)
    draws = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return draws[:, :count].reshape(len(streams), *shape)


def chance(seed: int, purpose: str, ids: Sequence[str], visits: Sequence[int], probability: float) -> Tensor:
    """(B,) bool on the CPU, each True with ``probability``."""
    limit = probability * 2.0**63
    return torch.tensor(
        [derive_seed(seed, purpose, sample, visit) < limit for sample, visit in zip(ids, visits, strict=True)], dtype=torch.bool
    )


def timesteps(seed: int, ids: Sequence[str], visits: Sequence[int], num_steps: int) -> Tensor:
    """(B,) long on the CPU, uniform over the schedule's steps."""
    draws = [derive_seed(seed, "timestep", sample, visit) % num_steps for sample, visit in zip(ids, visits, strict=True)]
    return torch.tensor(draws, dtype=torch.long)
