"""What each constraint sees, and what following it does: measured on rendered streets, drawn, explained in docs/log.md.

    python benchmarks/constraint_study --out study.json                              # all parts
    python benchmarks/constraint_study --out study.json --parts levels --count 24    # one part; the others in the file stay
    python benchmarks/constraint_study --out study.json --parts --figures docs/images    # draw what the file holds

gradients   by noise level: size of a constraint's gradient at the one-step estimate against the denoising loss's, angles
            between them and between noise draws, and on which edges of the estimate it lies
descent_*   consistency, line length, distance to the true picture while a constraint alone is descended, from bent renders or
            from the base's own pictures, in pixels, in the VAE's latents and in a displacement field
levels      consistency of one-step estimates of true pictures by noise level, and of pictures resampled from there
guidance    sampling guided through the decoder alone, and through decoder and denoiser

x0 is linear in the UNet's output, so gradients at the two differ by a factor that is the same for every loss: ratios and angles
hold for both. Everything follows from --seed and the streets' ids v0, v1, ...
"""

import argparse
import itertools
import json
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from descent import descent_bent, descent_generated
from figures import SHOWN, draw_all
from gradients import gradients
from shared import Streets, Study, load_streets, score
from torch import Tensor

from alberti.diffusion.config import SampleConfig, VanishingGuidance
from alberti.diffusion.guidance import VanishingGuide
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.sample import solver_of, start_noise, to_uint8
from alberti.families.steps import noise_step
from alberti.files import read_json, write_json


def levels(study: Study, streets: Streets, figures: dict[str, np.ndarray]) -> dict[str, Any]:
    """Scores of renders, their reconstructions, one-step estimates and DDIM resamplings from each noise level.

    ``noised``: the noisy latents themselves, scaled to the clean ones' size and decoded, as a control.
    """
    result: dict[str, Any] = {
        "renders": score(streets.images, streets),
        "reconstructions": score(study.decode_all(streets.latents), streets),
        "noised": {},
        "one_step": {},
        "resampled": {},
    }
    for t in study.times:
        x_t = study.schedule.add_noise(streets.latents, study.noise(streets, 0), study.level(streets, t))
        x0 = torch.cat([study.predict(part, rows, t)[1] for part, rows in _paired(study, streets, x_t)])
        sampled = torch.cat([_resample(study, part, rows, t) for part, rows in _paired(study, streets, x_t)])
        signal = study.schedule.add_noise(torch.ones_like(x_t), torch.zeros_like(x_t), study.level(streets, t))
        result["noised"][str(t)] = score(study.decode_all(x_t / signal), streets)
        result["one_step"][str(t)] = score(study.decode_all(x0), streets)
        result["resampled"][str(t)] = score(study.decode_all(sampled), streets)
        print(
            f"levels t={t}: {json.dumps({name: result[name][str(t)] for name in ('noised', 'one_step', 'resampled')})}",
            flush=True,
        )
    return result


def _paired(study: Study, streets: Streets, latents: Tensor) -> Iterable[tuple[Streets, Tensor]]:
    return zip(streets.batches(study.batch), latents.split(study.batch), strict=True)


