"""Stage report: `report/index.html`, the run's few numbers in `metrics/summary.json`, and tables for DVC's plots."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from alberti.data.manifest import Dataset
from alberti.errors import ConfigError
from alberti.files import atomic_file, atomic_folder, read_json, write_json
from alberti.report.inputs import ReportInputs, Result
from alberti.report.page import build_report
from alberti.report.summary import headline_metrics, key_figures
from stages.common import run_stage
from stages.curves import read_curves
from stages.params import BASE_ARM, ORIGINAL_ARM, ROLES, Params

METRICS, PLOTS = Path("metrics"), Path("plots")
REFERENCES = ("renders", "reconstructions")
_CURVES = {
    "base": "Base model",
    "finetune": "Fine-tuning the diffusion model",
    "base_depth": "Original depth models",
}


def report(params: Params, _: str) -> None:
    """Gather what the other stages wrote; every evaluation that params.yaml names must be there."""
    inputs = gather(params)
    summary = headline_metrics(inputs)
    write_json(METRICS / "summary.json", {**summary, "changes": [str(figure) for figure in key_figures(inputs)]})
    _write_headlines(summary)
    _write_plot("images", {(arm,): values for arm, values in summary["images"].items()}, ("arm",))
    depth = {(model, arm): values for model, arms in summary["depth"].items() for arm, values in arms.items()}
    _write_plot("depth", depth, ("model", "arm"))
    with atomic_folder("report") as out:
        build_report(inputs, out / "index.html")


def gather(params: Params) -> ReportInputs:
    """Read metrics, curves and pictures of every arm and model that params.yaml names."""
    tuned = [arm for arm in params.arms if params.arm(arm).training.steps]
    constrained = tuple(arm for arm in tuned if _is_constrained(params, arm))
    controls = [arm for arm in tuned if arm not in constrained]
    condition = Dataset.open("data/condition")
    return ReportInputs(
        images={arm: Result.read(METRICS / "images" / f"{arm}.json") for arm in params.picture_arms},
        depth={
            model: {arm: Result.read(METRICS / "depth" / f"{model}-{arm}.json") for arm in params.evaluate_depth.arms}
            for model in params.finetune_depth.models
        },
        generated={arm: Dataset.open(f"data/generated/{arm}") for arm in params.picture_arms},
        condition=condition,
        base_arm=BASE_ARM,
        control_arm=controls[0] if controls else None,
        constrained_arms=constrained,
        variants={name: variant.arm for name, variant in params.variants.items()},
        guided_arms=tuple(name for name in params.variants if params.sampling(name).vanishing_guidance is not None),
        original_arm=ORIGINAL_ARM,
        references={name: Result.read(METRICS / "references" / f"{name}.json") for name in REFERENCES},
        curves=_curves(params),
        annotation=read_json(METRICS / "annotate.json"),
        facts=_facts(params, condition),
        params=yaml.safe_dump(params.model_dump(mode="json", exclude_unset=True), sort_keys=False, width=110),
        stand_ins=tuple(role for role in ROLES if getattr(params.prepare, role).source == "scenes"),
        arm_notes={arm: arm_note(params, arm) for arm in params.picture_arms},
        pictures=params.report.pictures,
        over_seeds=read_json(params.report.over_seeds) if params.report.over_seeds is not None else None,
        over_seeds_figures=_figures(params),
    )


def _figures(params: Params) -> tuple[Path, ...]:
    folder = params.report.over_seeds_figures
    if folder is None:
        return ()
    paths = sorted(path for path in Path(folder).glob("*") if path.suffix in (".png", ".jpg"))
    if not paths:
        raise ConfigError(
            f"report.over_seeds_figures: no PNG or JPEG file in {folder}; see `python -m pipeline.results --help`"
        )
    return tuple(paths)


def _is_constrained(params: Params, arm: str) -> bool:
    settings = params.arm(arm).constrained
    return settings is not None and settings.weight > 0


def arm_note(params: Params, arm: str) -> str:
    """What the arm is, for a reader who has not seen the params."""
    if arm in params.variants:
        return f"the weights of “{params.weights_of(arm)}”, {_sampled(params, arm)}"
    settings = params.arm(arm)
    if not settings.training.steps:
        return "the base model, not fine-tuned"
    steps = f"fine-tuned for {settings.training.steps} steps"
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


def _write_headlines(summary: Mapping[str, Any]) -> None:
    """A small file an arm, so that `dvc metrics show` has a row an arm and a column a metric."""
    with atomic_folder(METRICS / "headlines") as out:
        for arm, values in summary["images"].items():
            write_json(out / "images" / f"{arm}.json", values)
        for model, arms in summary["depth"].items():
            for arm, values in arms.items():
                write_json(out / "depth" / f"{model}-{arm}.json", values)


def _write_plot(name: str, rows: Mapping[Any, Mapping[str, Any]], labels: tuple[str, ...]) -> None:
    import pandas as pd

    table = pd.DataFrame([dict(zip(labels, key, strict=True)) | dict(values) for key, values in rows.items()])
    with atomic_file(PLOTS / f"{name}.csv") as temporary:
        table.to_csv(temporary, index=False)


if __name__ == "__main__":
    run_stage(report)
