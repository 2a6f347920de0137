"""A toy data set of rays through one vanishing point, and the size of the models that learn from it."""

from pathlib import Path

import numpy as np

from alberti.data.manifest import Dataset, Sample, write_dataset
from alberti.diffusion.config import BaseConfig, ConstraintSettings, FinetuneConfig
from alberti.images import write_depth, write_image
from alberti.training.settings import Optimisation

SIZE = 32
CAPTIONS = ("a street with brick facades", "a street with plaster facades", "a wide street, stone facades")
TINY = {"height": SIZE, "width": SIZE, "vae_channels": (8, 16), "max_tokens": 16, "text_width": 16}


def base_config(**changes: object) -> BaseConfig:
    """A training of seconds, after which pictures look a little like the toy's."""
    common = {"batch_size": 6, "lr_schedule": "cosine", "weight_decay": 0.0, "log_every": 4, "checkpoint_every": 10}
    short = {
        "vae": Optimisation(steps=60, lr=6e-3, warmup_steps=5, **common),
        "unet": Optimisation(steps=16, lr=2e-3, ema_decay=0.5, **common),
    }
    return BaseConfig.smoke(**(TINY | short | changes))


def finetune_config(**settings: object) -> FinetuneConfig:
    """Settings of ``training`` and those beside it in one list; without a constraint, what only one uses is left out."""
    training = {name: settings.pop(name) for name in list(settings) if name in Optimisation.model_fields}
    if settings.get("constraint", "") is None:
        settings = {name: value for name, value in settings.items() if name not in ConstraintSettings.model_fields}
    return FinetuneConfig.model_validate(settings | {"training": training})


def write_toy(folder: Path, count: int = 6, size: int = SIZE) -> Dataset:
    (folder / "images").mkdir(parents=True)
    (folder / "depth").mkdir()
    random = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size].astype(float)
    rows = []
    for index in range(count):
        point = np.array([size / 2 + random.uniform(-5, 5), size / 2 + random.uniform(-5, 5), 1.0])
        angle = np.arctan2(y - point[1], x - point[0])
        rays = 0.5 + 0.4 * np.sign(np.sin(angle * random.integers(3, 6) + random.uniform(0, 6)))
        image = (rays[..., None] * np.array([255, 220, 180])).astype(np.uint8)
        depth = np.clip(30 / (np.maximum(abs(x - point[0]), abs(y - point[1])) + 1), 1.5, 80).astype(np.float32)
        name = f"toy-{index}"
        write_image(folder / "images" / f"{name}.png", image)
        write_depth(folder / "depth" / f"{name}.png", depth)
        rows.append(
            Sample(
                id=name,
                image=f"images/{name}.png",
                depth=f"depth/{name}.png",
                width=size,
                height=size,
                intrinsics=(30, 30, (size - 1) / 2, (size - 1) / 2),
                vanishing_points=[tuple(point / np.linalg.norm(point))],
                vanishing_points_source="true",
                caption=CAPTIONS[index % len(CAPTIONS)],
            )
        )
    return write_dataset(folder, rows, name="toy", role="train")
