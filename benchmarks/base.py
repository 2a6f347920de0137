"""What a base can do: its autoencoder, and pictures that it makes, on streets that it never saw. Prints JSON.

    python benchmarks/base.py [pretrained/base] [--streets 256] [--camera street] [--device cpu]
    python benchmarks/base.py --sampling ddim:50 ddim:20 dpm++:20 dpm++:10 dpm++:10:guided      # what speed costs
    python benchmarks/base.py --camera kitti --sampling dpm++:10 dpm++:10:guided dpm++:10:guided:balance=0

Perspective is measured as in the pipeline's stage evaluate_images: of the renders, of their reconstructions, and of
pictures made from their depth maps and captions. `ratio` is the reconstructions' consistency at 2 degrees over the renders';
`l1_to_first` the difference to the first sampling's pictures, which start from the same noise; `depth_seen` how far the depth
that --depth-model sees in a picture is from the depth map that the picture belongs to: one that shows it less well is a worse
example for a depth model.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from alberti.data.manifest import Dataset
from alberti.data.scenes import SceneConfig, render_dataset
from alberti.depth.models import DepthModel
from alberti.diffusion.config import SampleConfig, VanishingGuidance
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.reconstruct import reconstruct
from alberti.diffusion.sample import generate, sample_images
from alberti.metrics.features import FeatureExtractor, feature_extractor
from alberti.metrics.images import evaluate_pictures
from alberti.parallel import core_count

COLUMNS = ("consistency_2", "consistency_5", "surface_consistency_2", "line_length", "level_line_length", "vp_auc_10")


@dataclass(frozen=True)
class Judges:
    """The networks that pictures are measured with."""

    extractor: FeatureExtractor
    depth: DepthModel


def measured(pictures: Dataset, renders: Dataset, judges: Judges) -> dict[str, Any]:
    """Means with their 95 % intervals, the distances to the renders, and how well the pictures show their depth maps."""
    summary, _ = evaluate_pictures(
        pictures, renders, extractor=judges.extractor, depth_model=judges.depth, workers=core_count()
    )
    chosen = [key for column in (*COLUMNS, "depth_seen") for key in (column, f"{column}_low", f"{column}_high")]
    values = {key: float(summary[key]) for key in (*chosen, "frechet_distance", "kernel_distance")}  # type: ignore[arg-type]
    return {key: round(value, 4) for key, value in values.items()}


def errors(reconstructions: Dataset, renders: Dataset) -> dict[str, float]:
    """Reconstruction error of 8-bit pictures: L1 of [0, 1], and the mean of the pictures' PSNR in dB."""
    l1, psnr = [], []
    for ours, theirs in zip(reconstructions, renders, strict=True):
        difference = (reconstructions.read_image(ours).astype(float) - renders.read_image(theirs).astype(float)) / 255
        l1.append(np.abs(difference).mean())
        psnr.append(-10 * np.log10(max(np.square(difference).mean(), 1e-10)))
    return {"l1": round(float(np.mean(l1)), 5), "psnr_db": round(float(np.mean(psnr)), 2)}


def sampling(name: str) -> tuple[str, dict[str, Any]]:
    """ "dpm++:20" or "dpm++:20:guided", with the settings that it stands for; argparse tells of a ValueError.

    Settings of guidance may follow: "dpm++:20:guided:balance=0:strength=0.8".
    """
    solver, steps, *rest = name.split(":")
    if solver not in ("ddim", "dpm++") or rest[:1] not in ([], ["guided"]):
        raise ValueError(name)
    settings = {key: yaml.safe_load(value) for key, _, value in (part.partition("=") for part in rest[1:])}
    guidance = VanishingGuidance.model_validate(settings) if rest else None
    return name, {"solver": solver, "steps": int(steps), "vanishing_guidance": guidance}


