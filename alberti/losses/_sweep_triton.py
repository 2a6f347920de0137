# mypy: disable-error-code="no-untyped-def"
"""The perspective loss and its profiles as fused GPU kernels: the same numbers as ``_sweep``, which is their definition.

Three kernels forward: lines and Sobel gradients, means along the lines, the loss; two backward: the adjoints of the
means and of the Sobel gradients. One call makes few launches and allocations and nothing waits for the host: for a loss
of this size they cost more than the kernels' own time. Sums are taken in a fixed order, without atomics.

Tensors of pairs, two float32 in an int64, so that one load fetches both: ``maps`` (B, 2, H W) hold an image's derivatives
by x and y, as rows and as columns of the image, so that neighbouring lines, steep or flat, read neighbouring addresses.
``lines`` (B, K, 4, n): intercept + 1/2 and slope; the unit normal's x and y; 1 over the number of samples, negative for
flat lines, 0 for an absent point's; and what ``_write_pull`` puts there for the backward pass. ``sweeps`` (B, K, 16),
float32: which lines come near a pixel, see ``_write_sweep``.
"""

import triton
import triton.language as tl

from alberti.losses._lines_triton import fast_atan, fast_atan2, pack, unpack, write_lines


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
    n_w = _gray(image, y - 1, x - 1, height, width, mask)
    n_e = _gray(image, y - 1, x + 1, height, width, mask)
    s_w = _gray(image, y + 1, x - 1, height, width, mask)
    s_e = _gray(image, y + 1, x + 1, height, width, mask)
    west, east = _gray(image, y, x - 1, height, width, mask), _gray(image, y, x + 1, height, width, mask)
    north, south = _gray(image, y - 1, x, height, width, mask), _gray(image, y + 1, x, height, width, mask)
    by_x = (n_e - n_w) + 2 * (east - west) + (s_e - s_w)
    by_y = (s_w - n_w) + 2 * (south - north) + (s_e - n_e)
    gradient = pack(by_x, by_y)
    tl.store(out + y * width + x, gradient, mask)
    tl.store(out + height * width + x * height + y, gradient, mask)


