"""Which diffusers pipelines are known, and what differs between them while one samples.

An adapter answers, from the call of a denoising network that a pipeline makes: at which time of the scheduler it is, where in
its inputs the noisy latents are, and into which grid packed tokens belong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alberti.errors import ConfigError
from alberti.families.codecs import LatentCodec

_LATENT_NAMES = ("hidden_states", "sample", "x")
_TIME_NAMES = ("timestep", "t")


@dataclass(frozen=True)
class Call:
    """The arguments of one call of a denoiser or ControlNet."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def latents(self) -> Any:
        """The noisy latents, with whatever is concatenated to them: a tensor, or a list of one per picture."""
        return self.args[0] if self.args else self.kwargs[self._latent_name()]

    def with_latents(self, latents: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with other latents."""
        if self.args:
            return (latents, *self.args[1:]), dict(self.kwargs)
        return self.args, {**self.kwargs, self._latent_name(): latents}

    @property
    def time(self) -> float:
        """As the network is told."""
        value = self.args[1] if len(self.args) > 1 else next(self.kwargs[name] for name in _TIME_NAMES if name in self.kwargs)
        return float(value.flatten()[0]) if isinstance(value, Tensor) else float(value)

    def _latent_name(self) -> str:
        return next(name for name in _LATENT_NAMES if name in self.kwargs)


@dataclass(frozen=True)
class Family:
    """One family of models and what its pipelines do alike.

    pipelines: class names in diffusers. denoiser: the pipeline's attribute that predicts. packed: tokens of 2 x 2 latents.
    time_scale: the scheduler's time over what the network is told. time_reversed: the network is told one minus that.
    encodes_condition: the depth picture goes through the VAE.
    """

    name: str
    pipelines: tuple[str, ...]
    denoiser: str
    packed: bool = False
    time_scale: float = 1.0
    time_reversed: bool = False
    encodes_condition: bool = False

    def networks(self, pipe: Any) -> list[Any]:
        """The networks that see the noisy latents: the denoiser first, then a ControlNet if there is one."""
        control = getattr(pipe, "controlnet", None)
        return [getattr(pipe, self.denoiser), *([control] if control is not None else [])]

    def codec(self, pipe: Any) -> LatentCodec:
        return LatentCodec(pipe.vae, self.packed)

    def size_multiple(self, pipe: Any) -> int:
        """What heights and widths of pictures must divide by, for VAE and denoiser."""
        config = getattr(pipe, self.denoiser).config
        halvings = 1 if self.denoiser == "transformer" else len(config["block_out_channels"]) - 1
        return int(self.codec(pipe).factor * 2**halvings)

    def scheduler_time(self, call: Call) -> float:
        """The time of the scheduler's step that a call belongs to; as exact as the network's input type."""
        return self.time_scale * ((1 - call.time) if self.time_reversed else call.time)

    def grid(self, call: Call) -> tuple[int, int]:
        """Rows and columns of a packed call's tokens; (0, 0) where nothing is packed."""
        if not self.packed:
            return 0, 0
        if call.kwargs.get("img_ids") is not None:
            rows, columns = (int(call.kwargs["img_ids"].reshape(-1, 3)[:, axis].max()) + 1 for axis in (1, 2))
            return rows, columns
        shape = call.kwargs["img_shapes"][0]
        shape = shape[0] if isinstance(shape[0], Sequence) else shape
        return int(shape[1]), int(shape[2])


_TOKENS: dict[str, Any] = {"packed": True, "time_scale": 1000.0, "encodes_condition": True}

FAMILIES = (
    Family("sd2-depth", ("StableDiffusionDepth2ImgPipeline",), "unet"),
    Family("sd-controlnet", ("StableDiffusionControlNetPipeline", "StableDiffusionControlNetImg2ImgPipeline"), "unet"),
    Family(
        "sdxl-controlnet",
        (
            "StableDiffusionXLControlNetPipeline",
            "StableDiffusionXLControlNetImg2ImgPipeline",
            "StableDiffusionXLControlNetUnionPipeline",
            "StableDiffusionXLControlNetUnionImg2ImgPipeline",
        ),
        "unet",
    ),
    Family("sd3-controlnet", ("StableDiffusion3ControlNetPipeline",), "transformer", encodes_condition=True),
    Family("flux-depth", ("FluxControlPipeline", "FluxControlImg2ImgPipeline"), "transformer", **_TOKENS),
    Family("flux-controlnet", ("FluxControlNetPipeline", "FluxControlNetImg2ImgPipeline"), "transformer", **_TOKENS),
    Family("qwen-image-controlnet", ("QwenImageControlNetPipeline",), "transformer", **_TOKENS),
    Family(
        "z-image-controlnet",
        ("ZImageControlNetPipeline",),
        "transformer",
        time_scale=1000.0,
        time_reversed=True,
        encodes_condition=True,
    ),
)


def family_of(pipe: Any) -> Family:
    """The family of a diffusers pipeline, or of a class derived from one that is known.

    Raises:
        ConfigError: it is of no known family.
    """
    for kind in type(pipe).__mro__:
        for family in FAMILIES:
            if kind.__name__ in family.pipelines:
                return family
    known = ", ".join(name for family in FAMILIES for name in family.pipelines)
    raise ConfigError(f"pipeline: {type(pipe).__name__} is of no family that is known here; known are {known}")


def leaf(latents: Any) -> Any:
    """A copy of a call's latents that gradients stop at, and that takes one."""
    if isinstance(latents, Tensor):
        return latents.detach().requires_grad_()
    return [each.detach().requires_grad_() for each in latents]


def leaf_tensors(leaves: Any) -> list[Tensor]:
    return [leaves] if isinstance(leaves, Tensor) else list(leaves)


def gather(gradients: Sequence[Tensor | None], leaves: Any, sample: Tensor) -> Tensor:
    """Gradients of a call's latents as one of the sample that they were made of.

    A call repeats the sample for classifier-free guidance, first all pictures without the prompt, then all with it, and may
    append channels: depth, or the encoded depth map.
    """
    parts = [torch.zeros_like(at) if gradient is None else gradient for gradient, at in zip(gradients, leaf_tensors(leaves))]
    whole = parts[0] if isinstance(leaves, Tensor) else torch.stack(parts)
    if whole.ndim == sample.ndim + 1:
        whole = whole.squeeze(2)
    axis = 1 if sample.ndim == 4 else 2
    whole = whole.float().narrow(axis, 0, sample.shape[axis])
    return whole.reshape(-1, *sample.shape).sum(dim=0)
