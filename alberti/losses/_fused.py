"""The perspective loss and its profiles on a GPU: what launches the kernels of ``_sweep_triton``, as autograd functions."""

from typing import Any

import torch
from torch import Tensor

from alberti.losses._sweep_triton import (
    loss_kernel,
    means_adjoint_kernel,
    means_kernel,
    prepare_kernel,
    pull_kernel,
    sobel_adjoint_kernel,
)

# One pixel a thread: neighbouring threads load neighbouring addresses, and many programs hide the loads' latency
_TILE = {"BLOCK_Y": 4, "BLOCK_X": 32, "num_warps": 4, "maxnreg": 64}  # the few programs with lines would take more from all
_ADJOINT_TILE = {"BLOCK_Y": 4, "BLOCK_X": 64, "num_warps": 8}
_WALK = {"BLOCK_T": 8, "BLOCK_N": 32, "num_warps": 4}
# Of the forms of benchmarks/perspective_loss.py --tune the fastest that Triton compiles as it is written, on an H100: see
# "A compiler's mistake" in docs/perspective_loss.md before choosing another, and the test that reads the compiled code.
_GATHER = {"BLOCK_Y": 8, "BLOCK_X": 8, "UNROLL": 4, "num_warps": 2}
_LINES_BLOCK = 256  # of float64 work: one line a thread
_LOSS_BLOCK = 1024

_Shape = tuple[int, int, int, int, int]  # batch, points, lines, height, width
_compiled: dict[Any, Any] = {}


class FusedProfiles(torch.autograd.Function):
    """(B, K, 3) points, n and (B, 3, H, W) images -> (B, K, n) float32 profiles."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, num_lines: int, image: Tensor) -> Tensor:
        with torch.cuda.device_of(image):
            shape, _, lines, sweeps, means, maps, _ = _forward(points, num_lines, image, None)
        ctx.save_for_backward(lines, sweeps, maps)
        ctx.shape, ctx.dtype = shape, image.dtype
        return means

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        lines, sweeps, maps = ctx.saved_tensors
        batch, count, num_lines, _, _ = ctx.shape
        if count:
            grid = -(-num_lines // _LOSS_BLOCK), batch * count, 1
            _launch(pull_kernel, (maps.device, ctx.shape), grid, (lines, _usable(grad), num_lines), {"BLOCK_N": _LOSS_BLOCK})
        return None, None, _backward(ctx.shape, lines, sweeps, maps, None, 1.0, ctx.dtype)


class FusedLoss(torch.autograd.Function):
    """(B, K, 3) points, n, (B, 3, H, W) pred and target -> (B,) float32 losses."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, num_lines: int, pred: Tensor, target: Tensor) -> Tensor:
        with torch.cuda.device_of(pred):
            shape, points, lines, sweeps, means, *maps = _forward(points, num_lines, pred, target)
            losses = torch.empty(shape[0], dtype=torch.float32, device=pred.device)
            arguments = (points, means, lines, losses, shape[1], num_lines)
            _launch(loss_kernel, (pred.device, points.dtype, shape), (shape[0], 1, 1), arguments, {"BLOCK_N": _LOSS_BLOCK})
        pred_needs, target_needs = ctx.needs_input_grad[2:]
        ctx.save_for_backward(lines, sweeps, maps[0] if pred_needs else None, maps[1] if target_needs else None)
        ctx.shape, ctx.dtypes = shape, (pred.dtype, target.dtype)
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        lines, sweeps, *all_maps = ctx.saved_tensors
        results = [
            None if maps is None else _backward(ctx.shape, lines, sweeps, maps, grad, sign, dtype)
            for maps, sign, dtype in zip(all_maps, (1.0, -1.0), ctx.dtypes, strict=True)
        ]
        return None, None, *results


