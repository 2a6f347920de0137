"""Losses for depth: SILog in metres; scale-and-shift-invariant ones on inverse depth.

All take (B, H, W) predictions and targets and a boolean mask of the pixels that have ground truth, and return (B,).
A sample without a valid pixel contributes zero, value and gradient: :func:`valid_pixels` counts them, so that the
caller can report such samples. bf16 and fp16 inputs are computed in float32.

Sources: SILog: Eigen et al. 2014, eq. 4, in the form of BTS (Lee et al. 2019, eq. 4) that PixelFormer trains with.
Alignment, trimmed and gradient loss: MiDaS (Ranftl et al. 2020, eqs. 4-5, 7-8, 10-11).
"""

import torch
from torch import Tensor

_SMALLEST_SCALE = 1e-6
ALIGNMENTS = ("median", "least_squares")


def valid_pixels(target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Number of valid pixels (B,) of each sample: in the mask, finite and positive."""
    return _validity(target, mask).flatten(1).sum(dim=1)


def silog_loss(
    pred: Tensor, target: Tensor, mask: Tensor | None = None, *, variance_focus: float = 0.85, scale: float = 10.0
) -> Tensor:
    """Scale-invariant log loss (B,): ``scale * sqrt(mean(g^2) - variance_focus * mean(g)^2)``, g = log pred - log target.

    ``pred`` and ``target``: (B, H, W) metres. Predictions are held above 1e-6 m before the logarithm. The official code
    takes the means over the whole batch; here they are taken in each sample, so that a batch equals its samples.
    """
    pred, target, valid = _prepare(pred, target, mask)
    g = torch.where(valid, pred, 1.0).clamp_min(1e-6).log() - torch.where(valid, target, 1.0).log()
    count = valid.flatten(1).sum(dim=1).clamp_min(1)
    mean = g.flatten(1).sum(dim=1) / count
    variance = g.square().flatten(1).sum(dim=1) / count - variance_focus * mean.square()
    return scale * _safe_sqrt(variance)


def ssi_trimmed_loss(
    pred: Tensor, target: Tensor, mask: Tensor | None = None, *, trim: float = 0.2, alignment: str = "median"
) -> Tensor:
    """Scale-and-shift-invariant loss (B,) on inverse depth that forgets the ``trim`` share of largest residuals.

    ``pred`` and ``target``: (B, H, W) inverse depth, ``target`` 0 where there is no measurement. Both are aligned by
    :func:`align` ("median"), or the target by :func:`align` and the prediction to it by :func:`least_squares`
    ("least_squares"); the sum of the kept absolute residuals is divided by twice the number of valid pixels.
    """
    _check_trim(trim)
    pred, target, valid = _prepare(pred, target, mask)
    return _trimmed(_residual(pred, target, valid, alignment), valid, trim)


def gradient_loss(
    pred: Tensor, target: Tensor, mask: Tensor | None = None, *, scales: int = 4, alignment: str = "median"
) -> Tensor:
    """Multi-scale gradient loss (B,) of the aligned residual: sum over scales of mean(|dR/dx| + |dR/dy|).

    ``pred`` and ``target`` as in :func:`ssi_trimmed_loss`. Scale k reads every 2^k-th pixel; a difference counts where
    both of its pixels are valid, and each scale is divided by its number of valid pixels.
    """
    _check_scales(scales)
    pred, target, valid = _prepare(pred, target, mask)
    return _gradients(_residual(pred, target, valid, alignment), valid, scales)


def relative_depth_losses(
    pred: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    trim: float = 0.2,
    scales: int = 4,
    alignment: str = "median",
) -> tuple[Tensor, Tensor]:
    """:func:`ssi_trimmed_loss` and :func:`gradient_loss`, each (B,), for the price of one alignment."""
    _check_trim(trim)
    _check_scales(scales)
    pred, target, valid = _prepare(pred, target, mask)
    residual = _residual(pred, target, valid, alignment)
    return _trimmed(residual, valid, trim), _gradients(residual, valid, scales)


def align(values: Tensor, valid: Tensor) -> Tensor:
    """Subtract each sample's median of the valid pixels and divide by their mean absolute deviation from it.

    The lower median, as in torch. A constant sample is only shifted. Invalid pixels come out zero.
    """
    flat, mask = values.flatten(1), valid.flatten(1)
    count = mask.sum(dim=1, keepdim=True)
    median = flat.masked_fill(~mask, torch.nan).nanmedian(dim=1, keepdim=True).values
    median = torch.where(count > 0, median, 0.0)
    centred = torch.where(mask, flat - median, 0.0)
    scale = centred.abs().sum(dim=1, keepdim=True) / count.clamp_min(1)
    return (centred / torch.where(scale > _SMALLEST_SCALE, scale, 1.0)).view_as(values)


def least_squares(pred: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Scale s and shift t, each (B,), that minimise the sum over valid pixels of (s pred + t - target)^2.

    A constant prediction gets s = 0 and t = the mean of the target.
    """
    weight = valid.to(pred.dtype).flatten(1)
    count = weight.sum(dim=1).clamp_min(1)
    p, y = torch.where(valid, pred, 0.0).flatten(1), torch.where(valid, target, 0.0).flatten(1)
    mean_p, mean_y = p.sum(dim=1) / count, y.sum(dim=1) / count
    p, y = (p - mean_p[:, None]) * weight, (y - mean_y[:, None]) * weight
    variance = p.square().sum(dim=1)
    constant = variance <= _SMALLEST_SCALE**2 * count
    s = torch.where(constant, 0.0, (p * y).sum(dim=1) / torch.where(constant, 1.0, variance))
    return s, mean_y - s * mean_p


def _residual(pred: Tensor, target: Tensor, valid: Tensor, alignment: str) -> Tensor:
    """Aligned prediction minus aligned target (B, H, W), zero at invalid pixels, free of units."""
    target = align(target, valid)
    if alignment == "median":
        return align(pred, valid) - target
    if alignment == "least_squares":
        s, t = least_squares(pred, target, valid)
        return torch.where(valid, s[:, None, None] * pred + t[:, None, None] - target, 0.0)
    raise ValueError(f"alignment: expected one of {ALIGNMENTS}, got {alignment!r}")


def _trimmed(residual: Tensor, valid: Tensor, trim: float) -> Tensor:
    count = valid.flatten(1).sum(dim=1, keepdim=True)
    ordered = torch.where(valid, residual.abs(), torch.inf).flatten(1).sort(dim=1).values
    kept = torch.arange(ordered.shape[1], device=ordered.device) < torch.round((1.0 - trim) * count).clamp_min(1)
    return torch.where(kept & torch.isfinite(ordered), ordered, 0.0).sum(dim=1) / (2 * count[:, 0].clamp_min(1))


def _gradients(residual: Tensor, valid: Tensor, scales: int) -> Tensor:
    total = residual.new_zeros(residual.shape[0])
    for k in range(scales):
        total = total + _gradient_at(residual[:, :: 2**k, :: 2**k], valid[:, :: 2**k, :: 2**k])
    return total


def _check_trim(trim: float) -> None:
    if not 0.0 <= trim < 1.0:
        raise ValueError(f"trim: expected a share in [0, 1), got {trim}")


def _check_scales(scales: int) -> None:
    if scales < 1:
        raise ValueError(f"scales: expected at least 1, got {scales}")


def _gradient_at(residual: Tensor, valid: Tensor) -> Tensor:
    along_x = (residual[:, :, 1:] - residual[:, :, :-1]).abs() * (valid[:, :, 1:] & valid[:, :, :-1])
    along_y = (residual[:, 1:] - residual[:, :-1]).abs() * (valid[:, 1:] & valid[:, :-1])
    count = valid.flatten(1).sum(dim=1).clamp_min(1)
    return (along_x.flatten(1).sum(dim=1) + along_y.flatten(1).sum(dim=1)) / count


def _safe_sqrt(values: Tensor) -> Tensor:
    """Square root with gradient zero, not infinite, at zero (a perfect prediction)."""
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1.0).sqrt(), 0.0)


def _validity(target: Tensor, mask: Tensor | None) -> Tensor:
    valid = torch.isfinite(target) & (target > 0)
    return valid if mask is None else valid & mask.bool()


def _prepare(pred: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Check shapes, lift half precision to float32, and zero what is not valid (so that NaN cannot leak through)."""
    if pred.ndim != 3 or pred.shape != target.shape:
        raise ValueError(f"expected pred and target of one shape (B, H, W), got {(*pred.shape,)} and {(*target.shape,)}")
    if mask is not None and mask.shape != target.shape:
        raise ValueError(f"mask: expected {(*target.shape,)} as the target, got {(*mask.shape,)}")
    dtype = torch.float64 if pred.dtype == torch.float64 else torch.float32
    valid = _validity(target, mask)
    pred, target = pred.to(dtype), target.to(dtype)
    return torch.where(valid, pred, 0.0), torch.where(valid, target, 0.0), valid
