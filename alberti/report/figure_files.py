"""Figures of an experiment for people: pictures of every arm, perspective profiles, and a chart of all arms.

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
from alberti.metrics.perspective import segments_consistency
from alberti.overlays import draw_segments, draw_vanishing_lines
from alberti.report.figures import mark_values
from alberti.report.gallery import paint_depth, profiles_of
from alberti.report.seeds import CEILING, RENDERS

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


def write_figures(
    summary: Mapping[str, Any], runs: Path, out: Path, *, scenes: int = 4, arms: Sequence[str] | None = None
) -> list[Path]:
    """Write `arms.png`, `pictures.jpg`, `vanishing_lines.jpg` and `profiles.png` into ``out``; returns their paths.

    Args:
        summary: of :func:`pipeline.results.collect`.
        runs: the workspaces; pictures are the first seed's.
        arms: in the strips and profiles, at most 6; None: the first ones of the experiment.

    Raises:
        DataError: no pictures in ``runs``, or not of an arm that was asked for.
    """
    names = list(summary["images"]["arms"]) if summary["images"] else []
    known = [name for name in names if name not in (RENDERS, CEILING)]
    if not known:
        raise DataError(f"{runs}: no arm's pictures are evaluated, so there is nothing to draw")
    if unknown := [arm for arm in arms or () if arm not in known]:
        raise DataError(f"{unknown[0]}: not an arm that every seed has; there are {', '.join(known)}")
    shown = list(arms or known)[:_MAX_ARMS]
    sets = picture_sets(runs / f"seed{summary['seeds'][0]}", shown)
    ids = evenly([sample.id for sample in sets["depth"]], scenes)
    paths = [out / name for name in ("arms.png", "pictures.jpg", "vanishing_lines.jpg", "profiles.png")]
    draw_arms(summary, paths[0])
    for path, overlay in zip(paths[1:3], ("lines", "vanishing_lines"), strict=True):
        write_image(path, strip(sets, ids, overlay), quality=85)
    draw_profiles(sets, ids[0], paths[3])
    return paths


def picture_sets(workspace: Path, arms: Sequence[str]) -> dict[str, Dataset]:
    """Column -> data set of the strip; `depth` and `render` are both the condition set."""
    condition = Dataset.open(workspace / "data" / "condition")
    sets = {"depth": condition}
    if condition[0].image is not None:
        sets["render"] = condition
    if (workspace / "data" / "references" / "dataset.json").is_file():
        sets["reconstruction"] = Dataset.open(workspace / "data" / "references")
    return sets | {arm: Dataset.open(workspace / "data" / "generated" / arm) for arm in arms}


def strip(sets: Mapping[str, Dataset], ids: Sequence[str], overlay: str) -> np.ndarray:
    """(H, W, 3) uint8: a row a depth map and a column a set or, of wide pictures, the other way round. ``overlay``: "lines"
    colours each detected line by the vanishing point that it meets within 2 degrees (gray: none), "vanishing_lines" draws
    lines through the points.
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
    if overlay == "lines":
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
    values = summary["images"]["arms"]
    arms = [name for name in values if name not in (RENDERS, CEILING)]
    panels = [
        ("consistency_2", "line length within 2° of a vanishing point, %", 100.0),
        ("level_line_length", "receding line, px", 1.0),
        ("line_length", "line length, px", 1.0),
    ]
    panels = [panel for panel in panels if any(panel[0] in values[arm] for arm in arms)]
    figure, axes = _canvas(len(panels) + 1, 3.6, 0.34 * len(arms) + 1.3)
    for place, (panel, (key, label, scale)) in enumerate(zip(axes, panels)):
        for row, arm in enumerate(reversed(arms)):
            if key in values[arm]:
                _dot(panel, row, values[arm][key], scale, _PALETTE[(len(arms) - 1 - row) % len(_PALETTE)])
        markers = [(name, values[name][key]["mean"] * scale) for name in (RENDERS, CEILING) if key in values.get(name, {})]
        mark_values(panel, markers, _INK, fontsize=8)
        panel.set_xlabel(label, fontsize=9)
        panel.set_yticks(range(len(arms)), list(reversed(arms)) if place == 0 else [""] * len(arms))
    for row, arm in enumerate(reversed(arms)):
        entry = summary["distances"].get(arm, {}).get("frechet_distance")
        if entry is not None:
            colour = _PALETTE[(len(arms) - 1 - row) % len(_PALETTE)]
            axes[-1].plot(entry["seeds"], [row] * len(entry["seeds"]), "o", color=colour, markersize=4, alpha=0.5)
            axes[-1].plot([entry["mean"]], [row], "o", color=colour, markersize=7)
    axes[-1].set_xlabel("squared Fréchet distance to the renders", fontsize=9)
    axes[-1].set_yticks(range(len(arms)), [""] * len(arms))
    for panel in axes:
        panel.set_ylim(-0.6, len(arms) - 0.4)
    _save(figure, path)


def _dot(panel: "Axes", row: int, entry: Mapping[str, Any], scale: float, colour: str) -> None:
    low, high = entry["low"] * scale, entry["high"] * scale
    panel.plot([low, high], [row, row], color=colour, linewidth=3, alpha=0.4, solid_capstyle="round")
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
