"""The data sets that ``prepare`` can read in their native layout, by name, and how one becomes a data-set folder.

A reader is a function ``(root, index, **options) -> Source``. It lists files, not pixels, and copies nothing: the rows
of the manifest point into the user's own copy.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from alberti.data.captions import CaptionConfig, caption_samples
from alberti.data.depth_formats import check_depth_format
from alberti.data.fingerprint import FileIndex
from alberti.data.manifest import Dataset, Sample, write_dataset
from alberti.errors import ConfigError, DataError
from alberti.images import read_image
from alberti.progress import track

T = TypeVar("T")

READERS: dict[str, str] = {
    "folder": "alberti.data.folder:open_folder",
    "holicity": "alberti.data.holicity:open_holicity",
    "vkitti2": "alberti.data.vkitti2:open_vkitti2",
    "synthia_al": "alberti.data.synthia_al:open_synthia_al",
}
"""Reader by name as "module:function", imported when used."""


@dataclass(frozen=True)
class Source:
    """A data set in its native layout: rows, and what ``dataset.json`` needs to say of them.

    ``samples`` may be a generator and is read once. Image and depth paths are relative to ``root``.
    """

    name: str
    root: Path
    samples: Iterable[Sample]
    depth_kind: str | None = "z"
    depth_format: str = "png16"
    depth_scale: float = 256.0
    notes: str = ""


def open_source(name: str, root: str | Path, *, index: FileIndex | None = None, **options: Any) -> Source:
    """Open the data set ``name`` (a key of :data:`READERS`) that lies at ``root``.

    Args:
        index: where hashes and picture sizes come from; None: computed, not kept.
        options: the reader's own; see its function.

    Raises:
        ConfigError: unknown name or option; DataError: the folder is missing or laid out otherwise.
    """
    reader = reader_of(name)
    allowed = [parameter for parameter in inspect.signature(reader).parameters if parameter not in ("root", "index")]
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise ConfigError(f"data source {name}: unknown option {unknown[0]!r}; it takes {', '.join(allowed) or 'none'}")
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; the data source {name} was expected there")
    return reader(root, index or FileIndex(root), **options)


def reader_of(name: str) -> Callable[..., Source]:
    """The reader function of a data source; ConfigError if there is none of that name."""
    if name not in READERS:
        raise ConfigError(f"data source {name!r}: unknown; there are {', '.join(sorted(READERS))}")
    module, _, function = READERS[name].partition(":")
    return getattr(importlib.import_module(module), function)


def write_source(
    source: Source,
    folder: str | Path,
    *,
    role: str,
    limit: int | None = None,
    captions: CaptionConfig | None = None,
    device: str = "cpu",
) -> Dataset:
    """Write ``dataset.json`` and ``manifest.jsonl`` of a source into an existing folder; the files stay where they are.

    Args:
        limit: at most so many rows, evenly spread over the source's order; None: all.
        captions: where rows without a caption get one; None: they stay without.
        device: of the captioning model.
    """
    check_depth_format(source.depth_format)
    samples = source.samples if limit is None else evenly(list(source.samples), limit)
    if captions is not None:
        samples = caption_samples(samples, partial(_read_image, source.root), captions, device=device)
    return write_dataset(
        folder,
        track(samples, f"indexing {source.name}"),
        name=source.name,
        role=role,
        root=str(source.root.resolve()),
        depth_root=str(source.root.resolve()),
        depth_kind=source.depth_kind,
        depth_scale=source.depth_scale,
        depth_format=source.depth_format,
        notes=source.notes,
    )


def _read_image(root: Path, sample: Sample) -> np.ndarray:
    if sample.image is None:
        raise DataError(f"{root}: sample {sample.id!r} has no image to describe")
    return read_image(root / sample.image)


def evenly(items: list[T], limit: int) -> list[T]:
    """``limit`` items spread evenly over the list, in order, the first among them; all if there are no more."""
    if limit < 1:
        raise ConfigError(f"limit: expected at least 1, got {limit}")
    if limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def layout_error(root: Path, expected: str) -> DataError:
    """The error of a folder that is laid out otherwise: which names were expected and what stands there."""
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in root.iterdir())
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return DataError(f"{root}: expected {expected}; found {shown or 'an empty folder'}")


def matching(values: Iterable[str] | str | None, available: Iterable[str], what: str, root: Path) -> list[str]:
    """Those of ``available`` that ``values`` asks for (None: all); DataError if one of ``values`` is not there."""
    available = list(available)
    if values is None:
        return available
    wanted = [values] if isinstance(values, str) else list(values)
    for value in wanted:
        if value not in available:
            raise DataError(f"{root}: no {what} {value!r}; there are {', '.join(available[:12])}")
    return [name for name in available if name in wanted]


def folders(path: Path) -> Iterator[str]:
    """Names of the folders in ``path``, sorted, hidden ones left out; none if ``path`` is not a folder."""
    if path.is_dir():
        yield from sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
