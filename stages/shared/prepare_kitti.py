"""KITTI as it was downloaded: manifests and split lists, nothing copied."""

from pathlib import Path

from alberti.data.kitti.frames import read_split
from alberti.data.kitti.reader import KittiReader
from alberti.data.sources import evenly
from alberti.errors import ConfigError
from alberti.files import write_text
from stages.shared.kitti_manifest import write_manifest
from stages.shared.layout import Layout
from stages.shared.source_params import SourceParams


def write(layout: Layout, out: Path, role: str, section: SourceParams) -> None:
    """Index the frames of each list in ``section.options``."""
    if not section.options:
        raise ConfigError(
            f"prepare.{role}.options: KITTI needs the list of frames of each split, say {{test: eigen_test_files.txt}}"
        )
    reader = KittiReader(*section.roots(layout))
    for split, file in section.files(layout).items():
        frames = read_split(file)
        if section.annotated_only:
            frames = reader.annotated(frames)
        if section.limit is not None:
            frames = evenly(frames, section.limit)
        # evaluation reads this list as well, so it holds what the manifest holds
        write_text(out / "splits" / f"{split}.txt", "\n".join(frame.line() for frame in frames) + "\n")
    roots = (str(reader.raw.resolve()), str(reader.depth_root.resolve()))
    cache = layout.checkpoints("index", f"{role}.jsonl")
    write_manifest(out, reader, role, list(section.options), "kitti", roots, cache=cache)
