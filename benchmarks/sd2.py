"""What the benchmarks at Stable Diffusion 2's size share: the model with random weights, options, timing, output."""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from alberti.diffusion.model import DepthDiffusion

LAYOUTS = ("none", "decoder", "all")


def sd2_depth(tiny: bool, device: str) -> DepthDiffusion:
    """Stable-diffusion-2-depth's UNet and VAE with random weights, or the same layout very small, without text encoder.

    Made on ``device``: a CPU takes long to draw 866 M numbers.
    """
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    with torch.device(device):
        unet = UNet2DConditionModel(
            sample_size=64,
            in_channels=5,
            out_channels=4,
            block_out_channels=(32, 32, 64, 64) if tiny else (320, 640, 1280, 1280),
            attention_head_dim=(1, 1, 2, 2) if tiny else (5, 10, 20, 20),
            cross_attention_dim=32 if tiny else 1024,
            norm_num_groups=8 if tiny else 32,
            use_linear_projection=True,
        )
        vae = AutoencoderKL(
            block_out_channels=(16, 16, 32, 32) if tiny else (128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1 if tiny else 2,
            latent_channels=4,
            norm_num_groups=8 if tiny else 32,
            scaling_factor=0.18215,
        )
    return DepthDiffusion(unet=unet, vae=vae, text_encoder=None, tokenizer=None, scheduler=scheduler)


def options(description: str | None, *, steps: int, batch: int | None, budget: float) -> argparse.ArgumentParser:
    """The options of every benchmark at Stable Diffusion 2's size."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    parser.add_argument("--tiny", action="store_true", help="a very small model, to rehearse on a CPU")
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--precision", choices=("no", "bf16"), default="bf16" if cuda else "no")
    if batch is not None:
        parser.add_argument("--batch", type=int, default=batch, help=f"images a step (default: {batch})")
    parser.add_argument("--pixels", type=int, help="side of the images; default 512, or 64 with --tiny")
    parser.add_argument("--steps", type=int, default=steps, help=f"default: {steps}")
    parser.add_argument("--budget", type=float, default=budget, help=f"start nothing new after this many seconds ({budget:g})")
    return parser


def parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    parsed = parser.parse_args(arguments)
    parsed.pixels = parsed.pixels or (64 if parsed.tiny else 512)
    torch.backends.cudnn.benchmark = True
    return parsed


class Deadline:
    """Seconds since the program's start against a budget."""

    def __init__(self, budget: float):
        self.budget, self._start = budget, time.perf_counter()

    def elapsed(self) -> float:
        return round(time.perf_counter() - self._start, 1)

    def passed(self) -> bool:
        return self.elapsed() > self.budget


def emit(settings: dict[str, Any], result: dict[str, Any]) -> None:
    """Print one result as a line of JSON, at once: what was measured, on what, with which settings."""
    cuda = str(settings["device"]).startswith("cuda")
    device = torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads"
    print(json.dumps({"device": device, "torch": torch.__version__, "settings": settings, **result}), flush=True)


def timed(device: str, call: Callable[[], object]) -> Callable[[], float]:
    """Run ``call``; what comes back gives the seconds that it took.

    On a GPU they are taken from events once it has been waited for, so that the host runs ahead as it does in training.
    """
    if not device.startswith("cuda"):
        start = time.perf_counter()
        call()
        took = time.perf_counter() - start
        return lambda: took
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    call()
    last.record()

    def seconds() -> float:
        last.synchronize()
        return first.elapsed_time(last) / 1000

    return seconds


def wall(device: str, call: Callable[[], object]) -> float:
    """Seconds of ``call`` from an idle device to an idle device."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
