"""Pictures a second: this project's sampler against the stock ``StableDiffusionDepth2ImgPipeline`` call.

    python benchmarks/generation.py                                  # SD2-depth's architecture, random weights, a large GPU
    python benchmarks/generation.py --size tiny --steps 4 --fast-steps 2 --repeat 1     # rehearsal on a CPU

Prints JSON: images a second of the stock call at its default scheduler's steps, of ours at the same number of DDIM steps,
and of ours with the fast solver. Weights are random, so it says nothing about the pictures.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import StableDiffusionDepth2ImgPipeline
from finetune_step import model_options, parse, report, sd2_depth
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from alberti.diffusion.base import BaseConfig, DepthDiffusion, build_small_base
from alberti.diffusion.config import SampleConfig
from alberti.diffusion.sample import prepare, sample_images, to_uint8

PROMPT = "a narrow street with brick facades, two cars, overcast"


def random_model(size: str) -> DepthDiffusion:
    """SD2-depth's architecture with random weights and a small tokenizer of the same length, or a tiny one."""
    if size == "tiny":
        return build_small_base(BaseConfig.smoke(), [PROMPT])
    model = sd2_depth("sd2")
    model.tokenizer = build_small_base(BaseConfig.smoke(max_tokens=77), [PROMPT]).tokenizer
    model.text_encoder = CLIPTextModel(
        CLIPTextConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16)
    ).eval()
    return model


def stock_call(model: DepthDiffusion, depth: Tensor, arguments: argparse.Namespace) -> Callable[[], Any]:
    """diffusers' pipeline as its documentation calls it: half precision on a GPU, eager."""
    pipe = StableDiffusionDepth2ImgPipeline(
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=model.scheduler,
        depth_estimator=None,
        feature_extractor=None,
    ).to(arguments.device, dtype=_dtype(arguments))
    pipe.set_progress_bar_config(disable=True)
    images = torch.rand(len(depth), 3, *depth.shape[-2:])
    inverse = 1 / depth

    def call() -> Any:
        return pipe(
            [PROMPT] * len(depth),
            image=images,
            depth_map=inverse,
            strength=1.0,
            num_inference_steps=arguments.steps,
            guidance_scale=7.5,
            output_type="np",
        ).images

    return call


def our_call(model: DepthDiffusion, depth: Tensor, config: SampleConfig, arguments: argparse.Namespace) -> Callable[[], Any]:
    prepare(model, config, arguments.device)
    ids = [str(index) for index in range(len(depth))]
    return lambda: to_uint8(sample_images(model, depth, [PROMPT] * len(depth), ids, config))


def _dtype(arguments: argparse.Namespace) -> torch.dtype:
    return torch.bfloat16 if arguments.precision == "bf16" else torch.float32


def rate(call: Callable[[], Any], images: int, repeat: int, device: str) -> dict[str, float]:
    """Images a second, from the median of ``repeat`` calls after one that warms up and compiles."""

    def timed() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - start

    first = timed()
    median = statistics.median(timed() for _ in range(repeat))
    return {"images_per_second": round(images / median, 4), "first_call_s": round(first, 2)}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    model = random_model(arguments.size)
    depth = torch.rand(arguments.batch, arguments.pixels, arguments.pixels) * 50 + 2
    settings = {"batch_size": arguments.batch, "precision": arguments.precision, "guidance_scale": 7.5}
    fast = {"compile": arguments.compile, "channels_last": arguments.channels_last}
    calls = {
        "stock": lambda: stock_call(model, depth, arguments),
        "ours": lambda: our_call(model, depth, SampleConfig(steps=arguments.steps, **settings, **fast), arguments),
        "ours_dpm++": lambda: our_call(
            model, depth, SampleConfig(steps=arguments.fast_steps, solver="dpm++", **settings, **fast), arguments
        ),
    }
    results = {name: rate(make(), arguments.batch, arguments.repeat, arguments.device) for name, make in calls.items()}
    for result in results.values():
        result["speedup"] = round(result["images_per_second"] / results["stock"]["images_per_second"], 3)
    return results


def main(arguments: list[str]) -> None:
    parser = model_options(__doc__, steps=50)
    parser.add_argument("--fast-steps", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=3)
    parsed = parse(parser, arguments)
    report(parsed, measure(parsed))


if __name__ == "__main__":
    main(sys.argv[1:])
