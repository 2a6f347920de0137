"""Reads KITTI raw and its annotated depth in their native layouts, lazily."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alberti.data.kitti.calibration import Calibration, read_calibration
from alberti.data.kitti.frames import DATE, Frame
from alberti.data.kitti.lidar import LIDAR_KINDS, lidar_depth, read_scan
from alberti.errors import DataError
from alberti.images import read_depth, read_image

if TYPE_CHECKING:
    from alberti.geometry.camera import Camera

GROUND_TRUTHS = (*LIDAR_KINDS, "annotated")
"""What depth KITTI can give a frame: "lidar_forward" and "lidar_z" from the scan, "annotated" from the 16-bit PNGs."""
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")
_DEPTH_FOLDERS = ("depth", "data_depth_annotated", "gts")


class KittiReader:
    """KITTI below ``root``, read where it lies.

    ``root`` holds the dates (``<date>/<drive>/image_02/data/...``), or a folder ``raw`` that does. Annotated depth is
    looked for in ``depth_root``, else in ``depth/``, ``data_depth_annotated/`` or ``gts/`` in or beside ``root``, else among
    the drives; below it as ``[train/|val/|<date>/]<drive>/proj_depth/groundtruth/image_02/<frame>.png``.

    Raises:
        DataError: ``root`` has another layout; the message says what stands there.
    """

    def __init__(self, root: str | Path, depth_root: str | Path | None = None):
        self.root = Path(root)
        self.raw = _find_raw(self.root)
        if depth_root is not None and not Path(depth_root).is_dir():
            raise DataError(f"{depth_root}: no such folder of annotated depth")
        self.depth_root = Path(depth_root) if depth_root is not None else _find_depth_root(self.root, self.raw)
        self._calibrations: dict[str, Calibration] = {}
        self._drive_prefixes: dict[str, str] = {}

    def image_path(self, frame: Frame) -> Path:
        """Where the frame's image lies, png or jpg; DataError if there is none."""
        folder = self.raw / frame.date / frame.drive / f"image_0{frame.camera}" / "data"
        if (path := _picture_in(folder, frame.index)) is not None:
            return path
        raise DataError(f"{folder / f'{frame.index:010d}.png'}: no such image (nor .jpg){_nearest_folder(folder)}")

    def scan_path(self, frame: Frame) -> Path:
        """Where the frame's velodyne scan belongs."""
        return self.raw / frame.date / frame.drive / "velodyne_points" / "data" / f"{frame.index:010d}.bin"

    def annotated_path(self, frame: Frame) -> Path:
        """Where the frame's annotated depth belongs (whether it is there or not)."""
        if frame.drive not in self._drive_prefixes:
            prefixes = ("train", "val", "", frame.date)
            found = (name for name in prefixes if (self.depth_root / name / frame.drive / "proj_depth").is_dir())
            self._drive_prefixes[frame.drive] = next(found, "train")
        folder = self.depth_root / self._drive_prefixes[frame.drive] / frame.drive
        return folder / "proj_depth" / "groundtruth" / f"image_0{frame.camera}" / f"{frame.index:010d}.png"

    def has_annotated(self, frame: Frame) -> bool:
        """Whether there is annotated depth of the frame: KITTI has none of the first and last frames of a drive."""
        return self.annotated_path(frame).is_file()

    def annotated(self, frames: Sequence[Frame]) -> list[Frame]:
        """Those of ``frames`` that have annotated depth, in order; DataError if none has."""
        kept = [frame for frame in frames if self.has_annotated(frame)]
        if not kept:
            raise DataError(
                f"{self.depth_root}: none of the {len(frames)} listed frames has annotated depth; expected such files as "
                f"{self.annotated_path(frames[0])}{_nearest_folder(self.annotated_path(frames[0]).parent)}{_NAME_DEPTH}"
            )
        return kept

    def calibration(self, frame: Frame) -> Calibration:
        """The calibration of the frame's date, read once a date."""
        if frame.date not in self._calibrations:
            self._calibrations[frame.date] = read_calibration(self.raw / frame.date)
        return self._calibrations[frame.date]

    def camera(self, frame: Frame) -> "Camera":
        """The pinhole camera of the frame's rectified image."""
        return self.calibration(frame).camera(frame.camera)

    def read_image(self, frame: Frame) -> np.ndarray:
        """The frame's image, (H, W, 3) uint8 RGB."""
        return read_image(self.image_path(frame))

    def read_scan(self, frame: Frame) -> np.ndarray:
        """The frame's velodyne scan, (N, 4) float32: x forward, y left, z up in metres, reflectance."""
        return read_scan(self.scan_path(frame))

    def depth(self, frame: Frame, kind: str) -> np.ndarray:
        """The frame's depth of ``kind`` (:data:`GROUND_TRUTHS`): (H, W) float32 metres, 0 = no measurement."""
        if kind == "annotated":
            return read_depth(self.annotated_path(frame))
        if kind not in LIDAR_KINDS:
            raise ValueError(f"kind: expected one of {', '.join(GROUND_TRUTHS)}, got {kind!r}")
        calibration = self.calibration(frame)
        return lidar_depth(self.read_scan(frame), calibration.velo_to_image(frame.camera), calibration.size, kind)

    def check(self, frames: Sequence[Frame], *, image: bool = False, kind: str | None = None) -> None:
        """Raise DataError that lists which of ``frames`` lack the image, or what depth of ``kind`` is made from."""
        missing = [path for frame in frames for path in self._missing(frame, image, kind)]
        if missing:
            shown = "; ".join(str(path) for path in dict.fromkeys(missing[:5]))
            more = f"; and {len(missing) - 5} more" if len(missing) > 5 else ""
            folder = _nearest_folder(Path(missing[0]).parent)
            hint = self._annotated_hint(frames) if kind == "annotated" else ""
            raise DataError(f"{self.root}: of the {len(frames)} listed frames, files are missing: {shown}{more}{folder}{hint}")

    def _annotated_hint(self, frames: Sequence[Frame]) -> str:
        lacking = sum(not self.has_annotated(frame) for frame in frames)
        if lacking == len(frames):
            return _NAME_DEPTH
        if lacking == 0:
            return ""
        return (
            f". {lacking} of the frames have no annotated depth; of Eigen's 697 test frames 45 never had any: take the list of "
            "the 652 that do, or leave them out with --annotated-only (in params.yaml: annotated_only: true)"
        )

    def _missing(self, frame: Frame, image: bool, kind: str | None) -> Iterable[Path]:
        if image:
            folder = self.raw / frame.date / frame.drive / f"image_0{frame.camera}" / "data"
            if _picture_in(folder, frame.index) is None:
                yield folder / f"{frame.index:010d}.png"
        if kind == "annotated" and not self.has_annotated(frame):
            yield self.annotated_path(frame)
        if kind in LIDAR_KINDS:
            if not self.scan_path(frame).is_file():
                yield self.scan_path(frame)
            self.calibration(frame)

    def frames(self, side: str = "l") -> list[Frame]:
        """Every frame whose image of that side lies below ``root``, sorted."""
        found = []
        pattern = f"*/image_0{2 if side == 'l' else 3}/data/*"
        for date in sorted(path for path in self.raw.iterdir() if DATE.fullmatch(path.name)):
            for path in date.glob(pattern):
                if path.suffix in _IMAGE_SUFFIXES and path.stem.isdigit():
                    found.append(Frame(date.name, path.parts[-4], int(path.stem), side))
        return sorted(set(found))


