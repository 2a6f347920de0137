"""Stage evaluate_depth@<model>-<arm>-<seed>: the errors of a depth model on every test set.

Writes `metrics/depth/<model>/<arm>/<seed>/<test set>.json`, and a CSV with one row per picture beside it. The second alignment
and all after it go to `<test set>.<alignment>.json`.
"""

from functools import partial
from pathlib import Path

from alberti.data.manifest import Dataset
from alberti.device import choose_device
from alberti.files import atomic_folder, read_json
from alberti.metrics.test_sets import TestSet
from alberti.parallel import core_count
from stages.shared.graph import Instance
from stages.shared.layout import Layout
from stages.shared.params import Params, TestSetParams
from stages.shared.running import run_stage

_BATCH = 16
"""On a GPU; a CPU is no faster with more than one picture at once."""
_READERS = 8


def evaluate_depth(layout: Layout, params: Params, instance: Instance) -> None:
    """Score the model on each of `evaluate_depth.test_sets`."""
    from alberti.depth.models import DepthModel
    from alberti.depth.predict import predict_batch
    from alberti.metrics.test_frames import evaluate_test_set

    model = DepthModel.load(layout.root / instance["weights"]).to(choose_device())
    sources = params.prepare.roles()
    with atomic_folder(layout.root / instance["out"]) as out:
        for role, settings in params.evaluate_depth.test_sets.items():
            test = test_set_of(layout.data(role), settings, rendered=sources[role].source == "scenes")
            evaluations = evaluate_test_set(
                test,
                partial(predict_batch, model),
                instance["model"],
                batch_size=_BATCH if choose_device().type == "cuda" else 1,
                workers=min(_READERS, core_count()),
                description=f"evaluating {instance['name']} on {role}",
            )
            for place, (alignment, evaluation) in enumerate(evaluations.items()):
                evaluation.write(out / (f"{role}.json" if place == 0 else f"{role}.{alignment}.json"))


def test_set_of(data: Path, settings: TestSetParams, *, rendered: bool) -> TestSet:
    """What stage `prepare` found of a test set, with how it is to be scored. Rendered frames are a scene each."""
    if (data / "test_set.json").is_file():
        found = read_json(data / "test_set.json")
        where = {"layout": found["layout"], "root": found["root"], "split": found["split"]}
    else:
        dataset = Dataset.open(data)
        roots = {"root": str(dataset.root), "depth_root": str(dataset.depth_root)}
        where = {"layout": "kitti", **roots, "split": str(data / "splits" / "test.txt")}
    height, width = settings.size or (None, None)
    return TestSet(
        **where,
        protocol=settings.protocol,
        alignments={model: tuple(names) for model, names in settings.alignment.items()},
        height=height,
        width=width,
        scenes="frame" if rendered else settings.scenes,
    )


if __name__ == "__main__":
    run_stage(evaluate_depth)
