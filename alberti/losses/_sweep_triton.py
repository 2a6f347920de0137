# mypy: disable-error-code="no-untyped-def"
"""The perspective loss and its profiles as fused GPU kernels: the same numbers as ``_sweep``, which is their definition.

Three kernels forward: lines and Sobel gradients, means along the lines, the loss; two backward: the adjoints of the
means and of the Sobel gradients. One call makes few launches and allocations and nothing waits for the host: for a loss
of this size they cost more than the kernels' own time. Sums are taken in a fixed order, without atomics.

Tensors, all float32: ``maps`` (B, 4, H W) hold an image's derivatives by x, as rows and as columns of the image, then
those by y, so that neighbouring lines, steep or flat, read neighbouring addresses. ``lines`` (B, K, 5, n): unit normal x
and y, intercept, slope, and 1 over the number of samples, negative for flat lines, 0 for an absent point's. ``sweeps``
(B, K, 16): which lines come near a pixel, see ``_write_sweep``.
"""

import triton
import triton.language as tl


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
def _fast_atan2(y, x):
    """Angle of (x, y), float32, to 1e-6: Abramowitz and Stegun, 4.4.49."""
    larger, smaller = tl.maximum(tl.abs(x), tl.abs(y)), tl.minimum(tl.abs(x), tl.abs(y))
    z = smaller / tl.maximum(larger, 1e-37)
    q = z * z
    angle = 0.0429096138 + q * (-0.0161657367 + q * 0.0028662257)
    angle = 0.1999355085 + q * (-0.1420889944 + q * (0.1065626393 + q * (-0.0752896400 + q * angle)))
    angle = z * (1 + q * (-0.3333314528 + q * angle))
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
def _write_lines(points, lines, sweeps, point, line, height, width, n):
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

    out = lines + point.to(tl.int64) * 5 * n + line
    tl.store(out, (-dy).to(tl.float32), mask)
    tl.store(out + n, dx.to(tl.float32), mask)
    tl.store(out + 2 * n, intercept.to(tl.float32), mask)
    tl.store(out + 3 * n, slope.to(tl.float32), mask)
    tl.store(out + 4 * n, share.to(tl.float32), mask)


@triton.jit
def _write_sweep(sweeps, point, inside, windows, x, y, forward_x, forward_y, rho, first, last, n):
    """What ``_window`` needs to find the lines near a pixel at (c_x, c_y) from the image's centre.

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
def _tile(tile, height, width, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):
    across = tl.cdiv(width, BLOCK_X)
    y = (tile // across) * BLOCK_Y + tl.arange(0, BLOCK_Y)[:, None]
    x = (tile % across) * BLOCK_X + tl.arange(0, BLOCK_X)[None, :]
    return y, x, (y < height) & (x < width)


@triton.jit
def _write_sobel(image, out, y, x, mask, height, width):
    """A tile of one image's gradient, in both layouts."""
    plane = height * width
    n_w = _gray(image, y - 1, x - 1, height, width, mask)
    n_e = _gray(image, y - 1, x + 1, height, width, mask)
    s_w = _gray(image, y + 1, x - 1, height, width, mask)
    s_e = _gray(image, y + 1, x + 1, height, width, mask)
    west, east = _gray(image, y, x - 1, height, width, mask), _gray(image, y, x + 1, height, width, mask)
    north, south = _gray(image, y - 1, x, height, width, mask), _gray(image, y + 1, x, height, width, mask)
    by_x = (n_e - n_w) + 2 * (east - west) + (s_e - s_w)
    by_y = (s_w - n_w) + 2 * (south - north) + (s_e - n_e)
    tl.store(out + y * width + x, by_x, mask)
    tl.store(out + plane + x * height + y, by_x, mask)
    tl.store(out + 2 * plane + y * width + x, by_y, mask)
    tl.store(out + 3 * plane + x * height + y, by_y, mask)


