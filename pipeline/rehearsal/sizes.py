"""What the rehearsal is made of, at the paper's size and at one for tests."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Size:
    """Sizes of pictures and models. Pixels are (width, height)."""

    name: str
    holicity: tuple[int, int]
    vkitti2: tuple[int, int]
    synthia: tuple[int, int]
    kitti: tuple[tuple[int, int], ...]
    """KITTI's dates differ in size: a date each."""
    fit: tuple[int, int] | None
    """What frames are brought to where the profile says so; None: as it says."""
    frames: int
    """Of each data set, and of each split of KITTI."""
    supersample: int
    vae: dict[str, Any]
    unet: dict[str, Any]
    text: dict[str, Any]
    dpt: str
    pixelformer: str
    blip: dict[str, Any]
    changes: dict[str, Any] = field(default_factory=dict)
    """Of the profile's params, beyond those of every rehearsal."""


PAPER = Size(
    name="paper",
    holicity=(512, 512),
    vkitti2=(1242, 375),
    synthia=(640, 480),
    kitti=((1242, 375), (1226, 370)),
    fit=None,
    frames=4,
    supersample=2,
    vae={"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "norm_num_groups": 32, "sample_size": 768},
    unet={
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "attention_head_dim": (5, 10, 20, 20),
        "cross_attention_dim": 1024,
        "norm_num_groups": 32,
        "use_linear_projection": True,
    },
    text={
        "vocab_size": 49408,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "projection_dim": 512,
    },
    dpt="hybrid",
    pixelformer="large07",
    blip={
        "text": {"hidden_size": 768, "encoder_hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
        "vision": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        "image_size": 384,
        "words": 30524,
    },
)

_SMALL = {"batch_size": 2, "precision": "'no'"}
TINY = Size(
    name="tiny",
    holicity=(64, 64),
    vkitti2=(208, 64),
    synthia=(96, 72),
    kitti=((208, 64), (200, 62)),
    fit=(64, 64),
    frames=2,
    supersample=1,
    vae={"block_out_channels": (8, 16, 16, 16), "layers_per_block": 1, "norm_num_groups": 8, "sample_size": 64},
    unet={
        "sample_size": 8,
        "block_out_channels": (16, 32, 32, 32),
        "attention_head_dim": (1, 2, 2, 2),
        "cross_attention_dim": 32,
        "norm_num_groups": 8,
        "use_linear_projection": True,
        "layers_per_block": 1,
    },
    text={
        "vocab_size": 1024,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 32,
    },
    dpt="tiny",
    pixelformer="tiny",
    blip={
        "text": {"hidden_size": 16, "encoder_hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        "vision": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        "image_size": 32,
        "words": 256,
    },
    changes={
        "annotate": {"workers": 1},
        "finetune": {"training": {"batch_size": 4, "accumulate": 2, "precision": "'no'"}},
        "arms": {"constrained": {"num_lines": 50, "compile_decoder": False}},
        "generate": {"batch_size": 2, "precision": "'no'"},
        "base_depth": {"dpt": {"size": "tiny"}, "pixelformer": {"size": "tiny"}},
        "finetune_depth": {
            "train": {
                "dpt": {"training": _SMALL, "augmentation": {"crop": [64, 64]}, "workers": 0},
                "pixelformer": {"training": _SMALL, "augmentation": {"crop": [64, 96]}, "workers": 0},
            }
        },
        "evaluate_images": {"extractor": "random_convolutions_256"},
        "report": {"pictures": 2},
    },
)
SIZES = {size.name: size for size in (PAPER, TINY)}
