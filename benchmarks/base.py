"""What a base can do: its autoencoder, and pictures that it makes, on streets that it never saw. Prints JSON.

    python benchmarks/base.py [pretrained/base] [--streets 256] [--camera street] [--steps 20] [--device cpu]

Perspective is measured as in the pipeline's stage evaluate_images: of the renders, of their reconstructions, and of
pictures made from their depth maps and captions. `ratio` is the reconstructions' consistency at 2 degrees over the renders'.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alberti.data.manifest import Dataset
from alberti.data.scenes import SceneConfig, render_dataset
from alberti.diffusion.config import SampleConfig
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.sample import generate
from alberti.metrics.features import FeatureExtractor, feature_extractor
from alberti.metrics.images import evaluate_pictures
from alberti.parallel import core_count
from stages.references import reconstruct

COLUMNS = ("consistency_2", "consistency_5", "line_length", "vp_auc_10")


def measured(pictures: Dataset, renders: Dataset, extractor: FeatureExtractor) -> dict[str, Any]:
    """Means with their 95 % intervals, and the distances to the renders."""
    summary, _ = evaluate_pictures(pictures, renders, extractor=extractor, workers=core_count())
    chosen = [key for column in COLUMNS for key in (column, f"{column}_low", f"{column}_high")]
    return {key: round(float(summary[key]), 4) for key in (*chosen, "frechet_distance", "kernel_distance")}  # type: ignore[arg-type]


def errors(reconstructions: Dataset, renders: Dataset) -> dict[str, float]:
    """Reconstruction error of 8-bit pictures: L1 of [0, 1], and the mean of the pictures' PSNR in dB."""
    l1, psnr = [], []
    for ours, theirs in zip(reconstructions, renders, strict=True):
        difference = (reconstructions.read_image(ours).astype(float) - renders.read_image(theirs).astype(float)) / 255
        l1.append(np.abs(difference).mean())
        psnr.append(-10 * np.log10(max(np.square(difference).mean(), 1e-10)))
    return {"l1": round(float(np.mean(l1)), 5), "psnr_db": round(float(np.mean(psnr)), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default="pretrained/base")
    parser.add_argument("--streets", type=int, default=256)
    parser.add_argument("--seed", type=int, default=77, help="of the streets; training had another")
    parser.add_argument("--camera", choices=("street", "kitti", "mixed"), default="street", help="kitti: 320 x 96 pixels")
    parser.add_argument("--steps", type=int, default=20, help="of DPM-Solver++")
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--extractor", default="efficientnet_lite0_imagenet_pool1280")
    parser.add_argument("--keep", help="folder for the pictures")
    options = parser.parse_args()
    width, height = (320, 96) if options.camera == "kitti" else (128, 128)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.keep or temporary)
        for name in ("renders", "reconstructions"):
            (folder / name).mkdir(parents=True)
        renders = render_dataset(
            folder / "renders", name="streets", role="condition", count=options.streets, seed=options.seed,
            config=SceneConfig(width=width, height=height, camera=options.camera), device=options.device,
        )  # fmt: skip
        model = DepthDiffusion.load(options.base, device=options.device)
        reconstruct(model, renders, folder / "reconstructions", options.batch_size)
        sampling = SampleConfig(steps=options.steps, guidance_scale=options.guidance, batch_size=options.batch_size)
        generate(model, renders, folder / "generated", sampling, device=options.device)
        extractor = feature_extractor(options.extractor, options.device)
        reconstructions = Dataset.open(folder / "reconstructions")
        result = {
            "settings": vars(options),
            "parameters": {name: sum(p.numel() for p in module.parameters()) for name, module in model.modules().items()},
            "renders": measured(renders, renders, extractor),
            "reconstructions": errors(reconstructions, renders) | measured(reconstructions, renders, extractor),
            "generated": measured(Dataset.open(folder / "generated"), renders, extractor),
        }
    ratio = result["reconstructions"]["consistency_2"] / result["renders"]["consistency_2"]
    print(json.dumps({**result, "ratio": round(ratio, 4), "seconds": round(time.perf_counter() - start, 1)}, indent=2))


if __name__ == "__main__":
    main()
