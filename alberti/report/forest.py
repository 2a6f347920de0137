"""Charts of means and intervals as plain numbers, which the page draws with HTML alone: sharp at any width and in print."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alberti.metrics.labels import METRICS, Metric, percent
from alberti.report.comparison import Effect, effect
from alberti.report.inputs import CEILING, RENDERS


@dataclass(frozen=True)
class Bar:
    """A row: positions are per cent of the chart's width."""

    arm: str
    mean: float
    low: float | None
    high: float | None
    seeds: tuple[float, ...]
    text: str
    interval: str
    effect: Effect | None


@dataclass(frozen=True)
class Mark:
    """A vertical line with a name: zero, or a reference."""

    at: float
    name: str


@dataclass(frozen=True)
class Forest:
    """A chart: a bar an arm, on one axis with ticks (per cent of the width, text)."""

    title: str
    note: str
    bars: tuple[Bar, ...]
    marks: tuple[Mark, ...]
    ticks: tuple[tuple[float, str], ...]


def straightness_chart(summary: Mapping[str, Any]) -> Forest | None:
    """The share of line within 2 degrees, an arm a bar, with the references as marks; None where nothing was measured."""
    metric = METRICS["consistency_2"]
    arms = summary["images"].get("arms", {})
    known = {arm: values[metric.key] for arm, values in arms.items() if metric.key in values}
    entries = {arm: entry for arm, entry in known.items() if arm not in (RENDERS, CEILING)}
    names = {CEILING: "through the autoencoder", RENDERS: "reference pictures"}
    marks = [(known[name]["mean"], label) for name, label in names.items() if name in known]
    if not entries:
        return None
    bars = [
        (arm, entry, metric.text(entry["mean"]), _ends(metric, entry), _against_control(summary, arm, metric))
        for arm, entry in entries.items()
    ]
    control = summary["main_control"]
    note = f"{metric.meaning} {f'Better and worse are against “{control}”.' if control in entries else ''}"
    return _forest("How straight", note.strip(), bars, marks, metric)


def depth_chart(summary: Mapping[str, Any], test_set: str, model: str) -> Forest | None:
    """Change of AbsRel against the original model, an arm a bar; None where there is none."""
    metric, original = METRICS["abs_rel"], summary["original_arm"]
    relative = summary["depth"][test_set]["models"][model]["relative"]
    pairs = {name.split(" / ", 1)[0]: change for name, change in relative.items() if name.endswith(f" / {original}")}
    changes = {arm: change[metric.key] for arm, change in pairs.items()}
    if not changes:
        return None
    bars = []
    for arm, change in changes.items():
        ends = "" if change["low"] is None else f"{_bare(change['low'])} to {_bare(change['high'])}"
        bars.append((arm, change, percent(change["mean"], signed=True), ends, effect(change, metric.higher_is_better)))
    title = f"{model}: change of AbsRel"
    return _forest(title, f"Against “{original}”; left of no change is better.", bars, [(0.0, "no change")], None)


def _against_control(summary: Mapping[str, Any], arm: str, metric: Metric) -> Effect | None:
    change = summary["images"]["differences"].get(f"{arm} - {summary['main_control']}", {}).get(metric.key)
    return None if change is None else effect(change, metric.higher_is_better)


def _bare(share: float) -> str:
    return percent(share, signed=True).removesuffix(" %")


def _ends(metric: Metric, entry: Mapping[str, Any]) -> str:
    return "" if entry["low"] is None else metric.interval(entry["low"], entry["high"])


def _forest(
    title: str,
    note: str,
    bars: Sequence[tuple[str, Mapping[str, Any], str, str, Effect | None]],
    marks: Sequence[tuple[float, str]],
    metric: Metric | None,
) -> Forest:
    """Place everything on one axis; ``metric`` None: relative changes."""
    from matplotlib.ticker import MaxNLocator

    values = [mark for mark, _ in marks]
    for _, entry, *_ in bars:
        values += [entry["mean"], *(entry[end] for end in ("low", "high") if entry[end] is not None), *entry.get("seeds", [])]
    least, most = min(values), max(values)
    ticks = [float(tick) for tick in MaxNLocator(4, min_n_ticks=2).tick_values(least, most)]
    start, end = ticks[0], ticks[-1]
    if metric is not None and metric.unit == " %":
        start, end = max(start, 0.0), min(end, max(1.0, most))  # no share is beyond the whole
        ticks = [tick for tick in ticks if start <= tick <= end]
    width = max(end - start, 1e-12)

    def place(value: float) -> float:
        return round(100 * (value - start) / width, 2)

    drawn = tuple(
        Bar(
            arm,
            place(entry["mean"]),
            None if entry["low"] is None else place(entry["low"]),
            None if entry["high"] is None else place(entry["high"]),
            tuple(place(value) for value in entry.get("seeds", [])) if len(entry.get("seeds", [])) > 1 else (),
            text,
            interval,
            what,
        )
        for arm, entry, text, interval, what in bars
    )
    labels = [f"{100 * tick:.3g} %".replace("-", "\N{MINUS SIGN}") if metric is None else metric.text(tick) for tick in ticks]
    if metric is not None and metric.unit == " %":
        labels = [f"{100 * tick:.3g} %" for tick in ticks]
    shown = tuple((place(tick), label) for tick, label in zip(ticks, labels, strict=True))
    return Forest(title, note, drawn, tuple(Mark(place(value), name) for value, name in marks), shown)
