"""Stage evaluate_images@<arm>-<seed>: perspective and image quality of an arm's pictures."""

from alberti.data.manifest import Dataset
from alberti.device import choose_device
from stages.shared.graph import Instance
from stages.shared.layout import Layout
from stages.shared.params import Params
from stages.shared.running import run_stage


def evaluate_images(layout: Layout, params: Params, instance: Instance) -> None:
    """Write `metrics/images/<arm>/<seed>.json` and a row for each picture beside it."""
    from alberti.metrics.features import feature_extractor
    from stages.shared.measures import measure, write_measures

    extractor = feature_extractor(params.evaluate_images.extractor, choose_device())
    generated, reference = Dataset.open(layout.root / instance["pictures"]), Dataset.open(layout.data("condition"))
    write_measures(layout.root / instance["metrics"], *measure(generated, reference, extractor))


if __name__ == "__main__":
    run_stage(evaluate_images)
