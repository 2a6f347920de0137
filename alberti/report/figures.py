"""Figures of a run for people: pictures of every arm, perspective profiles, and a chart of all arms.

Files that stand on any page: PNG and JPEG on white, unlike the report's own drawings.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from alberti.data.manifest import Dataset, Sample
from alberti.data.sources import evenly
from alberti.errors import DataError
from alberti.files import atomic_file
from alberti.geometry.line_segments import detect_line_segments
from alberti.geometry.vanishing_points import assign_segments
from alberti.images import write_image
from alberti.metrics.labels import METRICS, Metric
from alberti.metrics.perspective import segments_consistency
from alberti.overlays import draw_segments, draw_vanishing_lines
from alberti.report.gallery import paint_depth, profiles_of
from alberti.report.inputs import CEILING, RENDERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WITHIN = 2.0
_TILE = 256
_WIDE = 1.75
"""Pictures wider than so many heights are shown so many tiles wide."""
_GAP = 6
_LABEL = 26
_MAX_ARMS = 6
_MAX_POINTS = 2
_PALETTE = ("#b4452f", "#2d6a9f", "#3d8f5b", "#b8862b", "#7a4f9c", "#2a8f93", "#8a8a2e", "#9c4f6e")
_INK, _FAINT = "#333333", "#dddddd"


def arms_to_draw(summary: Mapping[str, Any], asked: Sequence[str] | None = None) -> list[str]:
    """Those asked for, or the first ones with pictures; at most 6.

    Raises:
        DataError: no arm has pictures, or not one that was asked for.
    """
    names = summary["images"].get("arms", {})
    known = [name for name in names if name not in (RENDERS, CEILING)]
    if not known:
        raise DataError("no arm's pictures are evaluated, so there is nothing to draw")
    if unknown := [arm for arm in asked or () if arm not in known]:
        raise DataError(f"{unknown[0]}: not an arm with pictures; there are {', '.join(known)}")
    return list(asked or known)[:_MAX_ARMS]


def write_figures(summary: Mapping[str, Any], sets: Mapping[str, Dataset], out: Path, *, scenes: int = 4) -> list[Path]:
    """Write `arms.png`, `pictures.jpg` (bare), `lines.jpg`, `vanishing_lines.jpg` and `profiles.png`; returns their paths.

    Args:
        summary: of :func:`alberti.report.summary.summarise`.
        sets: column of the strips -> data set; `depth` is the set of depth maps, `render` the pictures that belong to them.
    """
    ids = evenly([sample.id for sample in sets["depth"]], scenes)
    paths = [out / name for name in ("arms.png", "pictures.jpg", "lines.jpg", "vanishing_lines.jpg", "profiles.png")]
    draw_arms(summary, paths[0])
    for path, overlay in zip(paths[1:4], ("none", "lines", "vanishing_lines"), strict=True):
        write_image(path, strip(sets, ids, overlay), quality=90)
    draw_profiles(sets, ids[0], paths[4])
    return paths


def strip(sets: Mapping[str, Dataset], ids: Sequence[str], overlay: str) -> np.ndarray:
    """(H, W, 3) uint8: a row per depth map and a column per set or, of wide pictures, the other way round.

    Args:
        overlay: "none"; "lines" colours each detected line by the vanishing point that it meets within 2 degrees (gray:
            none); "vanishing_lines" draws lines through the points.
    """
    tiles = {name: [_spaced(_tile(name, data, data.by_id(key), overlay)) for key in ids] for name, data in sets.items()}
    width = next(iter(tiles.values()))[0].shape[1]
    if width - _GAP >= _WIDE * _TILE:
        rows = [np.vstack([_text(name, width * len(row)), np.hstack(row)]) for name, row in tiles.items()]
        return np.vstack(rows)[:, :-_GAP]
    heading = np.hstack([_spaced(_text(name, width - _GAP)) for name in tiles])
    return np.vstack([heading, *(np.hstack(row) for row in zip(*tiles.values(), strict=True))])[:, :-_GAP]


def _tile(name: str, dataset: Dataset, sample: Sample, overlay: str) -> np.ndarray:
    if name == "depth":
        depth = _enlarge(paint_depth(dataset.read_depth(sample)), cv2.INTER_NEAREST)
        return np.vstack([depth, _text("", depth.shape[1])])
    image = dataset.read_image(sample)
    points = np.asarray(sample.vanishing_points or [], np.float64).reshape(-1, 3)
    segments = detect_line_segments(image)
    height, width = image.shape[:2]
    share = segments_consistency(segments, points, width, height, (_WITHIN,))[f"consistency_{_WITHIN:g}"]
    note = "" if share is None else f"{share:.0%} within {_WITHIN:g} deg"
    large = _enlarge(image, cv2.INTER_CUBIC)
    scale = large.shape[1] / width
    if overlay == "none":
        note = ""
    elif overlay == "lines":
        large = draw_segments(large, (segments + 0.5) * scale - 0.5, assign_segments(segments, points, _WITHIN), thickness=2)
    else:
        moved = points @ np.array([[scale, 0, scale / 2 - 0.5], [0, scale, scale / 2 - 0.5], [0, 0, 1]]).T
        large = draw_vanishing_lines(large, moved)
    return np.vstack([large, _text(note, large.shape[1])])


def _enlarge(image: np.ndarray, how: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = _TILE / height if width <= _WIDE * height else _TILE * _WIDE / width
    return cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=how)


def _spaced(tile: np.ndarray) -> np.ndarray:
    return np.pad(tile, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255)


def _text(text: str, width: int) -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.new("RGB", (width, _LABEL), "white")
    ImageDraw.Draw(canvas).text((2, 4), text, fill=_INK, font=ImageFont.load_default(16))
    return np.asarray(canvas)


def draw_arms(summary: Mapping[str, Any], path: Path) -> None:
    """Consistency, receding and all line, Frechet distance of every arm: mean, interval, and the seeds as small points."""
    values, distances = summary["images"]["arms"], summary["distances"]["arms"]
    arms = [name for name in values if name not in (RENDERS, CEILING)]
    tables = [(METRICS[key], values) for key in ("consistency_2", "level_line_length", "line_length")]
    tables.append((METRICS["frechet_distance"], distances))
    tables = [(metric, table) for metric, table in tables if any(metric.key in table.get(arm, {}) for arm in arms)]
    figure, axes = _canvas(len(tables), 3.6, 0.34 * len(arms) + 1.3)
    for place, (panel, (metric, table)) in enumerate(zip(axes, tables)):
        for row, arm in enumerate(reversed(arms)):
            if metric.key in table.get(arm, {}):
                _dot(panel, row, table[arm][metric.key], metric.scale, _PALETTE[(len(arms) - 1 - row) % len(_PALETTE)])
        _mark(panel, metric, table)
        panel.set_xlabel(f"{metric.label}{',' * bool(metric.unit)}{metric.unit}", fontsize=9)
        panel.set_yticks(range(len(arms)), list(reversed(arms)) if place == 0 else [""] * len(arms))
        panel.set_ylim(-0.6, len(arms) - 0.4)
    _save(figure, path)


def _mark(panel: "Axes", metric: Metric, table: Mapping[str, Any]) -> None:
    """Dashed lines at the references, their names above, one higher than the other: they may be close."""
    if metric.key == "frechet_distance":
        return  # the renders' own is 0, far from everything that is drawn
    known = [
        (name, table[name][metric.key]["mean"] * metric.scale)
        for name in (RENDERS, CEILING)
        if metric.key in table.get(name, {})
    ]
    for row, (name, value) in enumerate(sorted(known, key=lambda mark: mark[1])):
        panel.axvline(value, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
        panel.annotate(
            name, (value, 1.0), xycoords=("data", "axes fraction"), xytext=(4, 3 + 10 * row),
            textcoords="offset points", ha="right", fontsize=8, color=_INK,
        )  # fmt: skip


def _dot(panel: "Axes", row: int, entry: Mapping[str, Any], scale: float, colour: str) -> None:
    if entry.get("low") is not None:
        ends = [entry["low"] * scale, entry["high"] * scale]
        panel.plot(ends, [row, row], color=colour, linewidth=3, alpha=0.4, solid_capstyle="round")
    seeds = [value * scale for value in entry.get("seeds", [])]
    panel.plot(seeds, [row] * len(seeds), "|", color=colour, markersize=9, alpha=0.8)
    panel.plot([entry["mean"] * scale], [row], "o", color=colour, markersize=7)


def draw_profiles(sets: Mapping[str, Dataset], sample_id: str, path: Path) -> None:
    """Perspective profiles of one scene, a panel a vanishing point: the render's in ink and each arm's."""
    points = np.asarray(sets["depth"].by_id(sample_id).vanishing_points or [], np.float64).reshape(-1, 3)[:_MAX_POINTS]
    figure, axes = _canvas(max(len(points), 1), 5.4, 2.9)
    named = [name for name in sets if name not in ("depth", "reconstruction")]
    colours = dict(zip((name for name in named if name != "render"), _PALETTE))
    for name in named:
        data = sets[name]
        for panel, profile in zip(axes, _profiles(data.read_image(data.by_id(sample_id)), points)):
            colour, width = colours.get(name, _INK), 1.2 if name in colours else 2.0
            panel.plot(np.linspace(0, 1, len(profile)), profile, color=colour, linewidth=width, label=name)
    for index, panel in enumerate(axes):
        panel.set_title(f"vanishing point {index + 1}, scene {sample_id}", loc="left", fontsize=9)
        panel.set_xlabel("line through the point, first to last", fontsize=9)
        panel.set_ylim(bottom=0)
    axes[0].set_ylabel("mean edge along the line", fontsize=9)
    axes[0].legend(fontsize=8, frameon=False)
    _save(figure, path)


def _profiles(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(K, 500), smoothed over five lines."""
    if not len(points):
        return np.zeros((0, 500))
    return np.array([np.convolve(row, np.ones(5) / 5, "same") for row in profiles_of(image, points)])


def _canvas(count: int, width: float, height: float) -> "tuple[Any, list[Axes]]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * count, height), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, count, place + 1) for place in range(count)]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=9, length=0)
        panel.grid(axis="x", color=_FAINT, linewidth=0.8)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
