"""Losses between images that decoders are trained with."""

import torch
import torch.nn.functional as F
from torch import Tensor


def gradient_difference(a: Tensor, b: Tensor, scales: int = 3) -> Tensor:
    """Mean absolute difference of horizontal and vertical image gradients over ``scales`` halvings: (B, C, H, W) ->
    (B,).
    """
    difference = a - b
    total = torch.zeros(len(a), device=a.device)
    for scale in range(scales):
        current = F.avg_pool2d(difference, 2**scale) if scale else difference
        total = total + current.diff(dim=-1).abs().mean(dim=(1, 2, 3)) + current.diff(dim=-2).abs().mean(dim=(1, 2, 3))
    return total / scales
