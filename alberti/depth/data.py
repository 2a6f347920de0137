"""Training pictures and depth: read, cached, mixed and augmented, as functions of (seed, sample id, visit) alone."""

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from alberti.data.manifest import Dataset
from alberti.data.transforms import View, transform
from alberti.errors import ConfigError, DataError
from alberti.metrics.depth import kb_window
from alberti.seeding import numpy_generator
from alberti.training import Batch, global_batch


@dataclass(frozen=True)
class Augmentation:
    """How a picture becomes a training sample. Depth, which is along the optical axis, changes under none of these."""

    crop: tuple[int, int]
    """Height and width that the network sees, at a random place."""
    height: int | None = None
    """Resize pictures to this height before, keeping their aspect; None: as they are. Too small ones grow to the crop."""
    kb_crop: bool = False
    """Cut KITTI's benchmark crop (352x1216, at the bottom, centred) first."""
    flip: float = 0.5
    """Probability of mirroring."""
    jitter: float = 0.5
    """Probability of a change of gamma, brightness and colour, each within 10 % (BTS's recipe for KITTI)."""
    rotate_degrees: float = 0.0
    """Largest rotation about the principal point, which keeps z as it is."""

    def __post_init__(self) -> None:
        for name in ("flip", "jitter"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name}: expected a probability, got {getattr(self, name)}")
        if min(self.crop) < 32:
            raise ConfigError(f"crop: expected at least 32x32 (height x width), got {self.crop[0]}x{self.crop[1]}")


class DepthSamples:
    """Pictures with depth of one data set, resized once and kept in memory up to ``cache_mb``."""

    def __init__(self, dataset: Dataset, augmentation: Augmentation, cache_mb: float = 512.0):
        dataset.require_metric_depth()
        lacking = [sample.id for sample in dataset if sample.image is None or sample.depth is None]
        if lacking:
            raise DataError(f"{dataset.folder}: {len(lacking)} samples lack an image or depth, such as {lacking[0]!r}")
        self.dataset, self.augmentation = dataset, augmentation
        self._cache: dict[int, View] = {}
        self._room = int(cache_mb * 2**20)

    def __len__(self) -> int:
        return len(self.dataset)

    def view(self, index: int) -> View:
        """The picture with its depth and camera, at the size before the random crop."""
        found = self._cache.get(index)
        if found is not None:
            return found
        view = self._read(index)
        assert view.image is not None
        assert view.depth is not None
        size = view.image.nbytes + view.depth.nbytes
        if size <= self._room:
            self._room -= size
            self._cache[index] = view
        return view

    def _read(self, index: int) -> View:
        sample = self.dataset[index]
        image, depth = self.dataset.read_image(sample), self.dataset.read_depth(sample)
        view = View(image=image, depth=depth, camera=self.dataset.camera(sample))
        if self.augmentation.kb_crop:
            rows, columns = kb_window(view.size[1], view.size[0])
            view = transform(view, crop=(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start))
        width, height = view.size
        wanted = self.augmentation.height or height
        least = max(wanted / height, self.augmentation.crop[0] / height, self.augmentation.crop[1] / width)
        size = (max(round(width * least), self.augmentation.crop[1]), round(height * least))
        return transform(view, size=size)

    def sample(self, index: int, visit: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Augmented picture (h, w, 3) float32 in [0, 1] and depth (h, w) metres, from (seed, id, visit)."""
        options = self.augmentation
        random = numpy_generator(seed, "depth augmentation", self.dataset[index].id, visit)
        view = self.view(index)
        if options.rotate_degrees:
            view = rotate(view, random.uniform(-options.rotate_degrees, options.rotate_degrees))
        width, height = view.size
        x0 = int(random.integers(width - options.crop[1] + 1))
        y0 = int(random.integers(height - options.crop[0] + 1))
        flip = bool(random.random() < options.flip)
        view = transform(view, crop=(x0, y0, options.crop[1], options.crop[0]), flip=flip)
        assert view.image is not None
        assert view.depth is not None
        image = view.image.astype(np.float32) / 255
        return (jitter_colours(image, random) if random.random() < options.jitter else image), view.depth


def rotate(view: View, degrees: float) -> View:
    """Rotate image and depth about the principal point (the middle where it is unknown); what comes in has no depth."""
    import cv2

    assert view.image is not None
    assert view.depth is not None
    width, height = view.size
    centre = (view.camera.cx, view.camera.cy) if view.camera is not None else ((width - 1) / 2, (height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, degrees, 1.0)
    image = cv2.warpAffine(view.image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    depth = cv2.warpAffine(view.depth, matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=0)
    return View(image=image, depth=depth)


def jitter_colours(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Gamma, brightness and colour balance, each drawn within 10 % of one, of a picture in [0, 1]."""
    gamma, brightness = random.uniform(0.9, 1.1, size=2)
    colours = brightness * random.uniform(0.9, 1.1, size=3)
    return np.clip(image**gamma * colours, 0, 1).astype(np.float32)


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

    def sample(self, position: int, visit: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        part, index, own_visit = self.locate(position, visit)
        return part.sample(index, own_visit, seed)


class Batches:
    """Batches of a :class:`Mixture` as tensors; with ``workers`` threads the next step's are read while one is trained on."""

    def __init__(self, mixture: Mixture, seed: int, batch_size: int, workers: int = 0):
        self.mixture, self.seed, self.batch_size = mixture, seed, batch_size
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="depth-data") if workers else None
        self._pending: dict[tuple[int, int], Future[tuple[np.ndarray, np.ndarray]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def load(self, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images (b, 3, h, w) in [0, 1] and depth (b, h, w) in metres, on ``device``."""
        keys = list(zip(batch.indices, batch.visits, strict=True))
        if self._pool is None:
            pairs = [self.mixture.sample(*key, self.seed) for key in keys]
        else:
            self._submit(keys)
            self._submit(self._next(batch))
            pairs = [self._pending.pop(key).result() for key in keys]
        images = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2).contiguous()
        depth = torch.from_numpy(np.stack([depth for _, depth in pairs]))
        return images.to(device, non_blocking=True), depth.to(device, non_blocking=True)

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
