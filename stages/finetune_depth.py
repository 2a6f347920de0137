"""Stage finetune_depth@<model>-<arm>-<seed>: a depth model fine-tuned on one arm's pictures, or on those of a role.

The role `kitti` trains on KITTI's own training split and keeps the weights that do best on its validation split. All others
keep the last weights: choosing them on KITTI would make the test less than zero-shot. The role `condition` trains on the
pictures that the depth maps came with: what flawless generation would give.
"""

from alberti.data.manifest import Dataset
from alberti.depth.models import DepthModel
from alberti.errors import DataError
from stages.shared.curves import curves
from stages.shared.depth_training import split_of, train, write_model
from stages.shared.graph import Instance, recipe_of
from stages.shared.layout import Layout
from stages.shared.params import KITTI_ARM, DepthTrainParams, Params, plain
from stages.shared.provenance import hash_folder
from stages.shared.running import run_stage


def finetune_depth(layout: Layout, params: Params, instance: Instance) -> None:
    """Write `models/depth/<model>/<arm>/<seed>/`."""
    recipe = recipe_of(params, instance["model"])
    if instance["arm"] == KITTI_ARM:
        recipe = recipe.model_copy(update={"mix_ratio": 0.0})
    seed = instance["seed"] if recipe.training.seed is None else recipe.training.seed
    start, data = layout.root / instance["original"], _data(layout, instance, recipe)
    inputs = {instance["original"]: hash_folder(start)}
    inputs |= {layout.relative(dataset.folder): dataset.info.fingerprint for dataset in data.values()}
    with curves(layout.root / instance["plots"]):
        result = train(instance["name"], DepthModel.load(start), recipe.library_config(seed), inputs, layout, **data)
    model = result.model
    assert isinstance(model, DepthModel)
    write_model(layout, instance, model, result, {"finetune_depth": plain(recipe)}, inputs, seed)


def _data(layout: Layout, instance: Instance, recipe: DepthTrainParams) -> dict[str, Dataset]:
    pictures = Dataset.open(layout.root / instance["pictures"])
    if instance["arm"] == KITTI_ARM:
        return {"dataset": split_of(pictures, "train"), "validation": split_of(pictures, "val")}
    if pictures.info.depth_kind == "inverse":
        raise DataError(
            f"{pictures.folder}: made from inverse depth, known up to a factor and an offset; depth models learn metres. Name "
            "a metric model (prepare.condition.estimate_depth.model; kind=z if it is metric and does not say so), or maps "
            "in metres"
        )
    data = {"dataset": pictures}
    if recipe.mix_ratio:
        data["mix"] = split_of(Dataset.open(layout.root / instance["mix"]), "train")
    return data


if __name__ == "__main__":
    run_stage(finetune_depth, processes="together")
