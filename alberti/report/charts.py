"""Curves and profiles as inline SVG, a panel a drawing, in the page's own colours, light or dark."""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alberti.metrics.labels import CURVES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stand for variables of the page's style sheet; replaced in the finished SVG.
_INK, _FAINT, _STRONG = "#010101", "#020202", "#040404"
_ARM_COLOURS = [f"#0300{index:02x}" for index in range(8)]
_VARIABLES = {_INK: "var(--ink-2)", _FAINT: "var(--rule)", _STRONG: "var(--ink)"} | {
    colour: f"var(--arm-{index})" for index, colour in enumerate(_ARM_COLOURS)
}
_NOT_CURVES = {"step", "lr", "epoch", "seconds", "rate", "grad_norm", "time"}
_BY_NOISE = re.compile(r"_t\d+$")
_MAX_PANELS = 4
_MAX_POINTS = 160
CONSTRAINT = "constraint"


@dataclass(frozen=True)
class Panel:
    """One drawing with its title; ``svg`` stands alone."""

    title: str
    svg: str


def arm_colour(index: int) -> str:
    """The CSS colour of the ``index``-th arm, the same all over the page."""
    return f"var(--arm-{index % len(_ARM_COLOURS)})"


def arm_of(run: str, arms: Sequence[str]) -> str:
    """The arm of a run that is named ``<arm>`` or ``<arm>-<seed>``."""
    stem = re.sub(r"-(\d+|all)$", "", run)
    return run if run in arms else stem


def curve_panels(curves: Mapping[str, "pd.DataFrame"], arms: Sequence[str]) -> list[Panel]:
    """Training histories, a panel a quantity and a line a run; quantities that nothing changes are left out.

    The loss is left out where it is the sum of others that are shown, and the constraint: :func:`constraint_panels`.
    """
    quantities = [name for name in _quantities(curves) if name != CONSTRAINT]
    if "mse" in quantities:
        quantities = [name for name in quantities if name != "loss"]
    return [_curves(CURVES.get(name, name.replace("_", " ")), name, curves, arms) for name in quantities[:_MAX_PANELS]]


def constraint_panels(curves: Mapping[str, "pd.DataFrame"], arms: Sequence[str]) -> list[Panel]:
    """The constraint's value while it trains, a panel an arm, for constraints have units of their own."""
    having = {run: table for run, table in curves.items() if CONSTRAINT in _quantities({run: table})}
    panels = []
    for arm in dict.fromkeys(arm_of(run, arms) for run in having):
        own = {run: table for run, table in having.items() if arm_of(run, arms) == arm}
        panels.append(_curves(arm, CONSTRAINT, own, arms))
    return panels


def _curves(title: str, quantity: str, curves: Mapping[str, "pd.DataFrame"], arms: Sequence[str]) -> Panel:
    figure, axes = _axes()
    for order, (run, table) in enumerate(curves.items()):
        if quantity in table.columns and quantity in _quantities({run: table}):
            arm = arm_of(run, arms)
            index = arms.index(arm) if arm in arms else order
            _draw_curve(axes, table["step"].to_numpy(float), table[quantity].to_numpy(float), index)
    axes.set_xlabel("step")
    return Panel(title, _svg(figure))


def _draw_curve(axes: "Axes", steps: np.ndarray, values: np.ndarray, index: int) -> None:
    colour = _ARM_COLOURS[index % len(_ARM_COLOURS)]
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    window = max(1, len(values) // 20)
    if window > 1:
        kernel = np.ones(window)
        # Divided by the number of values under the window, so that the ends are not pulled to zero.
        smooth = np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
        axes.plot(*_thinned(steps, values), color=colour, linewidth=0.6, alpha=0.25)
        values = smooth
    axes.plot(*_thinned(steps, values), color=colour, linewidth=1.5)


def _thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    stride = -(-len(steps) // _MAX_POINTS)
    return steps[::stride], values[::stride]


def _quantities(curves: Mapping[str, "pd.DataFrame"]) -> list[str]:
    """Columns with at least two different values over the steps of some run."""
    names: dict[str, None] = {}
    for table in curves.values():
        if "step" not in table.columns:
            continue
        for name in table.columns:
            if name in _NOT_CURVES or _BY_NOISE.search(name) or table[name].dtype.kind not in "fi":
                continue
            if table[name].dropna().nunique() > 1:
                names[name] = None
    return list(names)


def profile_panels(profiles: Mapping[str, np.ndarray], arms: Sequence[str], points: Sequence[int]) -> list[Panel]:
    """Perspective profiles of one scene, a panel a vanishing point: (K, num_lines) by picture; ``reference`` in ink.

    Args:
        points: which of the K vanishing points are shown.
    """
    panels = []
    for point in points:
        figure, axes = _axes()
        for name, profile in profiles.items():
            colour = _ARM_COLOURS[arms.index(name) % len(_ARM_COLOURS)] if name in arms else _STRONG
            values = np.asarray(profile[point], float)
            width = max(1, len(values) // 100)
            values = np.convolve(values, np.ones(width) / width, "same")
            where = np.linspace(0, 1, len(values))
            axes.plot(*_thinned(where, values), color=colour, linewidth=1.2 if name in arms else 1.8)
        axes.set_xlabel("line through the point, first to last")
        axes.set_ylabel("mean edge")
        axes.set_ylim(bottom=0)
        panels.append(Panel(f"vanishing point {point + 1}", _svg(figure)))
    return panels


def _axes() -> "tuple[Figure, Axes]":
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 2.7), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(colors=_INK, labelsize=9, length=0)
    axes.grid(color=_FAINT, linewidth=0.6)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(_INK)
        label.set_fontsize(9)
    return figure, axes


def _svg(figure: "Figure") -> str:
    """Inline SVG: text in the page's font, colours as the page's variables, ids that do not change between runs."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "alberti"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    # A page has one element to an id: groups need none, and what is referred to is named after the drawing.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    digest = hashlib.sha1(text.encode()).hexdigest()[:8]
    text = re.sub(r'(id="|#)([mp][0-9a-f]{10})', rf"\g<1>\g<2>{digest}", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r'<svg aria-hidden="true" \1', text, count=1)
    return re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
