"""Time and memory of one fine-tuning step: without a constraint, with the full VAE decoder, with a tiny decoder.

    python benchmarks/finetune_step.py                          # SD2-depth's architecture, random weights, one large GPU
    python benchmarks/finetune_step.py --sweep --budget 140     # several settings
    python benchmarks/finetune_step.py --tiny --steps 2         # rehearsal on a CPU

A line of JSON for each setting, as soon as it is measured: the median milliseconds of each variant, its ratio to the
unconstrained step, its peak memory, and the seconds of its first step, which compiles and searches for convolutions. Variants
are timed in turns, so that a machine that slows down slows all of them. Latents and text embeddings are cached, as in training.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from sd2 import LAYOUTS, Deadline, emit, options, parse, sd2_depth, synchronize, timed, wall
from torch import Tensor, nn

from alberti.diffusion.config import FinetuneConfig, TinyDecoderConfig
from alberti.diffusion.constrained import ConstraintTerm
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.objective import denoising_loss, predict_x0
from alberti.diffusion.tiny import build_tiny_decoder
from alberti.training.settings import Optimisation

VARIANTS = ("unconstrained", "full", "tiny")


class Setting(NamedTuple):
    """What a row is measured with; "decoder" is the constraint's decoder alone, "all" the UNet as well."""

    channels_last: str = "none"
    compile: str = "none"
    decode_chunk: int = 4


SWEEP = (
    Setting("none", "none", 4),
    Setting("decoder", "decoder", 8),
    Setting("decoder", "none", 4),
    Setting("none", "none", 2),
    Setting("none", "none", 8),
    Setting("all", "none", 4),
    Setting("decoder", "decoder", 4),
    Setting("all", "all", 8),
)


class Step:
    """One optimizer step on fixed data, by the parts that training uses."""

    def __init__(self, base: DepthDiffusion, arguments: argparse.Namespace):
        self.model, self.schedule = base.denoiser(), base.schedule
        self.bf16 = arguments.precision == "bf16"
        device, batch, pixels = base.device, arguments.batch, arguments.pixels
        latent, width = pixels // base.factor, base.unet.config.cross_attention_dim
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device)

        self.x0, self.noise = normal(batch, 4, latent, latent), normal(batch, 4, latent, latent)
        self.condition, self.text = normal(batch, 1, latent, latent).clamp(-1, 1), normal(batch, 77, width)
        self.t = torch.randint(1000, (batch,), generator=generator).to(device)
        # Outside of the step, as in training, which never waits for the GPU to look a level up.
        self.level = self.schedule.alpha_bar(self.t)
        self.images = torch.rand(batch, 3, pixels, pixels, generator=generator).to(device)
        points = torch.tensor([[0.4 * pixels, 0.5 * pixels, 1.0], [3.0 * pixels, 0.6 * pixels, 1.0], [0.0, 1.0, 0.0]])
        self.points = points.expand(batch, 3, 3).contiguous().to(device)

    def __call__(self, term: ConstraintTerm | None, optimizer: torch.optim.Optimizer) -> None:
        with torch.autocast(self.x0.device.type, torch.bfloat16, enabled=self.bf16):
            level = self.level
            x_t = self.schedule.add_noise(self.x0, self.noise, level)
            prediction = self.model(x_t, self.t, self.text, self.condition).float()
            loss = denoising_loss(prediction, self.schedule.target(self.x0, self.noise, level), level, self.schedule)
            if term is not None:
                estimate = predict_x0(prediction, x_t, level, self.schedule.prediction_type)
                loss = loss + 0.01 * term(estimate, self.images, self.points, level)
        loss.mean().backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def build(arguments: argparse.Namespace) -> DepthDiffusion:
    torch.manual_seed(0)
    base = sd2_depth(arguments.tiny, arguments.device)
    base.tiny_decoder = build_tiny_decoder(base, TinyDecoderConfig())
    base.vae.requires_grad_(False)
    # In training, too, only the constraint's own copy of the decoder stays on the GPU.
    base.vae.to("cpu")
    if arguments.gradient_checkpointing:
        base.unet.enable_gradient_checkpointing()
    return base


