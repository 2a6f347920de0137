"""What a reader of a native layout gives."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from alberti.data.manifest import Sample


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
