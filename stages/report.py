"""Stage report: means, differences and intervals over the seeds, in `metrics/summary.json`, and `report/index.html`.

`metrics/headlines/` and `plots/*.csv` hold the few numbers that `dvc metrics show` and `dvc plots show` compare.
"""

from pathlib import Path
from typing import Any

import yaml

from alberti.data.manifest import Dataset
from alberti.errors import DataError
from alberti.files import atomic_file, atomic_folder, read_json, write_json
from alberti.report.inputs import CEILING, RENDERS, Arm, Kind, ReportInputs, Result
from stages.shared.curves import read_curves
from stages.shared.graph import Instance, seeds_of_depth, seeds_of_pictures
from stages.shared.layout import ALL_SEEDS, Layout, seed_name
from stages.shared.params import BASE_ARM, CONDITION_ARM, KITTI_ARM, ORIGINAL_ARM, Params, plain
from stages.shared.running import run_stage

_CURVES = {
    "base": "Base model",
    "finetune": "Fine-tuning the diffusion model",
    "base_depth": "Original depth models",
}
_REFERENCE_NOTES = {
    ORIGINAL_ARM: "the depth model before any fine-tuning",
    KITTI_ARM: "trained on the training split of the test's own kind of data",
    CONDITION_ARM: "trained on the renders that the depth maps belong to: what flawless pictures would give",
}


def report(layout: Layout, params: Params, _: Instance) -> None:
    """Gather what the other stages wrote; every evaluation that params.yaml names must be there."""
    import pandas as pd

    from alberti.report.page import build_report
    from alberti.report.summary import headlines, plot_rows, summarise
    from alberti.study.run import read_run_study

    inputs = gather(layout, params)
    summary = summarise(inputs)
    write_json(layout.metrics("summary.json"), summary)
    with atomic_folder(layout.metrics("headlines")) as out:
        for name, values in headlines(summary).items():
            write_json(out / f"{name}.json", values)
        for name, values in read_run_study(layout.root).metrics.items():
            write_json(out / "study" / f"{name}.json", values)
    for name, rows in plot_rows(summary).items():
        with atomic_file(layout.plots(f"{name}.csv")) as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False)
    with atomic_folder(layout.report) as out:
        build_report(inputs, out / "index.html", summary)


def gather(layout: Layout, params: Params) -> ReportInputs:
    """Read metrics, curves and pictures of every arm and model that params.yaml names, and a study's answers."""
    from alberti.study.run import read_run_study

    condition, study = Dataset.open(layout.data("condition")), read_run_study(layout.root)
    sources = params.prepare.roles()
    return ReportInputs(
        seeds=tuple(params.seeds),
        images={arm: _of_pictures(layout, params, arm) for arm in params.picture_arms},
        depth=_depth(layout, params),
        arms=arms(params),
        references={name: Result.read(layout.metrics("references", f"{name}.json")) for name in (RENDERS, CEILING)},
        real_test_sets=tuple(name for name in _depth_names(params) if sources[name.partition(",")[0]].source != "scenes"),
        generated={arm: Dataset.open(layout.generated(arm, seeds_of_pictures(params, arm)[0])) for arm in params.picture_arms},
        condition=condition,
        reconstructions=Dataset.open(layout.references),
        curves=_curves(layout, params),
        annotation=_annotation(layout, params),
        facts=_facts(layout, params, condition),
        params=yaml.safe_dump({k: v for k, v in plain(params).items() if k != "graph"}, sort_keys=False, width=110),
        stand_ins=tuple(role for role, source in sources.items() if source.source == "scenes"),
        study=study.results,
        study_offer=study.fragment() if study.results is None else "",
        original_arm=ORIGINAL_ARM,
        pictures=params.report.pictures,
    )


def arms(params: Params) -> dict[str, Arm]:
    """What each arm is, and what it is compared with: a constraint with the first arm without one that trains as long, a
    variant with the arm whose weights it has.
    """
    plain_arms = [name for name, arm in params.arms.items() if arm.constraint is None]
    known = {BASE_ARM: Arm("base", "the base model, not fine-tuned")}
    for name, arm in params.arms.items():
        note = f"fine-tuned for {arm.training.steps} steps with the denoising loss"
        if arm.constraint is None:
            known[name] = Arm("plain", f"{note} alone")
            continue
        own = "the published perspective loss" if arm.constraint == "perspective" else f"the constraint {arm.constraint}"
        levels = "" if arm.schedule == "all" else f", schedule {arm.schedule}"
        levels = f", on pictures sampled in {arm.rollout_steps} steps" if arm.rollout_steps else levels
        control = f"{name}_control" if f"{name}_control" in params.arms else next(iter(plain_arms), BASE_ARM)
        known[name] = Arm("constraint", f"{note} and {own}, weight {arm.weight:g}{levels}", control)
    for name, variant in params.variants.items():
        kind: Kind = "guidance" if variant.generate.vanishing_guidance is not None else "sampling"
        known[name] = Arm(kind, f"the weights of “{variant.arm}”, {_sampled(params, name)}", variant.arm)
    for name in params.evaluate_depth.arms:
        if name not in known:
            known[name] = Arm("reference", _REFERENCE_NOTES[name])
    return known


