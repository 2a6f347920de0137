"""Stage evaluate_images@<arm>: perspective and image quality of the arm's pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from alberti.data.manifest import Dataset
from alberti.device import choose_device
from alberti.files import atomic_file, write_json
from alberti.metrics.features import FeatureExtractor, feature_extractor
from alberti.metrics.images import evaluate_pictures
from alberti.parallel import core_count
from stages.common import run_stage
from stages.params import Params

if TYPE_CHECKING:
    import pandas as pd

_PICTURES_A_PROCESS = 256
"""Fewer are done before another process has started."""


def evaluate_images(params: Params, arm: str) -> None:
    """Write `metrics/images/<arm>.json` and a row a picture beside it."""
    extractor = feature_extractor(params.evaluate_images.extractor, choose_device())
    generated, reference = Dataset.open(f"data/generated/{arm}"), Dataset.open("data/condition")
    write_measures(Path("metrics/images") / f"{arm}.json", *measure(generated, reference, extractor))


def measure(generated: Dataset, reference: Dataset, extractor: FeatureExtractor) -> "tuple[dict[str, Any], pd.DataFrame]":
    """Summary and rows, by as many processes as the pictures pay for starting."""
    workers = max(1, min(core_count(), len(generated) // _PICTURES_A_PROCESS))
    return evaluate_pictures(generated, reference, extractor=extractor, workers=workers)


def write_measures(path: Path, summary: dict[str, Any], table: "pd.DataFrame") -> None:
    """Write the summary as JSON to ``path`` and the rows as CSV beside it."""
    with atomic_file(path.with_suffix(".csv")) as temporary:
        table.to_csv(temporary, index=False)
    write_json(path, summary)


if __name__ == "__main__":
    run_stage(evaluate_images, lambda params: params.picture_arms)
