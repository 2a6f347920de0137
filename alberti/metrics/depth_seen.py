"""Depth seen in pictures: how far what a depth model sees in a picture is from the depth map that the picture was made from.

A picture that shows its depth map badly is a bad example to learn depth from, however straight its lines are. The model's name
belongs to the number: another model sees otherwise.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from alberti.data.manifest import Dataset, Sample
from alberti.errors import ConfigError
from alberti.images import of_one_size
from alberti.metrics.depth import align, depth_metrics
from alberti.progress import track

if TYPE_CHECKING:
    from alberti.depth.models import DepthModel

MIN_DEPTH, MAX_DEPTH = 1e-3, 80.0
"""Metres between which depth counts."""
_ALIGNMENTS = {"metric": "median", "inverse_relative": "affine_disparity"}


def depth_seen(pictures: Dataset, model: "DepthModel", *, batch_size: int = 16) -> dict[str, float]:
    """Mean relative error of the depth seen in each picture against its own depth map, by id.

    Metric models are aligned by the median, relative ones by scale and shift in disparity. Pictures whose map has no depth
    between MIN_DEPTH and MAX_DEPTH are left out.

    Raises:
        ConfigError: the pictures' depth maps are not metres.
    """
    from alberti.depth.predict import predict_batch

    if pictures.info.depth_kind != "z":
        raise ConfigError(f"{pictures.folder}: depth seen needs depth maps in metres, these are {pictures.info.depth_kind!r}")
    alignment = _ALIGNMENTS[model.kind]
    found: dict[str, float] = {}
    read = ((sample, pictures.read_image(sample)) for sample in pictures)
    for group in _tracked(of_one_size(read, batch_size), len(pictures), batch_size):
        predictions = predict_batch(model, [image for _, image in group])
        for (sample, _), prediction in zip(group, predictions, strict=True):
            depth = pictures.read_depth(sample)
            mask = (depth > MIN_DEPTH) & (depth < MAX_DEPTH)
            if mask.any():
                seen = align(prediction, depth, mask, alignment).depth.clip(MIN_DEPTH, MAX_DEPTH)
                found[sample.id] = depth_metrics(seen, depth, mask)["abs_rel"]
    return found


def _tracked(
    groups: "Iterator[list[tuple[Sample, np.ndarray]]]", count: int, batch_size: int
) -> "Iterator[list[tuple[Sample, np.ndarray]]]":
    return track(groups, "depth seen", -(-count // batch_size), unit="batches")
