"""Results over several seeds: means, differences between arms and what they leave of the way to the best possible.

All intervals resample seeds and images together, see :func:`alberti.metrics.bootstrap.crossed_bootstrap`; differences are
paired by seed and image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alberti.errors import DataError
from alberti.metrics.bootstrap import Crossed, crossed_bootstrap
from alberti.metrics.evaluation import check_one_table
from alberti.report.inputs import Result

IMAGE_COLUMNS = (
    "consistency_2", "consistency_5", "surface_consistency_2", "line_length", "level_line_length", "vp_error",
    "vp_auc_10", "perspective_loss",
)  # fmt: skip
GAP_COLUMNS = ("consistency_2", "consistency_5")
DISTANCES = ("frechet_distance", "kernel_distance")
DEPTH_COLUMNS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "silog", "log10", "d1", "d2", "d3")
CEILING, RENDERS = "reconstructions", "renders"
_DIGITS = 6


@dataclass(frozen=True)
class SeedResults:
    """The evaluations of every arm and seed."""

    seeds: tuple[int, ...]
    images: Mapping[str, Sequence[Result]]
    """Arm -> its evaluation for each seed."""
    depth: Mapping[str, Mapping[str, Sequence[Result]]]
    """Model -> arm -> its evaluation for each seed."""
    references: Mapping[str, Result] = field(default_factory=dict)
    """``renders`` and ``reconstructions``, which no seed changes."""
    controls: Mapping[str, str] = field(default_factory=dict)
    """Arm -> the arm that it is compared with besides ``control_arm`` and ``base_arm``: the same but for one thing."""
    base_arm: str = "base"
    control_arm: str = "unconstrained"
    original_arm: str = "original"
    resamples: int = 4000


def summarise_seeds(results: SeedResults) -> dict[str, Any]:
    """Everything that is said of the seeds, JSON-able; keys ``images``, ``distances``, ``depth``."""
    return {
        "images": _images(results) if results.images else {},
        "distances": _distances(results),
        "depth": {model: _depth(results, model) for model in results.depth},
    }


def _images(results: SeedResults) -> dict[str, Any]:
    rows = {arm: list(runs) for arm, runs in results.images.items()}
    rows |= {name: [result] * len(results.seeds) for name, result in results.references.items()}
    summary: dict[str, Any] = {"arms": {name: {} for name in rows}, "differences": {}, "gap_closed": {}}
    for column in IMAGE_COLUMNS:
        having = [name for name in rows if all(column in result.rows.columns for result in rows[name])]
        values, ids = aligned(rows, having, column)
        if not len(ids):
            continue
        crossed = crossed_bootstrap(values, resamples=results.resamples)
        place = {name: index for index, name in enumerate(having)}
        low, high = crossed.interval()
        for name, index in place.items():
            entry = _entry(crossed.means[index], low[index], high[index], len(ids))
            if name not in results.references:
                entry["seeds"] = _round(values[index].mean(1))
            summary["arms"][name][column] = entry
        for arm, other in _pairs(results, place):
            change = summary["differences"].setdefault(f"{arm} - {other}", {})
            change[column] = _difference(crossed, place[arm], place[other], len(ids))
        if column in GAP_COLUMNS:
            _gap_closed(summary["gap_closed"], column, results, crossed, place)
    return summary


def aligned(rows: Mapping[str, Sequence[Result]], names: Sequence[str], column: str) -> tuple[np.ndarray, list[str]]:
    """(names, seeds, images) values of ``column`` and the images' ids: those for which every name and seed has a number.

    Raises:
        DataError: the evaluations are not of the same images.
    """
    tables = [[result.rows.set_index("id")[column] for result in rows[name]] for name in names]
    if not tables:
        return np.zeros((0, 0, 0)), []
    ids = tables[0][0].index
    for name, series in zip(names, tables, strict=True):
        for table in series:
            if set(table.index) != set(ids) or table.index.has_duplicates:
                raise DataError(f"{name}: its images are not those of {names[0]}; evaluate all arms on the same data")
    values = np.array([[table.loc[ids].to_numpy(dtype=float) for table in series] for series in tables])
    known = np.isfinite(values).all(axis=(0, 1))
    return values[:, :, known], [str(name) for name in ids[known]]


def _pairs(results: SeedResults, place: Mapping[str, int]) -> list[tuple[str, str]]:
    """(arm, other) of every difference: each arm against its own control, the control arm and the base."""
    arms = [name for name in place if name not in results.references and name != results.base_arm]
    against = {arm: (results.controls.get(arm, results.control_arm), results.control_arm, results.base_arm) for arm in arms}
    return [(arm, other) for arm in arms for other in dict.fromkeys(against[arm]) if other in place and other != arm]


def _difference(crossed: Crossed, index: int, other: int, n: int) -> dict[str, Any]:
    low, high = crossed.interval(crossed.draws[:, index] - crossed.draws[:, other])
    return _entry(crossed.means[index] - crossed.means[other], low, high, n)


def _gap_closed(gaps: dict[str, Any], column: str, results: SeedResults, crossed: Crossed, place: Mapping[str, int]) -> None:
    """(arm - control) / (reconstructions - control): 1 is as straight as the autoencoder lets it be."""
    if CEILING not in place or results.control_arm not in place:
        return
    ceiling, control = place[CEILING], place[results.control_arm]
    for arm, index in place.items():
        if arm in results.references or arm == results.control_arm:
            continue
        draws = crossed.draws
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (crossed.means[index] - crossed.means[control]) / (crossed.means[ceiling] - crossed.means[control])
            shares = (draws[:, index] - draws[:, control]) / (draws[:, ceiling] - draws[:, control])
        if np.isfinite(share) and np.isfinite(shares).all():
            gaps.setdefault(arm, {})[column] = _entry(share, *crossed.interval(shares), None)


def _distances(results: SeedResults) -> dict[str, Any]:
    """Distances between sets: the seeds' values, for there is nothing to resample below them."""
    summary: dict[str, Any] = {}
    for arm, runs in results.images.items():
        for key in DISTANCES:
            values = [result.summary.get(key) for result in runs]
            if any(value is None for value in values):
                continue
            numbers = np.asarray(values, dtype=float)
            spread = float(numbers.std(ddof=1)) if len(numbers) > 1 else None
            entry = {"mean": _round(numbers.mean()), "sd": None if spread is None else _round(spread), "seeds": _round(numbers)}
            summary.setdefault(arm, {})[key] = entry
    for name, result in results.references.items():
        known = {key: result.summary[key] for key in DISTANCES if result.summary.get(key) is not None}
        summary[name] = {key: {"mean": _round(value), "sd": None, "seeds": []} for key, value in known.items()}
    return summary


