"""What fine-tuning reads at every step, computed once: latents of both flips, depth conditioning, text embeddings,
images.

Kept as memory-mapped .npy files, shared by all arms and processes that fine-tune the same base on the same data.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from alberti.diffusion.hashing import tokenizer_hash
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.sources import DatasetSource
from alberti.files import atomic_folder, sha256_json, write_json
from alberti.geometry.camera import flip_homography, transform_vanishing_points
from alberti.geometry.presence import present
from alberti.progress import Progress
from alberti.training.step_graph import to_device
from alberti.weights import weights_hash

_BATCH = 16


@dataclass
class CachedBatch:
    """Samples on one device, each flipped or not."""

    mean: Tensor
    """(B, C, h, w) scaled latents' mean; ``deviation`` their standard deviation."""
    deviation: Tensor
    condition: Tensor
    """(B, 1, h, w) or (B, 3, H, W), see ``DepthDiffusion.condition``."""
    text: Tensor
    """(B, L, D)."""


class TrainingCache:
    """The cached arrays of one (base, data set) pair.

    mean, deviation: (N, 2, C, h, w) float16 for the image and its mirror image, condition: (N, 1, h, w) float16, text:
    (captions + 1, L, D) float16 whose first row is the empty prompt, text_index: (N,), images: (N, H, W, 3) uint8.
    """

    def __init__(self, folder: Path, source: DatasetSource, condition_channels: int):
        self.ids = [sample.id for sample in source.dataset]
        self._condition_channels = condition_channels
        points = source.points
        names = ("mean", "deviation", "condition", "text", "text_index", "images")
        self._arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
        homography = flip_homography(source.width)
        mirrored = np.stack([_transform(rows, homography) for rows in points]).astype(np.float32)
        self._points = np.stack([points, mirrored], axis=1)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return tuple(self._arrays["mean"].shape[2:])

    def batch(self, indices: Sequence[int], flipped: Tensor, dropped: Tensor, device: torch.device) -> CachedBatch:
        """``flipped`` and ``dropped`` (B,) bool: mirror image, empty prompt."""
        flips = flipped.numpy().astype(np.int64)
        chosen = np.asarray(indices)
        text = np.where(dropped.numpy(), 0, self._arrays["text_index"][chosen])
        condition = _to(self._arrays["condition"][chosen], device).expand(-1, self._condition_channels, -1, -1)
        turn = to_device(flipped, device).view(-1, 1, 1, 1)
        return CachedBatch(
            mean=_to(self._arrays["mean"][chosen, flips], device),
            deviation=_to(self._arrays["deviation"][chosen, flips], device),
            condition=torch.where(turn, condition.flip(-1), condition),
            text=_to(self._arrays["text"][text], device),
        )

    def images(self, indices: Sequence[int], flipped: Tensor, device: torch.device) -> Tensor:
        """(B, 3, H, W) in [0, 1]."""
        stored = torch.from_numpy(np.array(self._arrays["images"][np.asarray(indices)]))
        images = to_device(stored, device).permute(0, 3, 1, 2).float() / 255
        return torch.where(to_device(flipped, device).view(-1, 1, 1, 1), images.flip(-1), images)

    def points(self, indices: Sequence[int], flipped: Tensor) -> Tensor:
        """(B, K, 3) homogeneous pixels on the CPU, moved with the flip."""
        return torch.from_numpy(self._points[np.asarray(indices), flipped.numpy().astype(np.int64)])


def _to(array: np.ndarray, device: torch.device) -> Tensor:
    return to_device(torch.from_numpy(np.array(array)), device).float()


def _transform(points: np.ndarray, homography: np.ndarray) -> np.ndarray:
    there, moved = present(points), np.zeros_like(points)
    if there.any():
        moved[there] = transform_vanishing_points(points[there], homography)
    return moved


def training_cache(model: DepthDiffusion, source: DatasetSource, root: Path | None, device: torch.device) -> TrainingCache:
    """Build, or find, the cache below ``root`` (None: a temporary folder that this process deletes at its end).

    Processes and parallel runs that want the same cache wait for the one that builds it.
    """
    model.check_size(source.height, source.width)
    channels = model.condition_channels
    if root is None:
        holder = tempfile.TemporaryDirectory(prefix="alberti-cache-")
        _build(model, source, Path(holder.name), device)
        cache = TrainingCache(Path(holder.name), source, channels)
        cache._holder = holder  # type: ignore[attr-defined]
        return cache
    key = sha256_json(_key(model, source, device))[:16]
    folder = root / "latents" / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{key}.lock")):
        if not (folder / "cache.json").is_file():
            with atomic_folder(folder) as temporary:
                _build(model, source, temporary, device)
                write_json(temporary / "cache.json", _key(model, source, device))
    return TrainingCache(folder, source, channels)


def _key(model: DepthDiffusion, source: DatasetSource, device: torch.device) -> dict[str, Any]:
    return {
        "version": 1,
        "data": source.fingerprint,
        "vae": weights_hash(model.vae),
        "scale": model.vae.config.get("scaling_factor"),
        "text_encoder": weights_hash(model.text_encoder),
        "tokenizer": tokenizer_hash(model),
        "controlnet": model.controlnet is not None,
        "device": device.type,
    }


@torch.no_grad()
def _build(model: DepthDiffusion, source: DatasetSource, folder: Path, device: torch.device) -> None:
    model.vae.to(device).eval()
    model.text_encoder.to(device).eval()
    captions = source.captions()
    distinct = ["", *sorted(set(captions) - {""})]
    position = {caption: index for index, caption in enumerate(distinct)}
    np.save(folder / "text_index.npy", np.array([position[caption] for caption in captions]))
    with Progress("encoding captions", len(distinct), "captions") as progress:
        rows = [_half(model.encode_text(part)) for part in _chunks(distinct)]
        progress.advance(len(distinct))
    np.save(folder / "text.npy", np.concatenate(rows))
    arrays: dict[str, np.ndarray] = {}
    with Progress("encoding images", len(source), "images") as progress:
        for indices in _chunks(range(len(source))):
            images, depth = source.arrays(indices)
            pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).to(model.vae.dtype) / 255
            both = [model.encode_image(view) for view in (pixels, pixels.flip(-1))]
            values = {
                "mean": np.stack([_half(mean) for mean, _ in both], axis=1),
                "deviation": np.stack([_half(deviation) for _, deviation in both], axis=1),
                "condition": _half(model.condition(torch.from_numpy(depth).to(device))[:, :1]),
                "images": images,
            }
            for name, value in values.items():
                if name not in arrays:
                    shape = (len(source), *value.shape[1:])
                    path = folder / f"{name}.npy"
                    arrays[name] = np.lib.format.open_memmap(path, "w+", dtype=value.dtype, shape=shape)
                arrays[name][indices[0] : indices[-1] + 1] = value
            progress.advance(len(indices))
    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined]


def _half(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy().astype(np.float16)


def _chunks(items: Any) -> list[Any]:
    return [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
