"""Stages finetune_depth@<model>-<arm> and finetune_depth_reference@<model>-<role>: a depth model fine-tuned on one arm's
pictures, or on those of a role.

The role `kitti` trains on KITTI's own training split and keeps the weights that do best on its validation split. All others
keep the last weights: choosing them on KITTI would make the test less than zero-shot. The role `condition` trains on the
pictures that the depth maps came with: what flawless generation would give.
"""

from pathlib import Path

from alberti.data.manifest import Dataset
from alberti.depth.config import DepthTrainConfig
from alberti.depth.models import DepthModel
from stages.common import hash_folder, run_stage
from stages.curves import curves
from stages.depth_training import config_of, split_of, train, write_model
from stages.params import CONDITION_ARM, KITTI_ARM, ORIGINAL_ARM, Params


def finetune_depth(params: Params, name: str) -> None:
    """Write `models/depth/<model>/<arm>/`."""
    model_name, _, arm = name.partition("-")
    recipe: DepthTrainConfig = getattr(params.finetune_depth.train, model_name)
    start = Path("models/depth") / model_name / ORIGINAL_ARM
    inputs, data = {str(start): hash_folder(start)}, _data(arm, recipe)
    for dataset in data.values():
        inputs[str(dataset.folder)] = dataset.info.fingerprint
    if arm == KITTI_ARM:
        recipe = recipe.model_copy(update={"mix_ratio": 0.0})
    config = config_of(recipe, params.seed)
    with curves(f"plots/finetune_depth/{name}"):
        result = train(name, DepthModel.load(start), config, inputs, **data)
    values = {"seed": params.seed, "finetune_depth": recipe.model_dump(mode="json")}
    model = result.model
    assert isinstance(model, DepthModel)
    write_model("finetune_depth", name, model, result, values, inputs, config.training.seed)


def _data(arm: str, recipe: DepthTrainConfig) -> dict[str, Dataset]:
    if arm == KITTI_ARM:
        kitti = Dataset.open("data/kitti")
        return {"dataset": split_of(kitti, "train"), "validation": split_of(kitti, "val")}
    pictures = Path("data/condition") if arm == CONDITION_ARM else Path("data/generated") / arm
    data = {"dataset": Dataset.open(pictures)}
    if recipe.mix_ratio:
        data["mix"] = split_of(Dataset.open("data/kitti"), "train")
    return data


if __name__ == "__main__":
    run_stage(finetune_depth, Params.depth_instances, processes="together")
