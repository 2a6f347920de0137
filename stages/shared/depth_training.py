"""What the two stages that train depth models share."""

from collections.abc import Mapping
from typing import Any

from alberti.data.manifest import Dataset
from alberti.depth.config import DepthTrainConfig
from alberti.depth.models import DepthModel
from alberti.depth.train import DepthTrainResult, train_depth
from alberti.errors import DataError
from alberti.files import atomic_folder, write_json
from alberti.processes import is_main
from stages.shared.graph import Instance
from stages.shared.layout import Layout
from stages.shared.provenance import write_provenance


def split_of(dataset: Dataset, split: str) -> Dataset:
    """The samples of one split; DataError if there are none."""
    samples = [sample for sample in dataset if sample.split == split]
    if not samples:
        raise DataError(f"{dataset.folder}: no sample of split {split!r}; prepare it with a share of {split!r}")
    return Dataset(dataset.folder, dataset.info, samples)


def train(
    name: str,
    model: DepthModel,
    config: DepthTrainConfig,
    inputs: Mapping[str, str],
    layout: Layout,
    **data: Dataset | None,
) -> DepthTrainResult:
    """Train with checkpoints in `checkpoints/depth`, keyed by everything that determines the run."""
    return train_depth(
        model,
        checkpoints=layout.checkpoints("depth"),
        config=config,
        run_key={"name": name, "inputs": dict(inputs)},
        description=name,
        **data,  # type: ignore[arg-type]
    )


def write_model(
    layout: Layout,
    instance: Instance,
    model: DepthModel,
    result: DepthTrainResult | None,
    params: Mapping[str, Any],
    inputs: Mapping[str, str],
    seed: int,
) -> None:
    """Write the model folder and its metrics. Only the main process does."""
    if not is_main():
        return
    with atomic_folder(layout.root / instance["out"]) as out:
        model.to("cpu").save(out)
        write_provenance(out, params, inputs, seed, layout.project)
    if result is not None:
        result.discard()
    history = result.history if result is not None else []
    metrics: dict[str, Any] = {"kind": model.kind, "steps": int(history[-1]["step"]) if history else 0}
    if history:
        metrics["loss"] = history[-1]["loss"]
    if result is not None and result.validation:
        metrics |= {"best_step": result.best_step, "validation_abs_rel": min(row["abs_rel"] for row in result.validation)}
    write_json(layout.root / instance["metrics"], metrics)
