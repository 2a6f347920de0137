"""The metric tables of the report as plain rows of cells, ready for the template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alberti.report.comparison import Change, paired_change
from alberti.report.inputs import ReportInputs, Result


@dataclass(frozen=True)
class Metric:
    """A column of a table."""

    key: str
    label: str
    hint: str
    digits: int | None
    """Decimals; None: three significant figures."""
    higher_is_better: bool | None
    scale: float = 1.0
    unit: str = ""
    has_best: bool = True
    """False for an unbiased estimate, which is not better for being further below zero."""


IMAGE_METRICS = (
    Metric("consistency_2", "within 2°", "share of detected line that points at a vanishing point", 1, True, 100, " %"),
    Metric("consistency_5", "within 5°", "the same within 5 degrees", 1, True, 100, " %"),
    Metric("surface_consistency_2", "on surfaces", "within 2° of a point that its surface contains", 1, True, 100, " %"),
    Metric("line_length", "line length", "detected line in a picture: read the shares with it", 0, None, 1, " px"),
    Metric("level_line_length", "receding lines", "within 2° of a point that is not the upright one", 0, True, 1, " px"),
    Metric("vp_error", "VP error", "from a true vanishing point to the nearest estimated one", 2, False, 1, "°"),
    Metric("vp_auc_10", "VP AUC@10°", "1 - error / 10°, at least 0; 0 where none was estimated", 3, True),
    Metric("perspective_loss", "persp. loss", "the paper's loss against the pair; blur raises it too", 2, False),
)
DISTANCE_METRICS = (
    Metric("frechet_distance", "Fréchet²", "squared Fréchet distance in the named feature space; not FID", None, False),
    Metric(
        "kernel_distance",
        "kernel²",
        "unbiased squared kernel distance in the same features",
        None,
        False,
        has_best=False,
    ),
)
DEPTH_METRICS = (
    Metric("abs_rel", "AbsRel", "mean relative error", 3, False),
    Metric("sq_rel", "SqRel", "mean squared error relative to depth, metres", 3, False),
    Metric("rmse", "RMSE", "metres", 3, False),
    Metric("rmse_log", "RMSE log", "root mean squared error of log depth", 3, False),
    Metric("silog", "SILog", "scale-invariant log error", 2, False),
    Metric("log10", "log10", "mean error of log10 depth", 3, False),
    Metric("d1", "δ<1.25", "share of pixels within a factor 1.25", 1, True, 100, " %"),
    Metric("d2", "δ<1.25²", "share of pixels within a factor 1.25²", 1, True, 100, " %"),
    Metric("d3", "δ<1.25³", "share of pixels within a factor 1.25³", 1, True, 100, " %"),
)


@dataclass(frozen=True)
class Cell:
    """A value with its interval, and the change against the arm that the table compares with."""

    text: str
    interval: str = ""
    change: str = ""
    change_interval: str = ""
    verdict: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """An arm's cells, in the order of the table's metrics."""

    arm: str
    cells: tuple[Cell, ...]
    n: int


@dataclass(frozen=True)
class Table:
    """Rows of arms, columns of metrics; ``against`` is the arm that changes refer to."""

    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    against: str | None


def metric_table(results: Mapping[str, Result], metrics: Sequence[Metric], against: str | None) -> Table:
    """A table of ``results`` with paired changes against the arm ``against`` (None, or not among them: no changes)."""
    summaries = [result.summary for result in results.values()]
    shown = tuple(metric for metric in metrics if any(summary.get(metric.key) is not None for summary in summaries))
    other = results.get(against or "")
    best = {metric.key: _best(results, metric) for metric in shown}
    rows = tuple(
        Row(
            arm,
            tuple(_cell(result, metric, None if arm == against else other, arm in best[metric.key]) for metric in shown),
            int(result.summary.get("n", len(result.rows))),
        )
        for arm, result in results.items()
    )
    return Table(shown, rows, against if other is not None else None)


def image_tables(inputs: ReportInputs) -> list[Table]:
    """The table of per-picture metrics and that of distances between sets, against the base."""
    return [metric_table(inputs.images, metrics, inputs.base_arm) for metrics in (IMAGE_METRICS, DISTANCE_METRICS)]


def _best(results: Mapping[str, Result], metric: Metric) -> set[str]:
    counts = {result.summary.get(f"{metric.key}_n") for result in results.values()}
    if metric.higher_is_better is None or not metric.has_best or len(results) < 2 or len(counts) > 1:
        return set()  # means over different pictures have no best
    values = {arm: float(value) for arm, result in results.items() if (value := result.summary.get(metric.key)) is not None}
    target = max(values.values()) if metric.higher_is_better else min(values.values())
    return {arm for arm, value in values.items() if value == target}


def _cell(result: Result, metric: Metric, other: Result | None, best: bool) -> Cell:
    value = result.summary.get(metric.key)
    if value is None:
        return Cell("\N{EN DASH}")
    change = None if other is None else paired_change(result.rows, other.rows, metric.key, metric.higher_is_better)
    low, high = result.interval(metric.key)
    interval = "" if low is None or high is None else _range(low, high, metric)
    count, total = result.summary.get(f"{metric.key}_n"), result.summary.get("n")
    if count is not None and count != total:
        interval += f" (n = {count})"
    return Cell(
        _number(value, metric) + metric.unit,
        interval,
        *(("", "", "") if change is None else _change_texts(change, metric)),
        best=best,
    )


def _change_texts(change: Change, metric: Metric) -> tuple[str, str, str]:
    low, high = (_number(value, metric, signed=True) for value in (change.low, change.high))
    interval = f"{low} to {high}, n = {change.n}"
    return _number(change.value, metric, signed=True), interval, change.verdict


def _number(value: float, metric: Metric, signed: bool = False) -> str:
    form = ".3g" if metric.digits is None else f".{metric.digits}f"
    return f"{value * metric.scale:{'+' if signed else ''}{form}}".replace("-", "\N{MINUS SIGN}")


def _range(low: float, high: float, metric: Metric) -> str:
    joint = "\N{EN DASH}" if low >= 0 else " to "
    return _number(low, metric) + joint + _number(high, metric)
