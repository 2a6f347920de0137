"""Ray casting for a whole batch of scenes at once.

The image is cut into tiles. Each tile gets the list of the bodies whose projections touch it, tiles are sorted by the
length of their lists, and step k intersects the k-th body of every tile that has one: a dense, branch-free computation
on a prefix of the rows. The nearest hit is kept as one integer, the bits of the distance with the body's slot in the
lowest nine, so that the minimum of integers keeps both; :func:`refine` then computes the exact distance and normal from
the body that won. Selections (``where``) are written as clamps, which the CPU runs ten times faster.

A ray is eye + t d, d scaled to 1 along the optical axis, so t is the depth z.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from alberti.data.scenes.scene import GROUND_SLOT, SKY_SLOT, SLOTS, Bodies
from alberti.data.scenes.textures import leaf_noise

NEAR = 0.05
BIG = 1e30
_TINY = 1e-12
_ROWS = 512
"""Rows of 256 rays handled at once on the CPU, so that a step's arrays stay in its cache."""

Vectors = tuple[Tensor, Tensor, Tensor]


@dataclass
class Rays:
    """Rows of rays from one eye a row: ``d`` three (T, R) components in street axes, ``eye`` three (T, 1), ``scene``
    (T,) the scene of each row."""

    d: Vectors
    eye: Vectors
    scene: Tensor

    def rows(self, rows: Tensor) -> "Rays":
        """Some of the rows."""
        return Rays(select(self.d, rows), select(self.eye, rows), self.scene.index_select(0, rows))


@dataclass
class Pairs:
    """Which bodies to try on which rows: ``rows`` sorted by falling number of bodies, the rows' first entries
    ``start`` in ``bodies`` (flat: scene * count + slot), and ``active[k]`` rows with more than k bodies."""

    rows: Tensor
    start: Tensor
    bodies: Tensor
    active: list[int]


def select(vectors: Vectors, rows: Tensor) -> Vectors:
    """Rows of each component."""
    x, y, z = vectors
    return (x.index_select(0, rows), y.index_select(0, rows), z.index_select(0, rows))


def make_pairs(mask: Tensor, scene: Tensor, offset: int, count: int) -> Pairs:
    """Pairs from a (T, n) mask over the bodies with slots ``offset`` .. ``offset`` + n."""
    lengths = mask.sum(1)
    order = torch.argsort(lengths, descending=True, stable=True)
    ends = lengths.cumsum(0)
    row, column = mask.nonzero(as_tuple=True)
    bodies = scene.index_select(0, row) * count + column + offset
    present = torch.bincount(lengths, minlength=1).flip(0).cumsum(0).flip(0)[1:].tolist()
    rows = order[: present[0] if present else 0]
    return Pairs(rows, (ends - lengths).index_select(0, rows), bodies, present)


def screen_bounds(bodies: Bodies, eye: Tensor, axes: Tensor, intrinsics: Tensor) -> Tensor:
    """(B, n, 4) pixel bounds x0 y0 x1 y1 of the bodies' boxes before the near plane; empty where there is none."""
    low, high = bodies.low - eye[:, None], bodies.high - eye[:, None]
    picks = [[(low, high)[(i >> axis) & 1][..., axis] for axis in range(3)] for i in range(8)]
    corners = [torch.stack([_along(axes[:, None, j], pick) for j in range(3)], dim=-1) for pick in picks]
    points = list(corners)
    valid = [corner[..., 2] > NEAR for corner in corners]
    for i in range(8):
        for axis in range(3):
            j = i | (1 << axis)
            if j == i:
                continue
            a, b = corners[i], corners[j]
            crosses = valid[i] ^ valid[j]
            step = (NEAR - a[..., 2]) / torch.where(crosses, b[..., 2] - a[..., 2], torch.ones_like(a[..., 2]))
            points.append(torch.cat([(a + (b - a) * step[..., None])[..., :2], torch.full_like(step, NEAR)[..., None]], -1))
            valid.append(crosses)
    stacked, ok = torch.stack(points), torch.stack(valid)
    z = stacked[..., 2].clamp(min=NEAR)
    fx, fy, cx, cy = (intrinsics[:, i, None] for i in range(4))
    x, y = fx * stacked[..., 0] / z + cx, fy * stacked[..., 1] / z + cy
    ok = ok & (bodies.high[..., 1] >= bodies.low[..., 1])
    first = [torch.where(ok, value, torch.inf).amin(0) for value in (x, y)]
    last = [torch.where(ok, value, -torch.inf).amax(0) for value in (x, y)]
    return torch.stack(first + last, dim=-1)


