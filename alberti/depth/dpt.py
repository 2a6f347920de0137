"""DPT (Ranftl et al., "Vision Transformers for Dense Prediction", 2021) on transformers' own classes.

The folders are transformers' layout: ``DPTForDepthEstimation.from_pretrained(folder)`` reads them with no code of ours.
transformers runs square inputs (the hybrid: its training size) only; :func:`dpt_forward` runs the same layers at any size
whose sides divide by 32.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from alberti.depth.efficientnet import TIMM_NAME, freeze
from alberti.errors import CheckpointError, ConfigError, first_line
from alberti.extras import extra
from alberti.weights import only_variant, own_weights, quiet

if TYPE_CHECKING:
    from transformers import DPTConfig, DPTForDepthEstimation

# What DPT's image processor does to images in [0, 1].
DPT_MEAN = (0.5, 0.5, 0.5)
DPT_STD = (0.5, 0.5, 0.5)
SIZE_MULTIPLE = 32

SIZES: dict[str, dict[str, Any]] = {
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "backbone_out_indices": [5, 11, 17, 23],
        "neck_hidden_sizes": [256, 512, 1024, 1024],
    },
    # transformers' default for neck_hidden_sizes does not fit the hybrid's first two feature maps (256 and 512 channels).
    "hybrid": {"is_hybrid": True, "neck_hidden_sizes": [256, 512, 768, 768]},
    # For laptops, not published: the hybrid's design with a small convolutional stem.
    "small": {
        "is_hybrid": True,
        "hidden_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "intermediate_size": 512,
        "image_size": 128,
        "backbone_out_indices": [0, 1, 1, 3],
        "neck_hidden_sizes": [64, 128, 128, 128],
        "fusion_hidden_size": 64,
        "backbone_featmap_shape": [1, 256, 8, 8],
        "backbone_config": {"embedding_size": 32, "hidden_sizes": [64, 128, 256], "depths": [2, 2, 2], "num_groups": 8},
    },
    # The same on a frozen stem with ImageNet weights, which knows photographs.
    "lite": {
        "is_hybrid": True,
        "hidden_size": 192,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "intermediate_size": 512,
        "image_size": 128,
        "backbone_out_indices": [0, 1, 1, 3],
        "neck_hidden_sizes": [24, 40, 128, 128],
        "fusion_hidden_size": 64,
        "backbone_featmap_shape": [1, 112, 8, 8],
        "backbone_config": {"model_type": "timm_backbone", "backbone": TIMM_NAME, "out_indices": [1, 2, 3]},
    },
    "tiny": {
        "is_hybrid": True,
        "hidden_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 192,
        "image_size": 128,
        "backbone_out_indices": [0, 1, 0, 1],
        "neck_hidden_sizes": [32, 64, 96, 96],
        "fusion_hidden_size": 32,
        "backbone_featmap_shape": [1, 128, 8, 8],
        "backbone_config": {"embedding_size": 16, "hidden_sizes": [32, 64, 128], "depths": [1, 1, 1], "num_groups": 8},
    },
}
_BIT_DEFAULTS = {
    "model_type": "bit",
    "global_padding": "same",
    "layer_type": "bottleneck",
    "out_features": ["stage1", "stage2", "stage3"],
    "embedding_dynamic_padding": True,
}


def dpt_config(size: str) -> "DPTConfig":
    """transformers' configuration of one of :data:`SIZES`; ConfigError for another name."""
    with extra("depth", "a DPT model"):
        from transformers.models.dpt.configuration_dpt import DPTConfig

    if size not in SIZES:
        raise ConfigError(f"size: expected one of {', '.join(SIZES)} for dpt, got {size!r}")
    options = dict(SIZES[size])
    if "backbone_config" in options:
        own = options["backbone_config"]
        options["backbone_config"] = own if "model_type" in own else {**_BIT_DEFAULTS, **own}
    return DPTConfig(**options)


