"""What ``torchrun`` runs in test_processes.py: fine-tune, then generate; the main process writes the training history."""

import json
import os
import sys
from pathlib import Path

import torch

from alberti.data.manifest import Dataset
from alberti.diffusion.base import DepthDiffusion
from alberti.diffusion.config import FinetuneConfig, SampleConfig
from alberti.diffusion.sample import generate
from alberti.diffusion.train import finetune
from alberti.training.settings import Optimisation


def main(base_folder: Path, data: Path, out: Path) -> None:
    torch.set_num_threads(1)
    dataset = Dataset.open(data)
    points = {sample.id: sample.vanishing_points for sample in dataset}
    config = FinetuneConfig(training=Optimisation(steps=3, batch_size=4, lr=1e-3, log_every=1), num_lines=60, weight=0.1)
    result = finetune(
        DepthDiffusion.load(base_folder), dataset, points, config, checkpoints=out / "runs", run_key={}, device="cpu"
    )
    if os.environ.get("RANK", "0") == "0":
        (out / "history.json").write_text(json.dumps(result.history))
    generate(DepthDiffusion.load(base_folder), dataset, out / "made", SampleConfig(steps=2, batch_size=2), device="cpu")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
