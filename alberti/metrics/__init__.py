"""What is measured: depth against KITTI and DIODE, perspective, and distances between sets of pictures.

Names resolve on first use, so that ``from alberti.metrics import depth_metrics`` imports numpy and nothing heavier.
"""

from typing import TYPE_CHECKING

from alberti.lazy import lazy_names

if TYPE_CHECKING:
    from alberti.metrics.bootstrap import bootstrap_interval as bootstrap_interval
    from alberti.metrics.bootstrap import paired_bootstrap as paired_bootstrap
    from alberti.metrics.depth import ALIGNMENTS as ALIGNMENTS
    from alberti.metrics.depth import METRICS as METRICS
    from alberti.metrics.depth import PROTOCOLS as PROTOCOLS
    from alberti.metrics.depth import GroundTruth as GroundTruth
    from alberti.metrics.depth import Protocol as Protocol
    from alberti.metrics.depth import align as align
    from alberti.metrics.depth import depth_metrics as depth_metrics
    from alberti.metrics.evaluation import Evaluation as Evaluation
    from alberti.metrics.evaluation import check_one_table as check_one_table
    from alberti.metrics.evaluation import compare as compare
    from alberti.metrics.evaluation import evaluate as evaluate
    from alberti.metrics.evaluation import evaluate_folder as evaluate_folder
    from alberti.metrics.evaluation import evaluate_frames as evaluate_frames
    from alberti.metrics.images import frechet_distance as frechet_distance
    from alberti.metrics.images import kernel_distance as kernel_distance
    from alberti.metrics.perspective import perspective_consistency as perspective_consistency

_HOMES = {
    "bootstrap": ("bootstrap_interval", "paired_bootstrap"),
    "depth": ("ALIGNMENTS", "METRICS", "PROTOCOLS", "GroundTruth", "Protocol", "align", "depth_metrics"),
    "evaluation": ("Evaluation", "check_one_table", "compare", "evaluate", "evaluate_folder", "evaluate_frames"),
    "images": ("frechet_distance", "kernel_distance"),
    "perspective": ("perspective_consistency",),
}
__getattr__, __all__ = lazy_names(__name__, _HOMES)
