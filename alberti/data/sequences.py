"""Rows of videos in which every picture has a depth map and a camera: what Virtual KITTI 2 and SYNTHIA-AL share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from alberti.data.fingerprint import FileIndex
from alberti.data.manifest import Sample, new_sample
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
        yield new_sample(
            root / shot.image,
            id=shot.id,
            image=shot.image,
            depth=shot.depth,
            width=size[0],
            height=size[1],
            intrinsics=shot.intrinsics(size),
            split=split,
            sha256=index.digests(image=shot.image, depth=shot.depth),
        )


def scaled_intrinsics(found: Intrinsics, of: tuple[int, int], size: tuple[int, int], where: str) -> Intrinsics:
    """The camera of a picture of ``size`` (width, height), given that of the same picture at the size ``of``.

    Raises:
        DataError: the shape of the picture is another one: it was cropped, who knows where, and no camera follows.
    """
    if size == of:
        return found
    across, down = size[0] / of[0], size[1] / of[1]
    if abs(across / down - 1) > 0.02:
        raise DataError(
            f"{where}: the camera is of pictures of {of[0]} x {of[1]}, these are {size[0]} x {size[1]}, cropped or stretched; "
            "use the release's pictures (fit crops them, with the camera), or write the copy's own camera there"
        )
    fx, fy, cx, cy = found
    return fx * across, fy * down, (cx + 0.5) * across - 0.5, (cy + 0.5) * down - 0.5


def check_intrinsics(found: Intrinsics, size: tuple[int, int], where: str) -> Intrinsics:
    """The camera, if a picture of ``size`` can have it; DataError unless the focal length is positive and the centre near."""
    fx, fy, cx, cy = found
    near = min(size) > 0 and all(abs((centre + 0.5) / side - 0.5) < 0.2 for centre, side in zip((cx, cy), size, strict=True))
    if not all(isfinite(value) for value in found) or min(fx, fy) <= 0 or not near:
        raise DataError(
            f"{where}: fx {fx:g}, fy {fy:g}, cx {cx:g}, cy {cy:g} is no camera of a picture of {size[0]} x {size[1]}; was it "
            "resized or cropped, and the camera left?"
        )
    return found
