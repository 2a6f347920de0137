"""Constraints on the picture that a denoiser is heading for.

A constraint maps (decoded x0, true image, vanishing points, noise level) to a loss per sample. Registering a
function in ``CONSTRAINTS`` is all it takes to add one: training finds it by its name.
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from alberti.errors import ConfigError
from alberti.losses.perspective import perspective_loss, perspective_profile

_GRAY = (0.2989, 0.587, 0.114)
# Standard deviations in pixels, from which the true image's blur is interpolated.
_BLURS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


class Constraint(Protocol):
    """A loss per sample of a decoded estimate against the true image."""

    def __call__(
        self, decoded: Tensor, image: Tensor, vanishing_points: Tensor, alpha_bar: Tensor, *, num_lines: int
    ) -> Tensor:
        """Args:
            decoded: (B, 3, H, W) in [0, 1], the decoded one-step estimate of x0; gradients flow into it.
            image: (B, 3, H, W) in [0, 1], the true image.
            vanishing_points: (B, K, 3) homogeneous pixels, zero rows absent.
            alpha_bar: (B,) the estimate's noise level: 1 is clean.
            num_lines: how finely a vanishing point is swept, where that applies.

        Returns:
            (B,) losses; zero for a sample without vanishing points.
        """
        ...


def perspective(
    decoded: Tensor, image: Tensor, vanishing_points: Tensor, alpha_bar: Tensor, *, num_lines: int = 1000
) -> Tensor:
    """The published loss: L2 distance of profiles (Upadhyay et al. 2023)."""
    return perspective_loss(decoded, image, vanishing_points, num_lines=num_lines)


def perspective_matched(
    decoded: Tensor, image: Tensor, vanishing_points: Tensor, alpha_bar: Tensor, *, num_lines: int = 1000
) -> Tensor:
    """1 - Pearson correlation of profiles, the true image first blurred until it is as sharp as the estimate.

    A one-step estimate at high noise is a blur, and the published loss punishes that before anything else. Here the
    true image is blurred until it is as sharp as the estimate, which no gradient follows, and the comparison ignores
    the profiles' scale and offset. Mean over the image's vanishing points.
    """
    with torch.no_grad():
        matched = match_sharpness(image, decoded)
    found = perspective_profile(decoded, vanishing_points, num_lines=num_lines)
    wanted = perspective_profile(matched, vanishing_points, num_lines=num_lines)
    found, wanted = (profile - profile.mean(dim=-1, keepdim=True) for profile in (found, wanted))
    covariance = (found * wanted).sum(dim=-1)
    norms = _safe_norm(found) * _safe_norm(wanted)
    return _mean_over_points(1 - covariance / norms.clamp(min=1e-12), vanishing_points)


def orientation(
    decoded: Tensor, image: Tensor, vanishing_points: Tensor, alpha_bar: Tensor, *, num_lines: int = 1000
) -> Tensor:
    """How much more of the estimate's edge energy than of the true image's points at no vanishing point.

    max(0, share(decoded) - share(image)), see :func:`stray_share`. It needs no edge to lie where the true image has
    one.
    """
    with torch.no_grad():
        allowed = stray_share(image, vanishing_points)
    excess = F.relu(stray_share(decoded, vanishing_points) - allowed)
    return torch.where(_present(vanishing_points).any(dim=1), excess, torch.zeros_like(excess))


CONSTRAINTS: dict[str, Constraint] = {
    "perspective": perspective,
    "perspective_matched": perspective_matched,
    "orientation": orientation,
}


def constraint_named(name: str) -> Constraint:
    """The constraint of this name; ConfigError lists the known ones."""
    if name not in CONSTRAINTS:
        raise ConfigError(f"constraint: expected one of {', '.join(sorted(CONSTRAINTS))}, or none; got {name!r}")
    return CONSTRAINTS[name]


def stray_share(image: Tensor, vanishing_points: Tensor, *, sigma: float = 1.0, tolerance: float = 3.0) -> Tensor:
    """Share of structure-tensor edge energy that points at no vanishing point, (B,) in [0, 1].

    The structure tensor J is grad grad^T of the gray image, blurred by ``sigma`` pixels. A pixel's edge energy is the
    difference of J's eigenvalues, its edge runs across the larger one's eigenvector. For the direction d from the
    pixel to a vanishing point, s = (d^T J d - smaller eigenvalue) / energy = sin^2 of the angle between edge and d.
    The edge counts as stray by s / (s + sin^2 tolerance), taken at its best vanishing point: 0 for an edge that
    points at it, near 1 from a few times ``tolerance`` (degrees) on, with a gradient everywhere between.
    """
    xx, xy, yy = _structure_tensor(image, sigma)
    difference, cross = xx - yy, 2 * xy
    energy = _safe_hypot(difference, cross)
    towards = _directions(vanishing_points, image.shape[2], image.shape[3])
    dx, dy = towards[:, :, 0], towards[:, :, 1]
    # With d = (cos a, sin a), d^T J d = (xx + yy + difference cos 2a + cross sin 2a) / 2, and the smaller eigenvalue is
    # (xx + yy - energy) / 2.
    along = difference[:, None] * (dx * dx - dy * dy) + cross[:, None] * (2 * dx * dy)
    stray = ((along + energy[:, None]) / 2).clamp(min=0)
    limit = math.sin(math.radians(tolerance)) ** 2
    # s / (s + limit), both multiplied by the energy so that flat regions divide nothing by zero.
    score = stray / (stray + limit * energy[:, None]).clamp(min=1e-12)
    score = torch.where(_present(vanishing_points)[:, :, None, None], score, torch.ones_like(score)).amin(dim=1)
    total = energy.sum(dim=(1, 2))
    return (score * energy).sum(dim=(1, 2)) / total.clamp(min=1e-6)


def match_sharpness(image: Tensor, estimate: Tensor) -> Tensor:
    """``image`` blurred, each sample by its own Gaussian, until it is as sharp as ``estimate``; never sharpened.

    Sharpness is gradient energy over variance, so that low contrast is not taken for blur.
    """
    wanted = _sharpness(estimate)
    ladder = torch.stack([blur(image, sigma) for sigma in _BLURS])
    found = torch.stack([_sharpness(blurred) for blurred in ladder])
    # Sharpness falls along the ladder; mix the two rungs around the wanted one.
    lower = (found > wanted).sum(dim=0).clamp(1, len(_BLURS) - 1)
    samples = torch.arange(len(image), device=image.device)
    high, low = found[lower - 1, samples], found[lower, samples]
    share = ((high - wanted) / (high - low).clamp(min=1e-12)).clamp(0, 1).view(-1, 1, 1, 1)
    return torch.lerp(ladder[lower - 1, samples], ladder[lower, samples], share)


def _sharpness(image: Tensor) -> Tensor:
    """Gradient energy over variance of the gray image, (B,): 1 / (edge width squared), roughly."""
    gray = _gray(image)
    energy = _gray_gradient(image).square().mean(dim=(1, 2, 3))
    return energy / gray.var(dim=(1, 2, 3)).clamp(min=1e-8)


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


def _gray(image: Tensor) -> Tensor:
    return (image * image.new_tensor(_GRAY).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def _gray_gradient(image: Tensor) -> Tensor:
    """Sobel gradient of the gray image, replicated border: (B, 3, H, W) -> (B, 2, H, W) per pixel."""
    sobel = image.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    padded = F.pad(_gray(image), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, torch.stack([sobel, sobel.T])[:, None])


def _structure_tensor(image: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    # Replicated borders bend the gradient of the outermost pixels, which therefore do not count.
    gradient = F.pad(_gray_gradient(image)[:, :, 1:-1, 1:-1], (1, 1, 1, 1))
    x, y = gradient[:, 0], gradient[:, 1]
    products = blur(torch.stack([x * x, x * y, y * y], dim=1), sigma)
    return products[:, 0], products[:, 1], products[:, 2]


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


def _present(points: Tensor) -> Tensor:
    return (points != 0).any(dim=-1)


def _mean_over_points(values: Tensor, points: Tensor) -> Tensor:
    present = _present(points)
    return torch.where(present, values, torch.zeros_like(values)).sum(dim=1) / present.sum(dim=1).clamp(min=1)


def _safe_hypot(a: Tensor, b: Tensor) -> Tensor:
    """sqrt(a^2 + b^2) with a zero, not a NaN, gradient at the origin."""
    return (a * a + b * b + 1e-20).sqrt()


def _safe_norm(values: Tensor) -> Tensor:
    return (values.square().sum(dim=-1) + 1e-20).sqrt()
