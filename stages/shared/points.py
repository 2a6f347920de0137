"""The vanishing points that a stage gets with a role's pictures."""

from collections.abc import Mapping, Sequence

from alberti.annotations import read_annotations
from alberti.data.manifest import Dataset
from alberti.errors import DataError
from alberti.progress import track
from stages.shared.layout import Layout

Points = Sequence[Sequence[float]]


def vanishing_points_of(dataset: Dataset, kind: str | None, layout: Layout) -> dict[str, Points]:
    """By sample id, the points of the data set ("dataset"), those that stage `annotate` found ("detected"), those of the planes
    in the depth maps ("depth"), or none (None).

    Raises:
        DataError: no sample has points of its own, or `annotate` has no row of one.
    """
    if kind is None:
        return {sample.id: [] for sample in dataset}
    role = dataset.info.role
    if kind == "dataset":
        if len(dataset) and not any(sample.vanishing_points for sample in dataset):
            raise DataError(
                f"{dataset.folder}: no sample has vanishing points, which constraints and guidance need; let them be found in "
                "the pictures (finetune.vanishing_points=detected) or, for guidance, in the depth maps "
                "(generate.vanishing_points=depth)"
            )
        return {sample.id: sample.vanishing_points or [] for sample in dataset}
    if kind == "depth":
        from alberti.geometry.depth_points import vanishing_points_from_depth

        return {
            sample.id: vanishing_points_from_depth(dataset.read_depth(sample), dataset.camera(sample)).tolist()
            for sample in track(dataset.samples, "points from depth", len(dataset))
        }
    path = layout.annotations(role) / "annotations.jsonl"
    found = {row["id"]: row["vanishing_points"] for row in read_annotations(path)}
    missing = [sample.id for sample in dataset if sample.id not in found]
    if missing:
        raise DataError(f"{path}: no row for {missing[0]!r} and {len(missing) - 1} other samples of {dataset.folder}")
    return {sample.id: found[sample.id] for sample in dataset}


def with_points(dataset: Dataset, points: Mapping[str, Points]) -> Dataset:
    """The data set with other vanishing points in its rows; its pictures and depth maps are the same."""
    rows = [sample.model_copy(update={"vanishing_points": [tuple(point) for point in points[sample.id]]}) for sample in dataset]
    return Dataset(dataset.folder, dataset.info, rows)
