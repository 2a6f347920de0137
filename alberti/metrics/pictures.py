"""One picture a scored image: the image, the prediction, the ground truth and where they differ."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alberti.extras import extra
from alberti.files import atomic_file
from alberti.metrics.depth import GroundTruth, Protocol, apply_alignment, check_prediction

_WORST_SHOWN = 0.5  # relative error at which the colour scale ends


@dataclass(frozen=True)
class Painter:
    """Paints ``folder/<id>.png``."""

    folder: Path
    protocol: Protocol
    alignment: str

    def paint(self, name: str, image: np.ndarray, prediction: np.ndarray, truth: GroundTruth, row: dict[str, Any]) -> None:
        """Paint one image with its scored prediction; ``row`` is what :func:`score_image` gave for it."""
        with extra("depth", "drawing predictions"):
            from matplotlib.figure import Figure

        depth, covered = self._metres(prediction, truth, row)
        counts = self.protocol.valid(truth.depth)
        error = np.where(counts, np.abs(depth - truth.depth) / np.where(counts, truth.depth, 1.0), np.nan)
        far = float(np.percentile(truth.depth[counts], 98))
        measured = np.where(truth.depth > 0, truth.depth, np.nan)
        panels = [
            (np.where(covered, depth, np.nan), "prediction, m", "magma_r", far),
            (_widen(measured), "ground truth, m (outside the crop too)", "magma_r", far),
            (_widen(error), "relative error where it counts", "viridis", _WORST_SHOWN),
        ]
        height, width = truth.depth.shape
        figure = Figure(figsize=(10, 4 * (9 * height / width + 0.35)), dpi=110, layout="constrained")
        axes = figure.subplots(4, 2, width_ratios=[1, 0.02])
        axes[0, 0].imshow(image)
        scores = f"abs_rel {row['abs_rel']:.3f}   rmse {row['rmse']:.2f} m   d1 {row['d1']:.3f}"
        axes[0, 0].set_title(f"{name}   {scores}", fontsize=9)
        axes[0, 1].set_axis_off()
        for (axis, bar), (values, title, colours, top) in zip(axes[1:], panels, strict=True):
            drawn = axis.imshow(values, cmap=colours, vmin=0, vmax=top, interpolation="nearest")
            axis.set_title(title, fontsize=9)
            figure.colorbar(drawn, cax=bar, extend="max")
        for axis in axes[:, 0]:
            axis.set_axis_off()
        with atomic_file(self.folder / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")

    def _metres(self, prediction: np.ndarray, truth: GroundTruth, row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """The prediction as it was scored, and the pixels that it covers."""
        whole = check_prediction(prediction, truth.depth.shape, self.protocol, self.alignment).astype(np.float64)
        covered = np.ones(whole.shape, dtype=bool)
        if whole.shape != prediction.shape:
            inside = check_prediction(np.ones_like(prediction), truth.depth.shape, self.protocol, self.alignment)
            covered = inside > 0
        depth = apply_alignment(whole, self.alignment, row["scale"], row["shift"], self.protocol.max_depth)
        return np.clip(depth, self.protocol.min_depth, self.protocol.max_depth), covered


def _widen(values: np.ndarray) -> np.ndarray:
    """Grow single measured pixels to 3 x 3, the smallest value on top, so that a sparse map can be seen."""
    filled = np.where(np.isnan(values), np.inf, values)
    for axis in (0, 1):
        padding = [(1, 1) if axis == other else (0, 0) for other in (0, 1)]
        padded = np.pad(filled, padding, constant_values=np.inf)
        slices = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=axis)
        filled = slices.min(axis=-1)
    return np.where(np.isinf(filled), np.nan, filled)
