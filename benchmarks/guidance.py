"""Guidance through diffusers' own pipeline against our sampler, on streets that the base never saw. Prints JSON.

    python benchmarks/guidance.py [pretrained/base] [--streets 64] [--steps 10]
    python benchmarks/guidance.py --tiny FOLDER --runs own own:guided stock stock:guided stock:guided:decoder=tiny

A run is `own` (alberti.diffusion.sample) or `stock` (StableDiffusionDepth2ImgPipeline as it is), then perhaps `guided` and
settings of VanishingGuidance; `points=depth` finds the points in the depth maps, others are the manifest's. Both start from
the same noise, which is the only thing of the pipeline that is replaced: it begins with a noisy picture. Pictures are
measured as in benchmarks/base.py. `gain_percent` is the share within 2 degrees over the unguided run of the same route, in
per cent of what the first guided run gains; seconds a picture are the least of `--repeats`, all runs in turns. Sizes of other
models: guidance_sizes.py.
"""

import argparse
import json
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import yaml
from base import Judges, measured

from alberti.data.manifest import Dataset, Sample, write_dataset
from alberti.data.scenes import SceneConfig, render_dataset
from alberti.depth.models import DepthModel
from alberti.diffusion.config import SampleConfig
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.objective import normalise_depth
from alberti.diffusion.sample import sample_images, start_noise, to_uint8
from alberti.guidance import VanishingGuidance
from alberti.images import write_image
from alberti.metrics.features import feature_extractor

SOLVERS = {"ddim": diffusers.DDIMScheduler, "dpm++": diffusers.DPMSolverMultistepScheduler}
RUNS = (
    "own",
    "own:guided",
    "stock",
    "stock:guided",
    "stock:guided:every=2",
    "stock:guided:through=decoder",
    "stock:guided:points=depth",
)


def parsed(run: str) -> tuple[str, str, dict[str, Any] | None]:
    """(name, route, settings of guidance or None)."""
    route, *rest = run.split(":")
    if route not in ("own", "stock") or rest[:1] not in ([], ["guided"]):
        raise ValueError(run)
    settings = {key: yaml.safe_load(value) for key, _, value in (part.partition("=") for part in rest[1:])}
    return run, route, settings if rest else None


class Bench:
    """The model, as ours and in diffusers' pipeline, and how a batch of streets is drawn with either."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.model = DepthDiffusion.load(options.base, tiny_decoder=options.tiny, device=options.device)
        self.pipe = diffusers.StableDiffusionDepth2ImgPipeline.from_pretrained(options.base).to(options.device)
        self.pipe.scheduler = SOLVERS[options.solver].from_config(self.pipe.scheduler.config)
        self.pipe.set_progress_bar_config(disable=True)

    def draw(self, route: str, settings: dict[str, Any] | None, renders: Dataset, batch: list[Sample]) -> np.ndarray:
        """Pictures (B, H, W, 3) uint8."""
        depth = np.stack([renders.read_depth(sample) for sample in batch])
        return (self._own if route == "own" else self._stock)(settings, renders, batch, depth)

    def _own(self, settings: dict[str, Any] | None, renders: Dataset, batch: list[Sample], depth: np.ndarray) -> np.ndarray:
        options = self.options
        config = SampleConfig(
            steps=options.steps, solver=options.solver, guidance_scale=options.guidance, vanishing_guidance=settings
        )
        captions, ids = [sample.caption or "" for sample in batch], [sample.id for sample in batch]
        points, cameras = [sample.vanishing_points for sample in batch], [renders.camera(sample) for sample in batch]
        return to_uint8(sample_images(self.model, torch.from_numpy(depth), captions, ids, config, points, cameras=cameras))

    def _stock(self, settings: dict[str, Any] | None, renders: Dataset, batch: list[Sample], depth: np.ndarray) -> np.ndarray:
        options, factor = self.options, self.model.factor
        size = (depth.shape[1] // factor, depth.shape[2] // factor)
        noise = start_noise([sample.id for sample in batch], 0, (self.model.vae.config.latent_channels, *size))
        self.pipe.prepare_latents = lambda *args, **kwargs: noise.to(options.device) * self.pipe.scheduler.init_noise_sigma
        guide = None
        if settings is not None:
            settings, cameras = dict(settings), [renders.camera(sample) for sample in batch]
            points = None if settings.pop("points", None) == "depth" else [sample.vanishing_points for sample in batch]
            if "decoder_dtype" in settings:
                settings["decoder_dtype"] = getattr(torch, settings["decoder_dtype"])
            if settings.get("decoder") == "tiny":
                settings["decoder"] = self.model.tiny_decoder
            guide = VanishingGuidance(points, depth=list(depth), camera=cameras, **settings)
        with guide.attached(self.pipe) if guide is not None else nullcontext():
            pictures = self.pipe(
                [sample.caption or "" for sample in batch],
                image=torch.zeros(len(batch), 3, *depth.shape[1:]),
                depth_map=normalise_depth(torch.from_numpy(depth), size)[:, 0],
                strength=1.0,
                num_inference_steps=options.steps,
                guidance_scale=options.guidance,
                output_type="np",
            ).images
        return to_uint8(torch.from_numpy(pictures).permute(0, 3, 1, 2))


def generated(bench: Bench, run: tuple[str, str, Any], renders: Dataset, folder: Path) -> Dataset:
    """All streets' pictures of one run as a data set."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for start in range(0, len(renders), bench.options.batch_size):
        batch = list(renders)[start : start + bench.options.batch_size]
        for sample, picture in zip(batch, bench.draw(run[1], run[2], renders, batch), strict=True):
            write_image(folder / "images" / f"{sample.id}.png", picture)
            rows.append(sample.model_copy(update={"image": f"images/{sample.id}.png", "sha256": {}}))
    return write_dataset(folder, rows, name=run[0], role="generated", depth_root=str(renders.depth_root))


