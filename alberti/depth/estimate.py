"""Depth for pictures that come without, by a model of depth that the user names: ours, or one of transformers."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alberti.data.config import DepthEstimateConfig
from alberti.data.manifest import Dataset, Sample, write_dataset
from alberti.data.sources import check_metres
from alberti.depth.models import SIDECAR, DepthModel
from alberti.depth.predict import predict_batch
from alberti.errors import CheckpointError, ConfigError, DataError
from alberti.extras import extra
from alberti.files import atomic_file, sha256_file, sha256_json
from alberti.progress import Progress
from alberti.reading import first_line
from alberti.weights import own_weights, quiet, weights_hash

_FORMAT = "npz:depth"
_METRIC_TYPES = ("zoedepth", "depth_pro")
"""Kinds of model in transformers that always give metres."""


@dataclass(frozen=True)
class DepthEstimator:
    """A depth model as a function of pictures.

    kind: "z", metres along the optical axis, or "inverse", inverse depth up to a factor and an offset, near large.
    weights: their hash. predict: pictures (H, W, 3) uint8 of one size -> (H, W) float32 each.
    """

    name: str
    kind: str
    weights: str
    predict: Callable[[Sequence[np.ndarray]], list[np.ndarray]]


def load_estimator(config: DepthEstimateConfig, device: str | torch.device = "cpu") -> DepthEstimator:
    """The model that ``config`` names.

    Raises:
        CheckpointError: nothing there, damaged, or no model of depth.
        ConfigError: a kind that contradicts what the model's files say.
    """
    path = Path(config.model)
    if path.is_file() or (path / SIDECAR).is_file():
        model = DepthModel.load(path).to(device)
        kind = "z" if model.kind == "metric" else "inverse"
        _check_kind(config, kind)
        return DepthEstimator(config.model, kind, weights_hash(model), lambda pictures: predict_batch(model, pictures))
    network, processor = _load_transformers(config)
    found = _kind_of(network.config)
    if found is not None:
        _check_kind(config, found)
    network.to(device)
    kind, predict = config.kind or found or "inverse", _of_transformers(network, processor, device)
    return DepthEstimator(config.model, kind, weights_hash(network), predict)


def estimate_depth(dataset: Dataset, estimator: DepthEstimator, batch_size: int, work: Path) -> Dataset:
    """Give every picture of a data set a depth map, in files of the data set's own folder, and write its manifest again.

    Args:
        dataset: just written, without depth.
        work: a folder for unfinished work; an interrupted call goes on from there.

    Raises:
        DataError: pictures that have depth already, a prediction that is not finite, the same depth everywhere in all
            pictures, or metres that are none.
    """
    if dataset.info.depth_kind is not None or any(sample.depth is not None for sample in dataset):
        raise DataError(
            f"{dataset.root}: its pictures have depth maps, so that none need be estimated; leave estimate_depth out, or the "
            "maps (source folder: options.depth=false)"
        )
    key = sha256_json([estimator.weights, estimator.kind, dataset.info.fingerprint])
    partial = work / key[:16]
    partial.mkdir(parents=True, exist_ok=True)
    missing = [sample for sample in dataset if not _file(partial, sample).is_file()]
    with Progress("estimating depth", len(dataset), "images", initial=len(dataset) - len(missing)) as progress:
        for batch in _of_one_size(missing, batch_size):
            pictures = [dataset.read_image(sample) for sample in batch]
            for sample, depth in zip(batch, estimator.predict(pictures), strict=True):
                _write(_file(partial, sample), _checked(depth, sample, dataset, estimator))
            progress.advance(len(batch))
    folder = dataset.folder / "depth"
    folder.mkdir()
    for sample in dataset:
        os.replace(_file(partial, sample), _file(folder, sample))
    shutil.rmtree(partial)
    result = write_dataset(
        dataset.folder,
        [_with_depth(sample, folder) for sample in dataset],
        name=dataset.info.name,
        role=dataset.info.role,
        root=dataset.info.root,
        depth_kind=estimator.kind,
        depth_scale=1.0,
        depth_format=_FORMAT,
        notes="; ".join(filter(None, [dataset.info.notes, f"depth estimated by {estimator.name}"])),
    )
    if all(np.ptp(result.read_depth(sample)) == 0 for sample in result):
        raise DataError(f"{estimator.name}: sees the same depth everywhere in all pictures; is it trained?")
    check_metres(result, dataset.root)
    return result


def _check_kind(config: DepthEstimateConfig, found: str) -> None:
    if config.kind not in (None, found):
        said = {"z": "metres", "inverse": "inverse depth"}
        raise ConfigError(
            f"estimate_depth.kind: {config.kind}, but {config.model} says of itself that it gives {said[found]}; set it to "
            f"{found} or null"
        )


def _kind_of(config: Any) -> str | None:
    """What the configuration of a model of transformers says; None: nothing."""
    if config.model_type in _METRIC_TYPES:
        return "z"
    return {"metric": "z", "relative": "inverse"}.get(getattr(config, "depth_estimation_type", None) or "")


def _load_transformers(config: DepthEstimateConfig) -> tuple[Any, Any]:
    with extra("depth", "a depth model of transformers"):
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    branch = config.revision or "main"
    try:
        with quiet():
            # Safetensors only: no weights file of another kind is ever unpickled.
            loaded: Any = AutoModelForDepthEstimation.from_pretrained(
                config.model, use_safetensors=True, revision=branch, output_loading_info=True
            )
            network, report = loaded
            own_weights(network)
            processor = AutoImageProcessor.from_pretrained(config.model, revision=branch)
    except Exception as error:  # transformers, safetensors and the hub client raise types of their own
        where = "a local folder" if Path(config.model).is_dir() else "neither a local folder nor a hub model within reach"
        raise CheckpointError(f"depth model {config.model!r} ({where}): cannot be loaded: {first_line(error)}") from error
    if lost := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"depth model {config.model!r}: has no weights for {lost[0]} and {len(lost) - 1} others; is it a model of depth?"
        )
    return network.eval(), processor


def _of_transformers(
    network: Any, processor: Any, device: str | torch.device
) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    @torch.inference_mode()
    def predict(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        inputs = processor(images=list(pictures), return_tensors="pt").to(device)
        depth = network(**inputs).predicted_depth.float()
        size = pictures[0].shape[:2]
        resized = torch.nn.functional.interpolate(depth[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        return list(resized.cpu().numpy())

    return predict


def _of_one_size(samples: Sequence[Sample], batch_size: int) -> list[list[Sample]]:
    by_size: dict[tuple[int, int], list[Sample]] = {}
    for sample in samples:
        by_size.setdefault((sample.width, sample.height), []).append(sample)
    batches = []
    for rows in by_size.values():
        remaining = iter(rows)
        while batch := list(islice(remaining, batch_size)):
            batches.append(batch)
    return batches


def _file(folder: Path, sample: Sample) -> Path:
    return folder / f"{sample.id}.npz"


def _checked(depth: np.ndarray, sample: Sample, dataset: Dataset, estimator: DepthEstimator) -> np.ndarray:
    if not np.isfinite(depth).all():
        raise DataError(
            f"{dataset.image_path(sample)}: the depth that {estimator.name} gives is not finite; its weights are damaged"
        )
    return np.maximum(depth, 0).astype(np.float32)


def _write(path: Path, depth: np.ndarray) -> None:
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, depth=depth)


def _with_depth(sample: Sample, folder: Path) -> Sample:
    path = _file(folder, sample)
    hashes = {**sample.sha256, "depth": sha256_file(path)}
    return sample.model_copy(update={"depth": f"depth/{path.name}", "sha256": hashes})
