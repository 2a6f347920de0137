"""Drawings of what the study measured: study_gradients.png, study_where.jpg, study_descent.png, study_levels.png,
study_pictures.jpg, each where its part was run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SHOWN = 0
"""Which street the pictures show."""
COLOURS = {
    "perspective": "#c2452d",
    "perspective_matched": "#3567b0",
    "orientation": "#2e8b57",
    "stray": "#d9a400",
    "denoising": "#777777",
}
ROUTES = {"pixels": "pixels move freely", "latents": "the VAE's latents", "field": "a displacement field"}
STARTS = {"bent": "bent renders", "generated": "the base's own"}
_DPI = 80
_JPEG_QUALITY = 88


def draw_all(report: dict[str, Any], pictures: dict[str, np.ndarray], folder: Path) -> None:
    """Draw whatever the parts in ``report`` allow into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = [start for start in STARTS if f"descent_{start}" in report]
    if "gradients" in report:
        _save(gradient_curves(report["gradients"]["found"]["by_timestep"]), folder / "study_gradients.png")
        _save(gradient_pictures(pictures), folder / "study_where.jpg")
    if starts:
        _save(descent_curves({start: report[f"descent_{start}"]["found"] for start in starts}), folder / "study_descent.png")
        _save(descent_pictures(pictures, starts), folder / "study_pictures.jpg")
    if "levels" in report:
        _save(level_curves(report["levels"]["found"]), folder / "study_levels.png")


def gradient_curves(by_timestep: dict[str, Any]) -> Figure:
    """Six panels over the noise level."""
    panels: list[tuple[str, str, str]] = [
        ("equal_weight", "weight that makes both gradients equal", "log"),
        ("cos_denoising", "cosine with the denoising loss's gradient", "linear"),
        ("cos_draws", "cosine between two noise draws", "linear"),
        ("cos_sharpening", "cosine of its step with sharpening", "linear"),
        ("cos_straightening", "cosine of its step with straightening", "linear"),
        ("share_true", "share of its energy on true edges", "linear"),
    ]
    times = [int(t) for t in by_timestep if t.isdigit()]
    figure, axes = plt.subplots(2, 3, figsize=(11, 5.6), layout="constrained")
    for axis, (key, title, scale) in zip(axes.flat, panels, strict=True):
        for name, colour in COLOURS.items():
            values = [by_timestep[str(t)][name].get(key) for t in times]
            if None not in values:
                axis.plot(times, values, "o-", color=colour, label=name, markersize=4)
        if key == "cos_straightening":
            axis.lines[-1].remove()  # the step down the stray share with itself
            axis.relim()
            axis.autoscale_view()
        if key == "share_true":
            area = [by_timestep[str(t)]["perspective"]["area_true"] for t in times]
            axis.plot(times, area, "--", color="#999999", label="true edges' share of pixels")
        if key == "equal_weight":
            axis.axhline(0.01, color="#999999", linestyle="--", label="published weight, 0.01")
        if key in ("equal_weight", "share_true"):
            axis.legend(handles=axis.lines[-1:], fontsize=8, frameon=False)
        _dress(axis, title, "t", scale)
    handles, labels = axes[0, 2].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9, frameon=False)
    return figure


def gradient_pictures(pictures: dict[str, np.ndarray]) -> Figure:
    """A bent render and a one-step estimate, and what each constraint would add (red) and take away (blue) there."""
    names = [name for name in COLOURS if f"where/bent/{name}" in pictures]
    figure, axes = plt.subplots(2, 1 + len(names), figsize=(2.5 * (1 + len(names)), 5.4), layout="constrained")
    for row, (key, title) in zip(axes, (("bent", "bent by 1.5 px"), ("estimate", "one-step x0, t = 300")), strict=True):
        _show(row[0], pictures[f"where/{key}"], title)
        for axis, name in zip(row[1:], names, strict=True):
            step = -pictures[f"where/{key}/{name}"]
            limit = np.percentile(np.abs(step), 99)
            _show(axis, step, f"step down {name}", cmap="RdBu_r", vmin=-limit, vmax=limit)
    return figure


