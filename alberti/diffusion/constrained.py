"""The constraint's value at a latent estimate, with gradients, at the memory cost of a few decoded images."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from alberti.diffusion.config import FinetuneConfig
from alberti.diffusion.constraints import Constraint, constraint_named
from alberti.diffusion.model import DepthDiffusion
from alberti.training.step_graph import convolution_search

_PIXELS = {"full": 4 * 512**2, "tiny": 16 * 512**2}
"""Pixels that are decoded at once: with Stable Diffusion's decoder 4 images of 512 x 512 take 12 GiB in bfloat16."""


class _ValuesWithGradient(torch.autograd.Function):
    """Per-sample values of ``function`` at ``latents``, computed ``chunk`` samples at a time together with their
    gradients.

    A sample's value depends on its own latent only, so its gradient is known as soon as its chunk is done, and
    nothing of the decoder needs to be kept or run again in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, latents: Tensor, function: Callable[[Tensor, slice], Tensor], chunk: int) -> Tensor:
        values, gradients = [], []
        for start in range(0, len(latents), chunk):
            part = slice(start, start + chunk)
            leaf = latents[part].detach().requires_grad_()
            with torch.enable_grad(), convolution_search(False) if len(leaf) != chunk else nullcontext():
                value = function(leaf, part)
                gradients.append(torch.autograd.grad(value.sum(), leaf)[0])
            values.append(value.detach())
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_values: Tensor) -> tuple[Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return grad_values.view(-1, 1, 1, 1) * gradients, None, None


class ConstraintTerm:
    """Decodes x0 estimates with a frozen copy of the decoder and compares them with the true images.

    The copy is in bfloat16 where training is; the constraint itself is computed in float32.

    Raises:
        ConfigError: an unknown constraint, or a tiny decoder that the base does not have.
    """

    def __init__(self, base: DepthDiffusion, config: FinetuneConfig, device: torch.device):
        settings = config.constrained
        assert config.constraint is not None
        assert settings is not None
        base.check_decoder(settings.decoder, "decoder")
        self.constraint: Constraint = constraint_named(config.constraint)
        self.num_lines = settings.num_lines
        self.chunk, self._pixels = settings.decode_chunk, _PIXELS[settings.decoder]
        self.dtype = torch.bfloat16 if config.training.precision == "bf16" else torch.float32
        compiled = config.compile or settings.compile_decoder
        self.channels_last = config.channels_last or settings.compile_decoder
        decoder = (
            base.frozen_decoder(channels_last_norms=self.channels_last and compiled)
            if settings.decoder == "full"
            else copy.deepcopy(base.tiny_decoder.decoder)
        )
        self.decoder = decoder.to(device, self.dtype).eval().requires_grad_(False)
        if self.channels_last:
            self.decoder.to(memory_format=torch.channels_last)
        if compiled:
            self.decoder.compile()

    def __call__(self, latents: Tensor, images: Tensor, points: Tensor, alpha_bar: Tensor) -> Tensor:
        """latents (B, C, h, w) scaled; images (B, 3, H, W) in [0, 1]; points (B, K, 3); alpha_bar (B,) -> (B,)
        float32.
        """

        def value(part_latents: Tensor, part: slice) -> Tensor:
            with torch.autocast(latents.device.type, enabled=False):
                inputs = part_latents.to(self.dtype)
                if self.channels_last:
                    inputs = inputs.contiguous(memory_format=torch.channels_last)
                decoded = ((self.decoder(inputs).float() + 1) / 2).clamp(0, 1)
                return self.constraint(
                    decoded.contiguous(), images[part], points[part], alpha_bar[part], num_lines=self.num_lines
                )

        chunk = self.chunk or max(1, self._pixels // (images.shape[-2] * images.shape[-1]))
        result: Tensor = _ValuesWithGradient.apply(latents.float(), value, chunk)
        return result
