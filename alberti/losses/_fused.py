"""The perspective loss and its profiles on a GPU: what launches the kernels of ``_sweep_triton``, as autograd functions."""

import functools
from typing import Any

import torch
from torch import Tensor

from alberti.losses._sweep_triton import (
    loss_kernel,
    means_adjoint_kernel,
    means_kernel,
    prepare_kernel,
    sobel_adjoint_kernel,
)

_TILE = {"BLOCK_Y": 32, "BLOCK_X": 32, "num_warps": 8}
_WALK = {"BLOCK_T": 32, "BLOCK_N": 32, "num_warps": 4}
_GATHER = {"BLOCK_Y": 8, "BLOCK_X": 8, "num_warps": 1}  # small: all pixels of a tile wait for the one with most lines
_LINES_BLOCK = 256  # of float64 work: one line a thread
_LOSS_BLOCK = 1024


class FusedProfiles(torch.autograd.Function):
    """(B, K, 3) points, n and (B, 3, H, W) images -> (B, K, n) float32 profiles."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, num_lines: int, image: Tensor) -> Tensor:
        with torch.cuda.device_of(image):
            lines, sweeps, means, maps, _ = _forward(points.contiguous(), num_lines, image, None)
        ctx.save_for_backward(lines, sweeps, maps)
        ctx.dtype = image.dtype
        return means

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        lines, sweeps, maps = ctx.saved_tensors
        with torch.cuda.device_of(maps):
            return None, None, _backward(lines, sweeps, maps, grad.contiguous(), None, 1.0, ctx.dtype)


class FusedLoss(torch.autograd.Function):
    """(B, K, 3) points, n, (B, 3, H, W) pred and target -> (B,) float32 losses."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, num_lines: int, pred: Tensor, target: Tensor) -> Tensor:
        points = points.contiguous()
        batch, count = points.shape[:2]
        with torch.cuda.device_of(pred):
            lines, sweeps, means, *maps = _forward(points, num_lines, pred, target)
            weights = torch.empty((batch, count, num_lines), dtype=torch.float32, device=pred.device)
            losses = torch.empty((batch,), dtype=torch.float32, device=pred.device)
            loss_kernel[(batch,)](points, means, weights, losses, count, num_lines, BLOCK=_LOSS_BLOCK)
        needed = [maps[i] if ctx.needs_input_grad[2 + i] else None for i in (0, 1)]
        ctx.save_for_backward(lines, sweeps, weights, *needed)
        ctx.dtypes = pred.dtype, target.dtype
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        lines, sweeps, weights, *all_maps = ctx.saved_tensors
        with torch.cuda.device_of(grad):
            results = [
                None if maps is None else _backward(lines, sweeps, maps, weights, grad, sign, dtype)
                for maps, sign, dtype in zip(all_maps, (1.0, -1.0), ctx.dtypes, strict=True)
            ]
        return None, None, *results


def _forward(points: Tensor, num_lines: int, first: Tensor, second: Tensor | None) -> tuple[Tensor, ...]:
    """Lines (B, K, 5, n), sweeps (B, K, 16), means (B or 2 B, K, n) and the maps (B, 4, H, W) of each set of images."""
    batch, _, height, width = first.shape
    count, sets = points.shape[1], 1 if second is None else 2
    empty = functools.partial(torch.empty, dtype=torch.float32, device=first.device)
    lines, sweeps = empty((batch, count, 5, num_lines)), empty((batch, count, 16))
    means = empty((sets * batch, count, num_lines))
    first_maps = empty((batch, 4, height, width))
    second_maps = first_maps if second is None else empty((batch, 4, height, width))
    first = first.contiguous()
    second = first if second is None else second.contiguous()
    jobs = count * -(-num_lines // _LINES_BLOCK) + _tiles(height, width, _TILE)
    prepare_kernel[(batch, jobs)](
        points, lines, sweeps, first, second, first_maps, second_maps, count, height, width, num_lines,
        IMAGES=sets, BLOCK_N=_LINES_BLOCK, **_TILE,
    )  # fmt: skip
    if count:
        longest = 128 * -(-max(height, width) // 128)  # rounded up so that few sizes compile anew
        means_kernel[(sets * batch * count, -(-num_lines // _WALK["BLOCK_N"]))](
            first_maps, second_maps, lines, means, count, height, width, num_lines,
            IMAGES=sets, LONGEST=longest, **_WALK,
        )  # fmt: skip
    return lines, sweeps, means, first_maps, second_maps


def _backward(
    lines: Tensor, sweeps: Tensor, maps: Tensor, weights: Tensor, grads: Tensor | None, sign: float, dtype: torch.dtype
) -> Tensor:
    """The gradient (B, 3, H, W) by the images of ``maps``, given that by their means.

    That is weights (B, K, n), where there are grads (B,) times sign grads. Overwrites the columns in the maps and nothing
    else, so that it can be called again.
    """
    batch, _, height, width = maps.shape
    count, num_lines = weights.shape[1:]
    means_adjoint_kernel[(batch, _tiles(height, width, _GATHER))](
        maps, lines, sweeps, weights, grads, 0 if grads is None else grads.stride(0), sign, count, height, width, num_lines,
        **_GATHER,
    )  # fmt: skip
    grad_images = torch.empty((batch, 3, height, width), dtype=dtype, device=maps.device)
    sobel_adjoint_kernel[(batch, _tiles(height, width, _TILE))](maps, grad_images, height, width, **_TILE)
    return grad_images


def _tiles(height: int, width: int, tile: dict[str, int]) -> int:
    return -(-height // tile["BLOCK_Y"]) * -(-width // tile["BLOCK_X"])
