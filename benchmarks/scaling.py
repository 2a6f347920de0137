"""Images a second in training with one process and with several: what data parallelism gains on this machine.

    python benchmarks/scaling.py                       # 1 and 2 processes, a GPU each, SD2-depth's UNet, random weights
    python benchmarks/scaling.py --processes 1 2 4 8
    python benchmarks/scaling.py --tiny --steps 3 --device cpu          # rehearsal with gloo

Starts itself under ``torchrun`` for each number of processes, trains with :func:`alberti.training.train_loop` on data that lie
on the device, and prints a line of JSON each, then the ratios. The batch is the same for each process, so the global one grows.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

import torch
from sd2 import emit, options, parse, sd2_depth, synchronize
from torch import Tensor, nn

from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.objective import denoising_loss
from alberti.processes import leave
from alberti.training import Batch, Optimisation, train_loop

WORKER = "--worker"


class Objective:
    """The denoising loss on data that are there already."""

    def __init__(self, base: DepthDiffusion, arguments: argparse.Namespace):
        self.schedule, self.latent = base.schedule, arguments.pixels // base.factor
        self.width = base.unet.config.cross_attention_dim
        self.data: list[Tensor] = []

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        count = len(batch.indices)
        if not self.data:
            device, side = next(model.parameters()).device, self.latent
            shapes = ((4, side, side), (4, side, side), (1, side, side), (77, self.width))
            self.data = [torch.randn(count, *shape, device=device) for shape in shapes]
            self.data.append(torch.randint(1000, (count,), device=device))
            self.data.append(self.schedule.alpha_bar(self.data[-1]))
        x0, noise, condition, text, t, level = self.data
        x_t = self.schedule.add_noise(x0, noise, level)
        prediction = model(x_t, t, text, condition).float()
        return denoising_loss(prediction, self.schedule.target(x0, noise, level), level, self.schedule), {}


def work(arguments: argparse.Namespace) -> None:
    """One process of a training; the main one prints what came out."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = arguments.device.startswith("cuda")
    where = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if cuda else "cpu"
    if cuda:
        torch.cuda.set_device(where)
    torch.manual_seed(0)
    base = sd2_depth(arguments.tiny, where)
    config = Optimisation(
        steps=arguments.warmup + arguments.steps,
        batch_size=arguments.batch * world,
        lr=1e-6,
        precision=arguments.precision,
        log_every=10**9,
    )
    marks: dict[int, float] = {}

    def on_step(done: int, model: nn.Module) -> None:
        if done in (arguments.warmup, config.steps):
            synchronize(where)
            marks[done] = time.perf_counter()

    train_loop(
        base.denoiser(), Objective(base, arguments), config.batch_size, config,
        checkpoints=None, run_key={}, description=f"{world} processes", device=None if cuda else "cpu", on_step=on_step,
    )  # fmt: skip
    if marks:
        seconds = (marks[config.steps] - marks[arguments.warmup]) / arguments.steps
        peak = round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None
        result = {"processes": world, "images_per_second": round(config.batch_size / seconds, 3)}
        emit(vars(arguments), {**result, "step_ms": round(1000 * seconds, 2), "n": arguments.steps, "peak_gib": peak})
    leave()


def launch(processes: int, arguments: list[str], device: str) -> dict[str, Any]:
    """Run this file, under torchrun where there are several processes; the JSON that the main one prints."""
    environment = os.environ | ({} if device.startswith("cuda") else {"ACCELERATE_USE_CPU": "true"})
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launcher, __file__, *arguments, WORKER]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(json.dumps(result), flush=True)
    return result


def main(arguments: list[str]) -> None:
    parser = options(__doc__, steps=20, batch=8, budget=100)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument(WORKER, action="store_true", help=argparse.SUPPRESS)
    parsed = parse(parser, arguments)
    if parsed.worker:
        work(parsed)
        return
    start = time.perf_counter()
    rates: dict[int, float] = {}
    for processes in parsed.processes:
        if time.perf_counter() - start > parsed.budget:
            break
        rates[processes] = launch(processes, arguments, parsed.device)["images_per_second"]
    first = parsed.processes[0]
    ratios = {str(processes): round(rate / rates[first], 3) for processes, rate in rates.items()}
    print(json.dumps({"images_per_second": rates, f"over_{first}": ratios}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
