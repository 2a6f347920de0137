"""Where edges point: the share of a picture's edges that point at no vanishing point, with gradients.

Unlike the perspective loss it compares with no other picture: which windows a facade has is free, but not where their sills
point. docs/method.md says how it is used, as a constraint and as guidance.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from alberti.geometry.presence import present
from alberti.losses._sweep import GRAY

_DERIVATIVE_SIGMA = 0.7
"""Pixels. Gaussian derivatives are nearly isotropic, Sobel's 3x3 turn oblique edges."""
_INTEGRATION_SIGMA = 1.5
_BORDER = 2
"""Outermost pixels, whose gradient the replicated border bends."""
_WEIGHT_POWER = 0.75
"""Edges count by contrast^1.5, between their energy (strong edges only) and their length (noise in the sky as well)."""
_AMOUNT_POWER = 0.25
"""How much edge there is is counted by contrast^0.5, nearer to its length."""
_RARE = 0.01
"""Added to shares before their logarithm: a direction that hardly an edge has must not outweigh all others."""
_WINDOW = 16
"""Pixels, the side of the windows in which edges are counted."""


def stray_share(image: Tensor, points: Tensor, *, tolerance: float) -> Tensor:
    """Share of a picture's edges that point at no vanishing point.

    With J the structure tensor of the gray picture's Gaussian derivatives, blurred by 1.5 pixels, a pixel's edge has the energy
    E = the difference of J's eigenvalues. For the direction d from the pixel to a vanishing point, s = (d^T J d - smaller
    eigenvalue) / E = sin^2 of the angle between edge and d. The edge is stray by s / (s + sin^2 tolerance), taken at its best
    vanishing point, and counts by E^0.75.

    Args:
        image: (B, 3, H, W) in [0, 1].
        points: (B, K, 3) homogeneous pixels, zero rows absent.
        tolerance: degrees at which an edge is half stray.

    Returns:
        Shares (B,) in [0, 1].
    """
    energy, stray = edges(image, points)
    score = stray / (stray + math.sin(math.radians(tolerance)) ** 2)
    score = torch.where(present(points)[:, :, None, None], score, torch.ones_like(score)).amin(dim=1)
    weight = (energy + 1e-9) ** _WEIGHT_POWER
    return (weight * score).sum(dim=(1, 2)) / weight.sum(dim=(1, 2))


def grid_misfit(image: Tensor, points: Tensor, *, tolerance: float, balance: float, surfaces: Tensor | None = None) -> Tensor:
    """How far the edges of each surface are from a grid: all of them towards its vanishing points, equally many to each.

        sum_g a_g [ -(1 - balance) log sum_k q_gk  -  balance mean_k log q_gk ] / sum_g a_g

    over the kinds g of surface, that is, the distinct sets of vanishing points that pixels' surfaces contain. a_g is the
    area of kind g, and of its edges' weight (E^0.75, see :func:`stray_share`) q_gk is the share that points at k, so that
    1 - sum_k q_gk is the stray share. The first term alone is small also where all edges stand upright; the second is the
    cross-entropy with equal shares, and grows without bound as one of them vanishes. Gradients take the weights as given: they
    turn edges, and neither fade the stray ones nor paint new ones, which would lower it as well and costs what the picture
    shows.

    Args:
        image: (B, 3, H, W) in [0, 1]. points: (B, K, 3), zero rows absent. tolerance: degrees at which an edge is half stray.
        balance: 0 asks for no stray edges, 1 for as many towards each point as well.
        surfaces: (B, K, H, W) bool, which points the surface at each pixel contains, as of
            :func:`alberti.geometry.surfaces.points_on_surfaces`; pixels that have none do not count. None: one kind of
            surface, which contains all points.

    Returns:
        (B,): 0 where no pixel counts; with k points at least balance * log k (a hundredth is added to shares).
    """
    energy, stray = edges(image, points)
    limit = math.sin(math.radians(tolerance)) ** 2
    weight = (energy.detach() + 1e-9) ** _WEIGHT_POWER
    there = present(points)
    allowed = there[:, :, None, None].expand_as(stray)
    if surfaces is None:
        members, kinds = there[:, None], allowed.any(dim=1, keepdim=True)  # nothing waits for the device
    else:
        allowed = allowed & surfaces
        members, kinds = _kinds(allowed)
    members, kinds = members.to(weight.dtype), kinds.to(weight.dtype)
    votes = weight[:, None] * _votes(torch.where(allowed, limit / (stray + limit), torch.zeros_like(stray)))
    total = torch.einsum("bghw,bhw->bg", kinds, weight).clamp(min=1e-12)
    shares = torch.einsum("bghw,bkhw->bgk", kinds, votes) / total[..., None]
    any_point = -(shares.sum(dim=2) + _RARE).log()
    each_point = -((shares + _RARE).log() * members).sum(dim=2) / members.sum(dim=2).clamp(min=1)
    areas = kinds.sum(dim=(2, 3))
    misfits = (1 - balance) * any_point + balance * each_point
    return (areas * misfits).sum(dim=1) / areas.sum(dim=1).clamp(min=1)


