# mypy: disable-error-code="no-untyped-def"
"""The lines through a vanishing point, and which of them come near a pixel, on a GPU; for the kernels of ``_sweep_triton``."""

import triton
import triton.language as tl


@triton.jit
def pack(first, second):
    low = first.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
    return (second.to(tl.int32, bitcast=True).to(tl.int64) << 32) | low


@triton.jit
def unpack(pair):
    return pair.to(tl.int32).to(tl.float32, bitcast=True), (pair >> 32).to(tl.int32).to(tl.float32, bitcast=True)


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
def fast_atan(z):
    """Angle of slope z, |z| <= 1, float32, to 1e-6: Abramowitz and Stegun, 4.4.49."""
    q = z * z
    angle = 0.0429096138 + q * (-0.0161657367 + q * 0.0028662257)
    angle = 0.1999355085 + q * (-0.1420889944 + q * (0.1065626393 + q * (-0.0752896400 + q * angle)))
    return z * (1 + q * (-0.3333314528 + q * angle))


@triton.jit
def fast_atan2(y, x):
    """Angle of (x, y), float32, to 1e-6."""
    larger, smaller = tl.maximum(tl.abs(x), tl.abs(y)), tl.minimum(tl.abs(x), tl.abs(y))
    angle = fast_atan(smaller / tl.maximum(larger, 1e-37))
    angle = tl.where(tl.abs(y) > tl.abs(x), 1.5707963267948966 - angle, angle)
    angle = tl.where(x < 0, 3.141592653589793 - angle, angle)
    return tl.where(y < 0, -angle, angle)


@triton.jit
def _corner_angle(corner_x, corner_y, forward_x, forward_y, rho):
    across = forward_x * corner_y - forward_y * corner_x
    along = forward_x * corner_x + forward_y * corner_y
    far = rho < 1e-30
    safe_rho = tl.where(far, 1.0, rho)
    return tl.where(far, across, _atan2(safe_rho * across, 1 + safe_rho * along) / safe_rho)


@triton.jit
def write_lines(points, lines, sweeps, point, line, height, width, n):
    """Some of the lines of one point, and its sweep. ``_sweep.sweep_lines`` explains the formulas."""
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
    # seen from within a pixel of the image, lines reach pixels behind the point too
    around = inside | ((tl.abs(x) <= (half_x + 1.5) * w) & (tl.abs(y) <= (half_y + 1.5) * w))
    windows = tl.where(present, tl.where(around, 5.0, 1.0), 0.0)
    x, y = x / safe_w, y / safe_w
    _write_sweep(sweeps, point, inside, windows, x, y, forward_x, forward_y, rho, first, last, n)

    mask = line < n
    step = line.to(tl.float64) / (n - 1).to(tl.float64)
    scaled_angle = first + (last - first) * step
    angle = tl.where(inside, 6.283185307179586 * step, rho * scaled_angle)
    cos, sin = tl.cos(angle), tl.sin(angle)
    dx, dy = forward_x * cos - forward_y * sin, forward_y * cos + forward_x * sin
    sinc = tl.where(tl.abs(angle) < 1e-150, 1.0, sin / tl.where(tl.abs(angle) < 1e-150, 1.0, angle))
    offset = tl.where(inside, dx * y - dy * x, scaled_angle * sinc)

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
    share = tl.where(present, tl.where(steep, 1 / count, -1 / count), 0.0)
    share = tl.where(intercept == intercept, share, intercept)  # a point that is not finite has no finite share

    out = lines + point.to(tl.int64) * 4 * n + line
    tl.store(out, pack(intercept.to(tl.float32) + 0.5, slope.to(tl.float32)), mask)
    tl.store(out + n, pack((-dy).to(tl.float32), dx.to(tl.float32)), mask)
    share = share.to(tl.float32)
    tl.store(out + 2 * n, pack(share, share), mask)


@triton.jit
def _write_sweep(sweeps, point, inside, windows, x, y, forward_x, forward_y, rho, first, last, n):
    """What ``means_adjoint_kernel`` needs to find the lines near a pixel at (c_x, c_y) from the image's centre.

    The pixel's place as the point sees it, in units of 1 / unit pixels: along = s_0 + s_1 c_x + s_2 c_y and
    across = s_3 + s_4 c_x + s_5 c_y, and unit = s_6; the sweep's start s_7, in angles over unit, and the lines per such
    angle s_8. A pixel has s_10 windows of lines, s_9 lines, which are half a turn, apart: 1, or 5 that cover two turns.
    """
    out = sweeps + point * 16
    unit = tl.where(inside, 1.0, tl.maximum(rho, 1e-20))
    tl.store(out, tl.where(inside, -x, 1.0).to(tl.float32))
    tl.store(out + 1, tl.where(inside, 1.0, unit * forward_x).to(tl.float32))
    tl.store(out + 2, tl.where(inside, 0.0, unit * forward_y).to(tl.float32))
    tl.store(out + 3, tl.where(inside, -y, 0.0).to(tl.float32))
    tl.store(out + 4, tl.where(inside, 0.0, -unit * forward_y).to(tl.float32))
    tl.store(out + 5, tl.where(inside, 1.0, unit * forward_x).to(tl.float32))
    tl.store(out + 6, unit.to(tl.float32))
    per_angle = (n - 1).to(tl.float64) / tl.where(inside, 6.283185307179586, last - first)
    tl.store(out + 7, tl.where(inside, 0.0, first).to(tl.float32))
    tl.store(out + 8, per_angle.to(tl.float32))
    tl.store(out + 9, tl.where(windows > 1, 3.141592653589793 / unit * per_angle, 0.0).to(tl.float32))
    tl.store(out + 10, windows.to(tl.float32))
