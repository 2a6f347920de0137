"""PixelFormer (Agarwal & Arora, "Attention Attention Everywhere", WACV 2023) on a Swin backbone.

The deepest feature map is pooled at several scales into queries (the pixel query initialiser). Four skip-attention
modules (SAM) refine them from coarse to fine, each against the encoder's features of its resolution. The depth range is
cut into bins whose widths are predicted per image (the bin centre predictor, BCP); depth is the mean of the bin centres
under each pixel's softmax. Module names are those of the published checkpoints.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alberti.depth.efficientnet import CHANNELS, EfficientNetBackbone
from alberti.depth.swin import Mlp, RelativePositionBias, SwinBackbone, from_windows, pad_to_windows, to_windows
from alberti.errors import CheckpointError, ConfigError
from alberti.weights import load_strictly, read_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SIZE_MULTIPLE = 32
_POOL_SCALES = (1, 2, 3, 6)


@dataclass(frozen=True)
class PixelFormerConfig:
    """The architecture. ``decoder_dim`` D fixes the SAMs: D / 4, D / 2, D, 2 D channels from fine to coarse."""

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window: int = 7
    drop_path: float = 0.3
    decoder_dim: int = 512
    sam_heads: tuple[int, ...] = (4, 8, 16, 32)
    sam_window: int = 7
    bins: int = 256
    min_depth: float = 0.1
    max_depth: float = 80.0
    pool_norm: str = "batch"
    """"batch" or "group": normalisation of the pooled maps."""
    bottleneck_norm: str = "batch"
    """The same behind them. Group normalisation trains alike on any number of processes."""
    group_size: int = 2
    """Channels a group. Two is the official code's (256 groups of 512 channels)."""
    unused_projection: bool = True
    """Whether every SAM holds the layer ``proj``, which checkpoints have and the official forward never uses."""
    backbone: str = "swin"
    """"swin" or "efficientnet_lite0", which is frozen; ``embed_dim``, ``depths``, ``num_heads`` and ``window`` are Swin's."""

    def __post_init__(self) -> None:
        if not 0 < self.min_depth < self.max_depth:
            raise ConfigError(f"expected 0 < min_depth < max_depth, got {self.min_depth} and {self.max_depth}")
        for name in ("pool_norm", "bottleneck_norm"):
            if getattr(self, name) not in ("batch", "group"):
                raise ConfigError(f"{name}: expected 'batch' or 'group', got {getattr(self, name)!r}")
        if self.backbone not in ("swin", "efficientnet_lite0"):
            raise ConfigError(f"backbone: expected 'swin' or 'efficientnet_lite0', got {self.backbone!r}")
        for name in ("depths", "num_heads", "sam_heads"):  # JSON has lists only
            object.__setattr__(self, name, tuple(getattr(self, name)))


