"""How a family's networks are called outside of its pipeline: (noisy latents, time, prompt bundle, depth) -> prediction."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alberti.families.adapters import Family
from alberti.families.codecs import LatentCodec

DEPTH_MODE_XL_UNION, DEPTH_MODE_FLUX_UNION = 1, 2
"""Which of a union ControlNet's kinds of control is depth."""
Z_IMAGE_SCALE = 0.75
"""How much of its ControlNet Z-Image's pipeline adds unless told otherwise."""


class FamilyDenoiser(nn.Module):
    """A family's denoiser and ControlNet behind the call that training makes of every base.

    Args:
        shapes: of a prompt bundle's tensors by name, without the batch, in the order in which they lie in a flat bundle.
        guidance: what a denoiser with an embedded guidance scale is told.
    """

    unet: Any
    controlnet: Any
    _codec: Any

    def __init__(self, family: Family, pipe: Any, shapes: Mapping[str, tuple[int, ...]], guidance: float):
        super().__init__()
        self.unet, *rest = family.networks(pipe)
        self.controlnet = rest[0] if rest else None
        self.family, self.shapes, self.guidance = family, dict(shapes), guidance
        self._call: Callable[..., Tensor] = getattr(self, f"_{family.name.replace('-', '_')}")
        self.__dict__["_codec"] = None  # not a part of what is trained and stored
        for network in family.networks(pipe):
            if not hasattr(network, "gradient_checkpointing"):
                network.gradient_checkpointing = False  # read, but never set, by ZImageControlNetModel of diffusers 0.42
        if family.encodes_condition:
            encoder = copy.deepcopy(pipe.vae).requires_grad_(False)
            self.__dict__["_codec"] = LatentCodec(encoder, family.packed)

    def forward(self, x_t: Tensor, timesteps: Tensor, text: Tensor, condition: Tensor) -> Tensor:
        """The prediction (B, C, h, w) that x0 follows from.

        Args:
            x_t: (B, C, h, w). timesteps: (B,) of the scheduler. text: (B, N), a flat bundle.
            condition: as ``PipelineModel.condition`` makes it.
        """
        dtype = next(self.unet.parameters()).dtype
        bundle = {name: value.to(dtype) for name, value in unflatten(text, self.shapes).items()}
        condition = condition.to(dtype)
        if self._codec is not None:
            condition = self._encoded(condition)
        return self._call(x_t.to(dtype), timesteps, bundle, condition)

    @torch.no_grad()
    def _encoded(self, condition: Tensor) -> Tensor:
        """(B, 1, H, W) in [0, 1] -> latents (B, C, h, w) of that picture."""
        vae = self._codec.vae
        if next(vae.parameters()).device != condition.device:
            vae.to(condition.device)
        latents: Tensor = self._codec.encode(condition.expand(-1, 3, -1, -1))[0].to(condition.dtype)
        return latents

    def _sd2_depth(self, x_t: Tensor, t: Tensor, bundle: dict[str, Tensor], condition: Tensor) -> Tensor:
        prediction: Tensor = self.unet(torch.cat([x_t, condition], dim=1), t, bundle["text"], return_dict=False)[0]
        return prediction

    def _sd_controlnet(self, x_t: Tensor, t: Tensor, bundle: dict[str, Tensor], condition: Tensor) -> Tensor:
        text, extra = bundle["text"], {}
        if "pooled" in bundle:
            height, width = condition.shape[-2:]
            sizes = torch.tensor([height, width, 0, 0, height, width], device=x_t.device, dtype=x_t.dtype)
            extra = {"added_cond_kwargs": {"text_embeds": bundle["pooled"], "time_ids": sizes.expand(len(x_t), -1)}}
        control = self.controlnet
        if "num_control_type" in control.config:
            kinds = torch.zeros(len(x_t), control.config.num_control_type, device=x_t.device, dtype=x_t.dtype)
            kinds[:, DEPTH_MODE_XL_UNION] = 1
            union = {"control_type": kinds, "control_type_idx": [DEPTH_MODE_XL_UNION]}
            residuals = control(x_t, t, text, [condition], **union, **extra, return_dict=False)
        else:
            residuals = control(x_t, t, text, condition, **extra, return_dict=False)
        down, middle = residuals
        prediction: Tensor = self.unet(
            x_t,
            t,
            text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            **extra,
            return_dict=False,
        )[0]
        return prediction

    _sdxl_controlnet = _sd_controlnet

    def _sd3_controlnet(self, x_t: Tensor, t: Tensor, bundle: dict[str, Tensor], condition: Tensor) -> Tensor:
        control = self.controlnet
        text, pooled = bundle["text"], bundle["pooled"]
        zeros = control.config.force_zeros_for_pooled_projection
        if zeros:  # such a ControlNet was trained on latents without the shift
            codec = self._codec
            condition = condition + (codec.shift or 0.0) / codec.scale
        samples = control(
            hidden_states=x_t,
            timestep=t,
            encoder_hidden_states=text if control.config.joint_attention_dim is not None else None,
            pooled_projections=torch.zeros_like(pooled) if zeros else pooled,
            controlnet_cond=condition,
            return_dict=False,
        )[0]
        prediction: Tensor = self.unet(
            hidden_states=x_t,
            timestep=t,
            encoder_hidden_states=text,
            pooled_projections=pooled,
            block_controlnet_hidden_states=samples,
            return_dict=False,
        )[0]
        return prediction

    def _flux(self, x_t: Tensor, t: Tensor, bundle: dict[str, Tensor]) -> dict[str, Any]:
        """What FLUX's denoiser and ControlNet are both told."""
        rows, columns = x_t.shape[-2] // 2, x_t.shape[-1] // 2
        places = torch.zeros(rows, columns, 3, device=x_t.device, dtype=x_t.dtype)
        places[..., 1] += torch.arange(rows, device=x_t.device)[:, None]
        places[..., 2] += torch.arange(columns, device=x_t.device)
        return {
            "timestep": t.to(x_t.dtype) / 1000,
            "pooled_projections": bundle["pooled"],
            "encoder_hidden_states": bundle["text"],
            "txt_ids": torch.zeros(bundle["text"].shape[1], 3, device=x_t.device, dtype=x_t.dtype),
            "img_ids": places.reshape(-1, 3),
            "return_dict": False,
        }

    def _scale(self, network: Any, x_t: Tensor) -> Tensor | None:
        embeds = network.config.guidance_embeds
        return torch.full((len(x_t),), self.guidance, device=x_t.device, dtype=torch.float32) if embeds else None

    def _flux_depth(self, x_t: Tensor, t: Tensor, bundle: dict[str, Tensor], condition: Tensor) -> Tensor:
        codec, told = self._codec, self._flux(x_t, t, bundle)
        tokens = torch.cat([codec.pack(x_t), codec.pack(condition)], dim=2)
        return self._unpacked(self.unet(hidden_states=tokens, guidance=self._scale(self.unet, x_t), **told)[0], x_t)

    def _flux_controlnet(self, x_t: Tensor, t: Tensor, bundle: dict[str, Tensor], condition: Tensor) -> Tensor:
        control = self.controlnet
        codec, told = self._codec, self._flux(x_t, t, bundle)
        tokens, mode = codec.pack(x_t), None
        if control.config.num_mode is not None:
            mode = torch.full((len(x_t), 1), DEPTH_MODE_FLUX_UNION, device=x_t.device)
        blocks, single = control(
            hidden_states=tokens,
            controlnet_cond=codec.pack(condition),
            controlnet_mode=mode,
            guidance=self._scale(control, x_t),
            **told,
        )
        prediction = self.unet(
            hidden_states=tokens,
            guidance=self._scale(self.unet, x_t),
            controlnet_block_samples=blocks,
            controlnet_single_block_samples=single,
            **told,
        )[0]
        return self._unpacked(prediction, x_t)

    def _qwen_image_controlnet(self, x_t: Tensor, t: Tensor, bundle: dict[str, Tensor], condition: Tensor) -> Tensor:
        control = self.controlnet
        tokens = self._codec.pack(x_t)
        told = {
            "hidden_states": tokens,
            "timestep": t.to(x_t.dtype) / 1000,
            "encoder_hidden_states": bundle["text"],
            "encoder_hidden_states_mask": bundle["mask"].long(),
            "img_shapes": [(1, x_t.shape[-2] // 2, x_t.shape[-1] // 2)] * len(x_t),
            "return_dict": False,
        }
        samples = control(controlnet_cond=self._codec.pack(condition), **told)
        return self._unpacked(self.unet(controlnet_block_samples=samples, **told)[0], x_t)

    def _z_image_controlnet(self, x_t: Tensor, t: Tensor, bundle: dict[str, Tensor], condition: Tensor) -> Tensor:
        control = self.controlnet
        lengths = bundle["mask"].sum(dim=1).long().tolist()
        captions = [row[:length] for row, length in zip(bundle["text"], lengths, strict=True)]
        frames, times = list(x_t.unsqueeze(2).unbind()), (1000 - t) / 1000
        spare = control.config.control_in_dim - condition.shape[1]
        padded = nn.functional.pad(condition.unsqueeze(2), (0, 0, 0, 0, 0, 0, 0, spare))
        samples = control(frames, times, captions, padded, conditioning_scale=Z_IMAGE_SCALE)
        answers = self.unet(frames, times, captions, controlnet_block_samples=samples)[0]
        return -torch.stack(list(answers)).squeeze(2)

    def _unpacked(self, tokens: Tensor, like: Tensor) -> Tensor:
        return self._codec.unpack(tokens, (like.shape[-2] // 2, like.shape[-1] // 2))


def flatten(bundle: Mapping[str, Tensor]) -> Tensor:
    """A prompt bundle's tensors (B, ...) as one (B, N)."""
    return torch.cat([value.float().flatten(1) for value in bundle.values()], dim=1)


def unflatten(flat: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The tensors of a flat bundle by name."""
    parts = flat.split([math.prod(shape) for shape in shapes.values()], dim=1)
    return {name: part.reshape(len(flat), *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