def edge_amount(image: Tensor) -> Tensor:
    """How much edge a picture has: the logarithm of the mean of E^p over its pixels, (B,); see :func:`stray_share`.

    p is small, so that it counts how many pixels have an edge rather than how strong the edges are.
    """
    return (edge_energy(image) + 1e-6).pow(_AMOUNT_POWER).mean(dim=(1, 2)).log()


def _votes(towards: Tensor) -> Tensor:
    """How much each edge points at any point, given nearly whole to the best: (B, K, H, W) of how much it does at each."""
    # a power, for a hard choice has no gradient
    shares = towards.pow(4) / towards.pow(4).sum(dim=1, keepdim=True).clamp(min=1e-12)
    return towards.amax(dim=1, keepdim=True) * shares


def _kinds(allowed: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct non-empty sets of points that pixels have: (B, G, K) which points, (B, G, H, W) where; both 0 or 1."""
    codes = (allowed * (2 ** torch.arange(allowed.shape[1], device=allowed.device))[:, None, None]).sum(dim=1)
    known = codes.unique()
    known = known[known > 0]
    kinds = codes[:, None] == known[:, None, None]
    members = (known[:, None] // 2 ** torch.arange(allowed.shape[1], device=allowed.device)) % 2
    return members.expand(len(allowed), -1, -1), kinds


def edge_change(image: Tensor, reference: Tensor, points: Tensor, *, tolerance: float) -> Tensor:
    """How differently edges towards each vanishing point are spread over two pictures, (B,) in [0, 1].

    sum |a - b| / sum (a + b) over vanishing points and windows of 16 x 16 pixels (every 8), a and b the windows' sums of E^0.75
    of the edges that point at it, see :func:`stray_share`. An edge may lie anywhere within a window. Without this price the
    share of stray edges falls most easily by wiping them out, or by etching stripes towards one point into walls and sky.

    Args:
        image, reference: (B, 3, H, W) in [0, 1]; gradients flow into the first only.
        points: (B, K, 3), zero rows absent. tolerance: degrees at which an edge is half stray.
    """
    found = _census(image, points, tolerance)
    with torch.no_grad():
        wanted = _census(reference, points, tolerance)
    return (found - wanted).abs().sum(dim=(1, 2, 3)) / (found + wanted).sum(dim=(1, 2, 3)).clamp(min=1e-6)


def _census(image: Tensor, points: Tensor, tolerance: float) -> Tensor:
    """Weight of the edges towards each vanishing point in each window, (B, K, h, w)."""
    energy, stray = edges(image, points)
    limit = math.sin(math.radians(tolerance)) ** 2
    towards = torch.where(present(points)[:, :, None, None], limit / (stray + limit), torch.zeros_like(stray))
    weights = (energy[:, None] + 1e-9) ** _WEIGHT_POWER * _votes(towards)
    window = min(_WINDOW, *image.shape[2:])
    return F.avg_pool2d(weights, window, max(1, window // 2)) * window**2


def gray(image: Tensor) -> Tensor:
    """(B, 3, H, W) RGB -> (B, 1, H, W), ITU-R 601."""
    red, green, blue = image.split(1, dim=1)
    return GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, C, H, W) with replicated borders; ``sigma`` in pixels, 0: unchanged."""
    if sigma == 0:
        return image
    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, -1)
    padded = F.pad(image, (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(padded, kernel[:, :, None, :], groups=image.shape[1])
    return F.conv2d(rows, kernel[:, :, :, None], groups=image.shape[1])


def edges(image: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Energy (B, H, W) of each pixel's edge, and sin^2 of its angle to each vanishing point (B, K, H, W)."""
    difference, cross = _tensor_parts(image)
    energy = (difference.square() + cross.square() + 1e-14).sqrt()
    dx, dy = _directions(points, image.shape[2], image.shape[3]).unbind(dim=2)
    # With d = (cos a, sin a), d^T J d = (xx + yy + difference cos 2a + cross sin 2a) / 2, and the smaller eigenvalue is
    # (xx + yy - energy) / 2.
    along = difference[:, None] * (dx * dx - dy * dy) + cross[:, None] * (2 * dx * dy)
    return energy, ((along / energy[:, None] + 1) / 2).clamp(min=0)


def edge_energy(image: Tensor) -> Tensor:
    """Energy (B, H, W) of each pixel's edge."""
    difference, cross = _tensor_parts(image)
    return (difference.square() + cross.square() + 1e-14).sqrt()


def _tensor_parts(image: Tensor) -> tuple[Tensor, Tensor]:
    """Of the structure tensor J: xx - yy and 2 xy, each (B, H, W)."""
    x, y = _derivatives(gray(image)).unbind(dim=1)
    xx, xy, yy = blur(torch.stack([x * x, x * y, y * y], dim=1), _INTEGRATION_SIGMA).unbind(dim=1)
    return xx - yy, 2 * xy


def _derivatives(intensity: Tensor) -> Tensor:
    """Gaussian derivatives along x and y, zero at the border: (B, 1, H, W) -> (B, 2, H, W) per pixel."""
    radius = math.ceil(3 * _DERIVATIVE_SIGMA)
    offsets = torch.arange(-radius, radius + 1, device=intensity.device, dtype=intensity.dtype)
    smooth = torch.exp(-0.5 * (offsets / _DERIVATIVE_SIGMA) ** 2)
    smooth, slope = smooth / smooth.sum(), offsets * smooth
    slope = slope / (slope * offsets).sum()
    kernels = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)])[:, None]
    found = F.conv2d(F.pad(intensity, (radius,) * 4, mode="replicate"), kernels)
    return F.pad(found[:, :, _BORDER:-_BORDER, _BORDER:-_BORDER], (_BORDER,) * 4)


def _directions(points: Tensor, height: int, width: int) -> Tensor:
    """Unit directions in the image from each pixel to each vanishing point: (B, K, 3) -> (B, K, 2, H, W).

    The direction from (px, py) to (x, y, w) is (x - w px, y - w py), up to sign, also for w = 0.
    """
    x, y, w = (part[:, :, None, None] for part in points.unbind(dim=-1))
    columns = torch.arange(width, device=points.device, dtype=points.dtype)
    rows = torch.arange(height, device=points.device, dtype=points.dtype)[:, None]
    dx, dy = (x - w * columns).expand(-1, -1, height, -1), (y - w * rows).expand(-1, -1, -1, width)
    length = torch.hypot(dx, dy).clamp(min=1e-12)
    return torch.stack([dx / length, dy / length], dim=2)
