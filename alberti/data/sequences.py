"""Rows of videos in which every picture has a depth map and a camera: what Virtual KITTI 2 and SYNTHIA-AL share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alberti.data.fingerprint import FileIndex
from alberti.data.manifest import Sample
from alberti.errors import DataError

Intrinsics = tuple[float, float, float, float]


@dataclass(frozen=True)
class Shot:
    """One picture of a sequence with its depth map, paths relative to the root."""

    id: str
    image: str
    depth: str
    intrinsics: Callable[[tuple[int, int]], Intrinsics]
    """[fx, fy, cx, cy] of the picture, given its (width, height)."""


def sequence_samples(root: Path, index: FileIndex, shots: Sequence[Shot], *, split: str | None = None) -> Iterator[Sample]:
    """A row a shot, in order. DataError if a depth map is missing: all are looked for before the first row."""
    lacking = [shot for shot in shots if not (root / shot.depth).is_file()]
    if lacking:
        more = f" ({len(lacking)} of {len(shots)} are missing)" if len(lacking) > 1 else ""
        raise DataError(f"{root / lacking[0].depth}: missing, but {lacking[0].image} is there{more}")
    index.prefetch([path for shot in shots for path in (shot.image, shot.depth)])
    for shot in shots:
        size = index.image_size(shot.image)
        yield Sample(
            id=shot.id,
            image=shot.image,
            depth=shot.depth,
            width=size[0],
            height=size[1],
            intrinsics=shot.intrinsics(size),
            split=split,
            sha256=index.digests(image=shot.image, depth=shot.depth),
        )
