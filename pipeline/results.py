"""Results of `stages.run`: one JSON, tables in Markdown and figures from the workspaces of all seeds.

python -m pipeline.results runs/first --out docs/results/first.json --markdown docs/results/first.md --figures docs/images/first
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from alberti.errors import AlbertiError, DataError
from alberti.files import read_json, write_json, write_text
from alberti.report.inputs import Result
from alberti.report.seed_tables import markdown
from alberti.report.seeds import CEILING, RENDERS, SeedResults, summarise_seeds
from stages.params import BASE_ARM, ORIGINAL_ARM, Params, check_params
from stages.plan import STAMPS


def read_runs(runs: Path) -> tuple[SeedResults, dict[str, Any]]:
    """The evaluations that every seed of ``runs`` has, and what there is to say of how they came about.

    Raises:
        DataError: no seed there, or none with an evaluation; seeds whose params differ in more than the seed.
    """
    params = _params(runs)
    first, every = next(iter(params.values())), [Workspace(runs, seed) for seed in params]
    images = {arm: [space.result("evaluate_images", arm, "metrics/images") for space in every] for arm in first.picture_arms}
    depth = {
        model: {
            arm: [space.result("evaluate_depth", f"{model}-{arm}", "metrics/depth") for space in every]
            for arm in first.evaluate_depth.arms
        }
        for model in first.finetune_depth.models
    }
    references = {name: every[0].result("references", "", "metrics/references", name) for name in (RENDERS, CEILING)}
    results = SeedResults(
        seeds=tuple(params),
        images=_complete(images),
        depth={model: found for model, arms in depth.items() if (found := _complete(arms))},
        references={name: result for name, result in references.items() if result is not None},
        controls=controls(first),
        base_arm=BASE_ARM,
        control_arm=control_arm(first),
        original_arm=ORIGINAL_ARM,
    )
    if not results.images and not results.depth:
        raise DataError(f"{runs}: nothing is evaluated in every one of the seeds {', '.join(map(str, params))} yet")
    missing = [arm for arm in images if arm not in results.images]
    return results, {**_facts(first, results), "not_in_every_seed": missing, "minutes": minutes(runs)}


def _params(runs: Path) -> dict[int, Params]:
    """By seed; all but the seed has to be the same."""
    found: dict[int, dict[str, Any]] = {}
    for path in sorted(runs.glob("seed*/params.yaml")):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        found[values.pop("seed")] = values
    if not found:
        raise DataError(f"{runs}: no seed*/params.yaml; name the --out folder of `python -m stages.run`")
    first = next(iter(found.values()))
    for seed, values in found.items():
        if values != first:
            different = sorted(key for key in {*values, *first} if values.get(key) != first.get(key))
            raise DataError(f"{runs}: seed {seed} ran with other params ({', '.join(different)}); run all seeds with the same")
    return {seed: check_params({**found[seed], "seed": seed}) for seed in sorted(found)}


def control_arm(params: Params) -> str:
    """The first arm that trains without a constraint."""
    for name in params.arms:
        settings = params.arm(name)
        if settings.training.steps and (settings.constraint is None or not settings.weight):
            return name
    return BASE_ARM


def controls(params: Params) -> dict[str, str]:
    """What each arm is compared with besides the control arm: a variant with the arm whose weights it has, and an arm with
    the one that is named as it with `_control` behind.
    """
    named = {arm: f"{arm}_control" for arm in params.arms if f"{arm}_control" in params.arms}
    return named | {name: variant.arm for name, variant in params.variants.items()}


class Workspace:
    """One seed's workspace: what in it is finished."""

    def __init__(self, runs: Path, seed: int):
        self.folder = runs / f"seed{seed}"
        stamps = [*(self.folder / STAMPS).glob("*.json"), *(runs / "shared" / STAMPS).glob("*.json")]
        self._done = {path.stem for path in stamps}

    def result(self, stage: str, name: str, folder: str, file: str | None = None) -> Result | None:
        """An evaluation, None unless its unit was finished with the params that the workspace has now."""
        ids = {f"{kind}@{name}" if name else kind for kind in (stage, f"{stage}_variant")}
        return Result.read(self.folder / folder / f"{file or name}.json") if ids & self._done else None


def _complete(found: Mapping[str, Sequence[Result | None]]) -> dict[str, list[Result]]:
    """Without those that some seed lacks."""
    kept = {name: [result for result in results if result is not None] for name, results in found.items()}
    return {name: results for name, results in kept.items() if len(results) == len(found[name])}


def _facts(params: Params, results: SeedResults) -> dict[str, Any]:
    """What distinguishes this run: the profile, the seeds, each arm's overrides."""
    extractors = {result.summary["extractor"] for runs in results.images.values() for result in runs}
    return {
        "profile": params.profile,
        "seeds": list(results.seeds),
        "arms": {name: dict(overrides) for name, overrides in params.arms.items() if name in results.images},
        "variants": {name: value.model_dump() for name, value in params.variants.items() if name in results.images},
        "finetune": params.finetune.model_dump(mode="json", exclude_unset=True),
        "generate": params.generate.model_dump(mode="json", exclude_unset=True),
        "control_arm": results.control_arm,
        "pictures": max((len(result.rows) for runs in results.images.values() for result in runs), default=0),
        "extractor": "; ".join(sorted(extractors)),
        "resamples": results.resamples,
    }


def minutes(runs: Path) -> dict[str, Any]:
    """Minutes by stage over all seeds, of the last run of each unit, and the devices."""
    stamps = [read_json(path) for path in sorted(runs.glob(f"*/{STAMPS}/*.json"))]
    by_stage: dict[str, float] = {}
    for stamp in stamps:
        by_stage[stamp["stage"]] = by_stage.get(stamp["stage"], 0.0) + stamp["seconds"] / 60
    total = sum(by_stage.values())
    rounded = {stage: round(value, 2) for stage, value in by_stage.items()}
    return {"total": round(total, 2), "by_stage": rounded, "devices": sorted({stamp["device"] for stamp in stamps})}


def collect(runs: Path, name: str) -> dict[str, Any]:
    """Everything for the JSON file."""
    results, facts = read_runs(runs)
    return {"name": name, **facts, **summarise_seeds(results)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the workspaces and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="the --out folder of `python -m stages.run`")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--markdown", type=Path, help="Markdown file to write")
    parser.add_argument("--figures", type=Path, help="folder for figures")
    parser.add_argument("--scenes", type=int, default=4, help="depth maps in the picture strip (default: 4)")
    parser.add_argument("--arms", nargs="+", help="arms in the picture strip and the profiles (default: the first six)")
    options = parser.parse_args(arguments)
    try:
        summary = collect(options.runs, options.out.stem)
        write_json(options.out, summary)
        if options.markdown is not None:
            write_text(options.markdown, markdown(summary))
        if options.figures is not None:
            from alberti.report.seed_figures import write_figures

            write_figures(summary, options.runs, options.figures, scenes=options.scenes, arms=options.arms)
    except AlbertiError as error:
        sys.exit(f"error: {error}")
    if summary["not_in_every_seed"]:
        print(f"left out, not evaluated in every seed: {', '.join(summary['not_in_every_seed'])}", file=sys.stderr)
    print(options.out)


if __name__ == "__main__":
    main()
