"""Stage evaluate_depth@<model>-<arm>-<seed>: errors of a depth model on every test set, which train nothing.

Writes `metrics/depth/<model>/<arm>/<seed>/<test set>.json`, a row for each picture beside it, and the same for every further
alignment in `<test set>.<alignment>.json`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from alberti.data.kitti.frames import read_split
from alberti.data.kitti.reader import KittiReader
from alberti.data.manifest import Dataset
from alberti.device import choose_device
from alberti.files import atomic_folder
from alberti.parallel import core_count
from stages.shared.graph import Instance
from stages.shared.layout import Layout
from stages.shared.params import Params, TestSetParams
from stages.shared.running import run_stage

if TYPE_CHECKING:
    import numpy as np

    Predict = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]

_BATCH = 16
"""On a GPU; a CPU is no faster with more than one picture at once."""
_READERS = 8


def evaluate_depth(layout: Layout, params: Params, instance: Instance) -> None:
    """Score the model on each of `evaluate_depth.test_sets`."""
    from alberti.depth.models import DepthModel
    from alberti.depth.predict import predict_batch

    model = DepthModel.load(layout.root / instance["weights"]).to(choose_device())
    with atomic_folder(layout.root / instance["out"]) as out:
        for role, test in params.evaluate_depth.test_sets.items():
            predict = partial(_sized, partial(predict_batch, model), test.size)
            for place, alignment in enumerate(test.alignment[instance["model"]]):
                name = f"{role}.json" if place == 0 else f"{role}.{alignment}.json"
                _evaluate(layout.data(role), test, predict, alignment, out / name, f"evaluating {instance['name']} on {role}")


def _evaluate(data: Path, test: TestSetParams, predict: "Predict", alignment: str, out: Path, description: str) -> None:
    from alberti.metrics.evaluation import evaluate_batches

    dataset = Dataset.open(data)
    evaluation = evaluate_batches(
        read_split(data / "splits" / "test.txt"),
        predict,
        KittiReader(dataset.root, dataset.depth_root),
        test.protocol,
        alignment,
        batch_size=_BATCH if choose_device().type == "cuda" else 1,
        workers=min(_READERS, core_count()),
        resize="bilinear" if test.size is not None else None,
        description=description,
    )
    evaluation.write(out)


def _sized(predict: "Predict", size: tuple[int, int] | None, images: "Sequence[np.ndarray]") -> "Sequence[np.ndarray]":
    """Predictions of the pictures brought to (height, width); they keep that size."""
    from alberti.data.transforms import resize_image

    return predict(images if size is None else [resize_image(image, (size[1], size[0])) for image in images])


if __name__ == "__main__":
    run_stage(evaluate_depth)