def _picture_in(folder: Path, index: int) -> Path | None:
    paths = (folder / f"{index:010d}{suffix}" for suffix in _IMAGE_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


_NAME_DEPTH = "; name the folder of annotated depth, which holds the drives or train/ and val/, with --kitti-depth"


def _has_dates(folder: Path) -> bool:
    return folder.is_dir() and any(DATE.fullmatch(path.name) and path.is_dir() for path in folder.iterdir())


def _find_raw(root: Path) -> Path:
    for folder in (root, root / "raw"):
        if _has_dates(folder):
            return folder
    expected = "expected folders named by date (2011_09_26/2011_09_26_drive_0001_sync/...), or a folder raw/ of them"
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; for KITTI raw, {expected}")
    hint = f"; {root.parent} looks like the root" if DATE.fullmatch(root.name) else ""
    raise DataError(f"{root}: not KITTI raw: {expected}; found {_listing(root)}{hint}")


def _find_depth_root(root: Path, raw: Path) -> Path:
    candidates = [base / name for base in dict.fromkeys((root, raw, raw.parent)) for name in _DEPTH_FOLDERS]
    return next((path for path in candidates if path.is_dir()), raw)


def _nearest_folder(folder: Path) -> str:
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return f" ({folder} holds {_listing(folder)})"


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return "no folder"
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    if not names:
        return "nothing"
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
