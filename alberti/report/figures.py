"""The report's charts: matplotlib drawings as inline SVG whose colours are the page's own, light or dark."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alberti.report.comparison import Change
from alberti.report.inputs import Result

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stand for variables of the page's style sheet; replaced in the finished SVG.
_INK, _FAINT = "#010101", "#020202"
_ARM_COLOURS = [f"#0300{index:02x}" for index in range(8)]
_VARIABLES = {_INK: "var(--ink-2)", _FAINT: "var(--rule)"} | {
    colour: f"var(--arm-{index})" for index, colour in enumerate(_ARM_COLOURS)
}
_NOT_CURVES = {"step", "lr", "epoch", "seconds", "rate", "grad_norm", "time"}
_MAX_PANELS = 4


def arm_colour(index: int) -> str:
    """The CSS colour of the ``index``-th arm, the same all over the page."""
    return f"var(--arm-{index % len(_ARM_COLOURS)})"


def interval_chart(
    results: Mapping[str, Result], key: str, label: str, *, scale: float = 1.0, markers: Sequence[tuple[str, float]] = ()
) -> str | None:
    """Means with their 95 % intervals, an arm a line; ``markers``: labelled vertical lines. None without ``key``."""
    rows = [(arm, result, index) for index, (arm, result) in enumerate(results.items())]
    rows = [row for row in rows if row[1].summary.get(key) is not None]
    if not rows:
        return None
    figure, (axes,) = _panels(1, width=7.2, height=0.42 * len(rows) + 0.75)
    for place, (_, result, index) in enumerate(reversed(rows)):
        value = result.summary[key] * scale
        low, high = result.interval(key)
        colour = _ARM_COLOURS[index % len(_ARM_COLOURS)]
        if low is not None and high is not None:
            axes.plot(
                [low * scale, high * scale],
                [place, place],
                color=colour,
                linewidth=3,
                alpha=0.45,
                solid_capstyle="round",
            )
        axes.plot([value], [place], "o", color=colour, markersize=7)
    axes.set_yticks(range(len(rows)), [row[0] for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(label)
    mark_values(axes, [(name, value * scale) for name, value in markers], _INK, fontsize=9)
    axes.grid(axis="x", color=_FAINT, linewidth=0.8)
    return _svg(figure)


def mark_values(axes: "Axes", markers: Sequence[tuple[str, float]], colour: str, *, fontsize: int) -> None:
    """Dashed vertical lines with their names above, one higher than the other: they may be close."""
    for row, (name, value) in enumerate(sorted(markers, key=lambda marker: marker[1])):
        axes.axvline(value, color=colour, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            name, (value, 1.0), xycoords=("data", "axes fraction"), xytext=(4, 3 + (fontsize + 2) * row),
            textcoords="offset points", ha="right", fontsize=fontsize, color=colour,
        )  # fmt: skip


def change_chart(changes: Sequence[tuple[str, Change, int]], label: str, *, scale: float = 1.0) -> str | None:
    """Paired changes with their intervals around zero: (name, change, arm's index) a line."""
    if not changes:
        return None
    figure, (axes,) = _panels(1, width=7.2, height=0.42 * len(changes) + 0.75)
    for place, (_, change, index) in enumerate(reversed(changes)):
        colour = _ARM_COLOURS[index % len(_ARM_COLOURS)]
        axes.plot([change.low * scale, change.high * scale], [place, place], color=colour, linewidth=3, alpha=0.45)
        axes.plot([change.value * scale], [place], "o", color=colour, markersize=7)
    axes.axvline(0, color=_INK, linewidth=1)
    axes.set_yticks(range(len(changes)), [name for name, _, _ in reversed(changes)])
    axes.set_ylim(-0.6, len(changes) - 0.4)
    axes.set_xlabel(label)
    axes.grid(axis="x", color=_FAINT, linewidth=0.8)
    return _svg(figure)


def curve_chart(curves: Mapping[str, "pd.DataFrame"], arms: Sequence[str]) -> str | None:
    """Training histories, a panel a quantity, a line a run; runs named as an arm have its colour."""
    tables = {name: table for name, table in curves.items() if "step" in table.columns and len(table) > 1}
    quantities = _quantities(tables.values())
    if not quantities:
        return None
    figure, panels = _panels(len(quantities), width=min(10.5, 3.5 * len(quantities) + 2.5), height=2.9)
    for axes, quantity in zip(panels, quantities, strict=True):
        for order, (name, table) in enumerate(tables.items()):
            if quantity in table.columns:
                index = arms.index(name) if name in arms else order
                _draw_curve(axes, table["step"].to_numpy(float), table[quantity].to_numpy(float), index, name)
        axes.set_title(quantity.replace("_", " "), loc="left", fontsize=10)
        axes.set_xlabel("step")
        axes.grid(color=_FAINT, linewidth=0.6)
    return _svg(figure)


def _draw_curve(axes: "Axes", steps: np.ndarray, values: np.ndarray, index: int, name: str) -> None:
    colour = _ARM_COLOURS[index % len(_ARM_COLOURS)]
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    if len(values) == 0:
        return
    window = max(1, len(values) // 20)
    if window > 1:
        axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.3)
        kernel = np.ones(window)
        # Divided by the number of values under the window, so that the ends are not pulled to zero.
        values = np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
    axes.plot(steps, values, color=colour, linewidth=1.6, label=name)


def _quantities(tables: Any) -> list[str]:
    names: dict[str, None] = {}
    for table in tables:
        for name in table.columns:
            if name not in _NOT_CURVES and table[name].dtype.kind in "fi" and table[name].notna().any():
                names[name] = None
    return list(names)[:_MAX_PANELS]


def profile_chart(profiles: Mapping[str, np.ndarray], arms: Sequence[str], points: Sequence[int]) -> str | None:
    """Perspective profiles of one scene, a panel a vanishing point: (K, num_lines) by picture; ``reference`` in ink.

    Args:
        points: which of the K vanishing points are shown.
    """
    if not profiles or not points:
        return None
    figure, panels = _panels(len(points), width=10.5, height=2.6)
    for axes, point in zip(panels, points, strict=True):
        for name, profile in profiles.items():
            colour = _ARM_COLOURS[arms.index(name) % len(_ARM_COLOURS)] if name in arms else _INK
            values = np.asarray(profile[point], float)
            width = max(1, len(values) // 100)
            values = np.convolve(values, np.ones(width) / width, "same")
            axes.plot(np.linspace(0, 1, len(values)), values, color=colour, linewidth=1.2 if name in arms else 1.8)
        axes.set_title(f"vanishing point {point + 1}", loc="left", fontsize=10)
        axes.set_xlabel("line through the point, first to last")
        axes.set_ylim(bottom=0)
        axes.grid(color=_FAINT, linewidth=0.6)
    panels[0].set_ylabel("mean edge along the line")
    return _svg(figure)


def _panels(count: int, *, width: float, height: float) -> "tuple[Figure, list[Axes]]":
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    panels = [figure.add_subplot(1, count, place + 1) for place in range(count)]
    for axes in panels:
        axes.patch.set_alpha(0)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(_FAINT)
        axes.tick_params(colors=_INK, labelsize=9, length=0)
        axes.xaxis.label.set_color(_INK)
        axes.yaxis.label.set_color(_INK)
        axes.title.set_color(_INK)
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)
    return figure, panels


def _svg(figure: "Figure") -> str:
    """Inline SVG: text in the page's font, colours as the page's variables, ids that do not change between runs."""
    import matplotlib

    for axes in figure.axes:
        # A title set after creation takes matplotlib's own colour again.
        for title in (axes.title, axes._left_title):  # type: ignore[attr-defined]
            title.set_color(_INK)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "alberti"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    width = 6.2 * figure.get_figwidth()
    text = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    return re.sub(r'<svg ([^>]*?)height="[^"]*"', rf'<svg \1style="max-width: {width:.0f}rem"', text, count=1)
