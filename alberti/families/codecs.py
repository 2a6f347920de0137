"""Pictures to a family's latents and back: scale, shift, statistics per channel, and packing into tokens."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from alberti.diffusion.decoding import FrozenDecoder
from alberti.errors import ConfigError
from alberti.families.affine import latent_affine

_VIDEO = "AutoencoderKLQwenImage"
_TINY = "AutoencoderTiny"


class LatentCodec:
    """The latents of one VAE of diffusers, as its family's samplers hold them.

    Args:
        vae: AutoencoderKL, AutoencoderKLQwenImage or AutoencoderTiny.
        packed: whether the sampler holds tokens of 2 x 2 latents, (B, h w / 4, 4 C), in place of (B, C, h, w).
    """

    def __init__(self, vae: Any, packed: bool = False):
        self.vae, self.packed = vae, packed
        self.scale, self.shift = latent_affine(vae)

    @property
    def channels(self) -> int:
        config = self.vae.config
        return int(config["z_dim"] if "z_dim" in config else config["latent_channels"])

    @property
    def factor(self) -> int:
        """Image pixels a latent pixel."""
        if self._is(_VIDEO):
            return int(2 ** len(self.vae.config.temperal_downsample))
        levels = self.vae.config.get("block_out_channels") or self.vae.config["decoder_block_out_channels"]
        return int(2 ** (len(levels) - 1))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in [0, 1] -> mean and standard deviation of their latents, each (B, C, h, w)."""
        inputs = images.to(next(self.vae.parameters()).dtype) * 2 - 1
        if self._is(_TINY):
            latents = self.vae.encode(inputs).latents
            return latents, torch.zeros_like(latents)
        video = self._is(_VIDEO)
        posterior = self.vae.encode(inputs[:, :, None] if video else inputs).latent_dist
        mean, deviation = (part[:, :, 0] if video else part for part in (posterior.mean, posterior.std))
        scale, shift = self._affine(mean)
        return (mean - shift) / scale, deviation / scale

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) -> images (B, 3, H, W) around [0, 1], not clamped."""
        scale, shift = self._affine(latents)
        inner = (latents * scale + shift).to(next(self.vae.parameters()).dtype)
        if self._is(_VIDEO):
            return (self.vae.decode(inner[:, :, None], return_dict=False)[0][:, :, 0] + 1) / 2
        return (self.vae.decode(inner, return_dict=False)[0] + 1) / 2

    def pack(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> what the sampler holds."""
        if not self.packed:
            return latents
        batch, channels, height, width = latents.shape
        tokens = latents.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        return tokens.reshape(batch, height * width // 4, 4 * channels)

    def unpack(self, sample: Tensor, grid: tuple[int, int]) -> Tensor:
        """What the sampler holds -> (B, C, h, w).

        Args:
            grid: rows and columns of tokens; unread where nothing is packed.

        Raises:
            ConfigError: the sample has not the VAE's channels, or not the grid's tokens.
        """
        if not self.packed:
            self._check(sample.shape[1], sample.shape)
            return sample
        batch, tokens, width = sample.shape
        self._check(width // 4, sample.shape)
        if tokens != grid[0] * grid[1]:
            raise ConfigError(f"latents: expected {grid[0]} x {grid[1]} tokens, got {tokens}; are they of another picture?")
        latents = sample.reshape(batch, *grid, width // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return latents.reshape(batch, width // 4, 2 * grid[0], 2 * grid[1])

    def decoder(self, **options: Any) -> nn.Module:
        """A frozen decoder to differentiate: latents (B, C, h, w) -> pictures (B, 3, H, W) in [-1, 1].

        It is a copy, so that hooks that move the VAE between devices do not move it as well. ``options`` are those of
        ``FrozenDecoder``, for VAEs that it can decode for.
        """
        if any(value.is_meta for value in self.vae.parameters()):
            raise ConfigError(
                "vae: its weights are not in memory (sequential offloading), so nothing can be decoded for guidance; use "
                "enable_model_cpu_offload, or give decoder=an AutoencoderTiny"
            )
        if self._is(_TINY):
            return tiny_decoder(self.vae)
        if self._is(_VIDEO):
            return _VideoDecoder(self.vae, self.scale, self.shift)
        frozen = FrozenDecoder(self.vae, **options)
        needs_float = self.vae.config.get("force_upcast") and next(frozen.parameters()).dtype == torch.float16
        return frozen.float() if needs_float else frozen

    def _affine(self, like: Tensor) -> tuple[Any, Any]:
        shift = 0.0 if self.shift is None else self.shift
        scale, shift = (value.to(like) if isinstance(value, Tensor) else value for value in (self.scale, shift))
        return scale, shift

    def _is(self, kind: str) -> bool:
        return type(self.vae).__name__ == kind

    def _check(self, channels: int, shape: torch.Size) -> None:
        if channels != self.channels:
            raise ConfigError(
                f"latents {tuple(shape)}: expected the {self.channels} channels of {type(self.vae).__name__}, got {channels}; "
                "guidance decodes them with the pipeline's own VAE"
            )


def tiny_decoder(tiny: Any) -> nn.Module:
    """The decoder of an AutoencoderTiny, a frozen copy: latents as the sampler holds them -> pictures in [-1, 1]."""
    frozen: nn.Module = copy.deepcopy(tiny.decoder).eval().requires_grad_(False)
    return frozen


class _VideoDecoder(nn.Module):
    """A frozen copy of a video VAE's decoder, for single frames, which have nothing to remember of others."""

    def __init__(self, vae: Any, scale: Tensor, shift: Tensor):
        super().__init__()
        self.post_quant_conv, self.decoder = copy.deepcopy(vae.post_quant_conv), copy.deepcopy(vae.decoder)
        self.scale, self.shift = scale, shift
        self.eval().requires_grad_(False)

    def forward(self, latents: Tensor) -> Tensor:
        inner = latents * self.scale.to(latents) + self.shift.to(latents)
        decoded: Tensor = self.decoder(self.post_quant_conv(inner[:, :, None]))[:, :, 0].clamp(-1, 1)
        return decoded
