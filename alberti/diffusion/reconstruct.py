"""A data set's pictures through an autoencoder: what a model that draws in its latents can show at best."""

import os
from pathlib import Path

import numpy as np
import torch

from alberti.data.manifest import Dataset, Sample, write_dataset
from alberti.diffusion.model import DepthDiffusion
from alberti.diffusion.sample import to_uint8
from alberti.images import write_image
from alberti.progress import Progress


@torch.no_grad()
def reconstruct(model: DepthDiffusion, dataset: Dataset, out: Path, batch_size: int, final: Path | None = None) -> None:
    """Every picture of ``dataset`` encoded and decoded (the latents' means, nothing drawn), as a data set in ``out``.

    Args:
        out: an existing folder. final: where it will lie in the end, if it is renamed; the depth maps stay where they are and
            are found from there.
    """
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
        depth_root=os.path.relpath(dataset.depth_root, (final or out).resolve()), depth_kind=info.depth_kind,
        depth_scale=info.depth_scale, depth_format=info.depth_format,
        notes=f"pictures of {info.name} through the base's autoencoder",
    )  # fmt: skip
