"""Stage evaluate_images@<arm>: perspective and image quality of the arm's pictures."""

from pathlib import Path

from alberti.data.manifest import Dataset
from alberti.files import atomic_file, write_json
from alberti.metrics.features import feature_extractor
from alberti.metrics.images import evaluate_pictures
from stages.common import device, run_stage
from stages.params import Params


def evaluate_images(params: Params, arm: str) -> None:
    """Write `metrics/images/<arm>.json` and a row a picture beside it."""
    extractor = feature_extractor(params.evaluate_images.extractor, device())
    generated, reference = Dataset.open(f"data/generated/{arm}"), Dataset.open("data/condition")
    summary, table = evaluate_pictures(generated, reference, extractor=extractor)
    out = Path("metrics/images") / f"{arm}.json"
    with atomic_file(out.with_suffix(".csv")) as temporary:
        table.to_csv(temporary, index=False)
    write_json(out, summary)


if __name__ == "__main__":
    run_stage(evaluate_images, lambda params: params.arms)