def generated(model: DepthDiffusion, renders: Dataset, folder: Path, options: argparse.Namespace) -> dict[str, Dataset]:
    """The pictures of every sampling by its name."""
    found = {}
    for name, settings in options.sampling:
        config = SampleConfig(guidance_scale=options.guidance, batch_size=options.batch_size, **settings)
        out = folder / "generated" / name.replace(":", "-").replace("=", "-")
        out.parent.mkdir(exist_ok=True)
        generate(model, renders, out, config, device=options.device)
        found[name] = Dataset.open(out)
    return found


def seconds_a_picture(model: DepthDiffusion, renders: Dataset, options: argparse.Namespace) -> dict[str, float]:
    """Of one batch each, all samplings in turns: the least of three."""
    batch = list(renders)[: options.batch_size]
    depth = torch.from_numpy(np.stack([renders.read_depth(sample) for sample in batch]))
    rest = [sample.caption or "" for sample in batch], [sample.id for sample in batch]
    points, cameras = [sample.vanishing_points for sample in batch], [renders.camera(sample) for sample in batch]
    least: dict[str, float] = {}
    for _ in range(3):
        for name, settings in options.sampling:
            config = SampleConfig(guidance_scale=options.guidance, **settings)
            start = time.perf_counter()
            sample_images(model, depth, *rest, config, points, cameras=cameras).sum().item()  # the sum waits for the device
            least[name] = min(least.get(name, float("inf")), (time.perf_counter() - start) / len(batch))
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default="pretrained/base")
    parser.add_argument("--streets", type=int, default=256)
    parser.add_argument("--seed", type=int, default=77, help="of the streets; training had another")
    parser.add_argument("--camera", choices=("street", "kitti", "mixed"), default="street", help="kitti: 320 x 96 pixels")
    parser.add_argument(
        "--sampling", type=sampling, nargs="+", default=[sampling("dpm++:20")], metavar="SOLVER:STEPS[:guided[:KEY=VALUE ...]]",
        help="ddim or dpm++ (default: dpm++:20); with several, they are also timed",
    )  # fmt: skip
    parser.add_argument("--guidance", type=float, default=2.0, help="classifier-free guidance scale")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--extractor", default="efficientnet_lite0_imagenet_pool1280")
    parser.add_argument("--depth-model", default="pretrained/pixelformer", help="folder of a metric depth model")
    parser.add_argument("--keep", help="folder for the pictures")
    options = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(Path(options.keep or temporary), options)
    print(json.dumps({**result, "seconds": round(time.perf_counter() - start, 1)}, indent=2))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Renders, reconstructions and generated pictures into ``folder``, and what they are like."""
    width, height = (320, 96) if options.camera == "kitti" else (128, 128)
    for name in ("renders", "reconstructions"):
        (folder / name).mkdir(parents=True)
    renders = render_dataset(
        folder / "renders", name="streets", role="condition", count=options.streets, seed=options.seed,
        config=SceneConfig(width=width, height=height, camera=options.camera), device=options.device,
    )  # fmt: skip
    model = DepthDiffusion.load(options.base, device=options.device)
    reconstruct(model, renders, folder / "reconstructions", options.batch_size)
    reconstructions = Dataset.open(folder / "reconstructions")
    pictures = generated(model, renders, folder, options)
    seconds = seconds_a_picture(model, renders, options) if len(pictures) > 1 else {}
    judges = Judges(
        feature_extractor(options.extractor, options.device), DepthModel.load(options.depth_model).to(options.device)
    )
    first = next(iter(pictures.values()))
    ours, theirs = (measured(dataset, renders, judges) for dataset in (reconstructions, renders))
    return {
        "settings": {**vars(options), "sampling": list(pictures)},
        "parameters": {name: sum(p.numel() for p in module.parameters()) for name, module in model.modules().items()},
        "renders": theirs,
        "reconstructions": errors(reconstructions, renders) | ours,
        "ratio": round(ours["consistency_2"] / theirs["consistency_2"], 4),
        "generated": {
            name: measured(dataset, renders, judges)
            | {"l1_to_first": errors(dataset, first)["l1"]}
            | ({"seconds_a_picture": round(seconds[name], 4)} if seconds else {})
            for name, dataset in pictures.items()
        },
    }


if __name__ == "__main__":
    main()
