"""KITTI: reading raw recordings, annotated depth and Eigen lists; writing the same layout."""

import importlib
from typing import TYPE_CHECKING, Any

from alberti.data.kitti.calibration import DEFAULT_VELO_TO_CAM, Calibration, read_calibration
from alberti.data.kitti.frames import KNOWN_SPLITS, Frame, read_split, split_hash
from alberti.data.kitti.lidar import lidar_depth, read_scan
from alberti.data.kitti.reader import GROUND_TRUTHS, KittiReader
from alberti.data.kitti.writer import KittiRecord, write_kitti

if TYPE_CHECKING:
    from alberti.data.kitti_samples import KittiHashes, kitti_samples, write_lidar_depth

__all__ = [
    "DEFAULT_VELO_TO_CAM",
    "GROUND_TRUTHS",
    "KNOWN_SPLITS",
    "Calibration",
    "Frame",
    "KittiHashes",
    "KittiReader",
    "KittiRecord",
    "kitti_samples",
    "lidar_depth",
    "read_calibration",
    "read_scan",
    "read_split",
    "split_hash",
    "write_kitti",
    "write_lidar_depth",
]


def __getattr__(name: str) -> Any:
    # manifests need pydantic, which evaluation does without
    if name in ("KittiHashes", "kitti_samples", "write_lidar_depth"):
        return getattr(importlib.import_module("alberti.data.kitti_samples"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
