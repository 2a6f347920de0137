"""The picture strip: every arm's picture of the same depth map and seed, with lines and vanishing lines as vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alberti.data.manifest import Dataset, Sample
from alberti.data.sources import evenly
from alberti.geometry.line_segments import detect_line_segments
from alberti.metrics.perspective import segments_consistency
from alberti.report.inputs import ReportInputs
from alberti.report.tiles import WITHIN, Picture, coloured, data_uri, overlay, vanishing_lines

_NUM_LINES = 500


@dataclass(frozen=True)
class Scene:
    """All pictures of one depth map."""

    id: str
    caption: str
    pictures: tuple[Picture, ...]


def choose_samples(inputs: ReportInputs) -> list[str]:
    """Ids of ``inputs.pictures`` scenes that every arm drew, evenly spread over the condition set's order."""
    if not inputs.generated or inputs.condition is None:
        return []
    drawn = [{sample.id for sample in dataset} for dataset in inputs.generated.values()]
    common = [sample.id for sample in inputs.condition if all(sample.id in ids for ids in drawn)]
    return evenly(common, inputs.pictures) if common else []


def build_gallery(inputs: ReportInputs, ids: Sequence[str]) -> list[Scene]:
    """The scenes to show: depth map, where there are the picture that belongs to it and its reconstruction, every arm's."""
    return [_scene(inputs, sample_id) for sample_id in ids]


def _scene(inputs: ReportInputs, sample_id: str) -> Scene:
    assert inputs.condition is not None  # ReportInputs sees to it where pictures were generated
    condition = inputs.condition.by_id(sample_id)
    pictures = [_depth_picture(inputs.condition, condition)]
    if condition.image is not None:
        pictures.append(_picture("reference", "reference", inputs.condition, condition))
    if inputs.reconstructions is not None and sample_id in {sample.id for sample in inputs.reconstructions}:
        again = inputs.reconstructions.by_id(sample_id)
        pictures.append(_picture("reconstruction", "reference", inputs.reconstructions, again))
    pictures += [_picture(arm, "arm", dataset, dataset.by_id(sample_id)) for arm, dataset in inputs.generated.items()]
    return Scene(sample_id, condition.caption or "", tuple(pictures))


def _picture(label: str, kind: str, dataset: Dataset, sample: Sample) -> Picture:
    image = dataset.read_image(sample)
    points = np.asarray(sample.vanishing_points or [], np.float64).reshape(-1, 3)
    segments = detect_line_segments(image)
    share = segments_consistency(segments, points, sample.width, sample.height, (WITHIN,))[f"consistency_{WITHIN:g}"]
    return Picture(
        label,
        kind,
        data_uri(image),
        sample.width,
        sample.height,
        f"Scene {sample.id}, {label}",
        overlay(coloured(segments, points)),
        overlay(vanishing_lines(points, sample.width, sample.height)),
        "no lines found" if share is None else f"{share:.0%} of its line within {WITHIN:g}°",
    )


def _depth_picture(dataset: Dataset, sample: Sample) -> Picture:
    painted = data_uri(paint_depth(dataset.read_depth(sample)))
    return Picture("depth", "depth", painted, sample.width, sample.height, f"Depth map {sample.id}, near bright and far dark")


def profiles_of(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Perspective profiles of a picture (H, W, 3) uint8: (K, 500) for (K, 3) vanishing points."""
    import torch

    from alberti.data.transforms import to_tensor
    from alberti.losses.perspective import perspective_profile

    profile = perspective_profile(to_tensor(image)[None], torch.from_numpy(points).float()[None], num_lines=_NUM_LINES)
    return profile[0].numpy()


def paint_depth(depth: np.ndarray) -> np.ndarray:
    """(H, W) metres as (H, W, 3) uint8: near bright, far dark, by inverse depth between its 2nd and 98th percentile."""
    from matplotlib import colormaps

    known = depth > 0
    inverse = np.where(known, 1 / np.where(known, depth, 1), 0)
    low, high = np.percentile(inverse[known], [2, 98]) if known.any() else (0.0, 1.0)
    value = np.clip((inverse - low) / max(high - low, 1e-12), 0, 1)
    return (colormaps["magma"](0.08 + 0.9 * value)[..., :3] * 255 * known[..., None] + 0.5).astype(np.uint8)
