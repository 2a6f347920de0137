# mypy: disable-error-code="no-untyped-def"
"""The perspective loss's profiles as fused GPU kernels: the same numbers as ``_sweep``, which is their definition.

Five kernels: geometry of the lines, Sobel gradients, means along the lines, and the adjoints of the last two. Gradients
are kept twice, as rows and as columns of the image ("maps": (B, 2, 2, H W), the axes being derivative by x or y, and
layout), so that neighbouring lines, steep or flat, read neighbouring addresses. Nothing waits for the host.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_NORMAL_X, _NORMAL_Y, _INTERCEPT, _SLOPE, _COUNT = (tl.constexpr(i) for i in range(5))
_FIELDS = tl.constexpr(5)


@triton.jit
def _atan2(y, x):
    """Angle of (x, y) != (0, 0), float64: a rough guess, exact to the last digits after one step of refinement."""
    norm = tl.sqrt(x * x + y * y)
    y, x = y / norm, x / norm
    ratio = tl.minimum(tl.abs(x), tl.abs(y)) / tl.maximum(tl.abs(x), tl.abs(y))
    guess = ratio * (0.785 + 0.273 * (1 - ratio))
    guess = tl.where(tl.abs(y) > tl.abs(x), 1.5707963267948966 - guess, guess)
    guess = tl.where(x < 0, 3.141592653589793 - guess, guess)
    guess = tl.where(y < 0, -guess, guess)
    sine = y * tl.cos(guess) - x * tl.sin(guess)  # of what is missing, below 0.01: its arcsine is a short series
    square = sine * sine
    return guess + sine * (1 + square * (1.0 / 6 + square * 0.075))


@triton.jit
def _corner_angle(corner_x, corner_y, forward_x, forward_y, rho):
    across = forward_x * corner_y - forward_y * corner_x
    along = forward_x * corner_x + forward_y * corner_y
    far = rho < 1e-30
    safe_rho = tl.where(far, 1.0, rho)
    return tl.where(far, across, _atan2(safe_rho * across, 1 + safe_rho * along) / safe_rho)


@triton.jit
def _lines_kernel(points, lines, height, width, n, BLOCK: tl.constexpr):
    """One program: the lines of one point. ``_sweep.sweep_lines`` explains the formulas."""
    point = tl.program_id(0)
    x = tl.load(points + 3 * point).to(tl.float64)
    y = tl.load(points + 3 * point + 1).to(tl.float64)
    w = tl.load(points + 3 * point + 2).to(tl.float64)
    present = (x != 0) | (y != 0) | (w != 0)
    leading = tl.where(w != 0, w, tl.where(x != 0, x, y))
    sign = tl.where(leading < 0, -1.0, 1.0).to(tl.float64)
    half_x = (width - 1).to(tl.float64) * 0.5
    half_y = (height - 1).to(tl.float64) * 0.5
    w = tl.abs(w)
    x, y = x * sign - half_x * w, y * sign - half_y * w
    inside = ((w > 0) & (tl.abs(x) <= half_x * w) & (tl.abs(y) <= half_y * w)) | (present == 0)
    largest = tl.maximum(tl.abs(x), tl.abs(y))
    largest = tl.where(inside, 1.0, largest)
    distance = tl.where(inside, 1.0, largest * tl.sqrt((x / largest) * (x / largest) + (y / largest) * (y / largest)))
    rho = tl.where(inside, 0.0, w / distance)
    forward_x = tl.where(inside, 1.0, -x / distance)
    forward_y = tl.where(inside, 0.0, -y / distance)
    a = _corner_angle(-half_x, -half_y, forward_x, forward_y, rho)
    b = _corner_angle(half_x, -half_y, forward_x, forward_y, rho)
    c = _corner_angle(-half_x, half_y, forward_x, forward_y, rho)
    d = _corner_angle(half_x, half_y, forward_x, forward_y, rho)
    first = tl.minimum(tl.minimum(a, b), tl.minimum(c, d))
    last = tl.maximum(tl.maximum(a, b), tl.maximum(c, d))
    safe_w = tl.where(inside & present, w, 1.0)

    block = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = block < n
    step = block.to(tl.float64) / (n - 1).to(tl.float64)
    scaled_angle = first + (last - first) * step
    angle = tl.where(inside, 6.283185307179586 * step, rho * scaled_angle)
    cos, sin = tl.cos(angle), tl.sin(angle)
    dx, dy = forward_x * cos - forward_y * sin, forward_y * cos + forward_x * sin
    sinc = tl.where(tl.abs(angle) < 1e-150, 1.0, sin / tl.where(tl.abs(angle) < 1e-150, 1.0, angle))
    offset = tl.where(inside, (dx * y - dy * x) / safe_w, scaled_angle * sinc)

    steep = tl.abs(dy) > tl.abs(dx)
    main, cross = tl.where(steep, dy, dx), tl.where(steep, dx, dy)
    slope = cross / main
    main_half, cross_half = tl.where(steep, half_y, half_x), tl.where(steep, half_x, half_y)
    intercept = cross_half + tl.where(steep, -offset, offset) / main - slope * main_half
    safe_slope = tl.where(tl.abs(slope) < 1e-12, 1e-12, slope)
    one_end, other_end = (-0.5 - intercept) / safe_slope, (2 * cross_half + 0.5 - intercept) / safe_slope
    first_sample = tl.maximum(tl.ceil(tl.minimum(one_end, other_end)), 0.0)
    last_sample = tl.minimum(tl.floor(tl.maximum(one_end, other_end)), 2 * main_half)
    count = tl.maximum(last_sample - first_sample + 1, 1.0)
    # the sign of the count says steep or flat; 0 is an absent point; a point that is not finite has no finite count
    count = tl.where(present, tl.where(steep, count, -count), 0.0)
    count = tl.where(intercept == intercept, count, intercept)

    out = lines + point.to(tl.int64) * _FIELDS * n + block
    tl.store(out + _NORMAL_X * n, (-dy).to(tl.float32), mask)
    tl.store(out + _NORMAL_Y * n, dx.to(tl.float32), mask)
    tl.store(out + _INTERCEPT * n, intercept.to(tl.float32), mask)
    tl.store(out + _SLOPE * n, slope.to(tl.float32), mask)
    tl.store(out + _COUNT * n, count.to(tl.float32), mask)


@triton.jit
def _gray(image, y, x, height, width, mask):
    y = tl.minimum(tl.maximum(y, 0), height - 1)
    x = tl.minimum(tl.maximum(x, 0), width - 1)
    at = image + y * width + x
    plane = height * width
    red = tl.load(at, mask).to(tl.float32)
    green = tl.load(at + plane, mask).to(tl.float32)
    blue = tl.load(at + 2 * plane, mask).to(tl.float32)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


@triton.jit
def _tile(height, width, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):
    across = tl.cdiv(width, BLOCK_X)
    y = (tl.program_id(1) // across) * BLOCK_Y + tl.arange(0, BLOCK_Y)[:, None]
    x = (tl.program_id(1) % across) * BLOCK_X + tl.arange(0, BLOCK_X)[None, :]
    return y, x, (y < height) & (x < width)


@triton.jit
def _sobel_kernel(images, maps, height, width, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):
    y, x, mask = _tile(height, width, BLOCK_Y, BLOCK_X)
    plane = height * width
    image = images + tl.program_id(0).to(tl.int64) * 3 * plane
    n_w = _gray(image, y - 1, x - 1, height, width, mask)
    n_e = _gray(image, y - 1, x + 1, height, width, mask)
    s_w = _gray(image, y + 1, x - 1, height, width, mask)
    s_e = _gray(image, y + 1, x + 1, height, width, mask)
    west, east = _gray(image, y, x - 1, height, width, mask), _gray(image, y, x + 1, height, width, mask)
    north, south = _gray(image, y - 1, x, height, width, mask), _gray(image, y + 1, x, height, width, mask)
    by_x = (n_e - n_w) + 2 * (east - west) + (s_e - s_w)
    by_y = (s_w - n_w) + 2 * (south - north) + (s_e - n_e)
    out = maps + tl.program_id(0).to(tl.int64) * 4 * plane
    tl.store(out + y * width + x, by_x, mask)
    tl.store(out + plane + x * height + y, by_x, mask)
    tl.store(out + 2 * plane + y * width + x, by_y, mask)
    tl.store(out + 3 * plane + x * height + y, by_y, mask)


@triton.jit
def _block_of_lines(lines, height, width, n, BLOCK_N: tl.constexpr):
    """What the samples of BLOCK_N lines need; ``layout`` is 0 where they read the maps' rows, 1 where the columns."""
    line = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = line < n
    at = lines + tl.program_id(0).to(tl.int64) * _FIELDS * n + line
    normal_x = tl.load(at + _NORMAL_X * n, mask, other=0.0)
    normal_y = tl.load(at + _NORMAL_Y * n, mask, other=0.0)
    intercept = tl.load(at + _INTERCEPT * n, mask, other=0.0) + 0.5
    slope = tl.load(at + _SLOPE * n, mask, other=0.0)
    count = tl.load(at + _COUNT * n, mask, other=0.0)
    layout = tl.where(count > 0, 0, 1)
    rows = tl.where(count == 0, 0, tl.where(count > 0, height, width))
    columns = tl.where(count > 0, width, height)
    return line, mask, normal_x, normal_y, intercept, slope, count, layout, rows, columns