def _resample(study: Study, streets: Streets, x_t: Tensor, start: int) -> Tensor:
    """DDIM from ``start`` in steps of 50, at least two; no classifier-free guidance."""
    times = np.linspace(start, 0, max(2, start // 50) + 1).round().astype(int).tolist()
    for t, following in itertools.pairwise(times):
        _, x0 = study.predict(streets, x_t, t)
        level, zero = study.level(streets, t), torch.zeros_like(x0)
        signal = study.schedule.add_noise(x0, zero, level)
        noise = (x_t - signal) / study.schedule.add_noise(zero, torch.ones_like(x0), level)
        x_t = study.schedule.add_noise(x0, noise, study.level(streets, following)) if following else x0
    return x_t


def guidance(study: Study, streets: Streets, figures: dict[str, np.ndarray]) -> dict[str, Any]:
    """Scores of pictures sampled unguided, guided through the decoder alone, and through decoder and denoiser."""
    result = {}
    for route in ("unguided", "decoder", "denoiser"):
        pictures = [_guided(study, part, route) for part in streets.batches(study.batch)]
        result[route] = score(torch.cat(pictures), streets)
        figures[f"guidance/{route}"] = to_uint8(pictures[0])[SHOWN]
        print(f"guidance {route}: {json.dumps(result[route])}", flush=True)
    return result


@torch.no_grad()
def _guided(study: Study, streets: Streets, route: str) -> Tensor:
    """DPM-Solver++, 10 steps, no classifier-free guidance; strength and window are VanishingGuidance's own."""
    config = SampleConfig(steps=10, solver="dpm++", guidance_scale=1, seed=study.seed)
    solver, points = solver_of(study.model, config), streets.points.tolist()
    guide = VanishingGuide(study.model, VanishingGuidance(), points, config.steps)
    latents = start_noise(streets.ids, config.seed, tuple(streets.latents.shape[1:])).to(study.model.device)
    for index, time_ in enumerate(solver.timesteps):

        def denoise(x_t: Tensor, rows: Tensor | slice = slice(None), t: Tensor = time_) -> Tensor:
            times = torch.full((len(x_t),), int(t), device=x_t.device)
            return study.network(x_t, times, streets.text[rows], streets.condition[rows]).float()

        def fixed(x_t: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
            return denoise(x_t, rows).detach()

        push = None
        if route != "unguided":
            push = guide.push(denoise if route == "denoiser" else fixed, latents, noise_step(solver, index))
        latents = solver.step(denoise(latents), time_, latents, return_dict=False)[0]
        latents = latents if push is None else latents + push
    return study.decode_all(latents)


PARTS: dict[str, Callable[[Study, Streets, dict[str, np.ndarray]], dict[str, Any]]] = {
    "gradients": gradients,
    "descent_bent": descent_bent,
    "descent_generated": descent_generated,
    "levels": levels,
    "guidance": guidance,
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON; pictures go beside it as .npz")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--figures", type=Path, help="folder to draw study_*.png and study_*.jpg into")
    parser.add_argument("--base", default="pretrained/base")
    parser.add_argument("--count", type=int, default=16, help="streets (default: 16)")
    parser.add_argument("--latent-count", type=int, default=4, help="streets descended in latents (default: 4)")
    parser.add_argument("--steps", type=int, default=24, help="of descent (default: 24)")
    parser.add_argument("--draws", type=int, default=2, help="of noise a picture, for the gradients (default: 2)")
    parser.add_argument("--times", type=int, nargs="+", default=[50, 150, 300, 450, 600, 800])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse(arguments)
    if args.parts:
        model = DepthDiffusion.load(args.base, device=args.device)
        for module in model.modules().values():
            module.eval().requires_grad_(False)
        study, streets = Study(model, args), load_streets(model, args.count, args.seed, args.size)
    settings = {name: value for name, value in vars(args).items() if name not in ("out", "figures", "parts")}
    for name in args.parts:
        start, figures = time.perf_counter(), dict[str, np.ndarray]()
        found = PARTS[name](study, streets, figures)
        seconds = round(time.perf_counter() - start, 1)
        made = {"torch": torch.__version__, "python": platform.python_version(), "seconds": seconds}
        store(args.out, {name: {"settings": settings, **made, "found": found}}, figures)
    if args.figures is not None:
        draw_all(*stored(args.out), args.figures)


def stored(out: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What earlier parts left: their figures, and pictures to draw."""
    report = read_json(out) if out.is_file() else {}
    pictures = out.with_suffix(".npz")
    return report, dict(np.load(pictures)) if pictures.is_file() else {}


def store(out: Path, found: dict[str, Any], figures: dict[str, np.ndarray]) -> None:
    report, pictures = stored(out)
    write_json(out, report | found)
    np.savez_compressed(out.with_suffix(".npz"), **(pictures | figures))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