@triton.jit
def prepare_kernel(
    points,
    lines,
    sweeps,
    first,
    second,
    first_maps,
    second_maps,
    batch,
    count,
    height,
    width,
    n,
    IMAGES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_Y: tl.constexpr,
    BLOCK_X: tl.constexpr,
):
    """Program j: for small j lines of a point, which take longest, else a tile of the gradients of first and second."""
    blocks = tl.cdiv(n, BLOCK_N)
    job = tl.program_id(0)
    if job < batch * count * blocks:
        line = (job % blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
        write_lines(points, lines, sweeps, job // blocks, line, height, width, n)
    else:
        job -= batch * count * blocks
        tiles = tl.cdiv(height, BLOCK_Y) * tl.cdiv(width, BLOCK_X)
        image = (job // tiles).to(tl.int64)
        y, x, mask = _tile(job % tiles, height, width, BLOCK_Y, BLOCK_X)
        plane = height * width
        _write_sobel(first + image * 3 * plane, first_maps + image * 2 * plane, y, x, mask, height, width)
        if IMAGES == 2:
            _write_sobel(second + image * 3 * plane, second_maps + image * 2 * plane, y, x, mask, height, width)


@triton.jit
def _reach(intercept, slope, rows, columns):
    """The rows, with some to spare, where 0 <= intercept + slope row < columns; an empty range if there are none."""
    slope = tl.where(tl.abs(slope) < 1e-6, 1e-6, slope)
    one_end, other_end = -intercept / slope, (columns.to(tl.float32) - intercept) / slope
    low = tl.maximum(tl.minimum(one_end, other_end) - 2, 0.0)
    high = tl.minimum(tl.maximum(one_end, other_end) + 2, rows.to(tl.float32) - 1)
    some = low <= high  # not if one is not a number
    return tl.where(some, low, 1e9).to(tl.int32), tl.where(some, high, -1.0).to(tl.int32)


@triton.jit
def _response(pixel, hit, normal_x, normal_y):
    g_x, g_y = unpack(tl.load(pixel, hit, other=0))
    return tl.abs(g_x * normal_x + g_y * normal_y)


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
):
    """Program (j, i): BLOCK_N neighbouring lines of point i, in first and second, walked BLOCK_T samples at a time."""
    point = tl.program_id(1).to(tl.int64)
    line = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = line < n
    at = lines + point * 4 * n + line
    intercept, slope = unpack(tl.load(at, mask, other=0))
    normal_x, normal_y = unpack(tl.load(at + n, mask, other=0))
    share, _ = unpack(tl.load(at + 2 * n, mask, other=0))
    rows = tl.where(share == 0, 0, tl.where(share > 0, height, width))
    columns = tl.where(share > 0, width, height)
    low, high = _reach(intercept, slope, rows, columns)
    plane = height * width
    start = (point // count) * 2 * plane + tl.where(share > 0, 0, plane)
    first_total, second_total = tl.zeros((BLOCK_T, BLOCK_N), tl.float32), tl.zeros((BLOCK_T, BLOCK_N), tl.float32)
    for t in range(tl.min(low, axis=0), tl.max(high, axis=0) + 1, BLOCK_T):
        row = t + tl.arange(0, BLOCK_T)[:, None]
        position = intercept[None, :] + slope[None, :] * row.to(tl.float32)
        hit = (row < rows[None, :]) & (position >= 0) & (position < columns[None, :])
        pixel = start[None, :] + (row * columns[None, :] + tl.where(hit, position, 0.0).to(tl.int32))
        first_total += _response(first_maps + pixel, hit, normal_x[None, :], normal_y[None, :])
        if IMAGES == 2:
            second_total += _response(second_maps + pixel, hit, normal_x[None, :], normal_y[None, :])
    out = means + point * n + line
    tl.store(out, tl.sum(first_total, axis=0) * tl.abs(share), mask)
    if IMAGES == 2:
        tl.store(out + tl.num_programs(1).to(tl.int64) * n, tl.sum(second_total, axis=0) * tl.abs(share), mask)


@triton.jit
def _write_pull(at, n, weight, mask):
    """A line's pull on the gradients of the pixels that it reads, given the gradient by its mean: |weight| share normal.

    The last bit of x says whether the weight is negative, that of y whether the line is steep: one load fetches all.
    """
    share, _ = unpack(tl.load(at + 2 * n, mask, other=0))
    normal_x, normal_y = unpack(tl.load(at + n, mask, other=0))
    size = tl.abs(weight * share)
    x = ((size * normal_x).to(tl.int32, bitcast=True) & -2) | (weight < 0).to(tl.int32)
    y = ((size * normal_y).to(tl.int32, bitcast=True) & -2) | (share > 0).to(tl.int32)
    tl.store(at + 3 * n, pack(x, y), mask)


@triton.jit
def pull_kernel(lines, weights, n, BLOCK_N: tl.constexpr):
    """Program (j, i): the pulls of BLOCK_N lines of point i, given the gradient by their means, (B, K, n)."""
    point = tl.program_id(1).to(tl.int64)
    line = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = line < n
    _write_pull(lines + point * 4 * n + line, n, tl.load(weights + point * n + line, mask, other=0.0), mask)


@triton.jit
def loss_kernel(points, means, lines, losses, count, n, BLOCK_N: tl.constexpr):
    """Program b: the loss of image b, and the pulls of its lines by the derivative by the first images' means."""
    image = tl.program_id(0)
    present = 0
    for k in range(0, count):
        at = points + 3 * (image * count + k)
        present += ((tl.load(at) != 0) | (tl.load(at + 1) != 0) | (tl.load(at + 2) != 0)).to(tl.int32)
    present = tl.maximum(present, 1).to(tl.float32)
    total = 0.0
    for k in range(0, count):
        point = (image * count + k).to(tl.int64)
        first = means + point * n
        second = first + (tl.num_programs(0) * count).to(tl.int64) * n
        squares = tl.zeros((BLOCK_N,), tl.float32)
        for start in range(0, n, BLOCK_N):
            line = start + tl.arange(0, BLOCK_N)
            mask = line < n
            difference = tl.load(first + line, mask, other=0.0) - tl.load(second + line, mask, other=0.0)
            squares += difference * difference
        norm = tl.sqrt(tl.sum(squares, axis=0))
        total += norm
        slope = tl.where(norm == 0, 0.0, 1 / (norm * present))
        for start in range(0, n, BLOCK_N):
            line = start + tl.arange(0, BLOCK_N)
            mask = line < n
            difference = tl.load(first + line, mask, other=0.0) - tl.load(second + line, mask, other=0.0)
            _write_pull(lines + point * 4 * n + line, n, difference * slope, mask)
    tl.store(losses + image, total / present)


@triton.jit
def _pulled(track, pull, active, y, x, g_x, g_y):
    """What a line adds to the gradient by (g_x, g_y) at pixels: nothing unless it reads them."""
    intercept, slope = unpack(track)
    bits_x, bits_y = pull.to(tl.int32), (pull >> 32).to(tl.int32)
    steep = (bits_y & 1) != 0
    row, column = tl.where(steep, y, x), tl.where(steep, x, y)
    position = intercept + slope * row
    hit = active & (position >= column) & (position < column + 1)
    pull_x, pull_y = (bits_x & -2).to(tl.float32, bitcast=True), (bits_y & -2).to(tl.float32, bitcast=True)
    response = g_x * pull_x + g_y * pull_y
    response = tl.where((bits_x & 1) != 0, -response, response)
    sign = tl.where(response > 0, 1.0, tl.where(response < 0, -1.0, 0.0))
    sign = tl.where(hit, sign, 0.0)
    return sign * pull_x, sign * pull_y


@triton.jit
def means_adjoint_kernel(
    maps,
    lines,
    sweeps,
    grads,
    grads_stride,
    sign,
    count,
    height,
    width,
    n,
    BLOCK_Y: tl.constexpr,
    BLOCK_X: tl.constexpr,
    RADIUS: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """Program (j, b): to each pixel of tile j of image b the pulls of the lines that read it; with grads, times sign grads.

    RADIUS: of a tile, in pixels, from its centre. The result replaces the columns in the maps: nothing reads these any
    more. Lines that reach pixels are neighbours. A line through a pixel's row or column meets it within 0.5 of its
    centre, so it lies at most asin(0.5 / distance) away in angle: below 0.51 / distance from a distance of 1.5 on; the
    rest of 0.55 covers rounding. Tiles near the point test all lines, in all others each pixel those that reach it.
    """
    image = tl.program_id(1)
    y, x, mask = _tile(tl.program_id(0), height, width, BLOCK_Y, BLOCK_X)
    plane = height * width
    maps += image.to(tl.int64) * 2 * plane
    g_x, g_y = unpack(tl.load(maps + y * width + x, mask, other=0))
    y, x = y.to(tl.float32), x.to(tl.float32)
    across = tl.cdiv(width, BLOCK_X)
    tile_x = (tl.program_id(0) % across * BLOCK_X).to(tl.float32) + 0.5 * (BLOCK_X - width)
    tile_y = (tl.program_id(0) // across * BLOCK_Y).to(tl.float32) + 0.5 * (BLOCK_Y - height)
    c_x, c_y = x - 0.5 * (width - 1), y - 0.5 * (height - 1)
    last = (n - 1).to(tl.float32)
    sum_x, sum_y = tl.zeros((BLOCK_Y, BLOCK_X), tl.float32), tl.zeros((BLOCK_Y, BLOCK_X), tl.float32)
    for k in range(0, count):
        point = (image * count + k).to(tl.int64)
        sweep, table = sweeps + point * 16, lines + point * 4 * n
        s_0, s_1, s_2 = tl.load(sweep), tl.load(sweep + 1), tl.load(sweep + 2)
        s_3, s_4, s_5 = tl.load(sweep + 3), tl.load(sweep + 4), tl.load(sweep + 5)
        unit, per_angle, turn = tl.load(sweep + 6), tl.load(sweep + 8), tl.load(sweep + 9)
        windows = tl.load(sweep + 10).to(tl.int32)
        tile_u, tile_v = s_0 + s_1 * tile_x + s_2 * tile_y, s_3 + s_4 * tile_x + s_5 * tile_y
        distance = tl.sqrt(tile_u * tile_u + tile_v * tile_v)
        near = distance < (1.5 * RADIUS + 3) * unit
        tile_place = (fast_atan2(tile_v, tile_u) / unit - tl.load(sweep + 7)) * per_angle
        widest = per_angle * 0.56 / (distance - RADIUS * unit)
        reach = widest + per_angle * 1.2 * RADIUS / distance
        steps = tl.where(near, n, tl.minimum(2 * widest, last).to(tl.int32) + 1)
        u, v = s_0 + s_1 * c_x + s_2 * c_y, s_3 + s_4 * c_x + s_5 * c_y
        half = per_angle * 0.55 / tl.sqrt(u * u + v * v)
        aside = fast_atan((tile_u * v - tile_v * u) / (tile_u * u + tile_v * v)) / unit * per_angle
        for j in range(0, tl.where(near, tl.minimum(windows, 1), windows)):
            centre = tile_place + (j - 1) * turn
            if near | ((centre + reach >= 0) & (centre - reach <= last)):
                low = tl.minimum(tl.maximum(tl.ceil(centre + aside - half), 0.0), last + 1).to(tl.int32)
                high = tl.maximum(tl.minimum(tl.floor(centre + aside + half), last), -1.0).to(tl.int32)
                low, high = tl.where(near, 0, low), tl.where(near, n - 1, high)
                for step in tl.range(0, steps, loop_unroll_factor=UNROLL):
                    line = low + step
                    active = mask & (line <= high)
                    track = tl.load(table + line, active, other=0)
                    pull = tl.load(table + 3 * n + line, active, other=0)
                    add_x, add_y = _pulled(track, pull, active, y, x, g_x, g_y)
                    sum_x += add_x
                    sum_y += add_y
    if grads is not None:
        scale = tl.load(grads + image * grads_stride) * sign
        sum_x *= scale
        sum_y *= scale
    y, x, mask = _tile(tl.program_id(0), height, width, BLOCK_Y, BLOCK_X)
    tl.store(maps + plane + y * width + x, pack(sum_x, sum_y), mask)


@triton.jit
def _inside(sums, y, x, height, width, mask):
    """Sums at pixels that may lie one outside the image: they continue evenly."""
    y = tl.minimum(tl.maximum(y, 0), height - 1)
    x = tl.minimum(tl.maximum(x, 0), width - 1)
    return unpack(tl.load(sums + y * width + x, mask, other=0))


@triton.jit
def sobel_adjoint_kernel(maps, grad_images, height, width, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):
    """The adjoint of ``_write_sobel``, of what ``means_adjoint_kernel`` left in the maps. Program (j, b): tile j of image b.

    Smoothing continues evenly beyond the border, differences change their sign.
    """
    y, x, mask = _tile(tl.program_id(0), height, width, BLOCK_Y, BLOCK_X)
    plane = height * width
    image = tl.program_id(1).to(tl.int64)
    sums = maps + (image * 2 + 1) * plane
    west_sign, east_sign = tl.where(x == 0, -1.0, 1.0), tl.where(x == width - 1, -1.0, 1.0)
    north_sign, south_sign = tl.where(y == 0, -1.0, 1.0), tl.where(y == height - 1, -1.0, 1.0)
    nw_x, nw_y = _inside(sums, y - 1, x - 1, height, width, mask)
    ne_x, ne_y = _inside(sums, y - 1, x + 1, height, width, mask)
    sw_x, sw_y = _inside(sums, y + 1, x - 1, height, width, mask)
    se_x, se_y = _inside(sums, y + 1, x + 1, height, width, mask)
    west, _ = _inside(sums, y, x - 1, height, width, mask)
    east, _ = _inside(sums, y, x + 1, height, width, mask)
    _, north = _inside(sums, y - 1, x, height, width, mask)
    _, south = _inside(sums, y + 1, x, height, width, mask)
    gray = west_sign * (nw_x + sw_x + 2 * west) - east_sign * (ne_x + se_x + 2 * east)
    gray += north_sign * (nw_y + ne_y + 2 * north) - south_sign * (sw_y + se_y + 2 * south)
    out = grad_images + image * 3 * plane + y * width + x
    tl.store(out, 0.2989 * gray, mask)
    tl.store(out + plane, 0.587 * gray, mask)
    tl.store(out + 2 * plane, 0.114 * gray, mask)
