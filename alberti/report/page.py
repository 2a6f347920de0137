"""Putting the page together."""

from pathlib import Path
from typing import Any

import numpy as np

from alberti.files import write_text
from alberti.overlays import COLOURS
from alberti.report.comparison import paired_change
from alberti.report.figures import arm_colour, change_chart, curve_chart, interval_chart, profile_chart
from alberti.report.gallery import build_gallery, choose_samples, file_uri, point_class, profiles_of
from alberti.report.inputs import ReportInputs
from alberti.report.seed_tables import heading, plain_tables
from alberti.report.summary import key_figures, sentences
from alberti.report.tables import DEPTH_METRICS, image_tables, metric_table

_PROFILE_POINTS = 3


def build_report(inputs: ReportInputs, out: str | Path) -> Path:
    """Write the report as one self-contained HTML file (no network, no other files) and return its path.

    Raises:
        DataError: a picture or depth map that it shows is missing or damaged.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("alberti.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = colour_order(inputs)
    environment.globals["point_class"] = point_class
    environment.globals["colour_of"] = lambda name, other=0: arm_colour(names.index(name) if name in names else other)
    vp_colours = [f"rgb({red} {green} {blue})" for red, green, blue in COLOURS]
    text = environment.get_template("report.html").render(vp_colours=vp_colours, **_context(inputs))
    out = Path(out)
    write_text(out, text)
    return out


def colour_order(inputs: ReportInputs) -> list[str]:
    """Every arm of the page in the order that gives it its colour: those with pictures first."""
    others = [arm for arms in inputs.depth.values() for arm in arms]
    return list(dict.fromkeys([*inputs.generated, *inputs.images, *others]))


def _context(inputs: ReportInputs) -> dict[str, Any]:
    arms, names = list(inputs.generated or inputs.images), colour_order(inputs)
    ids = choose_samples(inputs)
    return {
        "inputs": inputs,
        "arms": arms,
        "summary": sentences(inputs),
        "stats": key_figures(inputs),
        "scenes": build_gallery(inputs, ids),
        "image_tables": image_tables(inputs) if inputs.images else [],
        "extractor": _common(inputs, "extractor"),
        "n_reference": _common(inputs, "n_reference"),
        "consistency_chart": _consistency_chart(inputs),
        "depth_sections": [_depth_section(inputs, model, names) for model in inputs.depth],
        "curve_charts": [
            (title, chart) for title, runs in inputs.curves.items() if (chart := curve_chart(runs, names)) is not None
        ],
        "profile": _profile(inputs, ids, arms),
        "over_seeds": _over_seeds(inputs),
    }


def _common(inputs: ReportInputs, key: str) -> Any:
    return next((result.summary[key] for result in inputs.images.values() if result.summary.get(key) is not None), None)


def _consistency_chart(inputs: ReportInputs) -> str | None:
    markers = [("reference", _common(inputs, "reference_consistency_2"))]
    if (through := inputs.references.get("reconstructions")) is not None:
        markers.insert(0, ("through autoencoder", through.summary.get("consistency_2")))
    label = "share of detected line length within 2° of a true vanishing point, % (mean, 95 % interval)"
    known = [(name, value) for name, value in markers if value is not None]
    return interval_chart(inputs.images, "consistency_2", label, scale=100, markers=known)


def _depth_section(inputs: ReportInputs, model: str, names: list[str]) -> dict[str, Any]:
    results = inputs.depth[model]
    against = inputs.original_arm if inputs.original_arm in results else inputs.base_arm
    changes = []
    for name, result in results.items():
        if name == against or against not in results:
            continue
        change = paired_change(result.rows, results[against].rows, "abs_rel", False)
        if change is not None:
            changes.append((name, change, names.index(name)))
    summary = next(iter(results.values())).summary
    return {
        "model": model,
        "table": metric_table(results, DEPTH_METRICS, against),
        "chart": change_chart(changes, f"change of AbsRel against {against} (left is better; 95 % interval)"),
        "protocol": {
            key: summary[key] for key in ("protocol", "ground_truth", "alignment", "n", "split_hash") if key in summary
        },
        "notes": sorted({note for result in results.values() for note in result.summary.get("notes", [])}),
    }


def _over_seeds(inputs: ReportInputs) -> dict[str, Any] | None:
    """Tables and figures of an experiment over several seeds."""
    if inputs.over_seeds is None:
        return None
    figures = [(path.stem.replace("_", " "), file_uri(path)) for path in inputs.over_seeds_figures]
    return {"heading": heading(inputs.over_seeds), "tables": plain_tables(inputs.over_seeds), "figures": figures}


def _profile(inputs: ReportInputs, ids: list[str], arms: list[str]) -> dict[str, Any] | None:
    """Profiles of the first shown scene that has vanishing points."""
    for sample_id in ids:
        points = np.asarray(inputs.condition.by_id(sample_id).vanishing_points or [], np.float64).reshape(-1, 3)
        if len(points):
            break
    else:
        return None
    sources = {arm: (dataset, dataset.by_id(sample_id)) for arm, dataset in inputs.generated.items()}
    condition = inputs.condition.by_id(sample_id)
    if condition.image is not None:
        sources = {"reference": (inputs.condition, condition), **sources}
    profiles = {name: profiles_of(dataset.read_image(sample), points) for name, (dataset, sample) in sources.items()}
    shown = list(range(min(len(points), _PROFILE_POINTS)))
    return {"id": sample_id, "chart": profile_chart(profiles, arms, shown)}
