"""The depth estimator that diffusers' depth pipeline insists on, at the smallest real size.

The pipeline asks for a DPT model and an image processor, and calls them only where it is not given ``depth_map``. A
base trained here is always conditioned on given depth, so its estimator is a tiny DPT whose weights are untrained;
``README.md`` beside it says so.
"""

from pathlib import Path
from typing import Any

import torch

from alberti.files import write_json, write_text

_SIZE = 64
_README = """\
This depth estimator is untrained and has only a few thousand parameters: diffusers'
StableDiffusionDepth2ImgPipeline cannot be loaded without one. Always pass `depth_map` (inverse depth) to the
pipeline, as this model was trained.
"""


def untrained_estimator() -> Any:
    """A ``DPTForDepthEstimation`` of random weights, the same every time."""
    from transformers import DPTConfig, DPTForDepthEstimation

    config = DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=_SIZE,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        is_hybrid=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DPTForDepthEstimation(config)


def write_untrained_estimator(folder: Path) -> None:
    """Write ``depth_estimator/`` and ``feature_extractor/`` into a model folder; the same bytes every time."""
    untrained_estimator().save_pretrained(folder / "depth_estimator", safe_serialization=True)
    write_text(folder / "depth_estimator" / "README.md", _README)
    write_json(
        folder / "feature_extractor" / "preprocessor_config.json",
        {
            "image_processor_type": "DPTImageProcessor",
            "do_resize": True,
            "size": {"height": _SIZE, "width": _SIZE},
            "resample": 3,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        },
    )