_LAPTOP: dict[str, Any] = {
    "pool_norm": "group",
    "bottleneck_norm": "group",
    "group_size": 16,
    "unused_projection": False,
}
VARIANTS = {
    "tiny07": PixelFormerConfig(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "base07": PixelFormerConfig(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large07": PixelFormerConfig(192, (2, 2, 18, 2), (6, 12, 24, 48)),
    # For laptops, not published: windows of 4 divide the feature maps of 128x128 images evenly.
    "tiny": PixelFormerConfig(32, (1, 1, 2, 1), (1, 2, 4, 8), 4, 0.0, 64, (1, 2, 4, 8), 4, bins=64, **_LAPTOP),
    "small": PixelFormerConfig(48, (2, 2, 2, 1), (2, 4, 8, 16), 4, 0.05, 96, (1, 2, 4, 8), 4, bins=128, **_LAPTOP),
    # The decoder of "small" on a frozen backbone with ImageNet weights, which knows photographs.
    "lite": PixelFormerConfig(0, (), (), 0, 0.0, 96, (1, 2, 4, 8), 4, bins=128, backbone="efficientnet_lite0", **_LAPTOP),
}


class PixelFormer(nn.Module):
    """Metric depth from one image.

    **The input of** :meth:`forward` **is normalised with ImageNet statistics by the caller**, as in the official code;
    ``alberti.depth.DepthModel`` takes [0, 1] and normalises itself.
    """

    def __init__(self, config: PixelFormerConfig):
        super().__init__()
        self.config = config
        self.backbone, encoder_dims = _backbone(config)
        self.decoder = PyramidPooling(encoder_dims[3], config)
        for level in (3, 2, 1, 0):
            query_dim = config.decoder_dim // 2 ** (3 - level)
            sam = SkipAttention(encoder_dims[level], query_dim, config.sam_window, config.sam_heads[level])
            if config.unused_projection:
                # Frozen, so that data parallelism does not wait for its gradient.
                sam.proj = nn.Conv2d(2 * query_dim, 2 * query_dim, 3, padding=1).requires_grad_(False)
            self.add_module(f"sam{level + 1}", sam)
        self.disp_head1 = DepthHead(config.decoder_dim // 4, config.bins)
        self.bcp = BinCentres(config.decoder_dim, config.bins, config.min_depth, config.max_depth)

    @classmethod
    def from_variant(cls, variant: str, max_depth: float = 80.0, **changes: object) -> "PixelFormer":
        """A network with random weights; ``changes`` override fields of :class:`PixelFormerConfig`."""
        if variant not in VARIANTS:
            raise ConfigError(f"variant: expected one of {', '.join(VARIANTS)}, got {variant!r}")
        known = asdict(VARIANTS[variant])
        unknown = sorted(set(changes) - set(known))
        if unknown:
            raise ConfigError(f"unknown PixelFormer options {', '.join(unknown)}; there are {', '.join(known)}")
        return cls(PixelFormerConfig(**{**known, "max_depth": max_depth, **changes}))

    @classmethod
    def from_checkpoint(cls, path: str | Path, variant: str = "large07", max_depth: float = 80.0) -> "PixelFormer":
        """Load a published checkpoint strictly, in evaluation mode: every key and shape must match.

        ``path``: a file of ``torch.save`` (a state dict or ``{"model": state dict}``, keys with or without ``module.``), read
        without unpickling code, or a ``.safetensors`` file. ``max_depth`` is not stored in checkpoints: 80 for KITTI, 10 for
        NYU.

        Raises:
            CheckpointError: no such file, unreadable, or not this variant.
        """
        state = read_weights(path)
        found = guess_variant(state)
        if found is not None and variant in VARIANTS and found != variant:
            raise CheckpointError(f"{path}: these are weights of {found}, not of {variant}; pass variant={found!r}")
        pool_norm = "group" if "decoder.psp_modules.0.1.gn.weight" in state else "batch"
        with torch.device("meta"):
            model = cls.from_variant(variant, max_depth, pool_norm=pool_norm)
        load_strictly(model, state, f"{path} (as {variant})")
        return model.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), normalised with ImageNet statistics -> depth (B, 1, H, W) in metres.

        Any size: sides that are no multiple of 32 are padded at the bottom and on the right by repeating the border, and
        the prediction is cropped back.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images: expected (B, 3, H, W), got {(*images.shape,)}")
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % SIZE_MULTIPLE, 0, -height % SIZE_MULTIPLE), mode="replicate")
        features = self.backbone(padded)
        queries = self.decoder(features[3])
        centres = self.bcp(queries)
        for level in (3, 2, 1):
            queries = F.pixel_shuffle(self.get_submodule(f"sam{level + 1}")(features[level], queries), 2)
        depth = self.disp_head1(self.get_submodule("sam1")(features[0], queries), centres)
        depth = F.interpolate(depth, scale_factor=4, mode="bilinear", align_corners=False)
        return depth[..., :height, :width]


def _backbone(config: PixelFormerConfig) -> tuple[nn.Module, list[int]]:
    """The encoder and the channels of its four feature maps, from fine to coarse."""
    if config.backbone == "efficientnet_lite0":
        return EfficientNetBackbone(IMAGENET_MEAN, IMAGENET_STD), list(CHANNELS)
    swin = SwinBackbone(config.embed_dim, list(config.depths), list(config.num_heads), config.window, config.drop_path)
    return swin, [config.embed_dim * 2**level for level in range(4)]


def guess_variant(state: dict[str, Tensor]) -> str | None:
    """Which published variant a state dict belongs to, by the width of its patch embedding; None if none."""
    embedding = state.get("backbone.patch_embed.proj.weight")
    widths = {VARIANTS[name].embed_dim: name for name in ("tiny07", "base07", "large07")}
    return None if embedding is None else widths.get(embedding.shape[0])


