"""Writes data sets in KITTI's raw layout, so that rendered scenes go through the same reader as KITTI itself."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alberti.data.kitti.calibration import DEFAULT_VELO_TO_CAM
from alberti.data.kitti.frames import Frame
from alberti.errors import DataError
from alberti.files import atomic_file, write_text
from alberti.images import write_depth, write_image

if TYPE_CHECKING:
    from alberti.geometry.camera import Camera

_FIRST_DATE = datetime.date(2001, 1, 1)  # well before KITTI's own dates, so that nobody takes these for recordings


@dataclass(frozen=True)
class KittiRecord:
    """What :func:`write_kitti` writes of one frame."""

    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    camera: "Camera"
    split: str
    """The list that names it, say "train", "val" or "test"."""
    depth: np.ndarray | None = None
    """(H, W) metres along the optical axis, 0 = no measurement; dense or sparse: the annotated depth."""
    points: np.ndarray | None = None
    """(N, 4) velodyne points: x forward, y left, z up in metres, reflectance."""


def write_kitti(
    root: str | Path, records: Iterable[KittiRecord], *, velo_to_cam: np.ndarray = DEFAULT_VELO_TO_CAM
) -> list[Frame]:
    """Write frames below ``root`` as ``raw/<date>/<drive>/...``, ``depth/<train|val>/<drive>/...``, ``splits/<split>.txt``.

    KITTI calibrates by date, so every distinct camera gets a date of its own (from 2001_01_01 on), and every split of it
    a drive. Cameras 0 to 3 coincide and images are rectified as they are. ``records`` is consumed one by one.

    Args:
        velo_to_cam: (4, 4) rigid motion from velodyne to camera axes; the points must have been taken with it.

    Returns:
        The frames, in the order of ``records``.
    """
    root = Path(root)
    namer, frames = _Namer(), []
    lists: dict[str, list[str]] = {}
    for record in records:
        _check(record)
        frame, new_date = namer.name(record)
        if new_date:
            _write_calibration(root / "raw" / frame.date, record.camera, velo_to_cam)
        _write_frame(root, frame, record)
        lists.setdefault(record.split, []).append(frame.line())
        frames.append(frame)
    for split, lines in lists.items():
        write_text(root / "splits" / f"{split}.txt", "\n".join(lines) + "\n")
    return frames


class _Namer:
    """Gives every camera a date, every split of it a drive, every frame of that a number."""

    def __init__(self) -> None:
        self.dates: dict[Camera, str] = {}
        self.drives: dict[tuple[str, str], int] = {}
        self.counts: dict[tuple[str, str], int] = {}

    def name(self, record: KittiRecord) -> tuple[Frame, bool]:
        new_date = record.camera not in self.dates
        if new_date:
            day = _FIRST_DATE + datetime.timedelta(days=len(self.dates))
            self.dates[record.camera] = day.strftime("%Y_%m_%d")
        date = self.dates[record.camera]
        key = (date, record.split)
        drive = self.drives.setdefault(key, 1 + sum(1 for other, _ in self.drives if other == date))
        index = self.counts.get(key, 0)
        self.counts[key] = index + 1
        annotated = record.depth is not None
        return Frame(date, f"{date}_drive_{drive:04d}_sync", index, "l", annotated), new_date


def _check(record: KittiRecord) -> None:
    size = (record.camera.height, record.camera.width)
    if record.image.shape != (*size, 3):
        raise DataError(f"image: expected {(*size, 3)} as the camera says, got {record.image.shape}")
    if record.depth is not None and record.depth.shape != size:
        raise DataError(f"depth: expected {size} as the camera says, got {record.depth.shape}")
    if record.points is not None and (record.points.ndim != 2 or record.points.shape[1] != 4):
        raise DataError(f"points: expected (N, 4), got {record.points.shape}")
    if record.points is not None and not (len(record.points) and np.isfinite(record.points).all()):
        raise DataError(f"points: expected at least one, all finite, got {len(record.points)}")
    if not record.split.isidentifier():
        raise DataError(f"split: expected a name such as train, got {record.split!r}")


def _write_frame(root: Path, frame: Frame, record: KittiRecord) -> None:
    drive = root / "raw" / frame.date / frame.drive
    name = f"{frame.index:010d}"
    write_image(drive / "image_02" / "data" / f"{name}.png", record.image)
    if record.points is not None:
        with atomic_file(drive / "velodyne_points" / "data" / f"{name}.bin") as temporary:
            np.ascontiguousarray(record.points, dtype="<f4").tofile(temporary)
    if record.depth is not None:
        # KITTI's annotated depth knows the folders train and val only; its validation images hold Eigen's test frames
        folder = root / "depth" / ("train" if record.split == "train" else "val") / frame.drive
        write_depth(folder / "proj_depth" / "groundtruth" / "image_02" / f"{name}.png", record.depth)


def _write_calibration(folder: Path, camera: "Camera", velo_to_cam: np.ndarray) -> None:
    eye, zero = np.eye(3), np.zeros(3)
    projection = np.concatenate([camera.matrix(), zero[:, None]], axis=1)
    size = [camera.width, camera.height]
    cameras: dict[str, object] = {"corner_dist": 0.0}
    for number in range(4):
        suffix = f"{number:02d}"
        cameras |= {f"S_{suffix}": size, f"K_{suffix}": camera.matrix(), f"D_{suffix}": np.zeros(5)}
        cameras |= {f"R_{suffix}": eye, f"T_{suffix}": zero}
        cameras |= {f"S_rect_{suffix}": size, f"R_rect_{suffix}": eye, f"P_rect_{suffix}": projection}
    scanner: dict[str, object] = {
        "R": velo_to_cam[:3, :3],
        "T": velo_to_cam[:3, 3],
        "delta_f": np.zeros(2),
        "delta_c": np.zeros(2),
    }
    _write_entries(folder / "calib_cam_to_cam.txt", cameras)
    _write_entries(folder / "calib_velo_to_cam.txt", scanner)
    _write_entries(folder / "calib_imu_to_velo.txt", {"R": eye, "T": np.array([-0.81, 0.32, -0.80])})


def _write_entries(path: Path, entries: dict[str, object]) -> None:
    lines = ["calib_time: 01-Jan-2001 00:00:00"]
    for key, values in entries.items():
        numbers = np.asarray(values, dtype=np.float64).ravel()
        lines.append(f"{key}: " + " ".join(f"{value:.17e}" for value in numbers))  # enough digits to read back the same
    write_text(path, "\n".join(lines) + "\n")
