"""Stage generate@<arm>: a picture for every depth map of `data/condition`, in `data/generated/<arm>/`.

The noise of a picture follows from seed and sample id, so that all arms start from the same.
"""

from pathlib import Path

from alberti.data.manifest import Dataset
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.sample import generate
from stages.common import CHECKPOINTS, run_stage
from stages.params import Params


def generate_arm(params: Params, arm: str) -> None:
    """Generate the pictures of an arm or variant; an interrupted call goes on with the pictures that are missing."""
    generate(
        DepthDiffusion.load(Path("models/finetuned") / params.weights_of(arm)),
        Dataset.open("data/condition"),
        Path("data/generated") / arm,
        params.sampling(arm),
        work=CHECKPOINTS / "generate",
    )


if __name__ == "__main__":
    run_stage(generate_arm, lambda params: params.picture_arms, processes="apart")
