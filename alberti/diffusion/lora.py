"""Low-rank adapters on the UNet's attention, by peft, stored in diffusers' own format."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
_NAME = "default"


def has_lora(unet: Any) -> bool:
    return bool(getattr(unet, "peft_config", None))


def add_lora(unet: Any, rank: int, targets: Sequence[str] = TARGETS) -> None:
    """Freeze a denoiser and add trainable adapters of ``rank`` to its layers of these names.

    They start as the identity, and are in float32 whatever the denoiser is in.
    """
    from peft import LoraConfig

    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(targets)))
    for parameter in unet.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def lora_layers(network: Any, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """The adapters' weights as diffusers' pipelines save them."""
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(network, adapter_name=_NAME))
    return {name: value.to(dtype or value.dtype) for name, value in layers.items()}


def merged_unet(unet: Any) -> Any:
    """``unet`` itself, or a copy with its adapters added into its weights."""
    if not has_lora(unet):
        return unet
    merged = copy.deepcopy(unet)
    merged.fuse_lora()
    merged.unload_lora()
    return merged


def write_lora(unet: Any, folder: Path) -> None:
    """Write the adapters, if there are any, as ``pytorch_lora_weights.safetensors``:
    ``pipe.load_lora_weights(folder)``.
    """
    if not has_lora(unet):
        return
    from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin

    StableDiffusionLoraLoaderMixin.save_lora_weights(folder, unet_lora_layers=lora_layers(unet))