def _depth(results: SeedResults, model: str) -> dict[str, Any]:
    arms = results.depth[model]
    check_one_table({f"{model}-{arm}": result.summary for arm, runs in arms.items() for result in runs})
    first = next(iter(arms.values()))[0].summary
    summary: dict[str, Any] = {
        "setting": {key: first[key] for key in ("protocol", "ground_truth", "alignment", "n", "split_hash")},
        "arms": {arm: {} for arm in arms},
        "relative": {},
    }
    place = {arm: index for index, arm in enumerate(arms)}
    for column in DEPTH_COLUMNS:
        values, ids = aligned(arms, list(arms), column)
        crossed = crossed_bootstrap(values, resamples=results.resamples)
        low, high = crossed.interval()
        for arm, index in place.items():
            entry = _entry(crossed.means[index], low[index], high[index], len(ids))
            summary["arms"][arm][column] = entry | {"seeds": _round(values[index].mean(1))}
        for arm, other in _depth_pairs(results, place):
            ratios = crossed.draws[:, place[arm]] / crossed.draws[:, place[other]] - 1
            ratio = crossed.means[place[arm]] / crossed.means[place[other]] - 1
            change = summary["relative"].setdefault(f"{arm} / {other}", {})
            change[column] = _entry(ratio, *crossed.interval(ratios), len(ids))
    return summary


def _depth_pairs(results: SeedResults, place: Mapping[str, int]) -> list[tuple[str, str]]:
    others = (results.original_arm, results.control_arm, results.base_arm)
    return [(arm, other) for other in others for arm in place if other in place and arm not in (other, results.original_arm)]


def _entry(mean: Any, low: Any, high: Any, n: int | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"mean": _round(mean), "low": _round(low), "high": _round(high)}
    return entry if n is None else entry | {"n": n}


def _round(value: Any) -> Any:
    """Six significant digits: more would only be noise in a file that people read."""
    if np.ndim(value):
        return [_round(item) for item in value]
    return float(f"{float(value):.{_DIGITS}g}")