def measure(base: DepthDiffusion, step: Step, setting: Setting, arguments: argparse.Namespace) -> dict[str, Any]:
    """Median milliseconds, ratio to unconstrained, peak GiB and first step's seconds of every variant."""
    device = arguments.device
    _set_up_unet(base.unet, setting)
    optimizer = torch.optim.AdamW(base.unet.parameters(), lr=1e-6, fused=device.startswith("cuda"))
    calls: dict[str, Callable[[], None]] = {}
    first, peaks = {}, {}
    for name in arguments.variants:
        term = _term(base, name, setting, arguments)
        calls[name] = lambda term=term: step(term, optimizer)  # type: ignore[misc]
        first[name] = wall(device, calls[name])
        for _ in range(arguments.warmup):
            calls[name]()
        peaks[name] = _peak(device, calls[name])
    if arguments.profile:
        profile(calls, device)
    times: dict[str, list[Callable[[], float]]] = {name: [] for name in calls}
    for _ in range(arguments.steps):
        for name, call in calls.items():
            times[name].append(timed(device, call))
    seconds = {name: [value() for value in values] for name, values in times.items()}
    reference = statistics.median(seconds["unconstrained"]) if "unconstrained" in seconds else None
    return {
        name: {
            "ms": round(1000 * statistics.median(values), 2),
            "ms_min": round(1000 * min(values), 2),
            "n": len(values),
            "ratio": round(statistics.median(values) / reference, 4) if reference else None,
            "peak_gib": peaks[name],
            "first_step_s": round(first[name], 2),
        }
        for name, values in seconds.items()
    }


def _set_up_unet(unet: Any, setting: Setting) -> None:
    last = setting.channels_last == "all"
    unet.to(memory_format=torch.channels_last if last else torch.contiguous_format)
    unet._compiled_call_impl = None
    if setting.compile == "all":
        unet.compile()


def _term(base: DepthDiffusion, name: str, setting: Setting, arguments: argparse.Namespace) -> ConstraintTerm | None:
    if name == "unconstrained":
        return None
    config = FinetuneConfig(
        training=Optimisation(steps=1, batch_size=arguments.batch, lr=1e-5, precision=arguments.precision),
        decoder="full" if name == "full" else "tiny",
        num_lines=arguments.lines,
        # A tiny decoder holds so little that training's default, one chunk, is right.
        decode_chunk=setting.decode_chunk if name == "full" else 0,
        constraint=arguments.constraint,
        channels_last=setting.channels_last != "none",
        compile=setting.compile != "none",
    )
    return ConstraintTerm(base, config, torch.device(arguments.device))


def _peak(device: str, call: Callable[[], None]) -> float | None:
    """GiB allocated at most during one call, everything that training holds included."""
    if not device.startswith("cuda"):
        return None
    synchronize(device)
    torch.cuda.reset_peak_memory_stats()
    call()
    synchronize(device)
    return round(torch.cuda.max_memory_allocated() / 2**30, 2)


def profile(calls: dict[str, Callable[[], None]], device: str, rows: int = 16) -> None:
    """Print to stderr which kernels (operators on a CPU) each variant's step spends its time in."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    cuda = device.startswith("cuda")
    for name, call in calls.items():
        with record(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as recorded:
            call()
            synchronize(device)
        kind = DeviceType.CUDA if cuda else DeviceType.CPU
        spent = [
            ((event.self_device_time_total if cuda else event.self_cpu_time_total) / 1000, event.count, event.key)
            for event in recorded.key_averages()
            if event.device_type == kind
        ]
        print(f"{name}: {sum(row[0] for row in spent):.1f} ms", file=sys.stderr)
        for milliseconds, count, key in sorted(spent, reverse=True)[:rows]:
            print(f"  {milliseconds:8.2f} ms {count:5d} x {key[:110]}", file=sys.stderr, flush=True)


def settings_of(arguments: argparse.Namespace) -> list[Setting]:
    if arguments.sweep:
        return list(SWEEP)
    return [Setting(arguments.channels_last, arguments.compile, chunk) for chunk in arguments.decode_chunk]


def main(arguments: list[str]) -> None:
    deadline = Deadline(0.0)
    parser = options(__doc__, steps=10, batch=8, budget=140)
    parser.add_argument("--sweep", action="store_true", help="measure the settings of SWEEP, in order, while the budget lasts")
    parser.add_argument("--channels-last", choices=LAYOUTS, default="none")
    parser.add_argument("--compile", choices=LAYOUTS, default="none")
    parser.add_argument("--decode-chunk", type=int, nargs="+", default=[4], help="images the full decoder holds at once")
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--constraint", default="perspective")
    parser.add_argument("--warmup", type=int, default=2, help="steps after the first and before those that count")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--profile", action="store_true", help="list the kernels of each variant on stderr")
    parsed = parse(parser, arguments)
    deadline.budget = parsed.budget
    base = build(parsed)
    step = Step(base, parsed)
    common = {name: value for name, value in vars(parsed).items() if name not in ("sweep", "decode_chunk")}
    for setting in settings_of(parsed):
        if deadline.passed():
            break
        try:
            result: dict[str, Any] = {"variants": measure(base, step, setting, parsed)}
        except (RuntimeError, torch.OutOfMemoryError) as error:  # a setting that does not work costs its row only
            result = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        emit({**common, **setting._asdict()}, {**result, "elapsed_s": deadline.elapsed()})


if __name__ == "__main__":
    main(sys.argv[1:])