def descent_curves(found: dict[str, Any]) -> Figure:
    """Share within 2 degrees and line length over steps: two rows a start, a column a route."""
    figure, axes = plt.subplots(
        2 * len(found), len(ROUTES), figsize=(10.5, 4.4 * len(found)), layout="constrained", sharex=True
    )
    for index, (start, result) in enumerate(found.items()):
        for column, (route, title) in enumerate(ROUTES.items()):
            above, below = axes[2 * index, column], axes[2 * index + 1, column]
            for name, curve in result[route].items():
                steps = [point["step"] for point in curve]
                above.plot(
                    steps, [point["consistency_2"] for point in curve], "o-", color=COLOURS[name], label=name, markersize=4
                )
                below.plot(steps, [point["line_length"] for point in curve], "o-", color=COLOURS[name], markersize=4)
            _dress(above, f"{STARTS[start]}: {title}, n = {curve[0]['n']}", "", "linear")
            _dress(below, "", "step", "linear")
            above.set_ylim(0.1, 0.9)
            below.set_ylim(0, 2600)
        axes[2 * index, 0].set_ylabel("share within 2°")
        axes[2 * index + 1, 0].set_ylabel("line length, px")
    axes[0, 0].legend(fontsize=8, frameon=False)
    return figure


def descent_pictures(pictures: dict[str, np.ndarray], starts: list[str]) -> Figure:
    """The start, and the last pictures of each constraint, a row for each start and two of the routes."""
    rows = [(start, route) for start in starts for route in ("pixels", "field")]
    names = [name for name in COLOURS if f"descent/{starts[0]}/field/{name}" in pictures]
    figure, axes = plt.subplots(
        len(rows), 2 + len(names), figsize=(2.2 * (2 + len(names)), 2.35 * len(rows)), layout="constrained"
    )
    for row, (start, route) in zip(axes, rows, strict=True):
        _show(row[0], pictures["descent/true"], "render")
        _show(row[1], pictures[f"descent/{start}"], STARTS[start])
        for axis, name in zip(row[2:], names, strict=True):
            _show(axis, pictures[f"descent/{start}/{route}/{name}"], f"{name}: {route}")
    return figure


def level_curves(found: dict[str, Any]) -> Figure:
    """Share within 2 degrees of one-step estimates, of resampled pictures and of decoded noisy latents."""
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    curves = [
        ("one_step", "one-step x0", "#c2452d"),
        ("resampled", "resampled from there, DDIM", "#3567b0"),
        ("noised", "noisy latents, decoded", "#d9a400"),
    ]
    for key, label, colour in curves:
        times = [int(t) for t in found[key]]
        axis.plot(times, [found[key][str(t)]["consistency_2"] for t in times], "o-", color=colour, label=label, markersize=4)
    for key, colour in (("renders", "#222222"), ("reconstructions", "#888888")):
        axis.axhline(found[key]["consistency_2"], color=colour, linestyle="--", label=key)
    _dress(axis, f"share of line length within 2°, n = {found['renders']['n']}", "noise added up to t", "linear")
    axis.set_ylim(0, 1)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _dress(axis: Axes, title: str, below: str, scale: str) -> None:
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(below, fontsize=9)
    axis.set_yscale(scale)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _show(axis: Axes, picture: np.ndarray, title: str, **options: Any) -> None:
    axis.imshow(picture, interpolation="nearest", **options)
    axis.set_title(title, fontsize=8)
    axis.set_axis_off()


def _save(figure: Figure, path: Path) -> None:
    save: Callable[..., None] = figure.savefig
    options = {"pil_kwargs": {"quality": _JPEG_QUALITY}} if path.suffix == ".jpg" else {}
    save(path, dpi=_DPI, **options)
    plt.close(figure)
