"""Pictures a second: this project's sampler against the stock ``StableDiffusionDepth2ImgPipeline`` call.

    python benchmarks/generation.py                                  # SD2-depth's architecture, random weights, a large GPU
    python benchmarks/generation.py --tiny --steps 4 --fast-steps 2 --images 4 --batches 2 4     # rehearsal on a CPU

All arms make pictures of the same size in the same precision with classifier-free guidance and, but for the fast solver, in the
same number of DDIM steps. Arms take turns. A line of JSON for each arm as soon as it is measured, then the medians and their
ratios to the stock calls. Weights are random, so it says nothing about the pictures.
"""

import argparse
import copy
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import StableDiffusionDepth2ImgPipeline
from sd2 import Deadline, emit, options, parse, sd2_depth, wall
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from alberti.diffusion.base import BaseConfig, DepthDiffusion, build_small_base
from alberti.diffusion.config import SampleConfig
from alberti.diffusion.sample import prepare, sample_images, to_uint8

PROMPT = "a narrow street with brick facades, two cars, overcast"
GUIDANCE = 7.5
ROUNDS = 2


@dataclass
class Arm:
    """One way to make pictures: ``call(n, steps)`` makes n."""

    name: str
    call: Callable[[int, int], Any]
    steps: int
    batch: int
    images: int
    """How many pictures one measurement makes."""

    def run(self, steps: int, images: int) -> None:
        for start in range(0, images, self.batch):
            self.call(min(self.batch, images - start), steps)


def random_model(tiny: bool, device: str, dtype: torch.dtype) -> DepthDiffusion:
    """SD2-depth's architecture with random weights and a small tokenizer of the same length, or a tiny one."""
    if tiny:
        return build_small_base(BaseConfig.smoke(), [PROMPT]).to(device, dtype)
    model = sd2_depth(tiny, device)
    model.tokenizer = build_small_base(BaseConfig.smoke(max_tokens=77), [PROMPT]).tokenizer
    with torch.device(device):
        text = CLIPTextConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16)
        model.text_encoder = CLIPTextModel(text)
    model.to(device, dtype)
    for module in model.modules().values():
        module.eval().requires_grad_(False)
    return model


def stock_call(model: DepthDiffusion, arguments: argparse.Namespace) -> Callable[[int, int], Any]:
    """diffusers' pipeline as its documentation calls it: eager, one precision throughout."""
    pipe: Any = StableDiffusionDepth2ImgPipeline(
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=model.scheduler,
        depth_estimator=None,
        feature_extractor=None,
    )
    pipe.set_progress_bar_config(disable=True)

    def call(count: int, steps: int) -> Any:
        depth = _depth(count, arguments)
        return pipe(
            [PROMPT] * count,
            image=torch.rand(count, 3, *depth.shape[-2:]),
            depth_map=1 / depth,
            strength=1.0,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            output_type="np",
        ).images

    return call


def our_call(model: DepthDiffusion, config: SampleConfig, arguments: argparse.Namespace) -> Callable[[int, int], Any]:
    """The sampler behind ``alberti.diffusion.sample.generate``, up to the pictures' bytes."""

    def call(count: int, steps: int) -> Any:
        ids = [str(index) for index in range(count)]
        chosen = config.model_copy(update={"steps": steps})
        return to_uint8(sample_images(model, _depth(count, arguments), [PROMPT] * count, ids, chosen))

    return call


def _depth(count: int, arguments: argparse.Namespace) -> Tensor:
    return torch.rand(count, arguments.pixels, arguments.pixels, generator=torch.Generator().manual_seed(0)) * 50 + 2