def _sampled(params: Params, name: str) -> str:
    own, usual = params.sampling(name), params.generate
    if own.vanishing_guidance is not None:
        return "edges turned towards the vanishing points while sampling"
    changed = [f"{key} {value}" for key, value in plain(own).items() if value != plain(usual)[key]]
    return f"sampled with {', '.join(changed)}" if changed else "sampled as the others"


def _of_pictures(layout: Layout, params: Params, arm: str) -> dict[int | None, Result]:
    return {
        seed: Result.read(layout.metrics("images", arm, f"{seed_name(seed)}.json")) for seed in seeds_of_pictures(params, arm)
    }


def _depth_names(params: Params) -> dict[str, tuple[str, int]]:
    """Name in the report -> test set and place of the alignment. A test set's first alignment has its name alone."""
    most = {role: max(map(len, test.alignment.values())) for role, test in params.evaluate_depth.test_sets.items()}
    return {
        role if place == 0 else f"{role}, alignment {place + 1}": (role, place)
        for role, count in most.items()
        for place in range(count)
    }


def _depth(layout: Layout, params: Params) -> dict[str, dict[str, dict[str, dict[int | None, Result]]]]:
    found: dict[str, dict[str, dict[str, dict[int | None, Result]]]] = {}
    for name, (role, place) in _depth_names(params).items():
        for model in params.finetune_depth.models:
            alignments = params.evaluate_depth.test_sets[role].alignment[model]
            if place < len(alignments):
                file = f"{role}.json" if place == 0 else f"{role}.{alignments[place]}.json"
                found.setdefault(name, {})[model] = {
                    arm: {
                        seed: Result.read(layout.metrics("depth", model, arm, seed_name(seed), file))
                        for seed in seeds_of_depth(params, model, arm)
                    }
                    for arm in params.evaluate_depth.arms
                }
    return found


def _curves(layout: Layout, params: Params) -> dict[str, dict[str, Any]]:
    """Title -> `<arm>` or `<arm>-<seed>` -> history; the trainings of one depth model share a chart."""
    charts = {title: _by_run(layout.plots(stage)) for stage, title in _CURVES.items()}
    depth = _by_run(layout.plots("finetune_depth"))
    for model in params.finetune_depth.models:
        own = f"{model}-"
        charts[f"Fine-tuning {model}"] = {run.removeprefix(own): table for run, table in depth.items() if run.startswith(own)}
    return {title: runs for title, runs in charts.items() if runs}


def _by_run(folder: Path) -> dict[str, Any]:
    return {run.removesuffix(f"/{ALL_SEEDS}").replace("/", "-"): table for run, table in read_curves(folder).items()}


def _annotation(layout: Layout, params: Params) -> dict[str, Any] | None:
    if "train" not in params.annotate.roles:
        return None
    value = read_json(layout.metrics("annotate", "train.json"))
    if not isinstance(value, dict):
        raise DataError(f"{layout.metrics('annotate', 'train.json')}: expected an object, got {type(value).__name__}")
    return value


def _facts(layout: Layout, params: Params, condition: Dataset) -> dict[str, Any]:
    """Label -> value; what the base's provenance says of the code and packages that made it."""
    made = read_json(layout.base / "provenance.json")
    return {
        "profile": params.profile,
        "seeds": ", ".join(map(str, params.seeds)),
        "pictures of an arm and seed": len(condition),
        "fine-tuning steps": max((arm.training.steps for arm in params.arms.values()), default=0),
        "base": params.base.id or params.base.path or params.base.source,
        "git revision": (made.get("git_revision") or "")[:10] or None,
        **{name: version for name, version in made.get("packages", {}).items() if name in ("torch", "diffusers")},
        "Python": made.get("python"),
    }


if __name__ == "__main__":
    run_stage(report)
