"""Pictures with depth of one data set, at the size that they are trained at."""

import numpy as np

from alberti.data.manifest import Dataset
from alberti.data.transforms import View, transform
from alberti.depth.augmentation import Change, centre_of, cut, draw_change
from alberti.depth.config import CACHE_MB, Augmentation
from alberti.errors import DataError
from alberti.metrics.depth import kb_window
from alberti.seeding import numpy_generator

_Size = tuple[int, int]
_Crop = tuple[int, int, int, int]


class DepthSamples:
    """Pictures with depth of one data set, resized once and kept in memory up to ``cache_mb``."""

    def __init__(self, dataset: Dataset, augmentation: Augmentation, cache_mb: float = CACHE_MB):
        dataset.require_metric_depth()
        lacking = [sample.id for sample in dataset if sample.image is None or sample.depth is None]
        if lacking:
            raise DataError(f"{dataset.folder}: {len(lacking)} samples lack an image or depth, such as {lacking[0]!r}")
        self.dataset, self.augmentation = dataset, augmentation
        self.cache_bytes = int(cache_mb * 2**20)
        self._cache: dict[int, View] = {}
        self._room = self.cache_bytes

    def __len__(self) -> int:
        return len(self.dataset)

    def view(self, index: int) -> View:
        """The picture with its depth and camera, at the size before the random crop."""
        found = self._cache.get(index)
        if found is not None:
            return found
        view = self.read(index)
        assert view.image is not None
        assert view.depth is not None
        size = view.image.nbytes + view.depth.nbytes
        if size <= self._room:
            self._room -= size
            self._cache[index] = view
        return view

    def read(self, index: int) -> View:
        """The same from the files."""
        sample = self.dataset[index]
        image, depth = self.dataset.read_image(sample), self.dataset.read_depth(sample)
        crop, size = self._fit(index)
        return transform(View(image=image, depth=depth, camera=self.dataset.camera(sample)), crop=crop, size=size)

    def _fit(self, index: int) -> tuple[_Crop | None, _Size]:
        """The part of the file that is taken, and the (width, height) that it gets."""
        sample, options = self.dataset[index], self.augmentation
        width, height, crop = sample.width, sample.height, None
        if options.kb_crop:
            rows, columns = kb_window(height, width)
            width, height = columns.stop - columns.start, rows.stop - rows.start
            crop = (columns.start, rows.start, width, height)
        wanted = options.height or height
        least = max(wanted / height, options.crop[0] / height, options.crop[1] / width)
        return crop, (max(round(width * least), options.crop[1]), round(height * least))

    def size(self, index: int) -> _Size:
        """(width, height) of :meth:`view`, without reading it."""
        return self._fit(index)[1]

    def centre(self, index: int) -> tuple[float, float]:
        """Pixel (x, y) of :meth:`view` about which it is rotated, without reading it."""
        crop, size = self._fit(index)
        camera = self.dataset.camera(self.dataset[index])
        moved = camera and transform(View(camera=camera), crop=crop, size=size).camera
        return centre_of(moved, size)

    def change(self, index: int, visit: int, seed: int) -> Change:
        """What augmentation does at this visit, from (seed, id, visit)."""
        random = numpy_generator(seed, "depth augmentation", self.dataset[index].id, visit)
        return draw_change(self.augmentation, self.size(index), random)

    def sample(self, index: int, visit: int, seed: int) -> tuple[np.ndarray, np.ndarray, Change]:
        """Picture (h, w, 3) uint8 and depth (h, w) metres of a visit, and what was drawn: the colours are still to change."""
        change = self.change(index, visit, seed)
        return *cut(self.view(index), change, self.augmentation.crop), change
