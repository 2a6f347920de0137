"""A frozen decoder that is differentiated by its input alone: the VAE's function in fewer operations."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from alberti.extras import extra
from alberti.families.affine import latent_affine

with extra("diffusion", "alberti's diffusion code"):
    from diffusers.models.attention_processor import Attention, AttnProcessor
    from diffusers.models.upsampling import Upsample2D

_FUSED_HEAD = 256
"""The widest attention head that fast fused kernels take."""


class FrozenDecoder(nn.Module):
    """A copy of a VAE's decoder, scaled latents (B, C, h, w) to pictures (B, 3, H, W) in [-1, 1].

    The same function as the VAE's own, up to rounding, and faster: each doubling of the resolution with the convolution
    after it becomes one transposed convolution, which needs 4/9 of the multiplications and no enlarged copy. Heads wider than
    fused attention takes, such as Stable Diffusion's single one of 512, attend by two plain matrix products.

    Args:
        channels_last_norms: write group norms for activations whose channels lie last. Compiled, on a GPU, they are faster, for
            nothing is copied into another layout; uncompiled they are slower.
    """

    def __init__(self, vae: Any, *, channels_last_norms: bool = False):
        super().__init__()
        self.post_quant_conv, self.decoder = copy.deepcopy(vae.post_quant_conv), copy.deepcopy(vae.decoder)
        self.scale, self.shift = latent_affine(vae)
        _replace(self.decoder, _merged)
        for module in self.decoder.modules():
            if isinstance(module, Attention) and module.inner_dim // module.heads > _FUSED_HEAD:
                module.set_processor(AttnProcessor())
        if channels_last_norms:
            _replace(self.decoder, _channels_last)
        self.eval().requires_grad_(False)

    def forward(self, latents: Tensor) -> Tensor:
        latents = latents * _like(self.scale, latents)
        if self.shift is not None:
            latents = latents + _like(self.shift, latents)
        decoded: Tensor = self.decoder(latents if self.post_quant_conv is None else self.post_quant_conv(latents))
        return decoded


def _like(value: Any, latents: Tensor) -> Any:
    return value.to(latents) if isinstance(value, Tensor) else value


class ChannelsLastGroupNorm(nn.Module):
    """A group norm in operations that follow the memory of activations (B, C, ...) whose channels lie last.

    Statistics are float32, or float64 as the activations.
    """

    def __init__(self, norm: nn.GroupNorm):
        super().__init__()
        self.weight, self.bias, self.groups, self.eps = norm.weight, norm.bias, norm.num_groups, norm.eps

    def forward(self, activations: Tensor) -> Tensor:
        batch, channels = activations.shape[:2]
        rows = activations.movedim(1, -1)
        grouped = rows.reshape(batch, -1, self.groups, channels // self.groups)
        grouped = grouped if grouped.dtype == torch.float64 else grouped.float()
        variance, mean = torch.var_mean(grouped, dim=(1, 3), keepdim=True, correction=0)
        normed = ((grouped - mean) * torch.rsqrt(variance + self.eps)).reshape(batch, -1, channels)
        scaled = normed * self.weight.to(normed.dtype) + self.bias.to(normed.dtype)
        return scaled.to(activations.dtype).reshape(rows.shape).movedim(-1, 1)


def _replace(module: nn.Module, other: Callable[[nn.Module], nn.Module | None]) -> None:
    """Put ``other`` of each submodule in its place, wherever there is one."""
    for name, child in module.named_children():
        found = other(child)
        if found is None:
            _replace(child, other)
        else:
            setattr(module, name, found)


def _channels_last(module: nn.Module) -> nn.Module | None:
    return ChannelsLastGroupNorm(module) if isinstance(module, nn.GroupNorm) else None


def _merged(module: nn.Module) -> nn.Module | None:
    conv = _conv_to_merge(module)
    return None if conv is None else merged_upsampling(conv)


def _conv_to_merge(module: nn.Module) -> nn.Conv2d | None:
    """The convolution of a module that doubles the resolution, convolves 3 x 3 and does nothing else; None for any other."""
    if not isinstance(module, Upsample2D) or module.norm is not None or not module.interpolate:
        return None
    conv = getattr(module, "conv", None)
    if not isinstance(conv, nn.Conv2d):
        return None
    found = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
    return conv if found == ((3, 3), (1, 1), (1, 1), (1, 1), 1) else None


@torch.no_grad()
def merged_upsampling(conv: nn.Conv2d) -> nn.ConvTranspose2d:
    """Doubling by the nearest pixel and then ``conv``, 3 x 3 with padding 1, as one transposed convolution.

    A pixel appears twice in each direction, so that its influence on the output is the kernel's sum over two shifts: 4 x 4.
    """
    weight = conv.weight
    kernel = weight.new_zeros(*weight.shape[:2], 4, 4)
    for down in (0, 1):
        for right in (0, 1):
            kernel[:, :, down : down + 3, right : right + 3] += weight.flip(2, 3)
    merged = nn.ConvTranspose2d(
        conv.in_channels, conv.out_channels, 4, stride=2, padding=1, bias=conv.bias is not None,
        device=weight.device, dtype=weight.dtype,
    )  # fmt: skip
    merged.weight.copy_(kernel.transpose(0, 1))
    if conv.bias is not None:
        assert merged.bias is not None
        merged.bias.copy_(conv.bias)
    return merged
