"""The perspective loss: edges that point at the vanishing points, compared line by line with those of a true image.

Upadhyay et al., "Enhancing Diffusion Models with 3D Perspective Geometry Constraints", ACM TOG 42(6), 2023. What is
fixed here and what the paper leaves open: docs/perspective_loss.md.
"""

import functools
import importlib.util

import torch
from torch import Tensor, nn

from alberti.geometry.presence import present
from alberti.losses._sweep import LineMeans, SobelGradient, sweep_lines


def perspective_profile(image: Tensor, vanishing_points: Tensor, *, num_lines: int = 1000) -> Tensor:
    """How strong the edges along each of the lines through each vanishing point are: (B, K, num_lines).

    image: (B, 3, H, W) RGB in [0, 1], any floating dtype; bfloat16 and float16 are computed in float32.
    vanishing_points: (B, K, 3) homogeneous pixels, w = 0 allowed; rows of zeros are absent and give zeros.

    Lines are in angular order, from the smallest to the largest angle (from +x towards +y) under which the point sees
    the centres of the image's four corner pixels; a full circle if the point is inside the image, so that every line
    comes twice. A line's value is the mean of |grad I . n| over its samples, one a row (lines steeper than 45 degrees)
    or one a column, read at the nearest pixel; n is the line's unit normal and grad I the 3x3 Sobel gradient of the
    gray image. Differentiable with respect to the image.
    """
    _check_inputs(vanishing_points, num_lines, image=image)
    points = vanishing_points.detach().to(image.device)
    if _fused(image):
        from alberti.losses._fused import FusedProfiles

        profiles: Tensor = FusedProfiles.apply(points, num_lines, image)
        return profiles
    return torch_profiles(points, num_lines, image)[0]


def perspective_loss(pred: Tensor, target: Tensor, vanishing_points: Tensor, *, num_lines: int = 1000) -> Tensor:
    """The perspective loss of each image of a batch: (B,).

    The L2 norm of the difference between the two images' profiles (see ``perspective_profile``), averaged over the
    vanishing points that the image has. An image without any contributes zero.

    pred, target: (B, 3, H, W) RGB in [0, 1]; vanishing_points: (B, K, 3) homogeneous pixels, zero rows absent.
    Differentiable with respect to pred, and to target where that requires a gradient. What is not a number stays so.
    """
    _check_inputs(vanishing_points, num_lines, pred=pred, target=target)
    points = vanishing_points.detach().to(pred.device)
    if _fused(pred):
        from alberti.losses._fused import FusedLoss

        losses: Tensor = FusedLoss.apply(points, num_lines, pred, target)
        return losses
    return torch_loss(pred, target, points, num_lines=num_lines)


class PerspectiveLoss(nn.Module):
    """``perspective_loss`` as a module; ``reduction`` over the batch is "mean", "sum" or "none" (B,)."""

    def __init__(self, num_lines: int = 1000, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f'reduction: expected "mean", "sum" or "none", got {reduction!r}')
        _check_num_lines(num_lines)
        self.num_lines = num_lines
        self.reduction = reduction

    def forward(self, pred: Tensor, target: Tensor, vanishing_points: Tensor) -> Tensor:
        losses = perspective_loss(pred, target, vanishing_points, num_lines=self.num_lines)
        if self.reduction == "none":
            return losses
        return losses.mean() if self.reduction == "mean" else losses.sum()

    def extra_repr(self) -> str:
        return f"num_lines={self.num_lines}, reduction={self.reduction!r}"


def torch_profiles(points: Tensor, num_lines: int, *images: Tensor) -> tuple[Tensor, ...]:
    """The profiles of each of some (B, 3, H, W) image tensors with the same vanishing points, in PyTorch alone."""
    lines = sweep_lines(points, images[0].shape[2], images[0].shape[3], num_lines)
    profiles: tuple[Tensor, ...] = LineMeans.apply(lines, *(SobelGradient.apply(image) for image in images))
    return profiles


def torch_loss(pred: Tensor, target: Tensor, points: Tensor, *, num_lines: int) -> Tensor:
    """``perspective_loss`` in PyTorch alone."""
    pred_profile, target_profile = torch_profiles(points, num_lines, pred, target)
    norms = torch.linalg.vector_norm(pred_profile - target_profile, dim=-1)
    return norms.sum(dim=1) / present(points).sum(dim=1).clamp(min=1)


def _fused(image: Tensor) -> bool:
    """The kernels compute in float32."""
    return image.is_cuda and image.dtype != torch.float64 and _has_triton()


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _check_num_lines(num_lines: int) -> None:
    if num_lines < 2:
        raise ValueError(f"num_lines: expected at least 2, got {num_lines}")


def _check_inputs(vanishing_points: Tensor, num_lines: int, **images: Tensor) -> None:
    _check_num_lines(num_lines)
    first_name, first = next(iter(images.items()))
    for name, image in images.items():
        if image.ndim != 4 or image.shape[1] != 3 or min(image.shape[2:]) < 2 or not image.is_floating_point():
            raise ValueError(f"{name}: expected floating (B, 3, H, W) with H, W >= 2, got {tuple(image.shape)} {image.dtype}")
        if image.shape != first.shape or image.device != first.device:
            raise ValueError(
                f"{name}: expected {tuple(first.shape)} on {first.device} as {first_name}, "
                f"got {tuple(image.shape)} on {image.device}"
            )
    shape = vanishing_points.shape
    if len(shape) != 3 or shape[0] != len(first) or shape[2] != 3 or not vanishing_points.is_floating_point():
        raise ValueError(
            f"vanishing_points: expected floating ({len(first)}, K, 3), got {tuple(shape)} {vanishing_points.dtype}"
        )
    # on other devices the check would wait for the device; there a bad point makes the loss not a number
    if vanishing_points.device.type == "cpu" and not bool(vanishing_points.isfinite().all()):
        raise ValueError("vanishing_points: expected finite numbers, got some that are infinite or not a number")
