"""KITTI's calibration files: how the laser scanner, the cameras and the rectified images lie to each other."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alberti.errors import DataError
from alberti.reading import read_lines

if TYPE_CHECKING:
    from alberti.geometry.camera import Camera

DEFAULT_VELO_TO_CAM = np.array([[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, -0.08], [1.0, 0.0, 0.0, -0.27], [0.0, 0.0, 0.0, 1.0]])
"""(4, 4) velodyne (x forward, y left, z up) -> camera (x right, y down, z forward), near KITTI's own: the scanner sits
8 cm above the camera and 27 cm behind it. Rendered data sets use it."""

_LARGEST = 20_000
"""Pixels of a side, beyond which a size is a damaged file's."""


@dataclass(frozen=True)
class Calibration:
    """The calibration of one recording date.

    Camera axes are x right, y down, z forward; velodyne axes x forward, y left, z up; metres. A velodyne point X, as
    (x, y, z, 1), lands in the rectified image of camera c at ``projections[c] @ rect @ velo_to_cam @ X``.
    """

    size: tuple[int, int]
    """(width, height) of the rectified images (S_rect_02)."""
    projections: dict[int, np.ndarray]
    """P_rect, (3, 4), by the camera's number."""
    rect: np.ndarray
    """R_rect_00, as (4, 4)."""
    velo_to_cam: np.ndarray
    """(4, 4)."""

    def velo_to_image(self, camera: int = 2) -> np.ndarray:
        """The (3, 4) projection from homogeneous velodyne points to homogeneous pixels of ``camera``."""
        return np.dot(np.dot(self.projections[camera], self.rect), self.velo_to_cam)

    def camera(self, camera: int = 2) -> "Camera":
        """The pinhole camera of the rectified images of ``camera``."""
        from alberti.geometry.camera import Camera

        matrix = self.projections[camera]
        return Camera(matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2], *self.size)

    def forward_vanishing_point(self, camera: int = 2) -> tuple[float, float, float]:
        """Where lines along the scanner's x axis, the car's forward direction, meet: homogeneous pixels, unit norm."""
        point = self.velo_to_image(camera)[:, 0]
        x, y, w = point / np.linalg.norm(point)
        return float(x), float(y), float(w)


def read_calibration(folder: str | Path) -> Calibration:
    """Read ``calib_cam_to_cam.txt`` and ``calib_velo_to_cam.txt`` of a date's folder.

    Raises:
        DataError: a file or a key is missing, or a key does not hold the expected count of numbers.
    """
    folder = Path(folder)
    cameras = _read_file(folder / "calib_cam_to_cam.txt")
    scanner = _read_file(folder / "calib_velo_to_cam.txt")
    rect, velo_to_cam = np.eye(4), np.eye(4)
    rect[:3, :3] = _values(cameras, "R_rect_00", (3, 3))
    velo_to_cam[:3, :3] = _values(scanner, "R", (3, 3))
    velo_to_cam[:3, 3] = _values(scanner, "T", (3,))
    width, height = (int(value) for value in _values(cameras, "S_rect_02", (2,)))
    if not (0 < width <= _LARGEST and 0 < height <= _LARGEST):
        raise DataError(f"{cameras.path}: S_rect_02: {width} x {height} is no size of a picture")
    projections = {camera: _values(cameras, f"P_rect_0{camera}", (3, 4)) for camera in (2, 3)}
    return Calibration((width, height), projections, rect, velo_to_cam)


def read_object_calibration(path: str | Path, size: tuple[int, int]) -> Calibration:
    """The calibration file of a frame of KITTI's object benchmark; ``size`` (width, height) is the picture's.

    Raises:
        DataError: as :func:`read_calibration`.
    """
    entries = _read_file(Path(path))
    rect, velo_to_cam = np.eye(4), np.eye(4)
    rect[:3, :3] = _values(entries, "R0_rect", (3, 3))
    velo_to_cam[:3] = _values(entries, "Tr_velo_to_cam", (3, 4))
    projections = {camera: _values(entries, f"P{camera}", (3, 4)) for camera in (2, 3)}
    return Calibration(size, projections, rect, velo_to_cam)


class _Entries(dict[str, str]):
    path: Path


def _read_file(path: Path) -> _Entries:
    if not path.is_file():
        raise DataError(f"{path}: no calibration; KITTI's calibration archive of that date unpacks it beside the drives")
    entries = _Entries()
    entries.path = path
    for _, line in read_lines(path, "calibration"):
        key, colon, value = line.partition(":")
        if colon:
            entries[key.strip()] = value
    return entries


def _values(entries: _Entries, key: str, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    if key not in entries:
        raise DataError(f"{entries.path}: no line `{key}: ...`; is this KITTI's raw calibration?")
    try:
        values = np.array([float(value) for value in entries[key].split()])
    except ValueError as error:
        raise DataError(f"{entries.path}: {key}: {error}") from None
    if values.size != count or not np.isfinite(values).all():
        raise DataError(f"{entries.path}: {key}: expected {count} finite numbers, got {entries[key].strip()!r:.120}")
    return values.reshape(shape)
