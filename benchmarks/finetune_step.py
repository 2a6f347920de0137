"""Time and memory of one fine-tuning step: without a constraint, with the full VAE decoder, with a tiny decoder.

    python benchmarks/finetune_step.py                       # SD2-depth's architecture, random weights, needs a large GPU
    python benchmarks/finetune_step.py --size tiny --steps 2 # rehearsal on a CPU

Prints JSON: the median milliseconds of each variant, its ratio to the unconstrained step, its peak memory. Variants are
timed in turns, so that a machine that slows down slows all of them. Latents and text embeddings are cached, as in training.
"""

import argparse
import json
import statistics
import sys
import time
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from alberti.diffusion.config import FinetuneConfig, TinyDecoderConfig
from alberti.diffusion.constrained import ConstraintTerm
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.objective import denoising_loss, predict_x0
from alberti.diffusion.tiny import build_tiny_decoder

VARIANTS = ("unconstrained", "full", "tiny")


def sd2_depth(size: str) -> DepthDiffusion:
    """Stable-diffusion-2-depth's UNet and VAE with random weights ("sd2"), or the same layout very small ("tiny")."""
    large = size == "sd2"
    channels = (320, 640, 1280, 1280) if large else (32, 32, 64, 64)
    unet = UNet2DConditionModel(
        sample_size=64,
        in_channels=5,
        out_channels=4,
        block_out_channels=channels,
        attention_head_dim=(5, 10, 20, 20) if large else (1, 1, 2, 2),
        cross_attention_dim=1024 if large else 32,
        norm_num_groups=32 if large else 8,
        use_linear_projection=True,
    )
    widths = (128, 256, 512, 512) if large else (16, 16, 32, 32)
    vae = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2 if large else 1,
        latent_channels=4,
        norm_num_groups=32 if large else 8,
        scaling_factor=0.18215,
    )
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return DepthDiffusion(unet=unet, vae=vae, text_encoder=None, tokenizer=None, scheduler=scheduler)


class Step:
    """One optimizer step on fixed data, by the parts that training uses."""

    def __init__(self, base: DepthDiffusion, term: ConstraintTerm | None, arguments: argparse.Namespace):
        self.model, self.term, self.arguments, self.schedule = base.denoiser(), term, arguments, base.schedule
        self.optimizer: torch.optim.Optimizer | None = None
        device, batch, pixels = base.device, arguments.batch, arguments.pixels
        latent = pixels // base.factor
        width = base.unet.config.cross_attention_dim
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device)

        self.x0, self.noise = normal(batch, 4, latent, latent), normal(batch, 4, latent, latent)
        self.condition, self.text = normal(batch, 1, latent, latent).clamp(-1, 1), normal(batch, 77, width)
        self.t = torch.randint(1000, (batch,), generator=generator).to(device)
        self.images = torch.rand(batch, 3, pixels, pixels, generator=generator).to(device)
        points = torch.tensor([[0.4 * pixels, 0.5 * pixels, 1.0], [3.0 * pixels, 0.6 * pixels, 1.0], [0.0, 1.0, 0.0]])
        self.points = points.expand(batch, 3, 3).contiguous()

    def __call__(self, optimizer: torch.optim.Optimizer) -> None:
        device = self.x0.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.arguments.precision == "bf16"):
            level = self.schedule.alpha_bar(self.t)
            x_t = self.schedule.add_noise(self.x0, self.noise, level)
            prediction = self.model(x_t, self.t, self.text, self.condition).float()
            loss = denoising_loss(prediction, self.schedule.target(self.x0, self.noise, level), level, self.schedule)
            if self.term is not None:
                estimate = predict_x0(prediction, x_t, level, self.schedule.prediction_type)
                loss = loss + 0.01 * self.term(estimate, self.images, self.points.to(device), level)
        loss.mean().backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Median milliseconds, ratio to unconstrained and peak GiB of every variant."""
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    base = sd2_depth(arguments.size)
    base.tiny_decoder = build_tiny_decoder(base, TinyDecoderConfig())
    base.to(device)
    base.vae.requires_grad_(False)
    if arguments.channels_last:
        base.unet.to(memory_format=torch.channels_last)
    if arguments.gradient_checkpointing:
        base.unet.enable_gradient_checkpointing()
    if arguments.compile:
        base.unet.compile()
    steps = {name: Step(base, _term(base, name, arguments, device), arguments) for name in arguments.variants}
    base.vae.to("cpu")
    optimizer = torch.optim.AdamW(base.unet.parameters(), lr=1e-6, fused=device.type == "cuda")
    times: dict[str, list[float]] = {name: [] for name in steps}
    peaks = {}
    for name, step in steps.items():
        for _ in range(arguments.warmup):
            step(optimizer)
        _reset(device)
        step(optimizer)
        peaks[name] = _peak(device)
    for _ in range(arguments.steps):
        for name, step in steps.items():
            start = _now(device)
            step(optimizer)
            times[name].append(_now(device) - start)
    medians = {name: 1000 * statistics.median(values) for name, values in times.items()}
    reference = medians.get("unconstrained")
    return {
        name: {
            "ms": round(medians[name], 2),
            "ms_min": round(1000 * min(times[name]), 2),
            "ratio": round(medians[name] / reference, 4) if reference else None,
            "peak_gib": peaks[name],
        }
        for name in steps
    }


def _term(base: DepthDiffusion, name: str, arguments: argparse.Namespace, device: torch.device) -> ConstraintTerm | None:
    if name == "unconstrained":
        return None
    config = FinetuneConfig(
        steps=1,
        batch_size=arguments.batch,
        decoder=name,
        precision=arguments.precision,
        num_lines=arguments.lines,
        decode_chunk=arguments.chunk,
        constraint=arguments.constraint,
        channels_last=arguments.channels_last,
        compile=arguments.compile,
    )
    return ConstraintTerm(base, config, device)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _peak(device: torch.device) -> float | None:
    return round(torch.cuda.max_memory_allocated() / 2**30, 2) if device.type == "cuda" else None


def model_options(description: str | None, steps: int) -> argparse.ArgumentParser:
    """The options of every benchmark at Stable Diffusion 2's size."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    parser.add_argument("--size", choices=("sd2", "tiny"), default="sd2")
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--precision", choices=("no", "bf16"), default="bf16" if cuda else "no")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pixels", type=int, help="side of the images; default 512, or 64 at size tiny")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    return parser


def parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    parsed = parser.parse_args(arguments)
    parsed.pixels = parsed.pixels or (512 if parsed.size == "sd2" else 64)
    return parsed


def report(parsed: argparse.Namespace, results: dict[str, Any]) -> None:
    """Print what was measured, on what and with which settings, as JSON."""
    device = torch.cuda.get_device_name() if parsed.device.startswith("cuda") else "cpu"
    print(json.dumps({"device": device, "torch": torch.__version__, "settings": vars(parsed), **results}, indent=2))


def main(arguments: list[str]) -> None:
    parser = model_options(__doc__, steps=20)
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--constraint", default="perspective")
    parser.add_argument("--chunk", type=int, default=0, help="images decoded at once; 0: training's default")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parsed = parse(parser, arguments)
    report(parsed, {"variants": measure(parsed)})


if __name__ == "__main__":
    main(sys.argv[1:])
