"""Small data sets kept decoded on the training device, so that a step cuts its batch out of memory.

What was read once stays for later trainings of the process, the last used ones up to 2 GiB.
"""

import os
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alberti.data.manifest import Dataset, Sample
from alberti.data.transforms import View
from alberti.depth.augmentation import FRACTION, FRACTION_BITS, Change, Turn
from alberti.depth.samples import DepthSamples
from alberti.progress import Progress
from alberti.training.step_graph import to_device

_LIMIT = 2 << 30
_BYTES_A_PIXEL = 3 + 4
_KEPT: OrderedDict[Hashable, "Resident"] = OrderedDict()


def keep_resident(samples: DepthSamples, device: torch.device, readers: int) -> "Resident | None":
    """The pictures of ``samples`` on ``device``, read by ``readers`` threads unless they are there; None if they do not fit.

    They fit if uint8 pictures and float32 depth take no more than the samples' cache.

    Raises:
        DataError: a file that is missing, damaged or of another size than the manifest says.
    """
    sizes = [samples.size(index) for index in range(len(samples))]
    if _BYTES_A_PIXEL * sum(width * height for width, height in sizes) > samples.cache_bytes:
        return None
    key = _key(samples, device)
    if key not in _KEPT:
        _KEPT[key] = Resident(samples, sizes, device, readers)
    _KEPT.move_to_end(key)
    while len(_KEPT) > 1 and sum(found.nbytes for found in _KEPT.values()) > _LIMIT:
        _KEPT.popitem(last=False)
    return _KEPT[key]


def _key(samples: DepthSamples, device: torch.device) -> Hashable:
    """What a :class:`Resident` depends on."""
    dataset, options = samples.dataset, samples.augmentation
    stored = (dataset.info.depth_format, dataset.info.depth_scale)
    rows = tuple((sample.id, sample.intrinsics, _content(dataset, sample)) for sample in dataset)
    shape = (options.crop, options.height, options.kb_crop, options.rotate_degrees > 0)
    return str(device), stored, shape, rows


def _content(dataset: Dataset, sample: Sample) -> Hashable:
    """Hashes of the row's files; where it has none, a file that was written again is known by its time and size."""
    if "image" in sample.sha256 and "depth" in sample.sha256:
        return sample.sha256["image"], sample.sha256["depth"]
    return _state(dataset.image_path(sample)), _state(dataset.depth_path(sample))


def _state(path: Path) -> tuple[str, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return str(path), 0, 0  # reading it says what is wrong
    return str(path), found.st_mtime_ns, found.st_size


class Resident:
    """All pixels of a data set's pictures, one picture behind the other whatever their sizes, on one device."""

    def __init__(self, samples: DepthSamples, sizes: Sequence[tuple[int, int]], device: torch.device, readers: int):
        self._crop, self._rotates = samples.augmentation.crop, samples.augmentation.rotate_degrees > 0
        counts = [width * height for width, height in sizes]
        ends = np.cumsum(counts)
        pixels, depth = np.empty((ends[-1], 3), np.uint8), np.empty(ends[-1], np.float32)
        for view, end, count in zip(_views(samples, readers), ends, counts, strict=True):
            assert view.image is not None
            assert view.depth is not None
            pixels[end - count : end], depth[end - count : end] = view.image.reshape(-1, 3), view.depth.reshape(-1)
        self._pixels, self._depth = torch.from_numpy(pixels).to(device), torch.from_numpy(depth).to(device)
        # start, width and height of every picture
        self._places = torch.tensor([(end - count, *size) for end, count, size in zip(ends.tolist(), counts, sizes)]).to(device)
        self._centres = [samples.centre(index) for index in range(len(samples))] if self._rotates else []

    @property
    def nbytes(self) -> int:
        return self._pixels.nbytes + self._depth.nbytes

    def cut(self, indices: Sequence[int], changes: Sequence[Change]) -> tuple[Tensor, Tensor]:
        """Pictures (b, 3, h, w) uint8 and depth (b, h, w), rotated, cropped and mirrored as :func:`augmentation.cut` does."""
        device, (height, width) = self._pixels.device, self._crop
        rows = [(index, change.x0, change.y0, int(change.flip)) for index, change in zip(indices, changes, strict=True)]
        index, x0, y0, flip = to_device(torch.tensor(rows).T.contiguous(), device)[:, :, None, None]
        column, row = torch.arange(width, device=device), torch.arange(height, device=device)[:, None]
        x, y = x0 + torch.where(flip > 0, width - 1 - column, column), y0 + row
        places = self._places[index.flatten()].T[:, :, None, None]
        if self._rotates:
            turns = [Turn.of(change.degrees, self._centres[at]) for at, change in zip(indices, changes, strict=True)]
            turn = Turn(*to_device(torch.tensor(turns, dtype=torch.float64).T.contiguous(), device)[:, :, None, None])
            images, depth = self._rotated(places, *turn.source(x, y))
        else:
            start, stride, _ = places
            pixel = start + y * stride + x
            images, depth = self._pixels[pixel], self._depth[pixel]
        return images.permute(0, 3, 1, 2).contiguous(), depth

    def _rotated(self, places: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels at (x, y) in 32nds: bilinear and mirrored at the border, and depth of the nearest, 0 outside."""
        start, width, height = places
        left, top = x >> FRACTION_BITS, y >> FRACTION_BITS
        right_share, lower_share = x & (FRACTION - 1), y & (FRACTION - 1)
        total = torch.full((*x.shape, 3), FRACTION**2 // 2, dtype=torch.int32, device=x.device)
        for down, share_y in ((0, FRACTION - lower_share), (1, lower_share)):
            for right, share_x in ((0, FRACTION - right_share), (1, right_share)):
                pixel = start + _mirrored(top + down, height) * width + _mirrored(left + right, width)
                total += self._pixels[pixel] * (share_y * share_x).int()[..., None]
        column, row = x + FRACTION // 2 >> FRACTION_BITS, y + FRACTION // 2 >> FRACTION_BITS
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        pixel = torch.where(inside, start + row * width + column, 0)
        return (total >> 2 * FRACTION_BITS).to(torch.uint8), torch.where(inside, self._depth[pixel], 0.0)


def _mirrored(position: Tensor, size: Tensor) -> Tensor:
    """cba|abc|cba: positions beyond the border, by however much, as those that they mirror."""
    position = position % (2 * size)
    return torch.where(position < size, position, 2 * size - 1 - position)


def _views(samples: DepthSamples, readers: int) -> Iterator[View]:
    pool = ThreadPoolExecutor(readers, thread_name_prefix="depth-read")
    try:
        with Progress("reading pictures", len(samples), "images") as progress:
            for view in pool.map(samples.read, range(len(samples))):
                yield view
                progress.advance()
    finally:
        pool.shutdown(cancel_futures=True)
