"""Shadows: which hit points the bodies hide from the scene's main light."""

from collections.abc import Callable

import torch
from torch import Tensor

from alberti.data.scenes.scene import Bodies
from alberti.data.scenes.tracing import BIG, Vectors, fold, make_pairs, shift_planes

_CLEAR = 0.03
"""Metres that a body must lie off a point to hide it: less is the body itself."""


def shadowed(bodies: Bodies, sun: Tensor, points: Vectors, facing: Tensor, scene: Tensor) -> Tensor:
    """(T, R) in [0, 1]: 1 where a body stands between the point and the light.

    ``sun`` (B, 3) unit vectors towards the light; ``facing`` (T, R) 1 for points that need an answer; ``scene`` (T,).
    """
    mask = _light_mask(bodies, sun, points, facing, scene)
    shade = torch.zeros_like(points[0])
    inverse = (sun + 1e-9).reciprocal()
    scaled = tuple(point * inverse[:, i].index_select(0, scene)[:, None] for i, point in enumerate(points))
    first = 0
    for name, n in (("boxes", bodies.boxes), ("hulls", bodies.hulls), ("blobs", bodies.blobs)):
        pairs = make_pairs(mask[:, first : first + n], scene, first, bodies.count)
        fold(shade, scaled if name == "boxes" else points, pairs, _hide(_Blocker(name, bodies, sun, inverse)))
        first += n
    return shade


def _light_mask(bodies: Bodies, sun: Tensor, points: Vectors, facing: Tensor, scene: Tensor) -> Tensor:
    """(T, n) bodies whose outline, seen from the light, meets that of the row's points.

    A point is carried along the light's direction to the plane y = 0; a body's outline there is its box's.
    """
    lean_x, lean_z = sun[:, 0] / sun[:, 1], sun[:, 2] / sun[:, 1]
    rows = []
    hidden = (1 - facing) * BIG
    for axis, lean in ((0, lean_x), (2, lean_z)):
        flat = points[axis] - points[1] * lean.index_select(0, scene)[:, None]
        rows += [(flat + hidden).amin(1), (flat - hidden).amax(1)]
    lowest = (points[1] + hidden).amin(1)
    box = []
    for axis, lean in ((0, lean_x), (2, lean_z)):
        shift_low, shift_high = bodies.low[..., 1] * lean[:, None], bodies.high[..., 1] * lean[:, None]
        small, large = torch.minimum(shift_low, shift_high), torch.maximum(shift_low, shift_high)
        box += [bodies.low[..., axis] - large, bodies.high[..., axis] - small]
    tiles = len(scene) // len(sun)

    def by_row(values: Tensor) -> Tensor:
        return values.view(len(sun), tiles, 1)

    def by_body(values: Tensor) -> Tensor:
        return values[:, None]

    hit = (by_row(rows[0]) <= by_body(box[1])) & (by_row(rows[1]) >= by_body(box[0]))
    hit &= (by_row(rows[2]) <= by_body(box[3])) & (by_row(rows[3]) >= by_body(box[2]))
    hit &= by_row(lowest) < by_body(bodies.high[..., 1])
    hit &= by_body(bodies.high[..., 1] >= bodies.low[..., 1])
    return hit.flatten(0, 1)


class _Blocker:
    """Distances along the light at which rows of points leave a body, or less than zero where they miss it."""

    def __init__(self, name: str, bodies: Bodies, sun: Tensor, inverse: Tensor):
        self.name, self.bodies, self.sun = name, bodies, sun
        self.first = {"boxes": 0, "hulls": bodies.boxes, "blobs": bodies.boxes + bodies.hulls}[name]
        self.size = {"boxes": bodies.boxes, "hulls": bodies.hulls, "blobs": bodies.blobs}[name]
        if name == "boxes":
            a, b = bodies.low * inverse[:, None], bodies.high * inverse[:, None]
            self.enter = torch.minimum(a, b).flatten(0, 1)
            self.leave = torch.maximum(a, b).flatten(0, 1)
        elif name == "hulls":
            self.planes = shift_planes(bodies.planes, torch.zeros_like(sun)).flatten(0, 1)
        else:
            span = slice(self.first, self.first + self.size)
            self.centre, self.half = (value[:, span].flatten(0, 1) for value in (bodies.centre, bodies.half))

    def __call__(self, body: Tensor, points: list[Tensor]) -> Tensor:
        if self.name == "boxes":
            return self._boxes(self.enter.index_select(0, body), self.leave.index_select(0, body), points)
        scene = body // self.bodies.count
        index = scene * self.size + body % self.bodies.count - self.first
        sun = self.sun.index_select(0, scene)
        if self.name == "hulls":
            return self._hulls(self.planes.index_select(0, index), sun, points)
        return self._blobs(self.centre.index_select(0, index), self.half.index_select(0, index), sun, points)

    @staticmethod
    def _boxes(enter: Tensor, leave: Tensor, points: list[Tensor]) -> Tensor:
        near = torch.maximum(enter[:, 0:1] - points[0], enter[:, 1:2] - points[1])
        torch.maximum(near, enter[:, 2:3] - points[2], out=near)
        far = torch.minimum(leave[:, 0:1] - points[0], leave[:, 1:2] - points[1])
        torch.minimum(far, leave[:, 2:3] - points[2], out=far)
        return torch.minimum((far - near) * BIG, far - _CLEAR)

    @staticmethod
    def _hulls(planes: Tensor, sun: Tensor, points: list[Tensor]) -> Tensor:
        near, far = torch.full_like(points[0], -BIG), torch.full_like(points[0], BIG)
        for i in range(planes.shape[1]):
            n = planes[:, i]
            slope = (n[:, 0] * sun[:, 0] + n[:, 1] * sun[:, 1] + n[:, 2] * sun[:, 2])[:, None] + 1e-12
            gap = n[:, 3:4] - (points[0] * n[:, 0:1] + points[1] * n[:, 1:2] + points[2] * n[:, 2:3])
            t = gap / slope
            out = (slope * BIG).clamp(-1e20, 1e20)
            torch.maximum(near, t - out.clamp(min=0), out=near)
            torch.minimum(far, t - out.clamp(max=0), out=far)
        return torch.minimum((far - near) * BIG, far - _CLEAR)

    @staticmethod
    def _blobs(centre: Tensor, half: Tensor, sun: Tensor, points: list[Tensor]) -> Tensor:
        u = sun / half
        a = (u[:, 0] * u[:, 0] + u[:, 1] * u[:, 1] + u[:, 2] * u[:, 2])[:, None]
        c = [(centre[:, i, None] - points[i]) / half[:, i, None] for i in range(3)]
        b = c[0] * u[:, 0:1] + c[1] * u[:, 1:2] + c[2] * u[:, 2:3]
        gap = b * b - a * (c[0] * c[0] + c[1] * c[1] + c[2] * c[2] - 1)
        far = (b + gap.clamp(min=0).sqrt()) / a
        return torch.minimum(gap * BIG, far - _CLEAR)


def _hide(blocker: _Blocker) -> Callable:
    """What ``fold`` does with a blocker: 1 wherever any body hides the point."""

    def update(hidden: Tensor, body: Tensor, vectors: list[Tensor]) -> None:
        torch.maximum(hidden, (blocker(body, vectors) * BIG).clamp_(0, 1), out=hidden)

    return update
