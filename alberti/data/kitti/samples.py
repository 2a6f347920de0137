"""KITTI as rows of a data-set manifest: nothing is copied, the manifest's root is the user's own KITTI."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from alberti.data.kitti.frames import Frame, read_split
from alberti.data.kitti.reader import KittiReader
from alberti.data.manifest import Sample
from alberti.errors import DataError
from alberti.images import write_depth


def kitti_samples(
    root: str | Path | KittiReader,
    frames: str | Path | Sequence[Frame],
    *,
    depth: str | None = "annotated",
    split: str | None = None,
    forward_vanishing_point: bool = False,
) -> Iterator[Sample]:
    """Yield a manifest row a frame, image paths relative to the reader's ``raw``.

    Args:
        frames: frames, or the path of a split file.
        depth: "annotated" (paths relative to the reader's ``depth_root``; every frame must have it), "lidar" (the paths
            that :func:`write_lidar_depth` writes, ``<id>.png``: its folder is the data set's ``depth_root``) or None.
        split: the name that the rows carry.
        forward_vanishing_point: give each row the vanishing point of the car's forward direction (source "dataset").
            It is where the street's edges meet only while the car drives along a straight street.

    Raises:
        DataError: an image or depth map is missing, or an image is not of the size that its calibration says.
    """
    reader = root if isinstance(root, KittiReader) else KittiReader(root)
    rows = read_split(frames) if isinstance(frames, str | Path) else list(frames)
    if depth not in ("annotated", "lidar", None):
        raise ValueError(f"depth: expected 'annotated', 'lidar' or None, got {depth!r}")
    reader.check(rows, image=True, kind={"annotated": "annotated", "lidar": "lidar_z", None: None}[depth])
    for frame in rows:
        yield _sample(reader, frame, depth, split, forward_vanishing_point)


def _sample(reader: KittiReader, frame: Frame, depth: str | None, split: str | None, forward: bool) -> Sample:
    path = reader.image_path(frame)
    calibration = reader.calibration(frame)
    try:
        with Image.open(path) as image:  # the header only
            size = image.size
    except OSError as error:
        raise DataError(f"{path}: cannot read the image ({error})") from error
    if size != calibration.size:
        raise DataError(
            f"{path}: {size[0]} x {size[1]} pixels, but the calibration of {frame.date} is for "
            f"{calibration.size[0]} x {calibration.size[1]}; resized copies of KITTI are not read"
        )
    depth_path = f"{frame.id}.png" if depth == "lidar" else None
    if depth == "annotated":
        depth_path = reader.annotated_path(frame).relative_to(reader.depth_root).as_posix()
    return Sample(
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
    """Write every frame's scan, projected as depth along the optical axis, as ``folder/<id>.png`` (16 bits, 256 a metre)."""
    for frame in frames:
        write_depth(Path(folder) / f"{frame.id}.png", reader.depth(frame, "lidar_z"))
