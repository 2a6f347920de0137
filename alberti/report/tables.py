"""The tables of a summary: an arm a row, a metric a column, changes against one named control."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alberti.metrics.labels import DEPTH, DISTANCES, IMAGE, Metric, percent
from alberti.report.comparison import Effect, effect
from alberti.report.inputs import CEILING, RENDERS

GAP = Metric(
    "gap_closed",
    "way closed",
    "How much of the way from its control to the reference pictures behind the autoencoder, by the share within 2°.",
    0,
    True,
    100,
    " %",
)
_REFERENCES = (RENDERS, CEILING)
PICTURE_HEADS = ("consistency_2", "line_length", "level_line_length", "vp_auc_10", "frechet_distance", GAP.key)
DEPTH_HEADS = ("abs_rel", "sq_rel", "rmse", "d1")
"""What the first table of each kind shows; all metrics follow in a second."""


@dataclass(frozen=True)
class Cell:
    """A mean with its interval, and the change against the table's control."""

    text: str
    interval: str = ""
    change: str = ""
    change_interval: str = ""
    effect: Effect | None = None
    best: bool = False


@dataclass(frozen=True)
class Row:
    """An arm's cells, in the order of the table's metrics."""

    arm: str
    cells: tuple[Cell, ...]
    is_control: bool = False
    is_reference: bool = False


@dataclass(frozen=True)
class Table:
    """``control`` is the arm that all changes refer to, None where there is none among the rows."""

    key: str
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    control: str | None
    relative: bool = False
    """Changes are shares of the control's mean."""


def picture_table(summary: Mapping[str, Any], keys: Sequence[str] | None = None) -> Table:
    """What was measured in pictures and the distances between sets of them, against the main control; None: every metric."""
    images, distances, control = summary["images"], summary["distances"], summary["main_control"]
    arms = {arm: {**values, **distances["arms"].get(arm, {})} for arm, values in images["arms"].items()}
    changes = {name: dict(values) for name, values in images["differences"].items()}
    for name, values in distances["differences"].items():
        changes.setdefault(name, {}).update(values)
    for arm, gap in images["gap_closed"].items():
        if "consistency_2" in gap and summary["arms"][arm]["control"] == control:
            arms[arm][GAP.key] = gap["consistency_2"]
    metrics = [metric for metric in (*IMAGE, *DISTANCES, GAP) if keys is None or metric.key in keys]
    return _table("pictures", arms, metrics, changes, control, compared=_compared(summary))


def depth_table(summary: Mapping[str, Any], test_set: str, model: str, keys: Sequence[str] | None = None) -> Table:
    """A model's errors on a test set; changes in per cent of the main control's error, or of the original's without one."""
    section = summary["depth"][test_set]["models"][model]
    control = summary["main_control"] if summary["main_control"] in section["arms"] else summary["original_arm"]
    metrics = [metric for metric in DEPTH if keys is None or metric.key in keys]
    return _table(
        f"{test_set}-{model}",
        section["arms"],
        metrics,
        section["relative"],
        control,
        compared=_compared(summary),
        relative=True,
    )


def _compared(summary: Mapping[str, Any]) -> set[str]:
    """The arms of which one is best: those with generated pictures."""
    return {name for name, arm in summary["arms"].items() if arm["kind"] != "reference"}


def _table(
    key: str,
    arms: Mapping[str, Mapping[str, Any]],
    metrics: Sequence[Metric],
    changes: Mapping[str, Mapping[str, Any]],
    control: str | None,
    *,
    compared: set[str],
    relative: bool = False,
) -> Table:
    shown = tuple(metric for metric in metrics if any(metric.key in values for values in arms.values()))
    best = {metric.key: _best(arms, metric, compared) for metric in shown}
    rows = []
    for arm, values in arms.items():
        against = changes.get(f"{arm} {'/' if relative else '-'} {control}", {})
        cells = tuple(
            _cell(metric, values.get(metric.key), against.get(metric.key), arm in best[metric.key], relative)
            for metric in shown
        )
        rows.append(Row(arm, cells, arm == control, arm in _REFERENCES))
    return Table(key, shown, tuple(rows), control if control in arms else None, relative)


def _best(arms: Mapping[str, Mapping[str, Any]], metric: Metric, compared: set[str]) -> set[str]:
    means = {arm: values[metric.key]["mean"] for arm, values in arms.items() if metric.key in values and arm in compared}
    if metric.higher_is_better is None or not metric.has_best or len(means) < 2:
        return set()
    target = max(means.values()) if metric.higher_is_better else min(means.values())
    return {arm for arm, value in means.items() if value == target}


def _cell(
    metric: Metric, entry: Mapping[str, Any] | None, change: Mapping[str, Any] | None, best: bool, relative: bool
) -> Cell:
    if entry is None:
        return Cell("\N{EN DASH}")
    text, interval = metric.text(entry["mean"]), interval_text(metric, entry)
    if change is None:
        return Cell(text, interval, best=best)
    changed = percent(change["mean"], signed=True) if relative else metric.change(change["mean"])
    between = ""
    if change["low"] is not None:
        ends = [percent(change[end], signed=True) for end in ("low", "high")]
        between = " to ".join(ends) if relative else metric.interval(change["low"], change["high"], signed=True)
    return Cell(text, interval, changed, between, effect(change, metric.higher_is_better), best)


def interval_text(metric: Metric, entry: Mapping[str, Any]) -> str:
    """The ends of an interval, or of a distance the standard deviation over seeds; "" where there is neither."""
    if entry.get("low") is not None:
        return metric.interval(entry["low"], entry["high"])
    spread = entry.get("sd")
    return "" if spread is None else f"± {metric.text(spread, unit=False)}"


def setting_text(test_set: str, section: Mapping[str, Any], model: str) -> str:
    """What a depth table holds under: frames, scenes, protocol, ground truth, alignment."""
    setting = section["models"][model]["setting"]
    frames = f"{setting['n']} {'real' if section['real'] else 'rendered'} frames"
    if setting["scenes"] != setting["n"]:
        frames += f" of {setting['scenes']} scene{'s' * (setting['scenes'] > 1)}"
    parts = [f"{test_set}: {frames}", f"protocol {setting['protocol']}", f"ground truth {setting['ground_truth']}"]
    parts += [f"alignment {setting['alignment']}", f"split {str(setting['split_hash'])[:12]}"]
    return ", ".join(parts)


def interval_words(summary: Mapping[str, Any], what: str) -> str:
    """What the intervals of a table are over; ``what``: "pictures", "frames" or "scenes"."""
    count = len(summary["seeds"])
    over = f"{count} seeds and the {what}" if count > 1 else f"the {what} (one seed)"
    return f"95 % intervals over {over}"


def distance_note(summary: Mapping[str, Any]) -> str:
    """Of which features the distances are, and what stands behind them in a table."""
    images = summary["images"]
    spread = "behind them the standard deviation over seeds" if len(summary["seeds"]) > 1 else "one seed, so without a spread"
    return f"Distances: features of {images['extractor']} against {images['n_reference']} pictures, {spread}; not FID."
