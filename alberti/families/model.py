"""A pipeline of any known family as a base to fine-tune: the interface of ``DepthDiffusion`` over diffusers' own parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alberti.diffusion.lora import TARGETS, has_lora, lora_layers
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.objective import normalise_depth
from alberti.diffusion.schedules import NoiseSchedule, dynamic_mu
from alberti.errors import ConfigError
from alberti.families.adapters import family_of
from alberti.families.codecs import LatentCodec
from alberti.families.denoisers import FamilyDenoiser, flatten
from alberti.files import atomic_folder

_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
_TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
_MAX_TOKENS = {"sd3-controlnet": 256}


class PipelineModel(DepthDiffusion):
    """The networks of a diffusers pipeline, for :func:`alberti.diffusion.train.finetune`.

    ``unet`` is whatever denoises, a transformer too. A FLUX pipeline for structural control over a plain FLUX denoiser, which
    has no input for the depth map, is widened by one that starts at zero, as FLUX.1-Depth-dev-lora has it.

    Args:
        pipe: of a known family; its networks are changed in place.
        max_tokens: of a prompt, for T5 and Qwen; None: the family's own.
        guidance: what a denoiser with an embedded guidance scale is told in training.
        tiny_decoder: an AutoencoderTiny of the family, for ``decoder: tiny``.

    Raises:
        ConfigError: a pipeline of an unknown family.
    """

    def __init__(self, pipe: Any, *, max_tokens: int | None = None, guidance: float = 3.5, tiny_decoder: Any = None):
        self.family, self.pipe = family_of(pipe), pipe
        network, *controls = self.family.networks(pipe)
        encoders = {name: getattr(pipe, name, None) for name in _ENCODERS}
        super().__init__(
            unet=network,
            vae=pipe.vae,
            text_encoder=nn.ModuleDict({name: module for name, module in encoders.items() if module is not None}),
            tokenizer=pipe.tokenizer,
            scheduler=pipe.scheduler,
            controlnet=controls[0] if controls else None,
            tiny_decoder=tiny_decoder,
        )
        self.codec = LatentCodec(pipe.vae, self.family.packed)
        self.max_tokens = max_tokens or _MAX_TOKENS.get(self.family.name, 512)
        self.guidance = guidance
        self._shapes: dict[str, tuple[int, ...]] | None = None
        self._tokens: int | None = None
        if self.family.name == "flux-depth":
            _widen(network, 4 * self.codec.channels)

    @property
    def schedule(self) -> NoiseSchedule:
        """The training noise schedule; dynamic time shift is that of the picture size last checked."""
        return NoiseSchedule.from_scheduler(self.scheduler, tokens=self._tokens)

    @property
    def factor(self) -> int:
        return self.codec.factor

    @property
    def latent_channels(self) -> int:
        return self.codec.channels

    @property
    def time_shift(self) -> float | None:
        """mu of a flow's dynamic time shift at the picture size last checked; None: its scheduler has none."""
        config = self.scheduler.config
        return dynamic_mu(config, self._tokens) if config.get("use_dynamic_shifting") else None

    @property
    def condition_channels(self) -> int:
        return 3 if self.controlnet is not None and not self.family.encodes_condition else 1

    @property
    def lora_targets(self) -> list[str]:
        """Attention, and of FLUX's structural control the embedder of noise and depth."""
        return [*TARGETS, "x_embedder"] if self.family.name == "flux-depth" else TARGETS

    def tokenizers(self) -> list[Any]:
        found = [getattr(self.pipe, name, None) for name in _TOKENIZERS]
        return [each for each in found if each is not None]

    def denoiser(self) -> Any:
        if self._shapes is None:
            with torch.no_grad():
                self.encode_text([""])
        assert self._shapes is not None
        return FamilyDenoiser(self.family, self.pipe, self._shapes, self.guidance)

    def frozen_decoder(self, **options: Any) -> nn.Module:
        return self.codec.decoder(**options)

    def check_size(self, height: int, width: int) -> None:
        """ConfigError unless VAE and denoiser can work on images of this size."""
        multiple = self.family.size_multiple(self.pipe)
        for name, value in (("height", height), ("width", width)):
            if value % multiple:
                raise ConfigError(
                    f"image {name} {value}: must divide by {multiple} for {type(self.pipe).__name__}; crop or resize to "
                    f"{max(multiple, value // multiple * multiple)}"
                )
        self._tokens = height * width // (2 * self.factor) ** 2

    def condition(self, depth: Tensor) -> Tensor:
        """(B, H, W) metres -> (B, 1, H/f, W/f) in [-1, 1] for a depth-concatenating UNet; else a picture of inverse depth in
        [0, 1], near bright, (B, 3, H, W) for ControlNets that see pixels and (B, 1, H, W) where the VAE encodes it.
        """
        if self.family.name == "sd2-depth":
            return normalise_depth(depth, (depth.shape[1] // self.factor, depth.shape[2] // self.factor))
        return ((normalise_depth(depth) + 1) / 2).repeat(1, self.condition_channels, 1, 1)

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Prompt bundles (B, N): all that the family's denoiser is told of a prompt, one after the other."""
        bundle = self._bundle(list(captions))
        self._shapes = {name: tuple(value.shape[1:]) for name, value in bundle.items()}
        return flatten(bundle)

    def encode_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.check_size(*images.shape[-2:])
        return self.codec.encode(images)

    def decode(self, latents: Tensor, tiny: bool = False) -> Tensor:
        if tiny:
            return super().decode(latents, tiny=True)
        return self.codec.decode(latents)

    def save(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write what was trained so that stock diffusers loads it.

        Adapters alone, for ``pipe.load_lora_weights(folder)``, or the whole pipeline, for ``from_pretrained``.
        """
        with atomic_folder(folder) as target:
            if has_lora(self.unet):
                key = f"{self.family.denoiser}_lora_layers"
                self.pipe.save_lora_weights(target, **{key: lora_layers(self.unet, dtype)})
            else:
                self.pipe.save_pretrained(target)

    def _bundle(self, captions: list[str]) -> dict[str, Tensor]:
        pipe, name = self.pipe, self.family.name
        device = next(self.text_encoder.parameters()).device
        if name in ("sd2-depth", "sd-controlnet"):
            return {"text": pipe.encode_prompt(captions, device, 1, False)[0]}
        if name == "sdxl-controlnet":
            text, _, pooled, _ = pipe.encode_prompt(captions, device=device, do_classifier_free_guidance=False)
        elif name == "sd3-controlnet":
            text, _, pooled, _ = pipe.encode_prompt(
                captions, None, None, device, do_classifier_free_guidance=False, max_sequence_length=self.max_tokens
            )
        elif self.family.name.startswith("flux"):
            text, pooled, _ = pipe.encode_prompt(captions, None, device, max_sequence_length=self.max_tokens)
        elif name == "qwen-image-controlnet":
            text, mask = pipe.encode_prompt(captions, device, max_sequence_length=self.max_tokens)
            mask = torch.ones(text.shape[:2], device=text.device) if mask is None else mask
            return _padded([row[: int(keep.sum())] for row, keep in zip(text, mask, strict=True)], self.max_tokens)
        else:
            rows, _ = pipe.encode_prompt(
                captions, device, do_classifier_free_guidance=False, max_sequence_length=self.max_tokens
            )
            return _padded(rows, self.max_tokens)
        return {"text": text, "pooled": pooled}


def _padded(rows: Sequence[Tensor], length: int) -> dict[str, Tensor]:
    """Prompts of several lengths as one tensor and its mask."""
    text = torch.stack([nn.functional.pad(row, (0, 0, 0, length - len(row))) for row in rows])
    mask = torch.stack([(torch.arange(length, device=row.device) < len(row)).to(row.dtype) for row in rows])
    return {"text": text, "mask": mask}


@torch.no_grad()
def _widen(transformer: Any, channels: int) -> None:
    """Give FLUX's input embedder weights of zero for the depth map's tokens, unless it takes them already."""
    narrow = transformer.x_embedder
    if narrow.in_features != channels:
        return
    wide = nn.Linear(2 * channels, narrow.out_features, bias=narrow.bias is not None)
    wide = wide.to(narrow.weight.device, narrow.weight.dtype)
    wide.weight.zero_()
    wide.weight[:, :channels] = narrow.weight
    if narrow.bias is not None:
        wide.bias.copy_(narrow.bias)
    transformer.x_embedder = wide
    transformer.register_to_config(in_channels=2 * channels, out_channels=channels)
