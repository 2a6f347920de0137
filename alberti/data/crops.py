"""Brings a source's pictures to one size: crops and resized copies of image, depth, camera and vanishing points together.

A source of another size than a model takes cannot be used where it lies, so these copies are the one case in which
``prepare`` writes pictures of yours: PNG, and depth as float32 ``.npz``, which holds any range and kind exactly.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

from alberti.data.config import Fit
from alberti.data.manifest import SCHEMA_VERSION, Dataset, DatasetInfo, Sample
from alberti.data.source import Source
from alberti.data.transforms import View, transform
from alberti.files import atomic_file, sha256_file
from alberti.images import write_image
from alberti.parallel import ordered_results

Crop = tuple[int, int, int, int]
DEPTH_FORMAT = "npz:depth"
_WORTH_PROCESSES = 48
"""Frames from which processes pay for their start."""


def fit_source(
    source: Source, samples: Iterable[Sample], fit: Fit, folder: Path, *, prefix: str = "", workers: int = 1
) -> Iterator[Sample]:
    """Write the crops of a source's ``samples`` to ``folder/images`` and ``folder/depth``; yield rows relative to ``folder``.

    Args:
        prefix: in front of every id. Where a frame gives several crops, their number follows the id.
        workers: processes; what is written does not depend on it.

    Raises:
        DataError: a file is missing, damaged, or of another size than its row says.
    """
    native = Dataset(source.root, native_info(source), [])
    samples = iter(samples)
    first = list(islice(samples, _WORTH_PROCESSES))
    if len(first) < _WORTH_PROCESSES:
        workers = 1
    jobs = (_Job(native, sample, fit, folder, prefix) for sample in chain(first, samples))
    for rows in ordered_results(_write_crops, jobs, workers):
        yield from rows


def native_info(source: Source) -> DatasetInfo:
    """What ``dataset.json`` would say of a source that is read where it lies."""
    return DatasetInfo(
        schema_version=SCHEMA_VERSION,
        name=source.name,
        role="native",
        count=0,
        depth_kind=source.depth_kind,
        depth_scale=source.depth_scale,
        depth_format=source.depth_format,
        fingerprint="",
    )


@dataclass(frozen=True)
class _Job:
    native: Dataset
    sample: Sample
    fit: Fit
    folder: Path
    prefix: str


def _write_crops(job: _Job) -> list[Sample]:
    sample, native = job.sample, job.native
    points = sample.vanishing_points
    view = View(
        image=None if sample.image is None else native.read_image(sample),
        depth=None if sample.depth is None else native.read_depth(sample),
        camera=native.camera(sample),
        vanishing_points=None if points is None else np.asarray(points, np.float64).reshape(-1, 3),
    )
    boxes = crop_boxes((sample.width, sample.height), job.fit)
    names = [f"{job.prefix}{sample.id}" + (f"_{index}" if len(boxes) > 1 else "") for index in range(len(boxes))]
    size = (job.fit.width, job.fit.height)
    moved = [transform(view, crop=box, size=size) for box in boxes]
    return [_write(sample, name, part, size, job.folder) for name, part in zip(names, moved, strict=True)]


def _write(sample: Sample, name: str, view: View, size: tuple[int, int], folder: Path) -> Sample:
    paths: dict[str, str] = {}
    if view.image is not None:
        paths["image"] = f"images/{name}.png"
        write_image(folder / paths["image"], view.image)
    if view.depth is not None:
        paths["depth"] = f"depth/{name}.npz"
        with atomic_file(folder / paths["depth"]) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, depth=view.depth)
    points = view.vanishing_points
    return sample.model_copy(
        update={
            "id": name,
            "image": paths.get("image"),
            "depth": paths.get("depth"),
            "width": size[0],
            "height": size[1],
            "intrinsics": None if view.camera is None else view.camera.intrinsics,
            "vanishing_points": None if points is None else [(float(x), float(y), float(w)) for x, y, w in points],
            "sha256": {field: sha256_file(folder / path) for field, path in paths.items()},
        }
    )


def crop_boxes(size: tuple[int, int], fit: Fit) -> list[Crop]:
    """Boxes (x0, y0, width, height), in pixels of a frame of ``size`` (width, height), that are resized to the fit's size.

    Boxes have whole pixels, so their aspect is that of the fit to within half a pixel.
    """
    width, height = size
    box_width = min(width, max(1, round(height * fit.width / fit.height)))
    box_height = min(height, max(1, round(width * fit.height / fit.width)))
    count = max(width // box_width, height // box_height) if fit.rule == "crops_along" else 1
    xs, ys = _starts(width - box_width, count), _starts(height - box_height, count)
    return [(x0, y0, box_width, box_height) for x0, y0 in zip(xs, ys, strict=True)]


def _starts(slack: int, count: int) -> list[int]:
    return [slack // 2] if count == 1 else [index * slack // (count - 1) for index in range(count)]
