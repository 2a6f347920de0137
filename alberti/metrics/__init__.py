"""What is measured: depth against KITTI and DIODE, perspective, and distances between sets of pictures.

Names resolve on first use, so that ``from alberti.metrics import depth_metrics`` imports numpy and nothing heavier.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alberti.metrics.bootstrap import bootstrap_interval, paired_bootstrap
    from alberti.metrics.depth import ALIGNMENTS, METRICS, PROTOCOLS, GroundTruth, Protocol, align, depth_metrics
    from alberti.metrics.evaluation import (
        Evaluation,
        check_one_table,
        compare,
        evaluate,
        evaluate_folder,
        evaluate_frames,
    )
    from alberti.metrics.images import frechet_distance, kernel_distance
    from alberti.metrics.perspective import perspective_consistency

_HOMES = {
    "bootstrap": ("bootstrap_interval", "paired_bootstrap"),
    "depth": ("ALIGNMENTS", "METRICS", "PROTOCOLS", "GroundTruth", "Protocol", "align", "depth_metrics"),
    "evaluation": ("Evaluation", "check_one_table", "compare", "evaluate", "evaluate_folder", "evaluate_frames"),
    "images": ("frechet_distance", "kernel_distance"),
    "perspective": ("perspective_consistency",),
}

__all__ = [
    "ALIGNMENTS",
    "METRICS",
    "PROTOCOLS",
    "Evaluation",
    "GroundTruth",
    "Protocol",
    "align",
    "bootstrap_interval",
    "check_one_table",
    "compare",
    "depth_metrics",
    "evaluate",
    "evaluate_folder",
    "evaluate_frames",
    "frechet_distance",
    "kernel_distance",
    "paired_bootstrap",
    "perspective_consistency",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"alberti.metrics.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
