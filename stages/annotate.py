"""Stage annotate@<role>: line segments and vanishing points of a role's pictures, in `data/annotations/<role>/`."""

import os

from alberti.data.manifest import Dataset
from alberti.errors import DataError
from alberti.files import atomic_folder, write_json
from stages.shared.graph import Instance
from stages.shared.layout import Layout
from stages.shared.params import Params
from stages.shared.running import run_stage


def annotate(layout: Layout, params: Params, instance: Instance) -> None:
    """Annotate `data/<role>`; where it has true vanishing points, the error against them enters the metrics."""
    from alberti.annotate import annotate_dataset

    role, section = instance["name"], params.annotate
    work = layout.checkpoints("annotate", f"{role}.jsonl")  # an interrupted run goes on from here
    dataset = Dataset.open(layout.data(role))
    summary = annotate_dataset(dataset, work, use_intrinsics=section.known_camera, workers=section.workers)
    failures = summary.pop("failures")
    if failures:
        work.unlink()
        raise DataError(f"data/{role}: {len(failures)} images cannot be annotated, and all are needed; {failures[0]}")
    with atomic_folder(layout.annotations(role)) as out:
        os.replace(work, out / "annotations.jsonl")
    write_json(layout.metrics("annotate", f"{role}.json"), summary)


if __name__ == "__main__":
    run_stage(annotate)
