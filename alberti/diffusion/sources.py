"""Where training pictures come from: a data set on disk, or streets rendered as they are needed."""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import numpy as np
import torch
from torch import Tensor

from alberti.data.manifest import DEPTH_NEEDED, Dataset
from alberti.data.transforms import stack_vanishing_points
from alberti.device import choose_device
from alberti.errors import ConfigError, DataError
from alberti.parallel import core_count
from alberti.progress import Progress

if TYPE_CHECKING:
    from alberti.data.scenes import SceneConfig

MAX_POINTS = 8
_IN_MEMORY = 1 << 30
_CAPTIONED = 512
_RENDERED = 512
_READERS = 8


class SourceBatch(TypedDict):
    """Samples on one device; ``ids`` are what randomness is derived from."""

    ids: list[str]
    image: Tensor
    """(B, 3, H, W) in [0, 1]."""
    depth: Tensor
    """(B, H, W) metres, 0 = no measurement."""
    captions: list[str]
    vanishing_points: Tensor
    """(B, K, 3) homogeneous pixels, zero rows absent."""


class TrainingSource(Protocol):
    """What the trainers of a base read from."""

    height: int
    width: int
    fingerprint: str
    fresh: bool
    """Every visit gives a new picture."""

    def __len__(self) -> int: ...

    def captions(self) -> list[str]:
        """Captions to train a tokenizer on."""
        ...

    def batch(self, indices: Sequence[int], visits: Sequence[int], device: torch.device) -> SourceBatch:
        """The samples at ``indices``; ``visits[i]`` says how often each came before."""
        ...


