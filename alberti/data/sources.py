"""The data sets that ``prepare`` can read in their native layout, by name, and how one becomes a data-set folder.

A reader is a function ``(root, index, **options) -> Source``. It lists files, not pixels, and copies nothing: the rows
of the manifest point into the user's own copy.
"""

import importlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
from pydantic import ConfigDict, ValidationError, create_model

from alberti.data.captions import caption_samples
from alberti.data.config import CaptionConfig, Fit
from alberti.data.crops import DEPTH_FORMAT as CROPS_DEPTH_FORMAT
from alberti.data.crops import fit_source
from alberti.data.depth_formats import check_depth_format
from alberti.data.fingerprint import FileIndex
from alberti.data.manifest import Dataset, Sample, write_dataset
from alberti.data.source import Source
from alberti.errors import ConfigError, DataError
from alberti.images import read_image
from alberti.progress import track

T = TypeVar("T")
_SHALLOW, _DEEP = 0.1, 500.0
"""Metres between which the median depth of a data set lies."""

READERS: dict[str, str] = {
    "folder": "alberti.data.folder:open_folder",
    "holicity": "alberti.data.holicity:open_holicity",
    "vkitti2": "alberti.data.vkitti2:open_vkitti2",
    "synthia_al": "alberti.data.synthia_al:open_synthia_al",
}
"""Reader by name as "module:function", imported when used."""


def open_source(name: str, root: str | Path, *, index: FileIndex | None = None, **options: Any) -> Source:
    """Open the data set ``name`` (a key of :data:`READERS`) that lies at ``root``.

    Args:
        index: where hashes and picture sizes come from; None: computed, not kept.
        options: the reader's own; see its function.

    Raises:
        ConfigError: unknown name or option; DataError: the folder is missing or laid out otherwise.
    """
    reader, options = reader_of(name), check_options(name, options)
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; the data source {name} was expected there")
    return reader(root, index or FileIndex(root), **options)


