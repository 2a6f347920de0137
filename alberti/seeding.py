"""Randomness from (seed, sample id): never from the position in a batch or the number of processes."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *keys: str | int) -> int:
    """A 63-bit seed that depends on ``seed`` and every key, the same on all machines.

    Keys are told apart by type and position, so ``("a", 1)`` and ``("a1",)`` differ.
    """
    text = repr((int(seed), *((type(key).__name__, key) for key in keys)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(seed: int, *keys: str | int) -> "torch.Generator":
    """A CPU generator seeded with :func:`derive_seed`; draw on the CPU, then move, so that devices agree."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *keys))


def numpy_generator(seed: int, *keys: str | int) -> np.random.Generator:
    """A NumPy generator seeded with :func:`derive_seed`."""
    return np.random.default_rng(derive_seed(seed, *keys))
