"""What generated pictures lack beside renders: depth seen in both, damaged or mended in one way each. Prints a Markdown table.

    python benchmarks/mended.py [pretrained/base] [--streets 24] [--device cpu]

Renders of KITTI's camera, and pictures made from their depth maps and captions with the default profile's sampling.
`colours`: each channel gets the other picture's mean and deviation. `coarse`: what is left of a Gaussian blur of that many
pixels is the other picture's. An entry is the mean error (AbsRel) of the depth that the shipped models see against the depth
map, with its standard error.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch

from alberti.data.scenes import SceneConfig, render_batch
from alberti.depth.models import DepthModel
from alberti.depth.predict import predict_batch
from alberti.diffusion.config import SampleConfig
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.sample import sample_images
from alberti.metrics.depth import align, depth_metrics

ALIGNMENTS = {"pixelformer": "median", "dpt": "affine_disparity"}
SIGMAS = (2, 4, 8, 16)
_BATCH = 8


def blurred(pictures: np.ndarray, sigma: float) -> np.ndarray:
    """(N, H, W, 3) float32 under a Gaussian of ``sigma`` pixels."""
    return np.stack([cv2.GaussianBlur(picture, (0, 0), sigma) for picture in pictures])


def recoloured(pictures: np.ndarray, others: np.ndarray) -> np.ndarray:
    """``pictures`` with mean and deviation of each channel of ``others``."""
    (mean, deviation), (new_mean, new_deviation) = (
        (values.mean((1, 2), keepdims=True), values.std((1, 2), keepdims=True)) for values in (pictures, others)
    )
    return (pictures - mean) / np.maximum(deviation, 1e-3) * new_deviation + new_mean


def coarse_of(pictures: np.ndarray, others: np.ndarray, sigma: float) -> np.ndarray:
    """The fine structure of ``pictures`` on the coarse one of ``others``."""
    return pictures - blurred(pictures, sigma) + blurred(others, sigma)


def versions(renders: np.ndarray, generated: np.ndarray) -> dict[str, np.ndarray]:
    """Pictures by what was done to them."""
    made = {
        "renders": renders,
        "generated": generated,
        "renders, colours of generated": recoloured(renders, generated),
        "generated, colours of renders": recoloured(generated, renders),
        "renders, blurred 1": blurred(renders, 1),
        "generated, blurred 1": blurred(generated, 1),
    }
    for sigma in SIGMAS:
        made[f"renders, coarse {sigma} of generated"] = coarse_of(renders, generated, sigma)
        made[f"generated, coarse {sigma} of renders"] = coarse_of(generated, renders, sigma)
    return made | {"renders of other streets": np.roll(renders, 1, axis=0)}


def errors(model: DepthModel, pictures: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(N,) AbsRel of the depth seen."""
    found = []
    images = list(pictures.clip(0, 255).round().astype(np.uint8))
    for start in range(0, len(images), _BATCH):
        for seen, truth in zip(
            predict_batch(model, images[start : start + _BATCH]), depth[start : start + _BATCH], strict=True
        ):
            mask = (truth > 1e-3) & (truth < 80)
            aligned = align(seen, truth, mask, ALIGNMENTS[model.name]).depth.clip(1e-3, 80)
            found.append(depth_metrics(aligned, truth, mask)["abs_rel"])
    return np.array(found)


def show(table: Mapping[str, np.ndarray], models: Mapping[str, DepthModel], depth: np.ndarray) -> None:
    print("| pictures | " + " | ".join(models) + " |\n|---|" + "---|" * len(models))
    for name, pictures in table.items():
        seen = [errors(model, pictures, depth) for model in models.values()]
        cells = [f"{values.mean():.4f} (+- {values.std() / len(values) ** 0.5:.4f})" for values in seen]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", type=Path, default=Path("pretrained/base"))
    parser.add_argument("--streets", type=int, default=24)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    ids = [f"damage-{index}" for index in range(args.streets)]
    scenes = render_batch(ids, 12, SceneConfig("mixed", 320, 96, 2, "kitti"), args.device)
    base = DepthDiffusion.load(args.base).to(args.device)
    sampling = SampleConfig(steps=10, solver="dpm++", guidance_scale=2.0)
    parts = []
    for start in range(0, len(ids), _BATCH):
        part = slice(start, start + _BATCH)
        parts.append(sample_images(base, scenes["depth"][part], scenes["captions"][part], ids[part], sampling))
    generated = (torch.cat(parts).clamp(0, 1) * 255).permute(0, 2, 3, 1).cpu().numpy().astype(np.float32)
    renders = scenes["image"].permute(0, 2, 3, 1).cpu().numpy().astype(np.float32)
    models = {name: DepthModel.load(Path("pretrained") / name).to(args.device) for name in ALIGNMENTS}
    show(versions(renders, generated), models, scenes["depth"].cpu().numpy())


if __name__ == "__main__":
    main()
