"""Stage generate@<arm>-<seed>: a picture for every depth map of `data/condition`, in `data/generated/<arm>/<seed>/`.

The noise of a picture follows from seed and sample id, so that all arms start from the same.
"""

from alberti.data.manifest import Dataset
from stages.shared.graph import Instance
from stages.shared.layout import Layout
from stages.shared.params import Params
from stages.shared.points import vanishing_points_of, with_points
from stages.shared.running import run_stage


def generate(layout: Layout, params: Params, instance: Instance) -> None:
    """Generate the pictures of an arm or variant; an interrupted call goes on with the pictures that are missing."""
    from alberti.diffusion.model import DepthDiffusion
    from alberti.diffusion.sample import generate as sample

    section, condition = params.sampling(instance["arm"]), Dataset.open(layout.data("condition"))
    guided = section.vanishing_guidance is not None
    if guided and section.vanishing_points != "dataset":
        condition = with_points(condition, vanishing_points_of(condition, section.vanishing_points, layout))
    sample(
        DepthDiffusion.load(layout.root / instance["weights"]),
        condition,
        layout.root / instance["out"],
        section.library_config(instance["seed"] if section.seed is None else section.seed),
        work=layout.checkpoints("generate"),
    )


if __name__ == "__main__":
    run_stage(generate, processes="apart")
