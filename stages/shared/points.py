"""The vanishing points that a stage gets with a role's pictures."""

from collections.abc import Sequence

from alberti.annotations import read_annotations
from alberti.data.manifest import Dataset
from alberti.errors import DataError
from stages.shared.layout import Layout

Points = Sequence[tuple[float, float, float]]


def vanishing_points_of(dataset: Dataset, kind: str | None, layout: Layout) -> dict[str, Points]:
    """By sample id, the points of the data set ("dataset"), those that stage `annotate` found ("detected"), or none (None).

    Raises:
        DataError: no sample has points of its own, or `annotate` has no row of one.
    """
    if kind is None:
        return {sample.id: [] for sample in dataset}
    role = dataset.info.role
    if kind == "dataset":
        if len(dataset) and not any(sample.vanishing_points for sample in dataset):
            raise DataError(
                f"{dataset.folder}: no sample has vanishing points, which the constraint needs; let them be found in the "
                "pictures: finetune.vanishing_points=detected"
            )
        return {sample.id: sample.vanishing_points or [] for sample in dataset}
    path = layout.annotations(role) / "annotations.jsonl"
    found = {row["id"]: row["vanishing_points"] for row in read_annotations(path)}
    missing = [sample.id for sample in dataset if sample.id not in found]
    if missing:
        raise DataError(f"{path}: no row for {missing[0]!r} and {len(missing) - 1} other samples of {dataset.folder}")
    return {sample.id: found[sample.id] for sample in dataset}
