"""Swin Transformer backbone (Liu et al. 2021) under the names and operations of PixelFormer's checkpoints.

timm holds the same network under other names, at fixed input sizes and with windows that shrink on small inputs; the
published depth checkpoints were trained with feature maps padded to whole windows instead, which this module does.
:func:`backbone_state_dict` brings ImageNet weights of timm or of the Swin authors under these names.

Feature maps are (B, H, W, C) inside the backbone and (B, C, H, W) outside.
"""

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alberti.errors import CheckpointError

_MASKED = -100.0  # added to the logits of token pairs that only the cyclic shift brought together


def pad_to_windows(x: Tensor, window: int) -> Tensor:
    """Pad (B, H, W, C) with zeros at the bottom and on the right to multiples of ``window``."""
    height, width = x.shape[1:3]
    return F.pad(x, (0, 0, 0, -width % window, 0, -height % window))


def to_windows(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) -> (B * windows, window^2, C); H and W are multiples of ``window``."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).reshape(-1, window * window, channels)


def from_windows(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """The inverse of :func:`to_windows`."""
    channels = windows.shape[-1]
    x = windows.view(-1, height // window, width // window, window, window, channels)
    return x.transpose(2, 3).reshape(-1, height, width, channels)


def shift_mask(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Additive mask (windows, N, N) that keeps apart what the cyclic shift moved next to each other."""

    def region(size: int) -> Tensor:
        position = torch.arange(size, device=device)
        return (position >= size - window).long() + (position >= size - shift).long()

    regions = 3 * region(height)[:, None] + region(width)[None, :]
    windows = to_windows(regions[None, :, :, None], window)[..., 0]
    return (windows[:, None, :] != windows[:, :, None]) * _MASKED


class RelativePositionBias(nn.Module):
    """Base of windowed attentions: a learned bias per head and relative position, (heads, N, N)."""

    relative_position_index: Tensor

    def __init__(self, window: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        row, column = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        row, column = row.flatten(), column.flatten()
        down, across = row[:, None] - row[None, :] + window - 1, column[:, None] - column[None, :] + window - 1
        self.register_buffer("relative_position_index", down * (2 * window - 1) + across)

    def bias(self) -> Tensor:
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """softmax(q k^T / sqrt(d) + bias + mask) v, each (windows, N, C); mask (windows of one image, N, N)."""
        count, tokens, channels = q.shape
        q, k, v = (t.view(count, tokens, self.num_heads, -1).transpose(1, 2) for t in (q, k, v))
        bias = self.bias()[None]
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(count // mask.shape[0], 1, 1, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return out.transpose(1, 2).reshape(count, tokens, channels)


class WindowAttention(RelativePositionBias):
    """Self-attention inside windows."""

    def __init__(self, dim: int, window: int, num_heads: int):
        super().__init__(window, num_heads)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(self.attend(q, k, v, mask))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, four times as wide inside."""

    def __init__(self, dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class DropPath(nn.Module):
    """Stochastic depth: drop a sample's residual branch with probability ``rate`` in training."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        return x * (x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep) / keep)


class SwinBlock(nn.Module):
    """Windowed attention, shifted by ``shift`` pixels, and an MLP, both residual."""

    def __init__(self, dim: int, num_heads: int, window: int, shift: int, drop_path: float):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, num_heads)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        y = pad_to_windows(self.norm1(x), self.window)
        padded_height, padded_width = y.shape[1:3]
        if self.shift:
            y = y.roll((-self.shift, -self.shift), dims=(1, 2))
        y = self.attn(to_windows(y, self.window), mask if self.shift else None)
        y = from_windows(y, self.window, padded_height, padded_width)
        if self.shift:
            y = y.roll((self.shift, self.shift), dims=(1, 2))
        x = x + self.drop_path(y[:, :height, :width])
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    """Halve the resolution: four neighbours side by side, normalised, to twice the channels."""

    def __init__(self, dim: int):
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_to_windows(x, 2)
        neighbours = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(neighbours, dim=-1)))


class SwinStage(nn.Module):
    """``depth`` blocks at one resolution, every second one shifted; a patch merging behind them except in the last stage."""

    def __init__(self, dim: int, num_heads: int, window: int, drop_paths: list[float], last: bool):
        super().__init__()
        self.window, self.shift = window, window // 2
        self.blocks = nn.ModuleList(
            SwinBlock(dim, num_heads, window, self.shift * (index % 2), rate) for index, rate in enumerate(drop_paths)
        )
        self.downsample = None if last else PatchMerging(dim)

    def forward(self, x: Tensor) -> Tensor:
        height, width = (size + -size % self.window for size in x.shape[1:3])
        mask = shift_mask(height, width, self.window, self.shift, x.device)
        for block in self.blocks:
            x = block(x, mask)
        return x


class PatchEmbed(nn.Module):
    """4x4 patches to tokens."""

    def __init__(self, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=4, stride=4)
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % 4, 0, -height % 4))
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class SwinBackbone(nn.Module):
    """(B, 3, H, W) -> four normalised feature maps (B, C 2^i, H / 4 / 2^i, W / 4 / 2^i), sizes rounded up."""

    def __init__(self, dim: int, depths: list[int], num_heads: list[int], window: int, drop_path: float):
        super().__init__()
        self.patch_embed = PatchEmbed(dim)
        rates = torch.linspace(0, drop_path, sum(depths), device="cpu").tolist()
        self.layers = nn.ModuleList()
        for index, depth in enumerate(depths):
            stage_rates, rates = rates[:depth], rates[depth:]
            last = index == len(depths) - 1
            self.layers.append(SwinStage(dim * 2**index, num_heads[index], window, stage_rates, last))
            self.add_module(f"norm{index}", nn.LayerNorm(dim * 2**index))
        self.apply(_init_linear)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.patch_embed(images)
        features = []
        for index, stage in enumerate(self.stages()):
            x = stage(x)
            features.append(self._norm(index)(x).permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None:
                x = stage.downsample(x)
        return features

    def stages(self) -> list[SwinStage]:
        return list(self.layers)  # type: ignore[arg-type]

    def _norm(self, index: int) -> nn.Module:
        return self.get_submodule(f"norm{index}")


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def backbone_state_dict(state: dict[str, Tensor], backbone: SwinBackbone, source: str) -> dict[str, Tensor]:
    """ImageNet weights in timm's or the Swin authors' names, under ours; classifier and final norm left out.

    timm puts the patch merging in front of a stage, the authors and we behind the one before. The norms behind each stage
    have no counterpart in a classifier: the caller keeps those of ``backbone``.

    Raises:
        CheckpointError: a weight is missing or of another shape; the message names ``source`` and the first such key.
    """
    timm_names = any(key.startswith("layers.3.downsample.") for key in state)

    def rename(key: str) -> str:
        match = re.match(r"layers\.(\d)\.downsample\.(.*)", key)
        return f"layers.{int(match[1]) - 1}.downsample.{match[2]}" if match and timm_names else key

    renamed = {rename(key): value for key, value in state.items()}
    wanted = {key: value for key, value in backbone.named_parameters() if not re.match(r"norm\d\.", key)}
    for key, value in wanted.items():
        if key not in renamed or renamed[key].shape != value.shape:
            came = f"has shape {(*renamed[key].shape,)}" if key in renamed else "is missing"
            raise CheckpointError(f"{source}: not weights of this Swin: {key} {came}, expected {(*value.shape,)}")
    return {key: renamed[key] for key in wanted}
