"""The lines of the perspective loss and the means along them, in plain torch: the definition that every device follows.

Pixels as in ``alberti.geometry.camera``: x right, y down, the centre of the first pixel is (0, 0).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alberti.geometry.presence import present

GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601, the weights of torchvision's rgb_to_grayscale
_FAR = 1e-30  # below this w / distance, a vanishing point is taken to be at infinity


@dataclass(frozen=True)
class Lines:
    """The lines swept through each vanishing point, all (B, K, n) but ``present`` (B, K); float64.

    A steep line is read once a row y at x = intercept + slope y, a flat one once a column x at y = intercept + slope x,
    at the nearest pixel. (normal_x, normal_y) is the line's unit normal, count the number of its samples in the image.
    """

    steep: Tensor
    intercept: Tensor
    slope: Tensor
    normal_x: Tensor
    normal_y: Tensor
    count: Tensor
    present: Tensor


def sweep_lines(points: Tensor, height: int, width: int, num_lines: int) -> Lines:
    """Sweep ``num_lines`` lines through each of the (B, K, 3) vanishing points, at equal angles across the image.

    From the smallest to the largest angle under which the point sees the centres of the four corner pixels, both
    included; for a point inside their rectangle from 0 to 2 pi, both included. Angles grow from +x towards +y.

    Everything is measured from the image's centre. A point at distance 1 / rho sees an offset c across its direction to
    the centre, and a along it, under the angle atan2(rho c, 1 + rho a). Divided by rho, the angle becomes a length that
    tends to c as the point goes to infinity, where equal angles become equal distances between parallel lines. So one
    formula, free of cancellation in float64, serves near, far and infinite points (w = 0).
    """
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    x, y, w = points.to(torch.float64).unbind(-1)
    there = present(points)
    # v and -v are one point; the angular order needs one of them: w > 0, at infinity x > 0, or x = 0 and y > 0
    sign = torch.where(w != 0, w, torch.where(x != 0, x, y)).sign()
    x, y, w = x * sign - centre_x * w.abs(), y * sign - centre_y * w.abs(), w.abs()
    inside = ((w > 0) & (x.abs() <= centre_x * w) & (y.abs() <= centre_y * w)) | ~there
    distance = torch.hypot(x, y).masked_fill(inside, 1)
    rho = (w / distance).masked_fill(inside, 0)
    forward_x, forward_y = (-x / distance).masked_fill(inside, 1), (-y / distance).masked_fill(inside, 0)
    first, last = _corner_angles(forward_x, forward_y, rho, centre_x, centre_y)

    step = torch.linspace(0, 1, num_lines, dtype=torch.float64, device=points.device)
    scaled_angle = torch.lerp(first[..., None], last[..., None], step)
    inside_n = inside[..., None]
    angle = torch.where(inside_n, 2 * math.pi * step, rho[..., None] * scaled_angle)
    cos, sin = angle.cos(), angle.sin()
    forward_x, forward_y = forward_x[..., None], forward_y[..., None]
    direction_x, direction_y = forward_x * cos - forward_y * sin, forward_y * cos + forward_x * sin
    scale = torch.where(inside & there, w, 1)
    through = (direction_x * (y / scale)[..., None]) - direction_y * (x / scale)[..., None]
    offset = torch.where(inside_n, through, scaled_angle * torch.sinc(angle / math.pi))
    return _sampled(direction_x, direction_y, offset, there, height, width)


def _corner_angles(
    forward_x: Tensor, forward_y: Tensor, rho: Tensor, centre_x: float, centre_y: float
) -> tuple[Tensor, Tensor]:
    """The smallest and largest of the corners' angles over rho, from the direction (point to centre): (B, K) each."""
    corner_x = rho.new_tensor([-centre_x, centre_x, -centre_x, centre_x])
    corner_y = rho.new_tensor([-centre_y, -centre_y, centre_y, centre_y])
    forward_x, forward_y, rho = forward_x[..., None], forward_y[..., None], rho[..., None]
    across = forward_x * corner_y - forward_y * corner_x
    along = forward_x * corner_x + forward_y * corner_y
    far = rho < _FAR
    scaled = torch.where(far, across, torch.atan2(rho * across, 1 + rho * along) / rho.masked_fill(far, 1))
    return scaled.amin(dim=-1), scaled.amax(dim=-1)