def check_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A reader's options, checked against the names and types of its function's own; ConfigError if they do not fit."""
    reader = reader_of(name)
    hints = get_type_hints(reader)
    known = {key: value for key, value in inspect.signature(reader).parameters.items() if key not in ("root", "index")}
    fields: dict[str, Any] = {key: (hints[key], value.default) for key, value in known.items()}
    model = create_model(f"Options of {name}", __config__=ConfigDict(extra="forbid"), **fields)
    try:
        return model.model_validate(dict(options)).model_dump(exclude_unset=True)
    except ValidationError as error:
        problem = error.errors()[0]
        option = str(problem["loc"][0])
    if option not in known:
        raise ConfigError(f"data source {name}: unknown option {option!r}; it takes {', '.join(known) or 'none'}")
    raise ConfigError(f"data source {name}: option {option}: {problem['msg']} (got {problem['input']!r:.80})")


def reader_of(name: str) -> Callable[..., Source]:
    """The reader function of a data source; ConfigError if there is none of that name."""
    if name not in READERS:
        raise ConfigError(f"data source {name!r}: unknown; there are {', '.join(sorted(READERS))}")
    module, _, function = READERS[name].partition(":")
    return getattr(importlib.import_module(module), function)


def limited(source: Source, limit: int | None, index: FileIndex | None = None) -> Source:
    """The source with at most ``limit`` of its rows, evenly spread over its order; None: all.

    Args:
        index: the one that the source was opened with; only the rows that stay are hashed.
    """
    if limit is None:
        return source
    if index is None:
        return replace(source, samples=evenly(list(source.samples), limit))
    with index.without_hashes():
        rows = evenly(list(source.samples), limit)
    index.prefetch([path for row in rows for path in (row.image, row.depth) if path is not None])
    hashed = [row.model_copy(update={"sha256": index.digests(image=row.image, depth=row.depth)}) for row in rows]
    return replace(source, samples=hashed)


def write_source(
    source: Source,
    folder: str | Path,
    *,
    role: str,
    captions: CaptionConfig | None = None,
    device: str = "cpu",
) -> Dataset:
    """Write ``dataset.json`` and ``manifest.jsonl`` of a source into an existing folder; the files stay where they are.

    Args:
        captions: where rows without a caption get one; None: they stay without.
        device: of the captioning model.
    """
    check_depth_format(source.depth_format)
    samples = source.samples
    if captions is not None:
        samples = caption_samples(samples, partial(_read_image, source.root), captions, device=device)
    dataset = write_dataset(
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
    check_metres(dataset, source.root)
    return dataset


def write_fitted(
    sources: Sequence[Source],
    folder: str | Path,
    *,
    role: str,
    fit: Fit,
    captions: CaptionConfig | None = None,
    device: str = "cpu",
    workers: int = 1,
) -> Dataset:
    """Write one or several sources into an existing folder as one data set of one size: crops, resized, in files of its own.

    With several sources the ids begin with the source's name, and a number where two have the same.

    Args:
        captions: where rows without a caption get one, BLIP's from the crop; None: they stay without.
        device: of the captioning model. workers: processes that write crops.

    Raises:
        ConfigError: depth of different kinds.
    """
    kinds = {source.depth_kind for source in sources} - {None}
    if len(kinds) > 1:
        raise ConfigError(f"depth of the kinds {', '.join(sorted(map(str, kinds)))} does not belong in one data set")
    folder, prefixes = Path(folder), _prefixes(sources)
    samples: Iterable[Sample] = chain.from_iterable(
        fit_source(source, source.samples, fit, folder, prefix=prefix, workers=workers)
        for source, prefix in zip(sources, prefixes, strict=True)
    )
    if captions is not None:
        samples = caption_samples(samples, partial(_read_image, folder), captions, device=device)
    name = "+".join(dict.fromkeys(source.name for source in sources))
    dataset = write_dataset(
        folder,
        track(samples, f"cropping {name}"),
        name=name,
        role=role,
        depth_kind=next(iter(kinds), None),
        depth_scale=1.0,
        depth_format=CROPS_DEPTH_FORMAT,
        notes=f"{'; '.join(source.notes for source in sources)}; {fit.rule} to {fit.width} x {fit.height}",
    )
    for source, prefix in zip(sources, prefixes, strict=True):
        own = [sample for sample in dataset if sample.id.startswith(prefix)]
        check_metres(Dataset(folder, dataset.info, own), source.root)
    return dataset


def _prefixes(sources: Sequence[Source]) -> list[str]:
    if len(sources) == 1:
        return [""]
    seen: Counter[str] = Counter()
    prefixes = []
    for source in sources:
        seen[source.name] += 1
        number = f"{seen[source.name]}_" if seen[source.name] > 1 else ""
        prefixes.append(f"{source.name}_{number}")
    return prefixes


def check_metres(dataset: Dataset, where: Path, *, looked_at: int = 8) -> None:
    """Refuse depth that is said to be in metres and, by its range, is in another unit.

    The median over a few maps of a data set's medians is compared: no street or room is half a kilometre deep, or shallower
    than a hand.

    Raises:
        DataError: the median is out of range; the message says which unit would fit and what to set.
    """
    if dataset.info.depth_kind != "z":
        return
    with_depth = [sample for sample in dataset if sample.depth is not None]
    medians = []
    for sample in evenly(with_depth, min(looked_at, len(with_depth))) if with_depth else ():
        depth = dataset.read_depth(sample)
        if depth.any():
            medians.append(float(np.median(depth[depth > 0])))
    if not medians or _SHALLOW < (middle := float(np.median(medians))) < _DEEP:
        return
    guess = "millimetres" if middle > 12 * _DEEP else "centimetres or millimetres"
    looks = f"they look like {guess}" if middle >= _DEEP else "they are divided by too much"
    raise DataError(
        f"{where}: depth is {middle:.4g} m in the median over {len(medians)} maps, which is no scene: {looks}. Say how many "
        "stored units per metre has (source folder: options.depth_scale), or that depth is of another depth_kind"
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
    try:
        names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in root.iterdir())
    except OSError as error:
        return DataError(f"{root}: expected {expected}; cannot be listed ({error.strerror})")
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return DataError(f"{root}: expected {expected}; found {shown or 'an empty folder'}")


def matching(values: Sequence[str] | None, available: Iterable[str], what: str, root: Path) -> list[str]:
    """Those of ``available`` that ``values`` asks for (None: all); DataError if one of ``values`` is not there."""
    available = list(available)
    if values is None:
        return available
    for value in values:
        if value not in available:
            raise DataError(f"{root}: no {what} {value!r}; there are {', '.join(available[:12])}")
    return [name for name in available if name in values]


def folders(path: Path) -> Iterator[str]:
    """Names of the folders in ``path``, sorted, hidden ones left out; none if ``path`` is not a folder."""
    if path.is_dir():
        yield from sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
