"""Training pictures and depth: read, cached, mixed and augmented, as functions of (seed, sample id, visit) alone."""

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np
import torch
from torch import Tensor

from alberti.depth.augmentation import Change, colour_tables
from alberti.depth.resident import Resident, keep_resident
from alberti.depth.samples import DepthSamples
from alberti.errors import ConfigError
from alberti.parallel import core_count
from alberti.training.schedule import Batch, global_batch
from alberti.training.step_graph import to_device

_READERS = 8


class Mixture:
    """One or two data sets as one: an epoch holds all of the first and a share ``ratio`` of the second.

    Position and visit of the training loop become (part, index, visit): the second data set is worked through in turn,
    across epochs or several times in one, so that its own visits count up by one each time.
    """

    def __init__(self, first: DepthSamples, second: DepthSamples | None = None, ratio: float = 0.0):
        if second is None and ratio:
            raise ConfigError(f"mix_ratio: {ratio}, but there is no second data set to mix in")
        if second is not None and not 0.0 < ratio < 1.0:
            raise ConfigError(f"mix_ratio: expected a share between 0 and 1 of the second data set, got {ratio}")
        self.parts = [first] if second is None else [first, second]
        self._extra = 0 if second is None else max(1, round(len(first) * ratio / (1 - ratio)))

    def __len__(self) -> int:
        return len(self.parts[0]) + self._extra

    def locate(self, position: int, visit: int) -> tuple[DepthSamples, int, int]:
        if position < len(self.parts[0]):
            return self.parts[0], position, visit
        count = visit * self._extra + position - len(self.parts[0])
        return self.parts[1], count % len(self.parts[1]), count // len(self.parts[1])

    def sample(self, position: int, visit: int, seed: int) -> tuple[np.ndarray, np.ndarray, Change]:
        part, index, own_visit = self.locate(position, visit)
        return part.sample(index, own_visit, seed)


class Batches:
    """Batches of a :class:`Mixture` as tensors.

    With ``resident`` and pictures that fit into the cache, all are read at the first batch and kept on the device, where
    batches are cut out of them. Otherwise files are read as they come, and with ``workers`` threads the next step's
    while one is trained on. The batches are the same.
    """

    def __init__(self, mixture: Mixture, seed: int, batch_size: int, workers: int = 0, *, resident: bool = False):
        self.mixture, self.seed, self.batch_size, self.workers = mixture, seed, batch_size, workers
        self._resident = resident
        self._kept: list[Resident] | None = None
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="depth-data") if workers else None
        self._pending: dict[tuple[int, int], Future[tuple[np.ndarray, np.ndarray, Change]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def load(self, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """Inputs of a step: "images" (b, 3, h, w) uint8, their "colours" (b, 3, 256) and "depth" (b, h, w) in metres.

        On ``device``, or on the CPU; :func:`alberti.depth.augmentation.apply_tables` makes images in [0, 1] of the first two.
        """
        keys = list(zip(batch.indices, batch.visits, strict=True))
        if self._resident and self._kept is None:
            self._kept = self._keep(device)
            self._resident = self._kept is not None
        images, depth, changes = self._cut(self._kept, keys) if self._kept is not None else self._read(keys, batch)
        return {"images": images, "colours": colour_tables(changes), "depth": depth}

    def _keep(self, device: torch.device) -> list[Resident] | None:
        readers = self.workers or min(_READERS, core_count())
        kept = [keep_resident(part, device, readers) for part in self.mixture.parts]
        found = [part for part in kept if part is not None]
        return found if len(found) == len(kept) else None

    def _cut(self, kept: list[Resident], keys: list[tuple[int, int]]) -> tuple[Tensor, Tensor, list[Change]]:
        located = [self.mixture.locate(*key) for key in keys]
        changes = [part.change(index, visit, self.seed) for part, index, visit in located]
        if len(kept) == 1:
            return *kept[0].cut([index for _, index, _ in located], changes), changes
        order, images, depth = [], [], []
        for samples, pixels in zip(self.mixture.parts, kept, strict=True):
            rows = [row for row, (part, _, _) in enumerate(located) if part is samples]
            if rows:
                found = pixels.cut([located[row][1] for row in rows], [changes[row] for row in rows])
                order += rows
                images.append(found[0])
                depth.append(found[1])
        back = to_device(torch.tensor(order).argsort(), images[0].device)
        return torch.cat(images)[back], torch.cat(depth)[back], changes

    def _read(self, keys: list[tuple[int, int]], batch: Batch) -> tuple[Tensor, Tensor, list[Change]]:
        if self._pool is None:
            rows = [self.mixture.sample(*key, self.seed) for key in keys]
        else:
            self._submit(keys)
            self._submit(self._next(batch))
            rows = [self._pending.pop(key).result() for key in keys]
        images = torch.from_numpy(np.stack([image for image, _, _ in rows])).permute(0, 3, 1, 2).contiguous()
        depth = torch.from_numpy(np.stack([depth for _, depth, _ in rows]))
        return images, depth, [change for _, _, change in rows]

    def _submit(self, keys: list[tuple[int, int]]) -> None:
        assert self._pool is not None
        for key in keys:
            if key not in self._pending:
                self._pending[key] = self._pool.submit(self.mixture.sample, *key, self.seed)

    def _next(self, batch: Batch) -> list[tuple[int, int]]:
        """What this process will be asked for at the next step in place of ``batch``."""
        now = global_batch(self.seed, batch.step, self.batch_size, len(self.mixture))
        now_keys = list(zip(now.indices, now.visits, strict=True))
        start = now_keys.index((batch.indices[0], batch.visits[0]))
        after = global_batch(self.seed, batch.step + 1, self.batch_size, len(self.mixture))
        return list(zip(after.indices, after.visits, strict=True))[start : start + len(batch.indices)]


def spread(count: int, wanted: int) -> Iterator[int]:
    """At most ``wanted`` indices below ``count``, evenly spread."""
    step = max(1, math.ceil(count / max(1, wanted)))
    return iter(range(0, count, step))