def _forward(points: Tensor, num_lines: int, first: Tensor, second: Tensor | None) -> tuple[Any, ...]:
    """Shape, points, lines (B, K, 4, n), sweeps (B, K, 16), means (1 or 2, B, K, n), maps (B, 2, H W) of both images."""
    batch, _, height, width = first.shape
    count, sets, device = points.shape[1], 1 if second is None else 2, first.device
    points, first = _usable(points), _usable(first)
    second = first if second is None else _usable(second)
    lines = torch.empty((batch, count, 4, num_lines), dtype=torch.int64, device=device)
    sweeps = torch.empty((batch, count, 16), dtype=torch.float32, device=device)
    means = torch.empty((sets * batch, count, num_lines), dtype=torch.float32, device=device)
    first_maps = torch.empty((batch, 2, height * width), dtype=torch.int64, device=device)
    second_maps = first_maps if sets == 1 else torch.empty_like(first_maps)
    shape = batch, count, num_lines, height, width
    jobs = batch * (count * -(-num_lines // _LINES_BLOCK) + _tiles(height, width, _TILE))
    key = device, points.dtype, first.dtype, second.dtype, shape
    arguments = points, lines, sweeps, first, second, first_maps, second_maps, batch, count, height, width, num_lines
    options = {"IMAGES": sets, "BLOCK_N": _LINES_BLOCK, **_TILE}
    _launch(prepare_kernel, key, (jobs, 1, 1), arguments, options)
    if count:
        grid = -(-num_lines // _WALK["BLOCK_N"]), batch * count, 1
        walked = first_maps, second_maps, lines, means, count, height, width, num_lines
        _launch(means_kernel, (device, sets, shape), grid, walked, {"IMAGES": sets, **_WALK})
    return shape, points, lines, sweeps, means, first_maps, second_maps


def _backward(
    shape: _Shape, lines: Tensor, sweeps: Tensor, maps: Tensor, grads: Tensor | None, sign: float, dtype: torch.dtype
) -> Tensor:
    """The gradient (B, 3, H, W) by the images of ``maps``, given the lines' pulls; with grads (B,), times sign grads.

    Overwrites the columns in the maps and nothing else, so that it can be called again.
    """
    batch, count, num_lines, height, width = shape
    stride = 0 if grads is None else grads.stride(0)
    grid = _tiles(height, width, _GATHER), batch, 1
    radius = ((_GATHER["BLOCK_Y"] - 1) ** 2 + (_GATHER["BLOCK_X"] - 1) ** 2) ** 0.5 / 2
    arguments = maps, lines, sweeps, grads, stride, sign, count, height, width, num_lines
    key = maps.device, None if grads is None else grads.dtype, stride, shape  # grads are loaded singly, so need no alignment
    _launch(means_adjoint_kernel, key, grid, arguments, {**_GATHER, "RADIUS": radius})
    grad_images = torch.empty((batch, 3, height, width), dtype=dtype, device=maps.device)
    grid = _tiles(height, width, _ADJOINT_TILE), batch, 1
    _launch(sobel_adjoint_kernel, (maps.device, dtype, shape), grid, (maps, grad_images, height, width), _ADJOINT_TILE)
    return grad_images


def _launch(
    kernel: Any, key: tuple[Any, ...], grid: tuple[int, int, int], arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    """Launches, the second time without Triton's search for the compiled form, which takes longer than the launch.

    ``key`` and ``options`` must tell apart all that the form depends on: device, dtypes, integers. Tensors must be ``_usable``.
    """
    form = id(kernel), key, *options.values()  # a kernel's own hash is that of its source
    known = _compiled.get(form)
    if known is None:
        compiled = kernel[grid](*arguments, **options)
        if compiled is not None:  # None in Triton's interpreter
            _compiled[form] = compiled, tuple(options[name] for name in kernel.arg_names[len(arguments) :])
    else:
        compiled, constants = known
        compiled[grid](*arguments, *constants)


def _usable(tensor: Tensor) -> Tensor:
    """Contiguous, and aligned as the kernels are compiled for."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


def _tiles(height: int, width: int, tile: dict[str, int]) -> int:
    return -(-height // tile["BLOCK_Y"]) * -(-width // tile["BLOCK_X"])
