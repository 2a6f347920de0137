"""A summary as Markdown tables, for the documentation."""

from collections.abc import Mapping, Sequence
from typing import Any

from alberti.metrics.labels import DEPTH, DISTANCES, IMAGE, Metric, percent
from alberti.report.tables import DEPTH_HEADS, Table, depth_table, distance_note, picture_table, setting_text


def markdown(summary: Mapping[str, Any]) -> str:
    """The verdict, and for pictures and every test set the means and the paired differences."""
    parts = [heading(summary), *(f"**{line['question']}** {line['answer']}" for line in summary["verdict"])]
    if summary["images"]:
        parts += [_values(picture_table(summary), "pictures"), distance_note(summary)]
        parts.append(_changes("paired difference", IMAGE, summary["images"]["differences"], relative=False))
        parts.append(_changes("difference paired by seed", DISTANCES, summary["distances"]["differences"], relative=False))
    for test_set, section in summary["depth"].items():
        for model in section["models"]:
            parts += _depth(summary, test_set, model)
    if summary["minutes"] is not None:
        parts.append(_minutes(summary["minutes"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def heading(summary: Mapping[str, Any]) -> str:
    """What the numbers are of."""
    seeds = ", ".join(map(str, summary["seeds"]))
    count = len(summary["seeds"])
    pictures = f", {summary['images']['pictures']} pictures per arm and seed" if summary["images"] else ""
    over = "seeds and pictures" if count > 1 else "pictures"
    profile = f", profile {summary['facts']['profile']}" if summary["facts"].get("profile") else ""
    return (
        f"{count} seed{'s' * (count > 1)} ({seeds}){pictures}{profile}. In brackets 95 % intervals over {over}, or over scenes "
        f"where frames share one ({summary['resamples']} resamples)."
    )


def _depth(summary: Mapping[str, Any], test_set: str, model: str) -> list[str]:
    section = summary["depth"][test_set]
    table = depth_table(summary, test_set, model)
    shown = [metric for metric in DEPTH if metric.key in DEPTH_HEADS]
    places = [table.metrics.index(metric) for metric in shown]
    rows = [(row.arm, *(_cell(row.cells[place].text, row.cells[place].interval) for place in places)) for row in table.rows]
    title = f"{model} on {setting_text(test_set, section, model)}"
    relative = section["models"][model]["relative"]
    return [
        f"## {title}",
        _lines(["trained on", *(metric.label for metric in shown)], rows),
        _changes("change, %", shown[:3], relative, relative=True),
    ]


def _values(table: Table, name: str) -> str:
    header = [name, *(f"{metric.label} {metric.arrow}".strip() for metric in table.metrics)]
    return _lines(header, [(row.arm, *(_cell(cell.text, cell.interval) for cell in row.cells)) for row in table.rows])


def _cell(text: str, interval: str) -> str:
    if interval.startswith("±"):
        return f"{text} {interval}"
    return f"{text} ({interval})" if interval else text


def _changes(title: str, metrics: Sequence[Metric], changes: Mapping[str, Mapping[str, Any]], *, relative: bool) -> str:
    shown = [metric for metric in metrics if any(metric.key in change for change in changes.values())]
    rows = [
        (name, *(_change(metric, values.get(metric.key), relative) for metric in shown)) for name, values in changes.items()
    ]
    return _lines([title, *(metric.label for metric in shown)], rows) if rows else ""


def _change(metric: Metric, entry: Mapping[str, Any] | None, relative: bool) -> str:
    if entry is None:
        return "-"
    if relative:
        mean, low, high = (None if entry[key] is None else _signed(entry[key]) for key in ("mean", "low", "high"))
        return f"{mean}" if low is None else f"{mean} ({low} to {high})"
    text = metric.change(entry["mean"])
    if entry["low"] is None:
        return text
    return f"{text} ({metric.interval(entry['low'], entry['high'], signed=True)})"


def _signed(share: float) -> str:
    return percent(share, signed=True).removesuffix(" %")


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _minutes(minutes: Mapping[str, Any]) -> str:
    stages = ", ".join(f"{stage} {value:g}" for stage, value in minutes["by_stage"].items())
    return f"{minutes['total']:g} minutes in all ({', '.join(minutes['devices'])}): {stages}."
