"""Measuring a data set's pictures, for arms and for references alike."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from alberti.data.manifest import Dataset
from alberti.files import atomic_file, write_json
from alberti.metrics.features import FeatureExtractor
from alberti.metrics.images import evaluate_pictures
from alberti.parallel import core_count

if TYPE_CHECKING:
    import pandas as pd

_PICTURES_A_PROCESS = 256
"""Fewer are done before another process has started."""


def measure(generated: Dataset, reference: Dataset, extractor: FeatureExtractor) -> "tuple[dict[str, Any], pd.DataFrame]":
    """Summary and rows, by as many processes as the pictures pay for starting."""
    workers = max(1, min(core_count(), len(generated) // _PICTURES_A_PROCESS))
    return evaluate_pictures(generated, reference, extractor=extractor, workers=workers)


def write_measures(path: Path, summary: dict[str, Any], table: "pd.DataFrame") -> None:
    """Write the summary as JSON to ``path`` and the rows as CSV beside it."""
    with atomic_file(path.with_suffix(".csv")) as temporary:
        table.to_csv(temporary, index=False)
    write_json(path, summary)
