"""Stage references: what the pictures of an arm could reach at best, measured as they are.

`renders` are the pictures that belong to the depth maps, `reconstructions` the same through the base's autoencoder: an arm that
only changes the UNet cannot be expected to be straighter than those.
"""

import os
from pathlib import Path

import numpy as np
import torch

from alberti.data.manifest import Dataset, Sample, write_dataset
from alberti.device import choose_device
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.sample import to_uint8
from alberti.files import atomic_folder
from alberti.images import write_image
from alberti.metrics.features import feature_extractor
from alberti.progress import Progress
from stages.common import run_stage
from stages.evaluate_images import measure, write_measures
from stages.params import Params

OUT = Path("data/references")
METRICS = Path("metrics/references")


def references(params: Params, _: str) -> None:
    """Write `data/references/` (the reconstructions) and `metrics/references/{renders,reconstructions}.{json,csv}`."""
    condition = Dataset.open("data/condition")
    model = DepthDiffusion.load("models/base", device=choose_device())
    with atomic_folder(OUT) as out:
        reconstruct(model, condition, out, params.references.batch_size)
    extractor = feature_extractor(params.evaluate_images.extractor, choose_device())
    with atomic_folder(METRICS) as out:
        write_measures(out / "renders.json", *measure(condition, condition, extractor))
        write_measures(out / "reconstructions.json", *measure(Dataset.open(OUT), condition, extractor))


@torch.no_grad()
def reconstruct(model: DepthDiffusion, dataset: Dataset, out: Path, batch_size: int) -> None:
    """Every picture of ``dataset`` encoded and decoded (the latents' means, nothing drawn), as a data set in ``out``."""
    samples: list[Sample] = []
    with Progress("reconstructing", len(dataset), "images") as progress:
        for start in range(0, len(dataset), batch_size):
            batch = dataset.samples[start : start + batch_size]
            images = torch.from_numpy(np.stack([dataset.read_image(sample) for sample in batch]))
            mean, _ = model.encode_image(images.to(model.device).permute(0, 3, 1, 2).to(model.vae.dtype) / 255)
            for sample, picture in zip(batch, to_uint8(model.decode(mean).float().clamp(0, 1)), strict=True):
                write_image(out / "images" / f"{sample.id}.png", picture)
                samples.append(sample.model_copy(update={"image": f"images/{sample.id}.png", "sha256": {}}))
            progress.advance(len(batch))
    info = dataset.info
    write_dataset(
        out, samples, name=f"{info.name}-reconstructed", role="generated",
        depth_root=os.path.relpath(dataset.depth_root, OUT.resolve()), depth_kind=info.depth_kind,
        depth_scale=info.depth_scale, depth_format=info.depth_format,
        notes=f"pictures of {info.name} through the base's autoencoder",
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(references)
