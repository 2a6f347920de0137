"""Depth of pictures with a :class:`alberti.depth.models.DepthModel`: arrays, and folders of files."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alberti.data.transforms import resize_image
from alberti.depth.models import DepthModel
from alberti.errors import ConfigError, DataError
from alberti.files import atomic_file, changed_since, read_json, sha256_json, write_json
from alberti.images import of_one_size, read_image
from alberti.metrics.depth import kb_window
from alberti.metrics.predictions import SIDECAR
from alberti.progress import Progress


@dataclass(frozen=True)
class PredictOptions:
    """How a picture is run through a model."""

    flip: bool = False
    """Average with the mirrored prediction of the mirrored picture."""
    kb_crop: bool = False
    """Run on KITTI's benchmark crop only; pixels outside it repeat its border."""
    input_height: int | None = None
    """Resize to this height, keeping the aspect, and the prediction back; None: what the model says."""


@torch.inference_mode()
def predict_batch(model: DepthModel, images: Sequence[np.ndarray], options: PredictOptions | None = None) -> list[np.ndarray]:
    """Depth (H, W) float32 of pictures (H, W, 3) uint8 of one size.

    Metres or inverse relative depth, as ``model.kind`` says.
    """
    options = options or PredictOptions()
    sizes = {image.shape for image in images}
    if len(sizes) != 1:
        raise ValueError(f"images: expected one size, got {sorted(sizes)}")
    height, width = images[0].shape[:2]
    rows, columns = kb_window(height, width) if options.kb_crop else (slice(0, height), slice(0, width))
    batch = _to_batch([image[rows, columns] for image in images], options.input_height or model.info.input_height)
    depth = _run(model, batch, options.flip)
    size = (rows.stop - rows.start, columns.stop - columns.start)
    if depth.shape[-2:] != size:
        depth = F.interpolate(depth[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    border = ((0, 0), (rows.start, height - rows.stop), (columns.start, width - columns.stop))
    return list(np.pad(depth.float().cpu().numpy(), border, mode="edge"))


def predict_array(model: DepthModel, image: np.ndarray, options: PredictOptions | None = None) -> np.ndarray:
    """Depth (H, W) float32 of one picture (H, W, 3) uint8; see :func:`predict_batch`."""
    return predict_batch(model, [image], options)[0]


def _to_batch(images: list[np.ndarray], input_height: int | None) -> Tensor:
    """(B, 3, h, w) in [0, 1]; a resize rounds both sides to multiples of 32, so that nothing is padded behind it."""
    if input_height is not None and images[0].shape[0] != input_height:
        height, width = images[0].shape[:2]
        size = tuple(max(32, round(side * input_height / height / 32) * 32) for side in (width, height))
        images = [resize_image(image, size) for image in images]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def _run(model: DepthModel, batch: Tensor, flip: bool) -> Tensor:
    training = model.training
    batch = batch.to(model.mean.device)
    try:
        model.eval()
        depth = model(batch)
        return 0.5 * (depth + model(batch.flip(-1)).flip(-1)) if flip else depth
    finally:
        model.train(training)


def predict_folder(
    model: DepthModel,
    images: Sequence[tuple[str, Path]],
    out: str | Path,
    options: PredictOptions | None = None,
    *,
    batch_size: int = 1,
    model_name: str = "",
) -> int:
    """Write ``<out>/<name>.npy`` (H, W) float32 for every (name, image path), and ``predictions.json`` beside them.

    Files that are there already are kept, if ``predictions.json`` says that the same model and options made them, and the
    picture is older than its prediction: so an interrupted call resumes. Names may hold slashes. ``predictions.json`` says
    what the numbers are ("kind", "unit").

    Returns:
        The number of predictions made by this call.

    Raises:
        DataError: no images, two of one name, or predictions of another model or other options in ``out``; and, once all
            others are predicted, pictures that cannot be read, each of which was reported.
    """
    options = options or PredictOptions()
    out = Path(out)
    if batch_size < 1:
        raise ConfigError(f"batch_size: expected at least 1, got {batch_size}")
    if not images:
        raise DataError("there are no images to predict the depth of")
    names = [name for name, _ in images]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"two images would both write {out / twice}.npy: rename one, or predict their folders apart")
    _claim(out, model, options, model_name)
    todo = [(name, path) for name, path in images if not _is_current(out / f"{name}.npy", path)]
    failed: list[str] = []
    with Progress("depth", len(images), "images", initial=len(images) - len(todo)) as progress:
        for group in of_one_size(_readable(todo, out, failed), batch_size):
            arrays = [image for _, image in group]
            for (name, _), depth in zip(group, predict_batch(model, arrays, options), strict=True):
                if not np.isfinite(depth).all():
                    raise DataError(f"{name}: the model's prediction is not finite; its weights are damaged or it diverged")
                with atomic_file(out / f"{name}.npy") as temporary, open(temporary, "wb") as file:
                    np.save(file, depth)
            progress.advance(len(group))
    if failed:
        raise DataError(f"{len(failed)} of {len(images)} pictures could not be read, see above; the others are predicted")
    return len(todo)


def _is_current(prediction: Path, picture: Path) -> bool:
    """Whether a prediction is there and the picture has not been replaced since."""
    return prediction.is_file() and not changed_since(picture, prediction.stat().st_mtime)


def _readable(images: Sequence[tuple[str, Path]], out: Path, failed: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """(name, picture) of the files that can be read; the others are reported, and what was predicted of older ones goes."""
    for name, path in images:
        try:
            yield name, read_image(path)
        except DataError as error:
            failed.append(str(error))
            (out / f"{name}.npy").unlink(missing_ok=True)
            print(f"failed: {error}", file=sys.stderr)


def _claim(out: Path, model: DepthModel, options: PredictOptions, model_name: str) -> None:
    """Write ``predictions.json``, or refuse a folder whose predictions were made otherwise."""
    metric = model.kind == "metric"
    description = {
        "format": 1,
        "kind": model.kind,
        "unit": "metre" if metric else "inverse depth up to scale and shift",
        "model": model_name,
        "architecture": f"{model.name} {model.info.size}".strip(),
        "options": vars(options),
    }
    description["key"] = sha256_json([description, _fingerprint(model)])
    path = out / SIDECAR
    if path.is_file():
        found = read_json(path)
        if not isinstance(found, dict) or found.get("key") != description["key"]:
            raise DataError(
                f"{out}: holds predictions of another model or of other options ({SIDECAR}); choose another one or delete it"
            )
        return
    if out.is_dir() and next(out.rglob("*.npy"), None) is not None:
        raise DataError(f"{out}: holds .npy files but no {SIDECAR}; choose an empty folder")
    write_json(path, description)


def _fingerprint(model: DepthModel) -> list[str | float]:
    """Enough to tell two trained models apart without hashing a gigabyte: the sum of each weight's magnitudes."""
    return [float(value.detach().double().abs().sum().cpu()) for value in model.parameters()]
