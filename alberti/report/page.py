"""Putting the report's page together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alberti.metrics.labels import Metric
from alberti.report.charts import Panel, arm_colour, arm_of, constraint_panels, curve_panels, profile_panels
from alberti.report.comparison import EFFECTS
from alberti.report.forest import depth_chart, straightness_chart
from alberti.report.gallery import Scene, build_gallery, choose_samples, profiles_of
from alberti.report.inputs import CEILING, RENDERS, Arm, ReportInputs
from alberti.report.render import write_page
from alberti.report.summary import summarise
from alberti.report.tables import (
    DEPTH_HEADS,
    PICTURE_HEADS,
    depth_table,
    distance_note,
    interval_words,
    picture_table,
    setting_text,
)
from alberti.report.verdict import caveats

_PROFILE_POINTS = 3
_KINDS = {
    "base": "the base model",
    "plain": "training without a constraint",
    "constraint": "training with a constraint",
    "guidance": "guidance by vanishing points while sampling",
    "sampling": "another way of sampling",
    "reference": "no generated pictures",
}
_REFERENCE_NOTES = {
    RENDERS: "the pictures that belong to the depth maps",
    CEILING: "the same pictures through the base's autoencoder: as good as any picture of this base can be",
    "reference": "the picture that belongs to the depth map",
    "reconstruction": "the same picture through the base's autoencoder: what drawing could reach at best",
    "depth": "the depth map that all pictures of a scene were made from; near is bright",
}


@dataclass(frozen=True)
class Term:
    """A name that the page explains: its anchor, and the words."""

    anchor: str
    name: str
    meaning: str
    colour: str = ""


def build_report(inputs: ReportInputs, out: str | Path, summary: Mapping[str, Any] | None = None) -> Path:
    """Write the report as one self-contained HTML file (no network, no other files) and return its path.

    Args:
        summary: of :func:`alberti.report.summary.summarise`, if it is at hand.

    Raises:
        DataError: a picture or depth map that it shows is missing or damaged.
    """
    return write_page(out, "report.html", context(inputs, summarise(inputs) if summary is None else summary))


def context(inputs: ReportInputs, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the template reads."""
    names = colour_order(inputs)
    ids = choose_samples(inputs)
    scenes = build_gallery(inputs, ids)
    return {
        "inputs": inputs,
        "summary": summary,
        "title": "alberti report" + (f", {summary['facts']['profile']}" if summary["facts"].get("profile") else ""),
        "arms": {term.name: term for term in _arm_terms(inputs, names)},
        "caveats": caveats(summary),
        "effects": EFFECTS,
        "scenes": scenes,
        "columns": _columns(scenes),
        "metrics": _metrics(summary),
        "pictures": _pictures(summary) if summary["images"] else None,
        "straightness": straightness_chart(summary),
        "depth_sets": [_depth_set(summary, name) for name in summary["depth"]],
        "constraint": [panel for runs in inputs.curves.values() for panel in constraint_panels(runs, names)],
        "study": inputs.study_offer if inputs.study is None else _study_tables(inputs.study),
        "training": _training(inputs, names),
        "profile": _profile(inputs, ids, names),
    }


def _columns(scenes: Sequence[Scene]) -> int:
    """Pictures beside each other: few, for they are to be looked at."""
    if not scenes:
        return 1
    count = len(scenes[0].pictures)
    return 2 if scenes[0].pictures[0].wide else (3 if count % 3 == 0 or count > 8 else 4)


def _metrics(summary: Mapping[str, Any]) -> list[Metric]:
    """Every metric of the page's tables, once."""
    tables = [depth_table(summary, name, model) for name, section in summary["depth"].items() for model in section["models"]]
    tables = [picture_table(summary), *tables] if summary["images"] else tables
    return list({metric.key: metric for table in tables for metric in table.metrics}.values())


