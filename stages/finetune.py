"""Stage finetune@<arm>-<seed>: the base fine-tuned with the arm's settings, in `models/finetuned/<arm>/<seed>/`."""

from alberti.data.manifest import Dataset
from alberti.files import write_json
from alberti.processes import is_main
from stages.shared.curves import curves
from stages.shared.graph import Instance
from stages.shared.layout import Layout
from stages.shared.params import Params, plain
from stages.shared.points import vanishing_points_of
from stages.shared.provenance import hash_folder, out_folder, write_provenance
from stages.shared.running import run_stage


def finetune(layout: Layout, params: Params, instance: Instance) -> None:
    """Fine-tune the base with the arm's settings and one seed."""
    from alberti.diffusion.model import DepthDiffusion
    from alberti.diffusion.train import finetune as train

    arm = params.arms[instance["arm"]]
    seed = instance["seed"] if arm.training.seed is None else arm.training.seed
    dataset = Dataset.open(layout.data("train"))
    with curves(layout.root / instance["plots"]):
        result = train(
            DepthDiffusion.load(layout.base),
            dataset,
            vanishing_points_of(dataset, arm.vanishing_points, layout),
            arm.library_config(seed),
            checkpoints=layout.checkpoints("finetune"),
            run_key={},
        )
    if not is_main():
        return
    inputs = {"models/base": hash_folder(layout.base), "data/train": dataset.info.fingerprint}
    with out_folder(layout.root / instance["out"]) as folder:
        result.model.save(folder)
        write_provenance(folder, {"arm": instance["arm"], "finetune": plain(arm)}, inputs, seed, layout.project)
    result.discard_checkpoints()
    last = {name: value for name, value in result.history[-1].items() if name != "step"}
    write_json(layout.root / instance["metrics"], {"steps": arm.training.steps, **last, **result.counts})


if __name__ == "__main__":
    run_stage(finetune, processes="together")