def _sampled(dx: Tensor, dy: Tensor, offset: Tensor, present: Tensor, height: int, width: int) -> Lines:
    """Lines {p : n . p = offset}, n = (-dy, dx), p from the image's centre, in the form in which they are sampled."""
    steep = dy.abs() > dx.abs()
    main, cross = torch.where(steep, dy, dx), torch.where(steep, dx, dy)
    slope = cross / main
    main_centre = torch.where(steep, (height - 1) / 2, (width - 1) / 2)
    cross_centre = torch.where(steep, (width - 1) / 2, (height - 1) / 2)
    intercept = cross_centre + torch.where(steep, -offset, offset) / main - slope * main_centre
    # the samples t = 0, 1, ... whose nearest pixel, floor(intercept + slope t + 0.5), is in the image: an interval
    safe_slope = torch.where(slope.abs() < 1e-12, 1e-12, slope)
    ends = (-0.5 - intercept) / safe_slope, (2 * cross_centre + 0.5 - intercept) / safe_slope
    first = torch.minimum(*ends).ceil().clamp(min=0)
    last = torch.minimum(torch.maximum(*ends).floor(), 2 * main_centre)
    count = (last - first + 1).clamp(min=0)
    # a point that is not finite must not make an index invalid: only its count stays not-a-number, and so its means
    return Lines(steep, intercept.nan_to_num(0), slope.nan_to_num(0), -dy, dx, count, present)


class LineMeans(torch.autograd.Function):
    """Lines and images' gradients (B, 2, H, W), one or more -> for each, (B, K, n) means of |gradient . normal|.

    Absent points give zeros. The loops run over images and points, so that what one step touches fits a core's cache;
    each step handles all steep or all flat lines of a point at once. The backward pass computes the samples again
    instead of keeping them.
    """

    @staticmethod
    def forward(ctx: Any, lines: Lines, *gradients: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*gradients)
        ctx.lines = lines
        results = tuple(gradient.new_zeros(lines.steep.shape) for gradient in gradients)
        for image in range(len(lines.present)):
            all_maps = [_both_ways(gradient[image]) for gradient in gradients]
            for family in _families(lines, image, gradients[0]):
                for maps, means in zip(all_maps, results, strict=True):
                    response = _responses(maps[family.steep], family)
                    means[image, family.point, family.which] = response.abs_().sum(dim=0) / family.count
        return results

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        results = [
            _line_means_adjoint(gradient, ctx.lines, grad) if needed else None
            for gradient, grad, needed in zip(ctx.saved_tensors, grads, ctx.needs_input_grad[1:], strict=True)
        ]
        return (None, *results)


def _line_means_adjoint(gradient: Tensor, lines: Lines, grad_means: Tensor) -> Tensor:
    result = torch.empty_like(gradient)
    for image in range(len(gradient)):
        maps = _both_ways(gradient[image])
        sums = {steep: torch.zeros_like(maps[steep]) for steep in maps}
        for family in _families(lines, image, gradient):
            sign = _responses(maps[family.steep], family).sign_()
            weight = grad_means[image, family.point, family.which] / family.count
            for axis, normal in enumerate(family.normal):
                sums[family.steep][axis].scatter_add_(1, family.column, sign * (weight * normal))
        torch.add(sums[True][:, :, 1:-1], sums[False][:, :, 1:-1].mT, out=result[image])
    return result


@dataclass(frozen=True)
class _Family:
    """The m lines of one point that are steep, or that are flat, and where they read the padded maps."""

    point: int
    steep: bool
    which: Tensor  # (m,) indices into the point's lines
    column: Tensor  # (rows, m): the padded column that each row's sample reads; a padding's zero if outside the image
    normal: tuple[Tensor, Tensor]  # (m,) each
    count: Tensor  # (m,), at least 1


def _families(lines: Lines, image: int, like: Tensor) -> Iterator[_Family]:
    height, width = like.shape[2:]
    for point in lines.present[image].nonzero().flatten().tolist():
        for steep, rows, columns in ((True, height, width), (False, width, height)):
            which = (lines.steep[image, point] == steep).nonzero().flatten()
            if len(which) == 0:
                continue
            intercept, slope, normal_x, normal_y, count = (
                values[image, point, which].to(like.dtype)
                for values in (lines.intercept, lines.slope, lines.normal_x, lines.normal_y, lines.count)
            )
            row = torch.arange(rows, dtype=like.dtype, device=like.device)
            column = torch.addcmul(intercept + 1.5, row[:, None], slope)  # 1 for the padding, 0.5 to round
            column = column.clamp_(0, columns + 1.5).to(torch.int64)
            yield _Family(point, steep, which, column, (normal_x, normal_y), count.clamp(min=1))