def arms(model: DepthDiffusion, arguments: argparse.Namespace) -> list[Arm]:
    """Stock and ours; what is compiled or laid out differently works on a copy of the networks."""
    steps, fast = arguments.steps, arguments.fast_steps
    images, device, precision = arguments.images, arguments.device, arguments.precision
    stock = stock_call(copy.copy(model), arguments)
    found = [
        Arm("stock, batch 1", stock, steps, 1, max(1, images // 8)),
        Arm("stock, batch 8", stock, steps, 8, images),
    ]

    def ours(label: str, batch: int, count: int, solver: Literal["ddim", "dpm++"] = "ddim", **settings: Any) -> Arm:
        config = SampleConfig(solver=solver, guidance_scale=GUIDANCE, precision=precision, batch_size=batch, **settings)
        name = f"ours, {'DPM-Solver++' if solver == 'dpm++' else 'DDIM'}, batch {batch}{label}"
        key = tuple(settings)
        if key not in copies:
            copies[key] = _copy(model)
            prepare(copies[key], config, device)
        return Arm(name, our_call(copies[key], config, arguments), fast if solver == "dpm++" else steps, batch, count)

    copies: dict[tuple[str, ...], DepthDiffusion] = {}
    first = arguments.batches[0]
    best: dict[str, Any] = {"compile": True, "channels_last": True}
    for batch in arguments.batches[: arguments.compiled_batches]:
        found.append(ours(", channels last, compiled", batch, max(images, batch), **best))
        found.append(ours(", channels last, compiled", batch, max(images, batch), "dpm++", **best))
    found.append(ours("", first, images, "dpm++"))
    found.append(ours("", first, images))
    found.append(ours(", channels last", first, images, channels_last=True))
    return found + [ours("", batch, max(images, batch)) for batch in arguments.batches[1:]]


def _copy(model: DepthDiffusion) -> DepthDiffusion:
    copied = copy.copy(model)
    copied.unet, copied.vae = copy.deepcopy(model.unet), copy.deepcopy(model.vae)
    return copied


def measure(arguments: argparse.Namespace, deadline: Deadline) -> None:
    torch.manual_seed(0)
    dtype = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    chosen = arms(random_model(arguments.tiny, arguments.device, dtype), arguments)
    settings, rates = vars(arguments), {arm.name: list[float]() for arm in chosen}
    first: dict[str, float] = {}
    for turn in range(ROUNDS):
        for arm in chosen:
            if deadline.passed():
                break
            if arm.name not in first:
                # compiles, searches for convolutions; few steps, for a step is a step
                first[arm.name] = round(wall(arguments.device, lambda arm=arm: arm.run(2, arm.batch)), 2)  # type: ignore[misc]
            seconds = wall(arguments.device, lambda arm=arm: arm.run(arm.steps, arm.images))  # type: ignore[misc]
            rates[arm.name].append(arm.images / seconds)
            row = {"arm": arm.name, "steps": arm.steps, "images": arm.images, "turn": turn, "first_call_s": first[arm.name]}
            emit(settings, {**row, "images_per_second": round(arm.images / seconds, 4), "elapsed_s": deadline.elapsed()})
    emit(settings, {"arms": summary(rates, chosen), "elapsed_s": deadline.elapsed()})


def summary(rates: dict[str, list[float]], chosen: list[Arm]) -> dict[str, Any]:
    """Median images a second of each arm, and how many times those of the stock calls that is."""
    medians = {name: statistics.median(values) for name, values in rates.items() if values}
    stock = {arm.batch: medians[arm.name] for arm in chosen[:2] if arm.name in medians}
    return {
        name: {
            "images_per_second": round(value, 4),
            "n": len(rates[name]),
            **{f"over_stock_batch_{batch}": round(value / other, 3) for batch, other in stock.items()},
        }
        for name, value in medians.items()
    }


def main(arguments: list[str]) -> None:
    deadline = Deadline(0.0)
    parser = options(__doc__, steps=50, batch=None, budget=140)
    parser.add_argument("--fast-steps", type=int, default=20, help="steps of DPM-Solver++ (default: 20)")
    parser.add_argument("--images", type=int, default=16, help="pictures in each measurement; an eighth for stock at batch 1")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32, 8], help="ours, the most interesting first")
    parser.add_argument("--compiled-batches", type=int, default=1, help="how many of --batches to compile for (default: 1)")
    parsed = parse(parser, arguments)
    deadline.budget = parsed.budget
    measure(parsed, deadline)


if __name__ == "__main__":
    main(sys.argv[1:])
