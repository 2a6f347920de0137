"""Names, units, formats and directions of every metric: what tables, charts, pages and terminals call them.

The one home of all that is said of a metric. Imports nothing that computes one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


@dataclass(frozen=True)
class Metric:
    """A metric as people read it."""

    key: str
    """Its name in summaries and columns."""
    label: str
    """A column's head: a few characters."""
    meaning: str
    """One sentence for who does not know it."""
    digits: int | None
    """Decimals; None: three significant figures."""
    higher_is_better: bool | None
    """None: neither direction is better by itself."""
    scale: float = 1.0
    """What a value is multiplied by before it is shown."""
    unit: str = ""
    difference_unit: str | None = None
    """Where a difference has another unit than a value has: points for per cent."""
    has_best: bool = True
    """False for an unbiased estimate, which is not better for being further below zero."""

    @property
    def direction(self) -> str:
        """ "higher is better", "lower is better", or "" where neither is."""
        return {True: "higher is better", False: "lower is better", None: ""}[self.higher_is_better]

    @property
    def arrow(self) -> str:
        """The direction as an arrow."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]

    def text(self, value: float, *, unit: bool = True) -> str:
        """A value as it is shown."""
        return self._number(value, signed=False) + (self.unit if unit else "")

    def change(self, value: float, *, unit: bool = True) -> str:
        """A difference as it is shown, with its sign."""
        return self._number(value, signed=True) + (self.unit_of_change if unit else "")

    @property
    def unit_of_change(self) -> str:
        """The unit of a difference."""
        return self.unit if self.difference_unit is None else self.difference_unit

    def interval(self, low: float, high: float, *, signed: bool = False) -> str:
        """The ends of an interval, without a unit: "0.31 to 0.35"."""
        return f"{self._number(low, signed)} to {self._number(high, signed)}"

    def _number(self, value: float, signed: bool) -> str:
        form = ".3g" if self.digits is None else f".{self.digits}f"
        return f"{value * self.scale:{'+' if signed else ''}{form}}".replace("-", MINUS)


def percent(value: float, digits: int = 1, *, signed: bool = False) -> str:
    """A share as per cent."""
    return f"{100 * value:{'+' if signed else ''}.{digits}f} %".replace("-", MINUS)


def _share(key: str, label: str, meaning: str) -> Metric:
    return Metric(key, label, meaning, 1, True, 100, " %", " points")


IMAGE = (
    _share(
        "consistency_2",
        "within 2°",
        "Share of the detected line length that points within 2° at one of the scene's vanishing points.",
    ),
    _share(
        "consistency_5",
        "within 5°",
        "Share of the detected line length that points within 5° at one of the scene's vanishing points.",
    ),
    _share(
        "surface_consistency_2",
        "on surfaces",
        "As within 2°, counting only vanishing points that the line's own surface contains.",
    ),
    Metric(
        "line_length",
        "line length",
        "Detected line in a picture. Read the shares with it: few lines are easily straight.",
        0,
        None,
        1,
        " px",
    ),
    Metric(
        "level_line_length",
        "receding lines",
        "Lines within 2° of a vanishing point that is not the upright one: those that show depth.",
        0,
        True,
        1,
        " px",
    ),
    Metric(
        "vp_error",
        "VP error",
        "Angle from a true vanishing point to the nearest one that is found in the picture.",
        2,
        False,
        1,
        "°",
    ),
    Metric("vp_auc_10", "VP AUC@10°", "1 minus VP error / 10°, at least 0; 0 where no vanishing point is found.", 3, True),
    Metric(
        "perspective_loss",
        "persp. loss",
        "The paper's loss against the picture that belongs to the depth map; blur raises it as well.",
        2,
        False,
    ),
)
DISTANCES = (
    Metric(
        "frechet_distance",
        "Fréchet²",
        "Squared Fréchet distance between the features of these pictures and of the reference pictures. Not FID.",
        None,
        False,
    ),
    Metric(
        "kernel_distance",
        "kernel²",
        "Unbiased squared kernel distance between the same features; may be below zero.",
        None,
        False,
        has_best=False,
    ),
)
DEPTH = (
    Metric("abs_rel", "AbsRel", "Mean error as a share of the true depth.", 3, False),
    Metric("sq_rel", "SqRel", "Mean squared error divided by the true depth.", 3, False, 1, " m"),
    Metric("rmse", "RMSE", "Root of the mean squared error.", 3, False, 1, " m"),
    Metric("rmse_log", "RMSE log", "Root of the mean squared error of log depth.", 3, False),
    Metric("silog", "SILog", "Error of log depth that no scale of the whole picture mends, times 100.", 2, False),
    Metric("log10", "log10", "Mean error of the decimal logarithm of depth.", 3, False),
    _share("d1", "δ<1.25", "Share of pixels whose depth is right within a factor of 1.25."),
    _share("d2", "δ<1.25²", "Share of pixels whose depth is right within a factor of 1.25²."),
    _share("d3", "δ<1.25³", "Share of pixels whose depth is right within a factor of 1.25³."),
)
SCORE = (
    IMAGE[0],
    IMAGE[1],
    Metric(
        "line_length_per_megapixel",
        "line length",
        "Detected line in a picture, for every million pixels.",
        0,
        None,
        1,
        " px/MP",
    ),
)
METRICS = {metric.key: metric for metric in (*IMAGE, *DISTANCES, *DEPTH, *SCORE)}

CURVES = {
    "loss": "loss",
    "mse": "denoising loss",
    "constraint": "value of the constraint",
    "ssi": "scale- and shift-invariant loss",
    "gradient": "gradient loss",
    "validation": "validation loss",
}
"""Quantities of training histories; others are shown by their own names."""


def named(keys: Iterable[str]) -> tuple[Metric, ...]:
    """The metrics of these keys."""
    return tuple(METRICS[key] for key in keys)