@triton.jit
def prepare_kernel(
    points,
    lines,
    sweeps,
    first,
    second,
    first_maps,
    second_maps,
    count,
    height,
    width,
    n,
    IMAGES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_Y: tl.constexpr,
    BLOCK_X: tl.constexpr,
):
    """Program (b, j): for small j lines of one of image b's points, else a tile of the gradients of first and second."""
    image = tl.program_id(0).to(tl.int64)
    blocks = tl.cdiv(n, BLOCK_N)
    job = tl.program_id(1)
    if job < count * blocks:
        point = tl.program_id(0) * count + job // blocks
        line = (job % blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
        _write_lines(points, lines, sweeps, point, line, height, width, n)
    else:
        y, x, mask = _tile(job - count * blocks, height, width, BLOCK_Y, BLOCK_X)
        plane = height * width
        _write_sobel(first + image * 3 * plane, first_maps + image * 4 * plane, y, x, mask, height, width)
        if IMAGES == 2:
            _write_sobel(second + image * 3 * plane, second_maps + image * 4 * plane, y, x, mask, height, width)


@triton.jit
def means_kernel(
    first_maps,
    second_maps,
    lines,
    means,
    count,
    height,
    width,
    n,
    IMAGES: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    LONGEST: tl.constexpr,
):
    """Program (i, j): BLOCK_N neighbouring lines of one point, in one image, walked BLOCK_T samples at a time.

    i counts the points of the first images, then the same points again for the second ones.
    """
    points = tl.num_programs(0) // IMAGES
    point = tl.program_id(0) % points
    line = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = line < n
    at = lines + point.to(tl.int64) * 5 * n + line
    normal_x = tl.load(at, mask, other=0.0)
    normal_y = tl.load(at + n, mask, other=0.0)
    intercept = tl.load(at + 2 * n, mask, other=0.0) + 0.5
    slope = tl.load(at + 3 * n, mask, other=0.0)
    share = tl.load(at + 4 * n, mask, other=0.0)
    rows = tl.where(share == 0, 0, tl.where(share > 0, height, width))
    columns = tl.where(share > 0, width, height)
    plane = height * width
    maps = first_maps
    if tl.program_id(0) >= points:
        maps = second_maps
    maps += (point // count).to(tl.int64) * 4 * plane
    start = tl.where(share > 0, 0, plane)
    total = tl.zeros((BLOCK_T, BLOCK_N), tl.float32)
    for t in range(0, LONGEST, BLOCK_T):
        row = t + tl.arange(0, BLOCK_T)[:, None]
        position = intercept[None, :] + slope[None, :] * row.to(tl.float32)
        hit = (row < rows[None, :]) & (position >= 0) & (position < columns[None, :])
        column = tl.where(hit, position, 0.0).to(tl.int32)
        pixel = maps + start[None, :] + row * columns[None, :] + column
        response = tl.load(pixel, hit, other=0.0) * normal_x[None, :]
        response += tl.load(pixel + 2 * plane, hit, other=0.0) * normal_y[None, :]
        total += tl.abs(response)
    tl.store(means + tl.program_id(0).to(tl.int64) * n + line, tl.sum(total, axis=0) * tl.abs(share), mask)


@triton.jit
def loss_kernel(points, means, weights, losses, count, n, BLOCK: tl.constexpr):
    """Program b: the loss of image b, and ``weights`` (B, K, n), its derivative by the first images' means."""
    image = tl.program_id(0)
    present = 0
    for k in range(0, count):
        at = points + 3 * (image * count + k)
        present += ((tl.load(at) != 0) | (tl.load(at + 1) != 0) | (tl.load(at + 2) != 0)).to(tl.int32)
    present = tl.maximum(present, 1).to(tl.float32)
    total = 0.0
    for k in range(0, count):
        first = (image * count + k).to(tl.int64) * n
        second = first + (tl.num_programs(0) * count).to(tl.int64) * n
        squares = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, n, BLOCK):
            line = start + tl.arange(0, BLOCK)
            mask = line < n
            difference = tl.load(means + first + line, mask, other=0.0) - tl.load(means + second + line, mask, other=0.0)
            squares += difference * difference
        norm = tl.sqrt(tl.sum(squares, axis=0))
        total += norm
        slope = tl.where(norm == 0, 0.0, 1 / (norm * present))
        for start in range(0, n, BLOCK):
            line = start + tl.arange(0, BLOCK)
            mask = line < n
            difference = tl.load(means + first + line, mask, other=0.0) - tl.load(means + second + line, mask, other=0.0)
            tl.store(weights + first + line, difference * slope, mask)
    tl.store(losses + image, total / present)


@triton.jit
def _window(sweep, c_x, c_y):
    """The lines that may pass within half a pixel's side of pixels: their place, half their number, whether all may.

    A line through the pixel's row or column meets it within 0.5 of its centre, so at most asin(0.5 / distance) away in
    angle: below 0.51 / distance from a distance of 1.5 on. The rest of 0.55 covers rounding.
    """
    along = tl.load(sweep) + tl.load(sweep + 1) * c_x + tl.load(sweep + 2) * c_y
    across = tl.load(sweep + 3) + tl.load(sweep + 4) * c_x + tl.load(sweep + 5) * c_y
    unit = tl.load(sweep + 6)
    distance = tl.sqrt(along * along + across * across)
    near = distance < 1.5 * unit
    per_angle = tl.load(sweep + 8)
    place = (_fast_atan2(across, along) / unit - tl.load(sweep + 7)) * per_angle
    return place, per_angle * 0.55 / tl.maximum(distance, unit), near


@triton.jit
def _line_at(lines, weights, line, active, y, x, g_x, g_y, n):
    """What a line adds to the gradient by (g_x, g_y) at pixels: nothing unless it reads them."""
    share = tl.load(lines + 4 * n + line, active, other=0.0)
    steep = share > 0
    row, column = tl.where(steep, y, x).to(tl.float32), tl.where(steep, x, y).to(tl.float32)
    intercept = tl.load(lines + 2 * n + line, active, other=0.0) + 0.5
    position = intercept + tl.load(lines + 3 * n + line, active, other=0.0) * row
    hit = active & (position >= column) & (position < column + 1)
    normal_x, normal_y = tl.load(lines + line, hit, other=0.0), tl.load(lines + n + line, hit, other=0.0)
    response = g_x * normal_x + g_y * normal_y
    weight = tl.load(weights + line, hit, other=0.0) * tl.abs(share)
    signed = tl.where(response > 0, weight, tl.where(response < 0, -weight, 0.0))
    return signed * normal_x, signed * normal_y


@triton.jit
def means_adjoint_kernel(
    maps,
    lines,
    sweeps,
    weights,
    grads,
    grads_stride,
    sign,
    count,
    height,
    width,
    n,
    BLOCK_Y: tl.constexpr,
    BLOCK_X: tl.constexpr,
):
    """Program (b, j): to each pixel of a tile the gradients of the lines that read it.

    ``weights`` (B, K, n): the gradient by the means; if there are ``grads`` (B,), times sign grads. The result replaces
    the columns in the maps: nothing reads these any more.
    """
    image = tl.program_id(0)
    y, x, mask = _tile(tl.program_id(1), height, width, BLOCK_Y, BLOCK_X)
    plane = height * width
    at = maps + image.to(tl.int64) * 4 * plane + y * width + x
    g_x, g_y = tl.load(at, mask, other=0.0), tl.load(at + 2 * plane, mask, other=0.0)
    last = (n - 1).to(tl.float32)
    c_x, c_y = x.to(tl.float32) - 0.5 * (width - 1), y.to(tl.float32) - 0.5 * (height - 1)
    sum_x, sum_y = tl.zeros((BLOCK_Y, BLOCK_X), tl.float32), tl.zeros((BLOCK_Y, BLOCK_X), tl.float32)
    for k in range(0, count):
        point = (image * count + k).to(tl.int64)
        sweep = sweeps + point * 16
        place, half, near = _window(sweep, c_x, c_y)
        turn = tl.load(sweep + 9)
        for j in range(0, tl.load(sweep + 10).to(tl.int32)):
            centre = place + (j - 1) * turn
            all_or_none = tl.where(j == 0, last, -1.0)  # a line passes near pixels once, whatever the window
            low = tl.where(near, 0.0, tl.maximum(tl.ceil(centre - half), 0.0))
            high = tl.where(near, all_or_none, tl.minimum(tl.floor(centre + half), last))
            sane = mask & (low <= last) & (high >= 0.0)
            low, high = tl.where(sane, low, 0.0).to(tl.int32), tl.where(sane, high, -1.0).to(tl.int32)
            for step in range(0, tl.max(tl.max(high - low, axis=1), axis=0) + 1):
                line = low + step
                add_x, add_y = _line_at(lines + point * 5 * n, weights + point * n, line, line <= high, y, x, g_x, g_y, n)
                sum_x += add_x
                sum_y += add_y
    if grads is not None:
        scale = tl.load(grads + image * grads_stride) * sign
        sum_x *= scale
        sum_y *= scale
    tl.store(at + plane, sum_x, mask)
    tl.store(at + 3 * plane, sum_y, mask)


@triton.jit
def _inside(sums, y, x, height, width, mask):
    """A sum at pixels that may lie one outside the image: it continues evenly."""
    y = tl.minimum(tl.maximum(y, 0), height - 1)
    x = tl.minimum(tl.maximum(x, 0), width - 1)
    return tl.load(sums + y * width + x, mask, other=0.0)


@triton.jit
def sobel_adjoint_kernel(maps, grad_images, height, width, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):
    """The adjoint of ``_write_sobel``, of what ``means_adjoint_kernel`` left in the maps.

    Smoothing continues evenly beyond the border, differences change their sign.
    """
    y, x, mask = _tile(tl.program_id(1), height, width, BLOCK_Y, BLOCK_X)
    plane = height * width
    by_x = maps + (tl.program_id(0).to(tl.int64) * 4 + 1) * plane
    by_y = by_x + 2 * plane
    west_sign, east_sign = tl.where(x == 0, -1.0, 1.0), tl.where(x == width - 1, -1.0, 1.0)
    north_sign, south_sign = tl.where(y == 0, -1.0, 1.0), tl.where(y == height - 1, -1.0, 1.0)
    west = _inside(by_x, y - 1, x - 1, height, width, mask) + _inside(by_x, y + 1, x - 1, height, width, mask)
    west += 2 * _inside(by_x, y, x - 1, height, width, mask)
    east = _inside(by_x, y - 1, x + 1, height, width, mask) + _inside(by_x, y + 1, x + 1, height, width, mask)
    east += 2 * _inside(by_x, y, x + 1, height, width, mask)
    north = _inside(by_y, y - 1, x - 1, height, width, mask) + _inside(by_y, y - 1, x + 1, height, width, mask)
    north += 2 * _inside(by_y, y - 1, x, height, width, mask)
    south = _inside(by_y, y + 1, x - 1, height, width, mask) + _inside(by_y, y + 1, x + 1, height, width, mask)
    south += 2 * _inside(by_y, y + 1, x, height, width, mask)
    gray = west_sign * west - east_sign * east + north_sign * north - south_sign * south
    out = grad_images + tl.program_id(0).to(tl.int64) * 3 * plane + y * width + x
    tl.store(out, 0.2989 * gray, mask)
    tl.store(out + plane, 0.587 * gray, mask)
    tl.store(out + 2 * plane, 0.114 * gray, mask)