def _along(axis: Tensor, point: list[Tensor]) -> Tensor:
    return axis[..., 0] * point[0] + axis[..., 1] * point[1] + axis[..., 2] * point[2]


def touching(bounds: Tensor, tiles: Tensor) -> Tensor:
    """(B * tiles, n) mask: bodies with pixel ``bounds`` (B, n, 4) that meet ``tiles`` (t, 4)."""
    b, t = bounds[:, None], tiles[None, :, None]
    hit = (b[..., 0] <= t[..., 2]) & (b[..., 2] >= t[..., 0]) & (b[..., 1] <= t[..., 3]) & (b[..., 3] >= t[..., 1])
    return hit.flatten(0, 1)


def nearest(bodies: Bodies, eye: Tensor, rays: Rays, mask: Tensor, far: float) -> tuple[Tensor, dict[str, Tensor]]:
    """First hits nearer than ``far``: (T, R) slots (int32), and the rows that hulls and blobs may have touched.

    ``mask`` (T, n) says which bodies to try on which rows; ``eye`` (B, 3) is where the scenes' rays start.
    """
    down = (-rays.d[1]).clamp(min=_TINY)
    code = _code(rays.eye[1] / down, GROUND_SLOT)
    code = code.clamp(max=int(torch.tensor(far).view(torch.int32)) & -SLOTS | SKY_SLOT)
    touched = {}
    first = 0
    inverse = tuple((d + _TINY).reciprocal() for d in rays.d)
    for name, n in (("boxes", bodies.boxes), ("hulls", bodies.hulls), ("blobs", bodies.blobs)):
        pairs = make_pairs(mask[:, first : first + n], rays.scene, first, bodies.count)
        vectors = inverse if name == "boxes" else rays.d
        fold(code, vectors, pairs, _keep_nearest(_hitter(name, bodies, eye), bodies.count))
        touched[name] = pairs.rows
        first += n
    return code & (SLOTS - 1), touched


def _code(t: Tensor, slot: Tensor | int) -> Tensor:
    """Distance and slot as one integer that orders like the distance (positive floats order like their bits)."""
    bits = t.contiguous().view(torch.int32) & -SLOTS
    return bits | slot


def fold(total: Tensor, vectors: tuple[Tensor, ...], pairs: Pairs, update: Callable) -> None:
    """Let every body of ``pairs`` change the rows of ``total`` that it has to be tried on, in place.

    ``update`` (rows of total (n, R), flat bodies (n,), rows of the vectors) works in place. On the CPU a few rows at a
    time, which stay in its cache.
    """
    if not len(pairs.rows):
        return
    step = _ROWS if total.device.type == "cpu" else len(pairs.rows)
    for begin in range(0, len(pairs.rows), step):
        rows, start = pairs.rows[begin : begin + step], pairs.start[begin : begin + step]
        part = total.index_select(0, rows)
        chosen = [vector.index_select(0, rows) for vector in vectors]
        for k, active in enumerate(pairs.active):
            n = min(active - begin, len(rows))
            if n <= 0:
                break
            body = pairs.bodies.index_select(0, start[:n] + k)
            update(part[:n], body, [vector[:n] for vector in chosen])
        total.index_copy_(0, rows, part)


def _keep_nearest(hit: Callable, count: int) -> Callable:
    """What :func:`fold` does with the distances of ``hit``: keep the code of the nearest body."""

    def update(best: Tensor, body: Tensor, vectors: list[Tensor]) -> None:
        slot = (body % count).to(torch.int32)[:, None]
        torch.minimum(best, _code(hit(body, vectors), slot), out=best)

    return update