def colour_order(inputs: ReportInputs) -> list[str]:
    """Every arm of the page in the order that gives it its colour: those with pictures first."""
    others = [arm for models in inputs.depth.values() for arms in models.values() for arm in arms]
    return list(dict.fromkeys([*inputs.generated, *inputs.images, *others]))


def _arm_terms(inputs: ReportInputs, names: list[str]) -> list[Term]:
    """Of every arm and reference: what it is, and what it is compared with."""
    terms = []
    for index, name in enumerate(names):
        arm = inputs.arms.get(name, Arm("reference"))
        meaning = arm.note or _KINDS[arm.kind]
        if arm.control is not None:
            meaning += f"; compared with “{arm.control}”"
        terms.append(Term(f"arm-{index}", name, meaning[:1].upper() + meaning[1:] + ".", arm_colour(index)))
    for name, note in _REFERENCE_NOTES.items():
        terms.append(Term(f"arm-{name}", name, note[:1].upper() + note[1:] + ".", "var(--ink-3)"))
    return terms


def _pictures(summary: Mapping[str, Any]) -> dict[str, Any]:
    intervals = interval_words(summary, "pictures")
    caption = f"{summary['images']['pictures']} pictures per arm and seed. Small: {intervals}. {distance_note(summary)}"
    return {"table": picture_table(summary, PICTURE_HEADS), "all": picture_table(summary), "caption": caption}


def _depth_set(summary: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = summary["depth"][name]
    return {
        "name": name,
        "real": section["real"],
        "models": [_model(summary, name, model) for model in section["models"]],
        "notes": sorted({note for model in section["models"].values() for note in model["notes"]}),
    }


def _model(summary: Mapping[str, Any], test_set: str, model: str) -> dict[str, Any]:
    section = summary["depth"][test_set]
    setting = section["models"][model]["setting"]
    what = "scenes" if 1 < setting["scenes"] < setting["n"] else "frames"
    return {
        "name": model,
        "table": depth_table(summary, test_set, model, DEPTH_HEADS),
        "all": depth_table(summary, test_set, model),
        "caption": f"{setting_text(test_set, section, model)}. Small: {interval_words(summary, what)}.",
        "chart": depth_chart(summary, test_set, model),
    }


def _study_tables(results: Mapping[str, Any]) -> str:
    from alberti.study.results import render_fragment

    return render_fragment(dict(results))


def _training(inputs: ReportInputs, names: list[str]) -> list[dict[str, Any]]:
    """Charts by title; a title with nothing to draw is left out."""
    sections = []
    for title, runs in inputs.curves.items():
        panels = curve_panels(runs, names)
        if panels:
            sections.append({"title": title, "panels": panels, "runs": _legend(runs, names)})
    return sections


def _legend(runs: Mapping[str, Any], names: list[str]) -> list[tuple[str, str]]:
    """(name, colour) of the lines of a chart, an arm once however many seeds it has."""
    found: dict[str, str] = {}
    for order, run in enumerate(runs):
        arm = arm_of(run, names)
        found.setdefault(arm, arm_colour(names.index(arm) if arm in names else order))
    return list(found.items())


def _profile(inputs: ReportInputs, ids: list[str], names: list[str]) -> dict[str, Any] | None:
    """Profiles of the first shown scene that has vanishing points."""
    for sample_id in ids:
        assert inputs.condition is not None  # ids are of its samples
        condition = inputs.condition.by_id(sample_id)
        points = np.asarray(condition.vanishing_points or [], np.float64).reshape(-1, 3)
        if len(points):
            break
    else:
        return None
    sources = {arm: (dataset, dataset.by_id(sample_id)) for arm, dataset in inputs.generated.items()}
    if condition.image is not None:
        sources = {"reference": (inputs.condition, condition), **sources}
    profiles = {name: profiles_of(dataset.read_image(sample), points) for name, (dataset, sample) in sources.items()}
    panels: list[Panel] = profile_panels(profiles, names, list(range(min(len(points), _PROFILE_POINTS))))
    return {"id": sample_id, "panels": panels, "names": list(profiles)}
