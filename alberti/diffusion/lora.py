"""Low-rank adapters on the UNet's attention, by peft, stored in diffusers' own format."""

import copy
from pathlib import Path
from typing import Any

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
_NAME = "default"


def has_lora(unet: Any) -> bool:
    return bool(getattr(unet, "peft_config", None))


def add_lora(unet: Any, rank: int) -> None:
    """Freeze ``unet`` and add trainable adapters of ``rank`` to its attention projections; they start as the
    identity.
    """
    from peft import LoraConfig

    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS))


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
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet, adapter_name=_NAME))
    StableDiffusionLoraLoaderMixin.save_lora_weights(folder, unet_lora_layers=layers)
