"""KITTI raw with annotated depth as a source for ``prepare``: the frames of a list, in the user's own copy."""

from pathlib import Path

from alberti.data.fingerprint import FileIndex
from alberti.data.kitti import KittiReader, kitti_samples
from alberti.data.sources import Source
from alberti.errors import ConfigError


def open_kitti(
    root: Path, index: FileIndex, *, frames: str, depth: str | None = "annotated", depth_root: str | None = None
) -> Source:
    """Open KITTI at ``root``.

    Args:
        frames: a list of frames, in monodepth2's or BTS's form (an Eigen split, say).
        depth: "annotated": every frame must have its annotated depth map; None: without depth.
        depth_root: where the annotated depth lies; None: searched near ``root``.

    Raises:
        DataError: another layout, a listed frame that is not there.
    """
    if depth not in ("annotated", None):
        raise ConfigError(f"kitti: depth: expected annotated or null, got {depth!r}")
    reader = KittiReader(root, depth_root)
    return Source(
        "kitti",
        reader.raw,
        kitti_samples(reader, frames, depth=depth),
        depth_kind=None if depth is None else "z",
        depth_root=reader.depth_root if depth is not None else None,
        notes="KITTI raw, native layout; its files are known by name, size and time, not hashed",
    )