def _hitter(name: str, bodies: Bodies, eye: Tensor) -> Callable:
    """The function (flat bodies (n,), ray vectors) -> (n, R) distances, huge where missed."""
    if name == "boxes":
        low, high = ((corner - eye[:, None]).flatten(0, 1) for corner in (bodies.low, bodies.high))
        return lambda body, inverse: _hit_boxes(low.index_select(0, body), high.index_select(0, body), inverse)
    first = bodies.boxes + (bodies.hulls if name == "blobs" else 0)

    def local(body: Tensor) -> Tensor:
        n = bodies.hulls if name == "hulls" else bodies.blobs
        return body // bodies.count * n + body % bodies.count - first

    if name == "hulls":
        planes = shift_planes(bodies.planes, eye).flatten(0, 1)
        return lambda body, d: _hit_hulls(planes.index_select(0, local(body)), d)
    centre = (bodies.centre[:, first : bodies.count] - eye[:, None]).flatten(0, 1)
    half = bodies.half[:, first : bodies.count].flatten(0, 1)
    eyes = eye[:, None].expand(-1, bodies.blobs, -1).flatten(0, 1)

    def blobs(body: Tensor, d: list[Tensor]) -> Tensor:
        index = local(body)
        return _hit_blobs(centre.index_select(0, index), half.index_select(0, index), eyes.index_select(0, index), d)

    return blobs


def shift_planes(planes: Tensor, eye: Tensor) -> Tensor:
    """Planes (B, M, 6, 4) with offsets measured from the eye."""
    e = eye[:, None, None]
    offset = planes[..., 3] - (planes[..., 0] * e[..., 0] + planes[..., 1] * e[..., 1] + planes[..., 2] * e[..., 2])
    return torch.cat([planes[..., :3], offset[..., None]], dim=-1)


def _hit_boxes(low: Tensor, high: Tensor, inverse: list[Tensor]) -> Tensor:
    enter = torch.full_like(inverse[0], NEAR)
    leave = torch.full_like(inverse[0], BIG)
    for axis, inv in enumerate(inverse):
        t0, t1 = inv * low[:, axis, None], inv * high[:, axis, None]
        torch.maximum(enter, torch.minimum(t0, t1), out=enter)
        torch.minimum(leave, torch.maximum(t0, t1, out=t0), out=leave)
    return leave.sub_(enter).neg_().clamp_(min=0).mul_(BIG).add_(enter)


def _hit_hulls(planes: Tensor, d: list[Tensor]) -> Tensor:
    enter, leave = torch.full_like(d[0], NEAR), torch.full_like(d[0], BIG)
    for i in range(planes.shape[1]):
        normal = planes[:, i]
        slope = d[0] * normal[:, 0:1] + d[1] * normal[:, 1:2] + d[2] * normal[:, 2:3] + _TINY
        t = normal[:, 3:4] / slope
        out = slope.mul_(BIG).clamp_(-1e20, 1e20)
        torch.maximum(enter, t - out.clamp(min=0), out=enter)
        torch.minimum(leave, t - out.clamp(max=0), out=leave)
    return leave.sub_(enter).neg_().clamp_(min=0).mul_(BIG).add_(enter)


def _hit_blobs(centre: Tensor, half: Tensor, eye: Tensor, d: list[Tensor]) -> Tensor:
    """Ellipsoids with a ragged edge: noise eats into the silhouette."""
    scaled = centre / half
    c = [scaled[:, i, None] for i in range(3)]
    u = [d[i] / half[:, i, None] for i in range(3)]
    a = u[0] * u[0] + u[1] * u[1] + u[2] * u[2]
    b = u[0] * c[0] + u[1] * c[1] + u[2] * c[2]
    rest = c[0] * c[0] + c[1] * c[1] + c[2] * c[2] - 1
    gap = b * b - a * rest
    t = (b - gap.clamp(min=0).sqrt()) / a
    x, y, z = (d[i] * t + eye[:, i, None] for i in range(3))
    inside = gap / a
    ragged = leaf_noise(x, y, z) * 0.75
    return t + ((ragged - inside).clamp(min=0) + (-b).clamp(min=0) + (NEAR - t).clamp(min=0)) * BIG


