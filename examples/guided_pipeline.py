"""Straight pictures from a diffusers pipeline as it is: python examples/guided_pipeline.py [BASE]

Writes plain.png and guided.png, drawn from the depth map of a rendered street. With your own depth map (H, W) in metres and its
camera everything below the first paragraph stays the same; other families take their own way of being given depth.
"""

import sys

import torch
from diffusers import StableDiffusionDepth2ImgPipeline
from PIL import Image

from alberti.data.scenes import SceneConfig, render_scenes
from alberti.diffusion.objective import normalise_depth
from alberti.guidance import VanishingGuidance


def main(base: str = "pretrained/base", side: int = 128, steps: int = 10) -> None:
    street = next(iter(render_scenes(["street"], seed=3, config=SceneConfig(width=side, height=side))))

    pipe = StableDiffusionDepth2ImgPipeline.from_pretrained(base)
    call = {
        "prompt": street.caption,
        "image": Image.new("RGB", (side, side), "gray"),
        "depth_map": normalise_depth(torch.from_numpy(street.depth)[None])[:, 0],
        "strength": 1.0,
        "num_inference_steps": steps,
        "guidance_scale": 2.0,
    }
    pipe(**call, generator=torch.Generator().manual_seed(0)).images[0].save("plain.png")
    with VanishingGuidance(depth=street.depth, camera=street.camera).attached(pipe):
        pipe(**call, generator=torch.Generator().manual_seed(0)).images[0].save("guided.png")


if __name__ == "__main__":
    main(*sys.argv[1:2])
