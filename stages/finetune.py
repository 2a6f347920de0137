"""Stage finetune@<arm>: the base fine-tuned with the arm's settings, in `models/finetuned/<arm>/`."""

import shutil
from pathlib import Path
from typing import Any

from alberti.data.manifest import Dataset
from alberti.errors import DataError
from alberti.files import atomic_folder, write_json
from alberti.processes import is_main
from stages.common import CHECKPOINTS, hash_folder, run_stage, write_provenance
from stages.curves import curves
from stages.params import FinetuneParams, Params

BASE = Path("models/base")
ANNOTATIONS = Path("data/annotations/annotations.jsonl")


def finetune_arm(params: Params, arm: str) -> None:
    """Fine-tune the base with the arm's settings; an arm of `steps: 0` is the base itself."""
    section = params.arm(arm)
    out = Path("models/finetuned") / arm
    metrics: dict[str, Any] = {"steps": section.steps, "constraint": section.constraint, "weight": section.weight}
    values = {"arm": arm, "finetune": section.model_dump(mode="json")}
    inputs = {str(BASE): hash_folder(BASE)}
    with curves(f"plots/finetune/{arm}"):
        if section.steps:
            dataset = Dataset.open("data/train")
            inputs["data/train"] = dataset.info.fingerprint
            metrics |= _train(dataset, section, values, inputs, out)
        elif is_main():
            with atomic_folder(out) as folder:
                shutil.copytree(BASE, folder, dirs_exist_ok=True)
                write_provenance(folder, values, inputs, section.seed)
    if is_main():
        write_json(f"metrics/finetune/{arm}.json", metrics)


def _train(
    dataset: Dataset, section: FinetuneParams, values: dict[str, Any], inputs: dict[str, str], out: Path
) -> dict[str, float]:
    """Train and write the model folder; the last logged values, and counts."""
    from alberti.diffusion.model import DepthDiffusion
    from alberti.diffusion.train import finetune

    result = finetune(
        DepthDiffusion.load(BASE),
        dataset,
        vanishing_points_of(dataset, section),
        section.library_config(),
        checkpoints=CHECKPOINTS / "finetune",
        run_key={},
    )
    if is_main():
        with atomic_folder(out) as folder:
            result.model.save(folder)
            write_provenance(folder, values, inputs, section.seed)
        result.discard_checkpoints()
    return {name: value for name, value in result.history[-1].items() if name != "step"} | result.counts


def vanishing_points_of(dataset: Dataset, section: FinetuneParams) -> dict[str, Any]:
    """By sample id, those of the data set or those that stage `annotate` found; DataError if a sample has no row."""
    if section.vanishing_points == "dataset":
        if section.constraint is not None and not any(sample.vanishing_points for sample in dataset):
            raise DataError(
                f"{dataset.folder}: none of its {len(dataset)} pictures comes with vanishing points, which the constraint "
                "needs; set finetune.vanishing_points=detected to take those that stage annotate found"
            )
        return {sample.id: sample.vanishing_points or [] for sample in dataset}
    from alberti.annotate import read_annotations

    found = {row["id"]: row["vanishing_points"] for row in read_annotations(ANNOTATIONS)}
    missing = [sample.id for sample in dataset if sample.id not in found]
    if missing:
        raise DataError(f"{ANNOTATIONS}: no row for {missing[0]!r} and {len(missing) - 1} other samples of {dataset.folder}")
    return {sample.id: found[sample.id] for sample in dataset}


if __name__ == "__main__":
    run_stage(finetune_arm, lambda params: params.arms, processes="together")
