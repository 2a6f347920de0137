"""Stage evaluate_depth@<model>-<arm>: KITTI metrics of a depth model on the test set, which trains nothing."""

from functools import partial
from pathlib import Path

from alberti.data.kitti import KittiReader, read_split
from alberti.data.manifest import Dataset
from alberti.depth.models import DepthModel
from alberti.depth.predict import predict_batch
from alberti.device import choose_device
from alberti.metrics.evaluation import evaluate_batches
from alberti.parallel import core_count
from stages.common import run_stage
from stages.params import Params

TEST = Path("data/test")
_BATCH = 16
"""On a GPU; a CPU is no faster with more than one picture at once."""
_READERS = 8


def evaluate_depth(params: Params, name: str) -> None:
    """Write `metrics/depth/<model>-<arm>.json` and a row an image beside it."""
    model_name, _, arm = name.partition("-")
    section = params.evaluate_depth
    model = DepthModel.load(Path("models/depth") / model_name / arm).to(choose_device())
    dataset = Dataset.open(TEST)
    reader = KittiReader(dataset.root, dataset.depth_root)
    evaluation = evaluate_batches(
        read_split(TEST / "splits" / "test.txt"),
        partial(predict_batch, model),
        reader,
        section.protocol,
        section.alignment[model_name],
        batch_size=_BATCH if choose_device().type == "cuda" else 1,
        workers=min(_READERS, core_count()),
        description=f"evaluating {name}",
    )
    evaluation.write(Path("metrics/depth") / f"{name}.json")


if __name__ == "__main__":
    run_stage(evaluate_depth, Params.evaluation_instances)