def refine(bodies: Bodies, eye: Tensor, rays: Rays, slot: Tensor, touched: dict[str, Tensor]) -> tuple[Tensor, Vectors]:
    """Exact distances (T, R) and outward unit normals of the hits ``slot`` (T, R); the sky is at a huge distance."""
    flat = slot + (rays.scene * SLOTS).to(torch.int32)[:, None]
    hull_first, blob_first = bodies.boxes, bodies.boxes + bodies.hulls
    value = slot.float()
    t, normal = _refine_boxes(bodies, rays, flat)
    ground = 1 - (value - GROUND_SLOT).abs().clamp_(max=1)
    down = (-rays.d[1]).clamp(min=_TINY)
    t = t * (1 - ground) + (rays.eye[1] / down) * ground
    normal = (normal[0] * (1 - ground), normal[1] * (1 - ground) + ground, normal[2] * (1 - ground))
    sky = 1 - (value - SKY_SLOT).abs().clamp_(max=1)
    t = t * (1 - sky) + sky * 1e6
    for name, low, high in (("hulls", hull_first, blob_first), ("blobs", blob_first, bodies.count)):
        rows = touched[name]
        if not len(rows):
            continue
        part, value_part = flat.index_select(0, rows), value.index_select(0, rows)
        mine = (value_part - (low - 0.5)).mul(BIG).clamp(0, 1) * ((high - 0.5) - value_part).mul(BIG).clamp(0, 1)
        refiner = _refine_hulls if name == "hulls" else _refine_blobs
        t_part, normal_part = refiner(bodies, eye, rays.rows(rows), part, value_part, mine)
        for old, new in zip((t, *normal), (t_part, *normal_part), strict=True):
            old.index_copy_(0, rows, old.index_select(0, rows) * (1 - mine) + new * mine)
    return t, normal


def column(table: Tensor, index: Tensor) -> Tensor:
    """table (N,) at index (T, R)."""
    return table.index_select(0, index.reshape(-1)).view(index.shape)


def _refine_boxes(bodies: Bodies, rays: Rays, flat: Tensor) -> tuple[Tensor, Vectors]:
    enters, signs = [], []
    for axis in range(3):
        centre = column(bodies.centre[..., axis].flatten(), flat)
        half = column(bodies.half[..., axis].flatten(), flat)
        sign = rays.d[axis].sign()
        enters.append((centre - rays.eye[axis] - sign * half) / (rays.d[axis] + _TINY))
        signs.append(sign)
    t = torch.maximum(torch.maximum(enters[0], enters[1]), enters[2])
    faces = [((enter - t) * BIG + 1).clamp_(0, 1) for enter in enters]
    x, y, z = (-sign * face for sign, face in zip(signs, faces, strict=True))
    return t.clamp(NEAR, 1e6), (x, y, z)


def _refine_hulls(bodies: Bodies, eye: Tensor, rays: Rays, flat: Tensor, value: Tensor, mine: Tensor) -> tuple[Tensor, Vectors]:
    planes = shift_planes(bodies.planes, eye).flatten(0, 1).flatten(0, 1)
    body = ((value - bodies.boxes) * mine).to(torch.int32) + (rays.scene * bodies.hulls).to(torch.int32)[:, None]
    best = torch.full_like(rays.d[0], -1e20)
    normal = [torch.zeros_like(best) for _ in range(3)]
    for i in range(6):
        index = body * 6 + i
        n = [column(planes[:, j].contiguous(), index) for j in range(4)]
        slope = n[0] * rays.d[0] + n[1] * rays.d[1] + n[2] * rays.d[2] + _TINY
        enter = n[3] / slope - slope.mul(BIG).clamp(0, 1e20)
        newer = (enter - best).mul(BIG).clamp(0, 1)
        best = torch.maximum(best, enter)
        normal = [old + (new - old) * newer for old, new in zip(normal, n, strict=False)]
    return best.clamp(NEAR, 1e6), (normal[0], normal[1], normal[2])


def _refine_blobs(bodies: Bodies, eye: Tensor, rays: Rays, flat: Tensor, value: Tensor, mine: Tensor) -> tuple[Tensor, Vectors]:
    c, u, half = [], [], []
    for axis in range(3):
        size = column(bodies.half[..., axis].flatten(), flat)
        c.append((column(bodies.centre[..., axis].flatten(), flat) - rays.eye[axis]) / size)
        u.append(rays.d[axis] / size)
        half.append(size)
    a = u[0] * u[0] + u[1] * u[1] + u[2] * u[2]
    b = u[0] * c[0] + u[1] * c[1] + u[2] * c[2]
    gap = b * b - a * (c[0] * c[0] + c[1] * c[1] + c[2] * c[2] - 1)
    t = ((b - gap.clamp(min=0).sqrt()) / a).clamp(NEAR, 1e6)
    n = [(u[i] * t - c[i]) / half[i] for i in range(3)]
    scale = (n[0] * n[0] + n[1] * n[1] + n[2] * n[2] + _TINY).sqrt().reciprocal()
    return t, (n[0] * scale, n[1] * scale, n[2] * scale)
