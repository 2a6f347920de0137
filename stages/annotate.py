"""Stage annotate: line segments and vanishing points of every training image, in `data/annotations/`."""

import os
from pathlib import Path

from alberti.annotate import annotate_dataset
from alberti.data.manifest import Dataset
from alberti.errors import DataError
from alberti.files import atomic_folder, write_json
from stages.common import CHECKPOINTS, run_stage
from stages.params import Params

OUT = Path("data/annotations")


def annotate(params: Params, _: str) -> None:
    """Annotate `data/train`; where it has true vanishing points, the error against them enters the metrics."""
    section = params.annotate
    work = CHECKPOINTS / "annotate" / "annotations.jsonl"  # an interrupted run goes on from here
    dataset = Dataset.open("data/train")
    summary = annotate_dataset(dataset, work, use_intrinsics=section.known_camera, workers=section.workers)
    failures = summary.pop("failures")
    if failures:
        work.unlink()
        raise DataError(f"data/train: {len(failures)} images cannot be annotated, and all are needed; {failures[0]}")
    with atomic_folder(OUT) as out:
        os.replace(work, out / "annotations.jsonl")
    write_json("metrics/annotate.json", summary)


if __name__ == "__main__":
    run_stage(annotate)
