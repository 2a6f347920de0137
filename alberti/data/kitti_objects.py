"""KITTI's object benchmark in its native layout: single frames with a calibration each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alberti.data.kitti.calibration import Calibration, read_object_calibration
from alberti.data.kitti.lidar import LIDAR_KINDS, lidar_depth, read_scan
from alberti.errors import DataError
from alberti.images import read_image

_SUFFIXES = (".png", ".jpg")


@dataclass(frozen=True, order=True)
class ObjectFrame:
    """One frame of the left colour camera."""

    id: str
    """Its number as in the files' names, say 000123."""


class KittiObjectReader:
    """``[training/]{image_2,velodyne,calib}/<number>.{png,bin,txt}`` below ``root``.

    Raises:
        DataError: ``root`` has another layout.
    """

    def __init__(self, root: str | Path):
        root = Path(root)
        found = [folder for folder in (root, root / "training") if (folder / "image_2").is_dir()]
        if not found:
            raise DataError(f"{root}: no image_2/ in it or in training/; expected KITTI's object benchmark")
        self.root = found[0]

    def frames(self, split: str | Path | None = None) -> list[ObjectFrame]:
        """All frames, sorted, or those that a file lists by number, one per line."""
        if split is None:
            names = sorted({path.stem for path in (self.root / "image_2").iterdir() if path.suffix in _SUFFIXES})
        else:
            try:
                names = [line.strip() for line in Path(split).read_text(encoding="utf-8").splitlines() if line.strip()]
            except FileNotFoundError:
                raise DataError(f"{split}: no such split file") from None
        if not names or len(set(names)) != len(names):
            raise DataError(f"{split or self.root}: no frame, or one is listed twice")
        return [ObjectFrame(name) for name in names]

    def image_path(self, frame: ObjectFrame) -> Path:
        """Where the frame's picture lies, png or jpg."""
        paths = [self.root / "image_2" / (frame.id + suffix) for suffix in _SUFFIXES]
        return next((path for path in paths if path.is_file()), paths[0])

    def calibration(self, frame: ObjectFrame) -> Calibration:
        """The frame's own calibration; its size is the picture's."""
        height, width = self.read_image(frame).shape[:2]
        return read_object_calibration(self.root / "calib" / f"{frame.id}.txt", (width, height))

    def read_image(self, frame: ObjectFrame) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return read_image(self.image_path(frame))

    def depth(self, frame: ObjectFrame, kind: str) -> np.ndarray:
        """Depth of ``kind`` from the scan: (H, W) float32 metres, 0 = no measurement."""
        if kind not in LIDAR_KINDS:
            raise DataError(f"{self.root}: KITTI's object benchmark has depth of kind {' and '.join(LIDAR_KINDS)}, not {kind}")
        calibration, scan = self.calibration(frame), read_scan(self.root / "velodyne" / f"{frame.id}.bin")
        return lidar_depth(scan, calibration.velo_to_image(2), calibration.size, kind)

    def check(self, frames: Sequence[ObjectFrame], *, image: bool = False, kind: str | None = None) -> None:
        """Raise DataError that lists which of ``frames`` lack their files."""
        paths = [self.image_path(frame) for frame in frames] if image else []
        if kind is not None:
            paths += [self.root / "velodyne" / f"{frame.id}.bin" for frame in frames]
            paths += [self.root / "calib" / f"{frame.id}.txt" for frame in frames]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise DataError(f"{self.root}: {len(missing)} files are missing: {'; '.join(map(str, missing[:5]))}")