class _ConvNormRelu(nn.Module):
    """Convolution without bias, normalisation, ReLU. The normalisation's name says its kind, as in the checkpoints."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int, norm: str, group_size: int):
        super().__init__()
        self.conv = nn.Conv2d(in_dim, out_dim, kernel, padding=kernel // 2, bias=False)
        self.norm_name = {"batch": "bn", "group": "gn"}[norm]
        layer = _BatchNorm(out_dim) if norm == "batch" else nn.GroupNorm(out_dim // group_size, out_dim)
        self.add_module(self.norm_name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.get_submodule(self.norm_name)(self.conv(x)))


class _BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that uses its running statistics where a batch has one value per channel (batch 1, pooled to 1x1)."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class PyramidPooling(nn.Module):
    """Pixel query initialiser: the deepest features beside their averages over 1, 4, 9 and 36 cells (PSPNet)."""

    def __init__(self, in_dim: int, config: PixelFormerConfig):
        super().__init__()
        dim, group = config.decoder_dim, config.group_size
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), _ConvNormRelu(in_dim, dim, 1, config.pool_norm, group))
            for scale in _POOL_SCALES
        )
        self.bottleneck = _ConvNormRelu(in_dim + len(_POOL_SCALES) * dim, dim, 3, config.bottleneck_norm, group)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        pooled = [F.interpolate(pool(x), size, mode="bilinear", align_corners=False) for pool in self.psp_modules]
        return self.bottleneck(torch.cat([x, *pooled], dim=1))


class CrossAttention(RelativePositionBias):
    """Attention inside windows: queries of the decoder, keys and values of the encoder."""

    def __init__(self, dim: int, window: int, num_heads: int):
        super().__init__(window, num_heads)
        self.kv = nn.Linear(dim, 2 * dim)
        self.q = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        keys, values = self.kv(features).chunk(2, dim=-1)
        return self.proj(self.attend(self.q(queries), keys, values))


class SkipAttentionBlock(nn.Module):
    """One windowed cross attention and an MLP, both residual on the queries. (B, H, W, C) in and out."""

    def __init__(self, dim: int, window: int, num_heads: int):
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(dim)
        self.normv = nn.LayerNorm(dim)
        self.attn = CrossAttention(dim, window, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        height, width = queries.shape[1:3]
        q = pad_to_windows(self.norm1(queries), self.window)
        e = pad_to_windows(self.normv(features), self.window)
        attended = self.attn(to_windows(q, self.window), to_windows(e, self.window))
        attended = from_windows(attended, self.window, q.shape[1], q.shape[2])[:, :height, :width]
        x = queries + attended
        return x + self.mlp(self.norm2(x))


class SkipAttention(nn.Module):
    """SAM: project encoder features and queries to twice the queries' channels, attend, and add all three."""

    def __init__(self, encoder_dim: int, query_dim: int, window: int, num_heads: int):
        super().__init__()
        dim = 2 * query_dim
        self.proj_e = nn.Conv2d(encoder_dim, dim, 3, padding=1) if encoder_dim != dim else None
        self.proj_q = nn.Conv2d(query_dim, dim, 3, padding=1)
        self.sam_block = SkipAttentionBlock(dim, window, num_heads)
        self.norm_sam = nn.LayerNorm(dim)

    def forward(self, features: Tensor, queries: Tensor) -> Tensor:
        e = features if self.proj_e is None else self.proj_e(features)
        q = self.proj_q(queries)
        refined = self.norm_sam(self.sam_block(q.permute(0, 2, 3, 1), e.permute(0, 2, 3, 1)))
        return refined.permute(0, 3, 1, 2) + e + q


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


class BinCentres(nn.Module):
    """BCP: from the mean query of an image, the centres of its depth bins (B, bins, 1, 1) in metres."""

    def __init__(self, dim: int, bins: int, min_depth: float, max_depth: float):
        super().__init__()
        self.min_depth, self.max_depth = min_depth, max_depth
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, bins)

    def forward(self, queries: Tensor) -> Tensor:
        logits = self.fc2(F.gelu(self.fc1(queries.mean(dim=(2, 3)))))
        # Not in half precision, also under autocast: the edges are a running sum.
        widths = (self.max_depth - self.min_depth) * _at_least_float32(logits).softmax(dim=1)
        upper = self.min_depth + widths.cumsum(dim=1)
        return (upper - 0.5 * widths)[:, :, None, None]


class DepthHead(nn.Module):
    """Per pixel, the mean of the bin centres under the softmax of its logits: (B, 1, H / 4, W / 4) metres."""

    def __init__(self, dim: int, bins: int):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, bins, 3, padding=1)

    def forward(self, x: Tensor, centres: Tensor) -> Tensor:
        return (_at_least_float32(self.conv1(x)).softmax(dim=1) * centres).sum(dim=1, keepdim=True)