def seconds_a_picture(bench: Bench, runs: list[tuple[str, str, Any]], renders: Dataset) -> dict[str, float]:
    batch = list(renders)[: bench.options.timed]
    least: dict[str, float] = {}
    for _ in range(bench.options.repeats):
        for name, route, settings in runs:
            start = time.perf_counter()
            bench.draw(route, settings, renders, batch)
            least[name] = min(least.get(name, float("inf")), (time.perf_counter() - start) / len(batch))
    return least


def compared(rows: dict[str, dict[str, float]]) -> None:
    """Add to each run what it gains over the unguided one of its route, as a share of the first guided run's gain."""
    plain = {name: row for name, row in rows.items() if ":" not in name}
    first = next((name for name in rows if ":" in name and name.partition(":")[0] in plain), None)
    if first is None:
        return
    whole = rows[first]["consistency_2"] - plain[first.partition(":")[0]]["consistency_2"]
    for name, row in rows.items():
        route = name.partition(":")[0]
        if ":" in name and route in plain:
            row["gain_percent"] = round(100 * (row["consistency_2"] - plain[route]["consistency_2"]) / whole, 1)
            row["times_plain"] = round(row["seconds_a_picture"] / plain[route]["seconds_a_picture"], 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default="pretrained/base")
    parser.add_argument("--runs", type=parsed, nargs="+", default=[parsed(run) for run in RUNS], metavar="RUN")
    parser.add_argument("--streets", type=int, default=64)
    parser.add_argument("--seed", type=int, default=77, help="of the streets; training had another")
    parser.add_argument("--camera", choices=("street", "kitti", "mixed"), default="street")
    parser.add_argument("--solver", choices=tuple(SOLVERS), default="dpm++")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=2.0, help="classifier-free guidance scale")
    parser.add_argument("--tiny", help="folder of an AutoencoderTiny for the base, see alberti distil-decoder")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--timed", type=int, default=4, help="pictures that are timed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--extractor", default="efficientnet_lite0_imagenet_pool1280")
    parser.add_argument("--depth-model", default="pretrained/pixelformer", help="folder of a metric depth model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        width, height = (320, 96) if options.camera == "kitti" else (128, 128)
        config = SceneConfig(width=width, height=height, camera=options.camera)
        (folder / "renders").mkdir()
        renders = render_dataset(
            folder / "renders", name="streets", role="condition", count=options.streets, seed=options.seed, config=config,
            device=options.device,
        )  # fmt: skip
        bench = Bench(options)
        judges = Judges(
            feature_extractor(options.extractor, options.device), DepthModel.load(options.depth_model).to(options.device)
        )
        seconds = seconds_a_picture(bench, options.runs, renders)
        rows = {"renders": measured(renders, renders, judges)}
        for run in options.runs:
            pictures = generated(bench, run, renders, folder / run[0].replace(":", "-").replace("=", "-"))
            rows[run[0]] = measured(pictures, renders, judges) | {"seconds_a_picture": round(seconds[run[0]], 4)}
            rows[run[0]]["line_over_renders"] = round(rows[run[0]]["line_length"] / rows["renders"]["line_length"], 3)
            print(json.dumps({run[0]: rows[run[0]]}), flush=True)
    found = {name: row for name, row in rows.items() if name != "renders"}
    compared(found)
    settings = {**vars(options), "runs": [run[0] for run in options.runs]}
    print(json.dumps({"settings": settings, "renders": rows["renders"], **found}, indent=2))


if __name__ == "__main__":
    main()