class DatasetSource:
    """A data set on disk, decoded once and kept as uint8 images and float32 depth.

    Up to 1 GiB is kept in memory; beyond that in a temporary memory-mapped file, which vanishes with the process.

    Args:
        vanishing_points: by sample id, (K, 3) pixels; None takes those of the manifest.
        keep: False reads the files at every call, for callers that come by once.

    Raises:
        DataError: images of different sizes, or rows without image or depth.
    """

    def __init__(self, dataset: Dataset, vanishing_points: dict[str, Any] | None = None, *, keep: bool = True):
        dataset.require_depth()
        first = dataset[0]
        self.fresh = False
        self.dataset, self.height, self.width = dataset, first.height, first.width
        self.fingerprint = dataset.info.fingerprint
        for sample in dataset:
            if (sample.width, sample.height) != (self.width, self.height):
                raise DataError(
                    f"{dataset.folder}: sample {sample.id!r} has {sample.width} x {sample.height} pixels, the first "
                    f"one {self.width} x {self.height}; training needs one size: prepare the data set with a fixed size"
                )
            if sample.image is None or sample.depth is None:
                raise DataError(
                    f"{dataset.folder}: sample {sample.id!r} has no {'depth' if sample.image else 'image'}{DEPTH_NEEDED}"
                )
        given = [sample.vanishing_points if vanishing_points is None else vanishing_points.get(sample.id) for sample in dataset]
        self.points = stack_vanishing_points(given, MAX_POINTS)
        self.keep = keep
        count = len(dataset) if keep else 0
        self._images = _array((count, self.height, self.width, 3), np.uint8)
        self._depth = _array((count, self.height, self.width), np.float32)
        self._read = np.zeros(count, dtype=bool)
        self._pool = ThreadPoolExecutor(min(_READERS, core_count()))

    def __len__(self) -> int:
        return len(self.dataset)

    def captions(self) -> list[str]:
        return [sample.caption or "" for sample in self.dataset]

    def arrays(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Images (B, H, W, 3) uint8 and depth (B, H, W) float32 metres."""
        if not self.keep:
            images, depth = zip(*self._pool.map(self._files, indices), strict=True)
            return np.stack(images), np.stack(depth)
        missing = sorted({index for index in indices if not self._read[index]})
        for index, (image, metres) in zip(missing, self._pool.map(self._files, missing), strict=True):
            self._images[index], self._depth[index], self._read[index] = image, metres, True
        chosen = np.asarray(indices)
        return self._images[chosen], self._depth[chosen]

    def _files(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        sample = self.dataset[index]
        return self.dataset.read_image(sample), self.dataset.read_condition(sample)

    def batch(self, indices: Sequence[int], visits: Sequence[int], device: torch.device) -> SourceBatch:
        images, depth = self.arrays(indices)
        samples = [self.dataset[index] for index in indices]
        return SourceBatch(
            ids=[sample.id for sample in samples],
            image=torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255,
            depth=torch.from_numpy(depth).to(device),
            captions=[sample.caption or "" for sample in samples],
            vanishing_points=torch.from_numpy(self.points[np.asarray(indices)]).to(device),
        )


def _array(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    if int(np.prod(shape)) * np.dtype(dtype).itemsize <= _IN_MEMORY:
        return np.zeros(shape, dtype)
    # The open map keeps the file alive; its name is gone at once, so nothing is left behind.
    with tempfile.NamedTemporaryFile() as file:
        return np.memmap(Path(file.name), dtype=dtype, mode="w+", shape=shape)


class SceneSource:
    """Procedural streets, rendered on the training device when they are needed.

    Args:
        count: streets an epoch.
        config: size, style and camera; None: the default, 128 x 128.
        fresh: render anew at every visit, so that no picture is seen twice (visit v of index i is street i + v * count).
            Otherwise each of the ``count`` streets is rendered once and kept on the device: about 112 KiB a street of
            128 x 128, so 50,000 take 5.5 GB.
    """

    def __init__(self, count: int, seed: int, config: "SceneConfig | None" = None, *, fresh: bool = True):
        from alberti.data.scenes import SceneConfig

        if count < 1:
            raise ConfigError(f"count: expected at least 1, got {count}")
        self.count, self.seed, self.fresh = count, seed, fresh
        self.config = config if config is not None else SceneConfig()
        self.height, self.width = self.config.height, self.config.width
        self.fingerprint = f"scenes, seed {seed}, count {count}, fresh {fresh}, {self.config}"
        self._kept: dict[str, Tensor] = {}
        self._texts: list[str] = [""] * count
        self._rendered = np.zeros(0 if fresh else count, dtype=bool)

    def __len__(self) -> int:
        return self.count

    def captions(self) -> list[str]:
        """Captions of the first streets, enough to meet every word."""
        device = choose_device()
        count = min(self.count, _CAPTIONED)
        return self._render([self._id(index, 0) for index in range(count)], device, with_images=False)["captions"]

    def render_all(self, device: torch.device) -> None:
        """Render at once what would be rendered when it is first asked for; not for fresh streets."""
        with Progress("rendering streets", self.count, "streets") as progress:
            for start in range(0, self.count, _RENDERED):
                indices = range(start, min(start + _RENDERED, self.count))
                self._render_missing(indices, device)
                progress.advance(len(indices))

    def batch(self, indices: Sequence[int], visits: Sequence[int], device: torch.device) -> SourceBatch:
        if self.fresh:
            return self._render([self._id(*key) for key in zip(indices, visits, strict=True)], device)
        self._render_missing(indices, device)
        rows = torch.tensor(list(indices), device=device)
        return SourceBatch(
            ids=[self._id(index, 0) for index in indices],
            image=self._kept["image"][rows].float() / 255,
            depth=self._kept["depth"][rows],
            captions=[self._texts[index] for index in indices],
            vanishing_points=self._kept["points"][rows],
        )

    def _id(self, index: int, visit: int) -> str:
        return f"street-{index + (visit * self.count if self.fresh else 0):08d}"

    def _render_missing(self, indices: Sequence[int], device: torch.device) -> None:
        missing = sorted({index for index in indices if not self._rendered[index]})
        if not missing:
            return
        data = self._render([self._id(index, 0) for index in missing], device)
        values = {
            "image": (data["image"] * 255).round().to(torch.uint8),
            "depth": data["depth"],
            "points": data["vanishing_points"],
        }
        rows = torch.tensor(missing, device=device)
        for name, value in values.items():
            if name not in self._kept:
                self._kept[name] = torch.empty((self.count, *value.shape[1:]), dtype=value.dtype, device=device)
            self._kept[name][rows] = value
        for index, caption in zip(missing, data["captions"], strict=True):
            self._texts[index] = caption
        self._rendered[missing] = True

    def _render(self, ids: list[str], device: torch.device, with_images: bool = True) -> SourceBatch:
        from alberti.data.scenes import render_batch
        from alberti.data.scenes.generate import default_batch_size

        size = default_batch_size(self.config, device)
        parts = [
            render_batch(ids[start : start + size], self.seed, self.config, device, with_images=with_images)
            for start in range(0, len(ids), size)
        ]
        return SourceBatch(
            ids=ids,
            image=torch.cat([part["image"] for part in parts]).float() / 255,
            depth=torch.cat([part["depth"] for part in parts]),
            captions=[caption for part in parts for caption in part["captions"]],
            vanishing_points=torch.cat([part["vanishing_points"] for part in parts]).float(),
        )