def _both_ways(gradient: Tensor) -> dict[bool, Tensor]:
    """(2, H, W) gradients with a column of zeros added at either side, for steep lines; for flat ones transposed first."""
    return {
        True: torch.nn.functional.pad(gradient, (1, 1)),
        False: torch.nn.functional.pad(gradient.mT, (1, 1)),
    }


def _responses(maps: Tensor, family: _Family) -> Tensor:
    """gradient . normal at every sample: (rows, m)."""
    response = maps[0].gather(1, family.column).mul_(family.normal[0])
    return response.addcmul_(maps[1].gather(1, family.column), family.normal[1])


class SobelGradient(torch.autograd.Function):
    """(B, 3, H, W) RGB images -> (B, 2, H, W) derivatives of the gray image by x and y: 3x3 Sobel, replicated border.

    Unscaled kernels, [-1, 0, 1] across [1, 2, 1], so that a step of height 1 has derivative 4.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        ctx.dtype = image.dtype
        dtype = torch.float64 if image.dtype == torch.float64 else torch.float32
        result = image.new_empty((len(image), 2, *image.shape[2:]), dtype=dtype)
        for rgb, gradient in zip(image, result, strict=True):
            rgb = rgb.to(dtype)
            gray = (rgb[0] * GRAY[0]).add_(rgb[1], alpha=GRAY[1]).add_(rgb[2], alpha=GRAY[2])
            gradient[0] = _smooth(_difference(gray, 1), 0)
            gradient[1] = _difference(_smooth(gray, 1), 0)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        result = grad.new_empty((len(grad), 3, *grad.shape[2:]), dtype=ctx.dtype)
        for derivatives, rgb in zip(grad, result, strict=True):
            gray = _difference_adjoint(_smooth(derivatives[0], 0), 1)
            gray += _smooth(_difference_adjoint(derivatives[1], 0), 1)
            for channel, weight in enumerate(GRAY):
                torch.mul(gray, weight, out=rgb[channel]) if rgb.dtype == gray.dtype else rgb[channel].copy_(gray * weight)
        return result


def _smooth(a: Tensor, dim: int) -> Tensor:
    """[1, 2, 1] along an axis, replicated border; its own adjoint."""
    n = a.shape[dim]
    out = 2 * a
    out.narrow(dim, 1, n - 1).add_(a.narrow(dim, 0, n - 1))
    out.narrow(dim, 0, n - 1).add_(a.narrow(dim, 1, n - 1))
    out.select(dim, 0).add_(a.select(dim, 0))
    out.select(dim, n - 1).add_(a.select(dim, n - 1))
    return out


def _difference(a: Tensor, dim: int) -> Tensor:
    """a[i + 1] - a[i - 1] along an axis, replicated border."""
    n = a.shape[dim]
    out = torch.empty_like(a)
    torch.sub(a.narrow(dim, 2, n - 2), a.narrow(dim, 0, n - 2), out=out.narrow(dim, 1, n - 2))
    torch.sub(a.select(dim, 1), a.select(dim, 0), out=out.select(dim, 0))
    torch.sub(a.select(dim, n - 1), a.select(dim, n - 2), out=out.select(dim, n - 1))
    return out


def _difference_adjoint(a: Tensor, dim: int) -> Tensor:
    """The adjoint of ``_difference``: a[i - 1] - a[i + 1], where a changes its sign beyond the border."""
    n = a.shape[dim]
    out = torch.empty_like(a)
    torch.sub(a.narrow(dim, 0, n - 2), a.narrow(dim, 2, n - 2), out=out.narrow(dim, 1, n - 2))
    torch.add(a.select(dim, 0), a.select(dim, 1), out=out.select(dim, 0)).neg_()
    torch.add(a.select(dim, n - 2), a.select(dim, n - 1), out=out.select(dim, n - 1))
    return out
