"""The manifest of frames in KITTI's layout."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from alberti.data.kitti.frames import read_split
from alberti.data.kitti.reader import KittiReader
from alberti.data.kitti_samples import KittiHashes, kitti_samples
from alberti.data.manifest import Sample, write_dataset


def write_manifest(
    out: Path,
    reader: KittiReader,
    role: str,
    splits: list[str],
    name: str,
    roots: tuple[str, str],
    *,
    cache: Path | None,
    notes: str = "",
) -> None:
    """Rows of every split. Only frames that have annotated depth train; a test has all frames of its list, since protocols
    on raw scans need no annotation: their rows have the scans' digests, so that another scan makes another data set.

    Args:
        roots: of pictures and of depth maps, as the manifest has them. cache: where digests of files are kept between runs.
    """

    def rows(hashes: KittiHashes) -> Iterator[Sample]:
        for split in splits:
            frames = read_split(out / "splits" / f"{split}.txt")
            if role == "kitti":
                frames = reader.annotated(frames)
            reader.check(frames, image=True)  # all at once: an error then lists every image that is missing
            hashes.prefetch(frames)
            for annotated, run in groupby(frames, reader.has_annotated):
                depth = "annotated" if annotated else None
                yield from kitti_samples(reader, list(run), depth=depth, split=split, hashes=hashes)

    with KittiHashes(reader, cache, scans=role != "kitti") as hashes:
        write_dataset(out, rows(hashes), name=name, role=role, root=roots[0], depth_root=roots[1], notes=notes)
