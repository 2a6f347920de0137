"""Building blocks of procedural textures: box-filtered strips and tables of noise."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

_SIZE = 256


def strip(distance: Tensor, half: Tensor | float, sharp: Tensor) -> Tensor:
    """Coverage in [0, 1] of a strip of half width ``half`` at ``distance`` >= 0 from its middle, seen through a box
    filter of width 1 / ``sharp``. All in metres; exact for one strip, however thin."""
    covered = ((half - distance) * sharp).add_(0.5).clamp_(0, 1)
    if isinstance(half, float):
        return torch.minimum(covered, (sharp * (2 * half)).clamp_(max=1), out=covered)
    return torch.minimum(covered, (sharp * half).mul_(2).clamp_(0, 1), out=covered)


def beyond(value: Tensor, sharp: Tensor) -> Tensor:
    """Coverage in [0, 1] of the side value > 0 of an edge, through the same filter."""
    return (value * sharp).add_(0.5).clamp_(0, 1)


def cell(x: Tensor, pitch: Tensor | float) -> tuple[Tensor, Tensor]:
    """Index and centred offset in metres of x in a row of cells of width ``pitch``."""
    index = (x / pitch).floor_()
    return index, x - (index + 0.5) * pitch


def mix(base: Tensor, other: Tensor | float, weight: Tensor) -> Tensor:
    """base + (other - base) weight."""
    step = other - base
    if step.shape == weight.shape:
        return step.mul_(weight).add_(base)
    return step * weight + base


@cache
def _noise_table(device: torch.device) -> Tensor:
    """(SIZE * SIZE,) periodic fractal noise in [0, 1], mean about 0.5: octaves of random lattices, linearly blended."""
    generator = np.random.default_rng(20231201)
    total = np.zeros((_SIZE, _SIZE))
    for size, weight in ((8, 1.0), (16, 0.8), (32, 0.6), (64, 0.5), (128, 0.4), (256, 0.4)):
        lattice = generator.random((size, size))
        step = _SIZE // size
        position = np.arange(_SIZE) / step
        index = position.astype(int)
        share = position - index
        following = (index + 1) % size
        rows = lattice[index] * (1 - share)[:, None] + lattice[following] * share[:, None]
        total += weight * (rows[:, index] * (1 - share) + rows[:, following] * share)
    total = (total - total.mean()) / total.std() * 0.2 + 0.5
    return torch.from_numpy(np.clip(total, 0, 1).astype(np.float32)).flatten().to(device)


@cache
def _hash_table(device: torch.device) -> Tensor:
    """(4096,) independent uniform numbers."""
    return torch.from_numpy(np.random.default_rng(20231202).random(4096, dtype=np.float32)).to(device)


def noise(u: Tensor, v: Tensor) -> Tensor:
    """Fractal noise at texel coordinates (u, v), nearest texel, period 256."""
    index = (v.floor().to(torch.int32) & (_SIZE - 1)) * _SIZE + (u.floor().to(torch.int32) & (_SIZE - 1))
    return _noise_table(u.device).index_select(0, index.reshape(-1)).view(u.shape)


def hashed(index: Tensor) -> Tensor:
    """A uniform number for each int32 index."""
    index = index & 4095
    return _hash_table(index.device).index_select(0, index.reshape(-1)).view(index.shape)


def leaf_noise(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Noise on the surfaces of trees, for their edges and their shades."""
    return noise((x + 0.61 * z) * 9.0, (y + 0.37 * z - 0.2 * x) * 9.0)
