"""KITTI as rows of a data-set manifest: nothing is copied, the manifest's root is the user's own KITTI."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from alberti.data.fingerprint import FileIndex
from alberti.data.kitti.frames import Frame, read_split
from alberti.data.kitti.reader import KittiReader
from alberti.data.manifest import Sample, new_sample
from alberti.errors import DataError
from alberti.images import read_picture_header, write_depth


def kitti_samples(
    root: str | Path | KittiReader,
    frames: str | Path | Sequence[Frame],
    *,
    depth: str | None = "annotated",
    split: str | None = None,
    forward_vanishing_point: bool = False,
    hashes: "KittiHashes | None" = None,
) -> Iterator[Sample]:
    """Yield one manifest row per frame, image paths relative to the reader's ``raw``.

    Args:
        frames: frames, or the path of a split file.
        depth: "annotated" (paths relative to the reader's ``depth_root``; every frame must have it), "lidar" (the paths
            that :func:`write_lidar_depth` writes, ``<id>.png``: its folder is the data set's ``depth_root``) or None.
        split: the name that the rows carry.
        forward_vanishing_point: give each row the vanishing point of the car's forward direction (source "dataset").
            It is where the street's edges meet only while the car drives along a straight street.
        hashes: gives the rows digests of the files that the frames consist of; None: they have none.

    Raises:
        DataError: an image or depth map is missing, or an image is not of the size that its calibration says.
    """
    reader = root if isinstance(root, KittiReader) else KittiReader(root)
    rows = read_split(frames) if isinstance(frames, str | Path) else list(frames)
    if depth not in ("annotated", "lidar", None):
        raise ValueError(f"depth: expected 'annotated', 'lidar' or None, got {depth!r}")
    reader.check(rows, image=True, kind={"annotated": "annotated", "lidar": "lidar_z", None: None}[depth])
    if hashes is not None:
        hashes.prefetch(rows)
    for frame in rows:
        sample = _sample(reader, frame, depth, split, forward_vanishing_point)
        yield sample if hashes is None else sample.model_copy(update={"sha256": hashes.of(frame)})


class KittiHashes:
    """SHA-256 of the files of frames, each file hashed once and known again by path, size and time.

    Args:
        cache: where digests are kept; None: nowhere.
        scans: count the velodyne scan in, where there is one, and with it all that projects it.

    Use as a context manager: leaving it saves what was learnt.
    """

    def __init__(self, reader: KittiReader, cache: Path | None = None, *, scans: bool = False):
        self.reader, self.scans = reader, scans
        self._raw = FileIndex(reader.raw, cache)
        self._depth = FileIndex(reader.depth_root, None if cache is None else cache.with_stem(f"{cache.stem}-depth"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._raw.save()
        self._depth.save()

    def prefetch(self, frames: Sequence[Frame]) -> None:
        """Hash the files of many frames at once, in threads, with progress."""
        paths = [self._paths(frame) for frame in frames]
        self._raw.prefetch([path for each in paths for name, path in each.items() if name != "depth"])
        self._depth.prefetch([each["depth"] for each in paths if "depth" in each])

    def of(self, frame: Frame) -> dict[str, str]:
        """Digests by name: "image", "depth" where it is annotated, "scan" and its calibration."""
        return {name: self._index(name).sha256(path) for name, path in self._paths(frame).items()}

    def _index(self, name: str) -> FileIndex:
        return self._depth if name == "depth" else self._raw

    def _paths(self, frame: Frame) -> dict[str, str]:
        raw = self.reader.raw
        paths = {"image": self.reader.image_path(frame).relative_to(raw).as_posix()}
        if self.reader.has_annotated(frame):
            paths["depth"] = self.reader.annotated_path(frame).relative_to(self.reader.depth_root).as_posix()
        scan = self.reader.scan_path(frame)
        if self.scans and scan.is_file():
            paths["scan"] = scan.relative_to(raw).as_posix()
            for name in ("cam_to_cam", "velo_to_cam"):
                paths[name] = f"{frame.date}/calib_{name}.txt"
        return paths


def _sample(reader: KittiReader, frame: Frame, depth: str | None, split: str | None, forward: bool) -> Sample:
    path = reader.image_path(frame)
    calibration = reader.calibration(frame)
    header = read_picture_header(path)
    size = (header.width, header.height)
    if size != calibration.size:
        raise DataError(
            f"{path}: {size[0]} x {size[1]} pixels, but the calibration of {frame.date} is for "
            f"{calibration.size[0]} x {calibration.size[1]}; resized copies of KITTI are not read"
        )
    depth_path = f"{frame.id}.png" if depth == "lidar" else None
    if depth == "annotated":
        depth_path = reader.annotated_path(frame).relative_to(reader.depth_root).as_posix()
    return new_sample(
        path,
        id=frame.id,
        image=path.relative_to(reader.raw).as_posix(),
        depth=depth_path,
        width=size[0],
        height=size[1],
        intrinsics=calibration.camera(frame.camera).intrinsics,
        vanishing_points=[calibration.forward_vanishing_point(frame.camera)] if forward else None,
        vanishing_points_source="dataset" if forward else None,
        split=split,
    )


def write_lidar_depth(reader: KittiReader, frames: Sequence[Frame], folder: str | Path) -> None:
    """Write every frame's scan, projected as depth along the optical axis, as ``folder/<id>.png`` (16 bits, 256 per metre)."""
    for frame in frames:
        write_depth(Path(folder) / f"{frame.id}.png", reader.depth(frame, "lidar_z"))
