"""SYNTHIA-AL (Zolfaghari Bengar et al. 2019): rendered driving, 640 x 480, with exact depth.

Layout: ``{train,test}/<sequence>/<date>/{RGB,Depth,calib_kitti}/<frame>.{png,png,txt}``; other kinds of ground truth
lie beside them. Depth is packed in the channels of a PNG: 5000 m x (R + 256 G + 65536 B) / (2^24 - 1). The third line
of a calibration file is KITTI's P2. Its principal point is the middle of the picture counted from its corner, (320,
240); here pixels are counted from the first one's centre, so half a pixel is taken off.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from alberti.data.fingerprint import FileIndex
from alberti.data.manifest import Sample
from alberti.data.sequences import Intrinsics, Shot, check_intrinsics, scaled_intrinsics, sequence_samples
from alberti.data.source import Source
from alberti.data.sources import folders, layout_error
from alberti.errors import ConfigError, DataError
from alberti.image_folder import is_picture
from alberti.reading import read_lines

_LAYOUT = "SYNTHIA-AL's train/<sequence>/<date>/RGB/<frame>.png or .jpg (or test/...) with Depth/ beside RGB/"
_SPLITS = ("train", "test")


def open_synthia_al(root: Path, index: FileIndex, *, splits: Sequence[str] | None = None, every: int = 1) -> Source:
    """Open SYNTHIA-AL at ``root``.

    Args:
        splits: "train", "test" or both; None: those that are there.
        every: keep every n-th frame of a sequence (the videos have 25 frames a second).

    Raises:
        DataError: another layout, no such split, an image without its depth map or calibration.
    """
    if every < 1:
        raise ConfigError(f"synthia_al: every: expected at least 1, got {every}")
    present = [split for split in _SPLITS if (root / split).is_dir()]
    if not present:
        raise layout_error(root, _LAYOUT)
    wanted = present if splits is None else list(splits)
    for split in wanted:
        if split not in present:
            raise layout_error(root, f"a folder {split}/ ({_LAYOUT})")
    takes = [(split, take) for split in wanted for take in _takes(root, split)]
    if not takes:
        raise layout_error(root / wanted[0], f"<sequence>/<date>/RGB/ ({_LAYOUT})")

    def samples() -> Iterator[Sample]:
        for split, take in takes:
            yield from _take(root, split, take, every, index)

    if not any(is_picture(path.name) for _, take in takes for path in (root / take / "RGB").iterdir()):
        raise layout_error(root / takes[0][1] / "RGB", f"<frame>.png or .jpg ({_LAYOUT})")
    return Source("synthia_al", root, samples(), depth_format="synthia_rgb", depth_scale=1.0, notes="SYNTHIA-AL, native layout")


def _takes(root: Path, split: str) -> Iterator[str]:
    """Folders with ``RGB`` in them: two levels below the split, or one where the date's folder is missing."""
    for sequence in folders(root / split):
        if (root / split / sequence / "RGB").is_dir():
            yield f"{split}/{sequence}"
            continue
        for date in folders(root / split / sequence):
            # The release has some empty takes: a folder without RGB is not one of them to complain about.
            if (root / split / sequence / date / "RGB").is_dir():
                yield f"{split}/{sequence}/{date}"


def _take(root: Path, split: str, take: str, every: int, index: FileIndex) -> Iterator[Sample]:
    pictures = sorted(path.name for path in (root / take / "RGB").iterdir() if is_picture(path.name))
    shots = [
        Shot(
            id=f"{take.replace('/', '_')}_{PurePosixPath(name).stem}",
            image=f"{take}/RGB/{name}",
            depth=f"{take}/Depth/{PurePosixPath(name).stem}.png",
            intrinsics=partial(_read_intrinsics, root / take / "calib_kitti" / f"{PurePosixPath(name).stem}.txt"),
        )
        for name in pictures[::every]
    ]
    yield from sequence_samples(root, index, shots, split=split)


def _read_intrinsics(path: Path, size: tuple[int, int]) -> Intrinsics:
    """(fx, fy, cx, cy) from the line ``P2: ...`` of 12 numbers, row by row; half a pixel off the principal point.

    The principal point, the middle of the picture, says of which size the calibration is; a resized copy's is scaled.
    """
    for _, line in read_lines(path, "calibration file"):
        name, _, numbers = line.partition(":")
        if name.strip() == "P2":
            try:
                values = [float(number) for number in numbers.split()]
                found = values[0], values[5], values[2] - 0.5, values[6] - 0.5
                of = round(2 * values[2]), round(2 * values[6])
            except (ValueError, IndexError, OverflowError):
                break
            check_intrinsics(found, of, str(path))
            return scaled_intrinsics(found, of, size, str(path))
    raise DataError(f"{path}: expected a line 'P2:' with 12 numbers")
