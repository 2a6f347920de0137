"""The results over seeds as tables, an arm a row: Markdown, and plain cells for the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alberti.errors import DataError

_IMAGE_COLUMNS = (
    ("consistency_2", "within 2°", 3),
    ("consistency_5", "within 5°", 3),
    ("surface_consistency_2", "on surfaces, 2°", 3),
    ("line_length", "line length, px", 0),
    ("level_line_length", "receding, px", 0),
    ("vp_auc_10", "VP AUC@10°", 3),
    ("vp_error", "VP error, °", 2),
    ("perspective_loss", "perspective loss", 2),
)
_DISTANCES = (("frechet_distance", "Fréchet²", 1), ("kernel_distance", "kernel²", 4))
_DEPTH_COLUMNS = (("abs_rel", "AbsRel", 3), ("sq_rel", "SqRel", 3), ("rmse", "RMSE", 3), ("d1", "δ<1.25", 3))


@dataclass(frozen=True)
class PlainTable:
    """Cells as text."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def markdown(summary: Mapping[str, Any]) -> str:
    """Tables of what `python -m pipeline.results` writes."""
    parts = [heading(summary)]
    for table in plain_tables(summary):
        lines = [table.header, ("---",) * len(table.header), *table.rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        parts += [table.note] if table.note else []
    parts.append(_minutes(summary["minutes"]))
    return "\n\n".join(parts) + "\n"


def heading(summary: Mapping[str, Any]) -> str:
    """What the numbers are of; DataError for a file of another kind."""
    missing = [key for key in ("seeds", "pictures", "profile", "resamples", "images", "depth") if key not in summary]
    if missing:
        raise DataError(f"results over seeds: no {missing[0]!r} in them; write them with `python -m pipeline.results`")
    seeds = ", ".join(map(str, summary["seeds"]))
    return (
        f"{len(summary['seeds'])} seeds ({seeds}), {summary['pictures']} pictures an arm and seed, profile "
        f"{summary['profile']}. In brackets 95 % intervals over seeds and images ({summary['resamples']} resamples of both)."
    )


def plain_tables(summary: Mapping[str, Any]) -> list[PlainTable]:
    """The pictures of every arm, paired differences between arms, and for each depth model errors and their change."""
    tables = []
    if summary["images"]:
        tables += [_pictures(summary), _differences(summary)]
    for model, section in summary["depth"].items():
        tables += [_depth(model, section), _relative(model, section)]
    return [table for table in tables if table.rows]


def _pictures(summary: Mapping[str, Any]) -> PlainTable:
    arms, distances = summary["images"]["arms"], summary["distances"]
    columns = [column for column in _IMAGE_COLUMNS if any(column[0] in values for values in arms.values())]
    rows = [
        (
            arm,
            *(_interval(values.get(key), digits) for key, _, digits in columns),
            *(_spread(distances.get(arm, {}).get(key), digits) for key, _, digits in _DISTANCES),
        )
        for arm, values in arms.items()
    ]
    note = f"Distances: features of {summary['extractor']}, mean ± standard deviation over seeds."
    labels = (label for _, label, _ in (*columns, *_DISTANCES))
    return PlainTable(("pictures", *labels), tuple(rows), note)


def _differences(summary: Mapping[str, Any]) -> PlainTable:
    images, rows = summary["images"], []
    for name, changes in images["differences"].items():
        arm, _, other = name.partition(" - ")
        closed = images["gap_closed"].get(arm, {}).get("consistency_2") if other == summary["control_arm"] else None
        cells = [_signed(changes.get("consistency_2"), 1, 100), _signed(changes.get("line_length"), 0)]
        cells += [_signed(changes.get("vp_auc_10"), 3), _signed(changes.get("perspective_loss"), 2), _signed(closed, 0, 100)]
        rows.append((name, *cells))
    header = ("paired difference", "within 2°, points", "line length, px", "VP AUC@10°", "perspective loss")
    return PlainTable((*header, "gap to reconstructions closed, %"), tuple(rows))


def _depth(model: str, section: Mapping[str, Any]) -> PlainTable:
    setting = section["setting"]
    title = f"{model}, {setting['protocol']}, {setting['alignment']} alignment, n = {setting['n']}"
    rows = [
        (arm, *(_interval(values[key], digits) for key, _, digits in _DEPTH_COLUMNS)) for arm, values in section["arms"].items()
    ]
    return PlainTable((title, *(label for _, label, _ in _DEPTH_COLUMNS)), tuple(rows))


def _relative(model: str, section: Mapping[str, Any]) -> PlainTable:
    errors = _DEPTH_COLUMNS[:3]
    rows = [(name, *(_signed(changes[key], 1, 100) for key, _, _ in errors)) for name, changes in section["relative"].items()]
    return PlainTable((f"{model}, change in %", *(label for _, label, _ in errors)), tuple(rows))


def _minutes(minutes: Mapping[str, Any]) -> str:
    stages = ", ".join(f"{stage} {value:g}" for stage, value in minutes["by_stage"].items())
    return f"{minutes['total']:g} minutes in all ({', '.join(minutes['devices'])}): {stages}."


def _interval(entry: Mapping[str, Any] | None, digits: int) -> str:
    if entry is None:
        return "-"
    return f"{entry['mean']:.{digits}f} ({entry['low']:.{digits}f} to {entry['high']:.{digits}f})"


def _spread(entry: Mapping[str, Any] | None, digits: int) -> str:
    if entry is None:
        return "-"
    text = f"{entry['mean']:.{digits}f}"
    return text if entry["sd"] is None else f"{text} ± {entry['sd']:.{digits}f}"


def _signed(entry: Mapping[str, Any] | None, digits: int, scale: float = 1.0) -> str:
    if entry is None:
        return "-"
    mean, low, high = (f"{entry[key] * scale:+.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"