@triton.jit
def _means_kernel(
    maps, lines, means, points, height, width, n, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr, LONGEST: tl.constexpr
):
    """One program: BLOCK_N neighbouring lines of one point, walked BLOCK_T samples at a time."""
    line, mask, normal_x, normal_y, intercept, slope, count, layout, rows, columns = _block_of_lines(
        lines, height, width, n, BLOCK_N
    )
    plane = height * width
    base = maps + (tl.program_id(0) // points).to(tl.int64) * 4 * plane
    start = layout * plane
    total = tl.zeros((BLOCK_T, BLOCK_N), tl.float32)
    for t in range(0, LONGEST, BLOCK_T):
        row = t + tl.arange(0, BLOCK_T)[:, None]
        position = intercept[None, :] + slope[None, :] * row.to(tl.float32)
        hit = (row < rows[None, :]) & (position >= 0) & (position < columns[None, :])
        column = tl.where(hit, position, 0.0).to(tl.int32)
        at = base + start[None, :] + row * columns[None, :] + column
        response = tl.load(at, hit, other=0.0) * normal_x[None, :]
        response += tl.load(at + 2 * plane, hit, other=0.0) * normal_y[None, :]
        total += tl.abs(response)
    size = tl.where(count == 0, 1.0, tl.abs(count))
    tl.store(means + tl.program_id(0).to(tl.int64) * n + line, tl.sum(total, axis=0) / size, mask)


@triton.jit
def _means_adjoint_kernel(
    maps,
    lines,
    grad_means,
    sums,
    points,
    height,
    width,
    n,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    LONGEST: tl.constexpr,
):
    """Adds each line's gradient to the pixels that it read: ``sums`` has the form of ``maps``."""
    line, mask, normal_x, normal_y, intercept, slope, count, layout, rows, columns = _block_of_lines(
        lines, height, width, n, BLOCK_N
    )
    plane = height * width
    image = (tl.program_id(0) // points).to(tl.int64) * 4 * plane
    start = layout * plane
    grad = tl.load(grad_means + tl.program_id(0).to(tl.int64) * n + line, mask, other=0.0)
    weight = grad / tl.where(count == 0, 1.0, tl.abs(count))
    for t in range(0, LONGEST, BLOCK_T):
        row = t + tl.arange(0, BLOCK_T)[:, None]
        position = intercept[None, :] + slope[None, :] * row.to(tl.float32)
        hit = (row < rows[None, :]) & (position >= 0) & (position < columns[None, :])
        column = tl.where(hit, position, 0.0).to(tl.int32)
        at = start[None, :] + row * columns[None, :] + column
        response = tl.load(maps + image + at, hit, other=0.0) * normal_x[None, :]
        response += tl.load(maps + image + at + 2 * plane, hit, other=0.0) * normal_y[None, :]
        signed = tl.where(response > 0, weight[None, :], tl.where(response < 0, -weight[None, :], 0.0))
        hit = hit & (signed != 0)
        tl.atomic_add(sums + image + at, signed * normal_x[None, :], hit, sem="relaxed")
        tl.atomic_add(sums + image + at + 2 * plane, signed * normal_y[None, :], hit, sem="relaxed")


@triton.jit
def _summed(sums, y, x, height, width, mask):
    """The two layouts of one derivative's sums, added, at pixels that may lie one outside: those are the border's."""
    y = tl.minimum(tl.maximum(y, 0), height - 1)
    x = tl.minimum(tl.maximum(x, 0), width - 1)
    rows = tl.load(sums + y * width + x, mask, other=0.0)
    return rows + tl.load(sums + height * width + x * height + y, mask, other=0.0)


@triton.jit
def _sobel_adjoint_kernel(sums, grad_images, height, width, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):
    """The adjoint of ``_sobel_kernel``: smoothing continues evenly beyond the border, differences change their sign."""
    y, x, mask = _tile(height, width, BLOCK_Y, BLOCK_X)
    plane = height * width
    by_x = sums + tl.program_id(0).to(tl.int64) * 4 * plane
    by_y = by_x + 2 * plane
    west_sign, east_sign = tl.where(x == 0, -1.0, 1.0), tl.where(x == width - 1, -1.0, 1.0)
    north_sign, south_sign = tl.where(y == 0, -1.0, 1.0), tl.where(y == height - 1, -1.0, 1.0)
    west = _summed(by_x, y - 1, x - 1, height, width, mask) + _summed(by_x, y + 1, x - 1, height, width, mask)
    west += 2 * _summed(by_x, y, x - 1, height, width, mask)
    east = _summed(by_x, y - 1, x + 1, height, width, mask) + _summed(by_x, y + 1, x + 1, height, width, mask)
    east += 2 * _summed(by_x, y, x + 1, height, width, mask)
    north = _summed(by_y, y - 1, x - 1, height, width, mask) + _summed(by_y, y - 1, x + 1, height, width, mask)
    north += 2 * _summed(by_y, y - 1, x, height, width, mask)
    south = _summed(by_y, y + 1, x - 1, height, width, mask) + _summed(by_y, y + 1, x + 1, height, width, mask)
    south += 2 * _summed(by_y, y + 1, x, height, width, mask)
    gray = west_sign * west - east_sign * east + north_sign * north - south_sign * south
    out = grad_images + tl.program_id(0).to(tl.int64) * 3 * plane + y * width + x
    tl.store(out, 0.2989 * gray, mask)
    tl.store(out + plane, 0.587 * gray, mask)
    tl.store(out + 2 * plane, 0.114 * gray, mask)


_TILE_Y, _TILE_X, _TILE_WARPS = 32, 32, 8
_BLOCK_T, _BLOCK_N = 32, 32


class FusedProfiles(torch.autograd.Function):
    """(B, K, 3) points, n and images (B, 3, H, W), one or more -> for each image tensor, (B, K, n) float32 profiles.

    The backward pass adds with atomics, so that its last digits vary from run to run.
    """

    @staticmethod
    def forward(ctx: Any, points: Tensor, num_lines: int, *images: Tensor) -> tuple[Tensor, ...]:
        height, width = images[0].shape[2:]
        with torch.cuda.device_of(images[0]):
            lines = _lines(points, height, width, num_lines)
            profiles = tuple(_means(_sobel(image), lines, height, width) for image in images)
        ctx.save_for_backward(lines, *images)
        return profiles

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        lines, *images = ctx.saved_tensors
        needed = ctx.needs_input_grad[2:]
        with torch.cuda.device_of(lines):
            results = [
                _adjoint(image, grad, lines) if need else None for image, grad, need in zip(images, grads, needed, strict=True)
            ]
        return (None, None, *results)


def _lines(points: Tensor, height: int, width: int, num_lines: int) -> Tensor:
    batch, count, _ = points.shape
    lines = torch.empty((batch, count, 5, num_lines), dtype=torch.float32, device=points.device)
    if lines.numel():
        grid = (batch * count, triton.cdiv(num_lines, 256))
        _lines_kernel[grid](points.contiguous(), lines, height, width, num_lines, BLOCK=256)
    return lines


def _tiles(batch: int, height: int, width: int) -> tuple[int, int]:
    return (batch, triton.cdiv(height, _TILE_Y) * triton.cdiv(width, _TILE_X))


def _loop(height: int, width: int) -> dict[str, int]:
    """The walk along lines, its end rounded up so that few sizes compile anew."""
    return {"BLOCK_T": _BLOCK_T, "BLOCK_N": _BLOCK_N, "LONGEST": 128 * triton.cdiv(max(height, width), 128)}


def _sobel(image: Tensor) -> Tensor:
    batch, _, height, width = image.shape
    maps = torch.empty((batch, 2, 2, height * width), dtype=torch.float32, device=image.device)
    grid = _tiles(batch, height, width)
    _sobel_kernel[grid](image.contiguous(), maps, height, width, BLOCK_Y=_TILE_Y, BLOCK_X=_TILE_X, num_warps=_TILE_WARPS)
    return maps


def _means(maps: Tensor, lines: Tensor, height: int, width: int) -> Tensor:
    batch, count, _, n = lines.shape
    means = torch.empty((batch, count, n), dtype=torch.float32, device=maps.device)
    if means.numel():
        grid = (batch * count, triton.cdiv(n, _BLOCK_N))
        _means_kernel[grid](maps, lines, means, count, height, width, n, **_loop(height, width))
    return means


def _adjoint(image: Tensor, grad_means: Tensor, lines: Tensor) -> Tensor:
    batch, _, height, width = image.shape
    count, n = lines.shape[1], lines.shape[3]
    maps = _sobel(image)
    sums = torch.zeros_like(maps)
    if lines.numel():
        grid = (batch * count, triton.cdiv(n, _BLOCK_N))
        _means_adjoint_kernel[grid](maps, lines, grad_means.contiguous(), sums, count, height, width, n, **_loop(height, width))
    grad_image = torch.empty_like(image, memory_format=torch.contiguous_format)
    _sobel_adjoint_kernel[_tiles(batch, height, width)](
        sums, grad_image, height, width, BLOCK_Y=_TILE_Y, BLOCK_X=_TILE_X, num_warps=_TILE_WARPS
    )
    return grad_image
