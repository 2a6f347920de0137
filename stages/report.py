"""Stage report: `report/index.html`, the run's few numbers in `metrics/summary.json`, and tables for DVC's plots."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from alberti.data.manifest import Dataset
from alberti.files import atomic_file, atomic_folder, read_json, write_json
from alberti.report.inputs import CEILING, RENDERS, Arm, ReportInputs, Result, Seeds
from alberti.report.page import build_report
from alberti.report.summary import headlines, plot_rows, summarise
from stages.common import run_stage
from stages.curves import read_curves
from stages.params import BASE_ARM, ORIGINAL_ARM, ROLES, Params

METRICS, PLOTS = Path("metrics"), Path("plots")
TEST_SET = "test"
_CURVES = {
    "base": "Base model",
    "finetune": "Fine-tuning the diffusion model",
    "base_depth": "Original depth models",
}


def report(params: Params, _: str) -> None:
    """Gather what the other stages wrote; every evaluation that params.yaml names must be there."""
    inputs = gather(params)
    summary = summarise(inputs)
    write_json(METRICS / "summary.json", summary)
    with atomic_folder(METRICS / "headlines") as out:
        for arm, values in headlines(summary).items():
            write_json(out / f"{arm}.json", values)
    for name, rows in plot_rows(summary).items():
        _write_plot(name, rows)
    with atomic_folder("report") as out:
        build_report(inputs, out / "index.html", summary)


def gather(params: Params) -> ReportInputs:
    """Read metrics, curves and pictures of every arm and model that params.yaml names."""
    condition = Dataset.open("data/condition")
    evaluated: dict[str, dict[str, Seeds]] = {
        model: {
            arm: {params.seed: Result.read(METRICS / "depth" / f"{model}-{arm}.json")} for arm in params.evaluate_depth.arms
        }
        for model in params.finetune_depth.models
    }
    stand_ins = tuple(role for role in ROLES if getattr(params.prepare, role).source == "scenes")
    return ReportInputs(
        seeds=(params.seed,),
        images={arm: {params.seed: Result.read(METRICS / "images" / f"{arm}.json")} for arm in params.picture_arms},
        depth={TEST_SET: evaluated},
        arms=_arms(params),
        references={name: Result.read(METRICS / "references" / f"{name}.json") for name in (RENDERS, CEILING)},
        real_test_sets=() if "test" in stand_ins else (TEST_SET,),
        generated={arm: Dataset.open(f"data/generated/{arm}") for arm in params.picture_arms},
        condition=condition,
        reconstructions=Dataset.open("data/references"),
        curves=_curves(params),
        annotation=read_json(METRICS / "annotate.json"),
        facts=_facts(params, condition),
        params=yaml.safe_dump(params.model_dump(mode="json", exclude_unset=True), sort_keys=False, width=110),
        stand_ins=stand_ins,
        original_arm=ORIGINAL_ARM,
        pictures=params.report.pictures,
    )


def _arms(params: Params) -> dict[str, Arm]:
    """What each arm is, and which one differs from it in one thing."""
    plain = [arm for arm in params.arms if params.arm(arm).steps and not _is_constrained(params, arm)]
    found = {}
    for name in params.picture_arms:
        note = arm_note(params, name)
        if name in params.variants:
            guided = params.sampling(name).vanishing_guidance is not None
            found[name] = Arm("guidance" if guided else "sampling", note, params.variants[name].arm)
        elif not params.arm(name).steps:
            found[name] = Arm("base", note)
        elif _is_constrained(params, name):
            control = f"{name}_control" if f"{name}_control" in params.arms else (plain[0] if plain else None)
            found[name] = Arm("constraint", note, control)
        else:
            found[name] = Arm("plain", note, BASE_ARM if BASE_ARM in params.arms else None)
    rest = [arm for arm in params.evaluate_depth.arms if arm not in found]
    notes = {ORIGINAL_ARM: "the depth model before any fine-tuning"}
    return found | {arm: Arm("reference", notes.get(arm, f"trained on the role {arm}")) for arm in rest}


def _is_constrained(params: Params, arm: str) -> bool:
    settings = params.arm(arm)
    return settings.constraint is not None and settings.weight > 0


def arm_note(params: Params, arm: str) -> str:
    """What the arm is, for a reader who has not seen the params."""
    if arm in params.variants:
        return f"the weights of “{params.weights_of(arm)}”, {_sampled(params, arm)}"
    settings = params.arm(arm)
    if not settings.steps:
        return "the base model, not fine-tuned"
    steps = f"fine-tuned for {settings.steps} steps"
    if not _is_constrained(params, arm):
        return f"{steps} with the denoising loss alone"
    name = "the published perspective loss" if settings.constraint == "perspective" else f"the constraint {settings.constraint}"
    levels = "" if settings.schedule == "all" else f", schedule {settings.schedule}"
    levels = f", on pictures sampled in {settings.rollout_steps} steps" if settings.rollout_steps else levels
    return f"{steps} with the denoising loss and {name}, weight {settings.weight:g}{levels}"


def _sampled(params: Params, name: str) -> str:
    changes = dict(params.variants[name].generate)
    guidance = params.sampling(name).vanishing_guidance
    if guidance is None:
        return f"sampled with {_listed(changes)}" if changes else "sampled alike"
    changes.pop("vanishing_guidance", None)
    settings = _listed(changes | guidance.model_dump(exclude_unset=True))
    return "with edges turned towards the vanishing points while sampling" + (f" ({settings})" if settings else "")


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def _facts(params: Params, condition: Dataset) -> dict[str, Any]:
    """Label -> value; what the models' provenance says of the code and packages that made them."""
    facts: dict[str, Any] = {"profile": getattr(params, "profile", None), "seed": params.seed}
    counts = {role: Dataset.open(f"data/{role}").info.count for role in ("train", "test")}
    facts |= {
        "training pictures": counts["train"],
        "depth maps": len(condition),
        "pictures an arm": len(condition),
        "test frames": counts["test"],
    }
    path = Path("models/base/provenance.json")
    if path.is_file():
        made = read_json(path)
        facts["git revision"] = (made.get("git_revision") or "")[:10] or None
        facts |= {name: version for name, version in made.get("packages", {}).items() if name in ("torch", "diffusers")}
        facts["Python"] = made.get("python")
    return facts


def _curves(params: Params) -> dict[str, dict[str, Any]]:
    """Title -> run -> history; the runs of one depth model share a chart and go by their arm."""
    charts = {title: _tables(PLOTS / folder, "") for folder, title in _CURVES.items()}
    for model in params.finetune_depth.models:
        charts[f"Fine-tuning {model}"] = _tables(PLOTS / "finetune_depth", f"{model}-")
    order = [*params.picture_arms, ORIGINAL_ARM, *params.evaluate_depth.arms]
    ranked = {name: place for place, name in reversed(list(enumerate(order)))}
    return {
        title: dict(sorted(tables.items(), key=lambda item: ranked.get(item[0], len(order))))
        for title, tables in charts.items()
        if tables
    }


def _tables(folder: Path, prefix: str) -> dict[str, Any]:
    """The curves of a stage's runs whose names begin with ``prefix``, by the rest of the name."""
    found = read_curves(folder)
    return {name.removeprefix(prefix): table for name, table in found.items() if name.startswith(prefix)}


def _write_plot(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    import pandas as pd

    with atomic_file(PLOTS / f"{name}.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)


if __name__ == "__main__":
    run_stage(report)