def build_dpt(size: str) -> "DPTForDepthEstimation":
    """A DPT with random weights."""
    with extra("depth", "a DPT model"):
        from transformers.models.dpt.modeling_dpt import DPTForDepthEstimation

    network = DPTForDepthEstimation(dpt_config(size))
    # transformers draws every convolution from N(0, 0.02^2), which leaves the output of narrow networks constant to four
    # digits. The residual units start as identities, or the maps that they add up grow from scale to scale; and the head
    # ends in a ReLU, which without a start above zero can be dead at once.
    for name, module in network.named_modules():
        if name.startswith(("neck.", "head.")) and isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if ".residual_layer" in name and name.endswith("convolution2"):
                nn.init.zeros_(module.weight)
    nn.init.constant_(network.get_parameter("head.head.4.bias"), 1.0)
    return _freeze_unused(network)


def load_dpt(path: str | Path, *, revision: str | None = None) -> "DPTForDepthEstimation":
    """Load a folder of ``save_pretrained`` or a hub id such as "Intel/dpt-hybrid-midas"; safetensors only.

    Raises:
        CheckpointError: neither, damaged, or weights that do not fit the configuration.
    """
    with extra("depth", "a DPT model"):
        from transformers.models.dpt.modeling_dpt import DPTForDepthEstimation

    try:
        with quiet():
            loaded: Any = DPTForDepthEstimation.from_pretrained(
                path,
                revision=revision or "main",
                variant=only_variant(Path(path)) if Path(path).is_dir() else None,
                use_safetensors=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
            network, report = loaded
            own_weights(network)
    except CheckpointError:
        raise
    except Exception as error:  # transformers, safetensors and the hub client raise types of their own
        raise CheckpointError(
            f"{path}: no DPT model that can be loaded ({first_line(error)}). Expected a folder with config.json and "
            "model.safetensors, or a hub id"
        ) from error
    # Weights left out would be random ones, which nobody would notice before the metrics.
    if report["missing_keys"] or report["mismatched_keys"]:
        keys = sorted(str(key) for key in [*report["missing_keys"], *report["mismatched_keys"]])
        raise CheckpointError(f"{path}: the weights do not fit config.json: {', '.join(keys[:5])} of {len(keys)}")
    return _freeze_unused(network)


def _freeze_unused(network: "DPTForDepthEstimation") -> "DPTForDepthEstimation":
    """Freeze the layers that no output depends on, so that data parallelism does not wait for their gradients, and the stem
    of size "lite"."""
    network.get_submodule("neck.fusion_stage.layers.0.residual_layer1").requires_grad_(False)
    if network.backbone is None:
        network.get_submodule("dpt.layernorm").requires_grad_(False)
    if (stem := frozen_stem(network)) is not None:
        freeze(stem)
    return network


def frozen_stem(network: nn.Module) -> nn.Module | None:
    """timm's trunk in the stem of a hybrid of size "lite", whose weights and statistics stay as they are; None elsewhere."""
    config: Any = network.config
    if not config.is_hybrid or config.backbone_config.model_type != "timm_backbone":
        return None
    return network.get_submodule("dpt.embeddings.backbone._backbone")


def save_dpt(network: "DPTForDepthEstimation", folder: Path) -> None:
    """Write config.json and model.safetensors."""
    with quiet():
        network.save_pretrained(folder)


def dpt_forward(network: "DPTForDepthEstimation", pixels: Tensor) -> Tensor:
    """The network's output (B, H, W) >= 0 for normalised ``pixels`` (B, 3, H, W), sides divisible by 32."""
    config: Any = network.config
    if network.backbone is not None:
        return network(pixel_values=pixels).predicted_depth
    embeddings = network.dpt.embeddings
    embedded = embeddings(pixels, interpolate_pos_encoding=True) if config.is_hybrid else embeddings(pixels)
    tokens = embedded.last_hidden_states
    states = []
    for index, layer in enumerate(network.dpt.encoder.layer):
        tokens = layer(tokens)
        if index in config.backbone_out_indices[2 if config.is_hybrid else 0 :]:
            states.append(tokens)
    if config.is_hybrid:
        states = [*embedded.intermediate_activations, *states]
    height, width = (side // config.patch_size for side in pixels.shape[-2:])
    return network.head(network.neck(states, height, width))
