"""Everything that is said of a run, as one JSON-able dictionary: means, differences between arms, intervals.

All intervals are 95 % intervals that resample seeds and pictures together, or scenes where pictures share one
(:func:`alberti.metrics.bootstrap.crossed_bootstrap`); with one seed, pictures alone. Differences are paired by seed and
picture.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from alberti.errors import DataError
from alberti.metrics.bootstrap import Crossed, crossed_bootstrap
from alberti.metrics.evaluation import check_one_table
from alberti.metrics.labels import DEPTH, DISTANCES, IMAGE
from alberti.report.inputs import CEILING, ReportInputs, Result
from alberti.report.verdict import verdict

_GAP_METRICS = ("consistency_2", "consistency_5")
_SETTING = ("protocol", "ground_truth", "alignment", "n", "split_hash")
_DIGITS = 6
_HEADLINE_DIGITS = 4

Summary = dict[str, Any]


def summarise(inputs: ReportInputs) -> Summary:
    """The summary of ``inputs``; it becomes ``metrics/summary.json``.

    Keys: ``facts``, ``seeds``, ``resamples``, ``arms`` (kind, note, control of each), ``main_control``, ``base_arm``,
    ``original_arm``, ``images``, ``distances``, ``depth`` (by test set, real ones first), ``study`` (people), ``minutes``,
    ``stand_ins``, and ``verdict``: three sentences.

    - ``images.arms.<arm>.<metric>``: mean, low, high, n (pictures), seeds (the mean of each). The references are arms here.
    - ``images.differences."a - b"``: the same for the paired difference; b is a's control, the main control or the base.
    - ``images.gap_closed.<arm>``: (arm - control) / (reconstructions - control).
    - ``distances.arms.<arm>.<metric>``: mean, sd over seeds, seeds; ``distances.differences``: paired by seed.
    - ``depth.<test set>``: real, models; in ``models.<model>`` setting, notes, arms, and ``relative."a / b"``: the change of
      an error as a share of b's mean.

    Raises:
        DataError: arms were evaluated on different pictures, or an arm lacks a seed.
    """
    summary: Summary = {
        "facts": {key: value for key, value in inputs.facts.items() if value is not None},
        "seeds": list(inputs.seeds),
        "resamples": inputs.resamples,
        "arms": {name: asdict(arm) for name, arm in inputs.arms.items()},
        "main_control": inputs.main_control,
        "base_arm": inputs.base_arm,
        "original_arm": inputs.original_arm,
        "images": _images(inputs) if inputs.images else {},
        "distances": _distances(inputs) if inputs.images else {},
        "depth": {name: _test_set(inputs, name) for name in inputs.test_sets},
        "stand_ins": list(inputs.stand_ins),
        "study": _study(inputs.study),
        "minutes": dict(inputs.minutes) if inputs.minutes is not None else None,
    }
    return summary | {"verdict": [asdict(sentence) for sentence in verdict(summary)]}


def headlines(summary: Summary) -> dict[str, dict[str, Any]]:
    """Arm -> the few numbers that ``dvc metrics show`` lays side by side: short keys, four digits, without what an arm lacks.

    ``within2`` (share of line within 2°), ``gain`` (of it against the arm's control), ``lines`` (px in a picture), ``frechet``,
    and ``<model>.abs_rel`` on the first test set, which is a real one where there is one.
    """
    images, distances = summary["images"].get("arms", {}), summary["distances"].get("arms", {})
    models = headline_set(summary)[1]["models"] if summary["depth"] else {}
    names = dict.fromkeys([*images, *(arm for model in models.values() for arm in model["arms"])])
    found: dict[str, dict[str, Any]] = {}
    for arm in names:
        values: dict[str, Any] = {}
        if summary["images"]:
            own = images.get(arm, {})
            control = summary["arms"].get(arm, {}).get("control")
            gain = summary["images"]["differences"].get(f"{arm} - {control}", {})
            frechet = distances.get(arm, {}).get("frechet_distance")
            entries = {"within2": own.get("consistency_2"), "gain": gain.get("consistency_2")}
            entries |= {"lines": own.get("line_length"), "frechet": frechet}
            values = {key: _headline(entry) for key, entry in entries.items() if entry is not None}
        for model, section in models.items():
            error = _headline(section["arms"].get(arm, {}).get("abs_rel"))
            values |= {} if error is None else {model: {"abs_rel": error}}
        found[arm] = values
    return found


def plot_rows(summary: Summary) -> dict[str, list[dict[str, Any]]]:
    """Rows for DVC's plots: ``images``, one row per arm; ``depth``, on the first test set, one row per model and arm, whose
    names stand together as one.

    A table without rows is left out, and so no plot is empty.
    """
    images = [
        {"arm": arm, **{key: entry["mean"] for key, entry in values.items()}}
        for arm, values in summary["images"].get("arms", {}).items()
        if values
    ]
    depth = []
    if summary["depth"]:
        test_set, section = headline_set(summary)
        for model, results in section["models"].items():
            for arm, values in results["arms"].items():
                means = {key: entry["mean"] for key, entry in values.items()}
                depth.append({"trained": f"{model}, {arm}", "test set": test_set, "model": model, "arm": arm, **means})
    return {name: rows for name, rows in (("images", images), ("depth", depth)) if rows}


def headline_set(summary: Summary) -> tuple[str, Summary]:
    """The first test set, a real one where there is one, and its section."""
    return next(iter(summary["depth"].items()))


def _headline(entry: Mapping[str, Any] | None) -> float | None:
    return None if entry is None else float(f"{entry['mean']:.{_HEADLINE_DIGITS}g}")


def _images(inputs: ReportInputs) -> Summary:
    rows = {arm: inputs.over_seeds(f"the pictures of {arm}", found) for arm, found in inputs.images.items()}
    rows |= {name: [result] * len(inputs.seeds) for name, result in inputs.references.items()}
    first = next(iter(rows.values()))[0].summary
    summary: Summary = {
        "pictures": max(len(result.rows) for runs in rows.values() for result in runs),
        "extractor": first.get("extractor"),
        "n_reference": first.get("n_reference"),
        "arms": {name: {} for name in rows},
        "differences": {},
        "gap_closed": {},
    }
    for column in (metric.key for metric in IMAGE):
        having = [name for name in rows if all(column in result.rows.columns for result in rows[name])]
        values, ids = aligned(rows, having, column)
        if not len(ids):
            continue
        sample = _Sample(crossed_bootstrap(values, resamples=inputs.resamples), having, len(ids), len(ids), values.shape[1])
        for index, name in enumerate(having):
            entry = sample.mean(name)
            if name not in inputs.references:
                entry["seeds"] = _round(values[index].mean(1))
            summary["arms"][name][column] = entry
        arms = [name for name in having if name not in inputs.references]
        for arm, other in _pairs(inputs, arms, (inputs.main_control, inputs.base_arm)):
            summary["differences"].setdefault(f"{arm} - {other}", {})[column] = sample.difference(arm, other)
        if column in _GAP_METRICS:
            for arm in arms:
                share = sample.gap_closed(arm, inputs.control_of(arm), CEILING)
                if share is not None:
                    summary["gap_closed"].setdefault(arm, {})[column] = share
    return summary


def aligned(rows: Mapping[str, Sequence[Result]], names: Sequence[str], column: str) -> tuple[np.ndarray, np.ndarray]:
    """(names, seeds, images) values of ``column`` and the images' ids: those for which every name and seed has a number.

    Raises:
        DataError: the evaluations are not of the same images.
    """
    tables = [[result.rows.set_index("id")[column] for result in rows[name]] for name in names]
    if not tables:
        return np.zeros((0, 0, 0)), np.zeros(0, dtype=object)
    ids = tables[0][0].index
    for name, series in zip(names, tables, strict=True):
        for table in series:
            if set(table.index) != set(ids) or table.index.has_duplicates:
                raise DataError(f"{name}: its images are not those of {names[0]}; evaluate all arms on the same data")
    values = np.array([[table.loc[ids].to_numpy(dtype=float) for table in series] for series in tables])
    known = np.isfinite(values).all(axis=(0, 1))
    return values[:, :, known], ids[known].to_numpy()


def _pairs(inputs: ReportInputs, arms: Sequence[str], others: Iterable[str | None]) -> list[tuple[str, str]]:
    """(arm, other) of every difference: each arm against its own control and ``others``, as far as they are among ``arms``."""
    shared = [other for other in others if other in arms]
    found: list[tuple[str, str | None]] = []
    for arm in arms:
        against = dict.fromkeys([inputs.control_of(arm), *shared])
        found += [(arm, other) for other in against if other in arms and other != arm and _asked(inputs, arm, other)]
    return [(arm, str(other)) for arm, other in found]


def _asked(inputs: ReportInputs, arm: str, other: str | None) -> bool:
    """Tables compare every arm with the main control; for the rest the base and the original are only compared with."""
    return other == inputs.main_control or arm not in (inputs.base_arm, inputs.original_arm) or other == inputs.original_arm


class _Sample:
    """Means and resampled means of one metric, by arm."""

    def __init__(self, crossed: Crossed, names: Sequence[str], n: int, scenes: int, seeds: int):
        self.crossed, self.n = crossed, n
        self.place = {name: index for index, name in enumerate(names)}
        self.known = scenes > 1 or seeds > 1
        """Whether there is anything to resample."""

    def mean(self, name: str) -> Summary:
        index = self.place[name]
        return self._entry(self.crossed.means[index], self.crossed.draws[:, index])

    def difference(self, name: str, other: str) -> Summary:
        a, b = self.place[name], self.place[other]
        return self._entry(self.crossed.means[a] - self.crossed.means[b], self.crossed.draws[:, a] - self.crossed.draws[:, b])

    def relative(self, name: str, other: str) -> Summary:
        """The change as a share of the other's mean."""
        a, b = self.place[name], self.place[other]
        return self._entry(
            self.crossed.means[a] / self.crossed.means[b] - 1, self.crossed.draws[:, a] / self.crossed.draws[:, b] - 1
        )

    def gap_closed(self, name: str, control: str | None, ceiling: str) -> Summary | None:
        """(arm - control) / (ceiling - control); None where some resample has no gap to close."""
        if control is None or control not in self.place or ceiling not in self.place:
            return None
        draws = self.crossed.draws[:, [self.place[key] for key in (name, control, ceiling)]]
        mean = self.crossed.means[[self.place[key] for key in (name, control, ceiling)]]
        if not (draws[:, 2] > draws[:, 1]).all():
            return None
        return self._entry((mean[0] - mean[1]) / (mean[2] - mean[1]), (draws[:, 0] - draws[:, 1]) / (draws[:, 2] - draws[:, 1]))

    def _entry(self, mean: float, draws: np.ndarray) -> Summary:
        low, high = self.crossed.interval(draws) if self.known else (None, None)
        return {"mean": _round(mean), "low": _round(low), "high": _round(high), "n": self.n}


def _distances(inputs: ReportInputs) -> Summary:
    """Distances between sets of pictures: one number per seed, so that intervals are over seeds alone (Student's t)."""
    found: dict[str, dict[str, np.ndarray]] = {}
    single = {name: [result] for name, result in inputs.references.items()}
    runs = {arm: inputs.over_seeds(f"the pictures of {arm}", seeds) for arm, seeds in inputs.images.items()}
    for arm, results in {**runs, **single}.items():
        for metric in DISTANCES:
            values = [result.summary.get(metric.key) for result in results]
            if all(value is not None for value in values):
                found.setdefault(arm, {})[metric.key] = np.asarray(values, dtype=float)
    summary: Summary = {"arms": {}, "differences": {}}
    for arm, metrics in found.items():
        summary["arms"][arm] = {key: _distance(values) for key, values in metrics.items()}
    for arm, other in _pairs(inputs, [arm for arm in found if arm in runs], (inputs.main_control, inputs.base_arm)):
        shared = [key for key in found[arm] if key in found[other]]
        changes = {key: _over_seeds(found[arm][key] - found[other][key]) for key in shared}
        summary["differences"][f"{arm} - {other}"] = changes
    return summary


def _distance(values: np.ndarray) -> Summary:
    spread = _round(values.std(ddof=1)) if len(values) > 1 else None
    return {"mean": _round(values.mean()), "sd": spread, "seeds": _round(values)}


def _over_seeds(values: np.ndarray) -> Summary:
    """Mean and Student's t interval of paired differences, (seeds,); one seed has no interval."""
    low = high = None
    if len(values) > 1:
        from scipy.stats import t

        half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
        low, high = values.mean() - half, values.mean() + half
    return {"mean": _round(values.mean()), "low": _round(low), "high": _round(high), "n": len(values)}


def _test_set(inputs: ReportInputs, name: str) -> Summary:
    real = name in inputs.real_test_sets
    return {"real": real, "models": {model: _depth(inputs, name, model, real) for model in inputs.depth[name]}}


def _depth(inputs: ReportInputs, test_set: str, model: str, real: bool) -> Summary:
    found = inputs.depth[test_set][model]
    arms = {arm: inputs.over_seeds(f"{model} trained on {arm}, on {test_set},", seeds) for arm, seeds in found.items()}
    summaries = {f"{model}-{arm}": result.summary for arm, results in arms.items() for result in results}
    check_one_table(summaries)
    first = next(iter(arms.values()))[0]
    summary: Summary = {
        "setting": {key: first.summary.get(key) for key in _SETTING},
        "notes": sorted({note for one in summaries.values() for note in one.get("notes", [])}),
        "arms": {arm: {} for arm in arms},
        "relative": {},
    }
    for column in (metric.key for metric in DEPTH):
        values, ids = aligned(arms, list(arms), column)
        scenes = first.scenes(ids, real=real)
        count = len(set(scenes))
        summary["setting"]["scenes"] = count
        # Frames of a single scene are resampled one by one: nothing else is left to resample, and the page says so.
        groups = scenes if 1 < count < len(ids) else None
        crossed = crossed_bootstrap(values, groups=groups, resamples=inputs.resamples)
        sample = _Sample(crossed, list(arms), len(ids), len(ids), values.shape[1])
        for index, arm in enumerate(arms):
            summary["arms"][arm][column] = sample.mean(arm) | {"seeds": _round(values[index].mean(1))}
        others = (inputs.original_arm, inputs.main_control, inputs.base_arm)
        for arm, other in _pairs(inputs, list(arms), others):
            summary["relative"].setdefault(f"{arm} / {other}", {})[column] = sample.relative(arm, other)
    return summary


def _study(results: Mapping[str, Any] | None) -> Summary | None:
    """Of a human trial, how often each arm was preferred to another, by question."""
    if results is None:
        return None
    blocks = {key: {name: block[name] for name in ("question", "comparisons")} for key, block in results["blocks"].items()}
    return {"raters": results["raters"]["counted"], "answers": results["answers"]["counted"], "blocks": blocks}


def _round(value: Any) -> Any:
    """Six significant digits: more would only be noise in a file that people read."""
    if value is None:
        return None
    if np.ndim(value):
        return [_round(item) for item in value]
    return float(f"{float(value):.{_DIGITS}g}")
