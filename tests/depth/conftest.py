"""Small data sets whose depth can be told from the picture: nearer boxes are brighter and lower."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alberti.data.manifest import Dataset, Sample, write_dataset
from alberti.images import write_depth, write_image

DatasetMaker = Callable[..., Dataset]


def draw_scene(random: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A ground plane under a wall, with boxes on it; depth in metres, the image's brightness falls with depth."""
    rows = np.arange(height)[:, None] / height
    depth = np.broadcast_to(np.clip(2.0 / np.maximum(rows - 0.4, 0.05), 3.0, 40.0), (height, width)).copy()
    for _ in range(3):
        near = random.uniform(4, 20)
        bottom = int(height * min(1.0, 0.4 + 2.0 / near))
        left, size = int(random.integers(width)), int(random.integers(width // 8, width // 3))
        box = depth[bottom // 3 : bottom, left : left + size]
        np.minimum(box, near, out=box)
    gray = 255 * np.exp(-depth / 15) + random.normal(0, 4, depth.shape)
    image = np.clip(gray[..., None] * np.array([1.0, 0.9, 0.8]), 0, 255).astype(np.uint8)
    return image, depth.astype(np.float32)


@pytest.fixture
def make_dataset(tmp_path: Path) -> DatasetMaker:
    """Write a data set: ``make_dataset(name, count, height, width, sparse=..., scale=..., seed=...)``."""

    def make(
        name: str = "data",
        count: int = 4,
        height: int = 64,
        width: int = 64,
        *,
        keep: float = 1.0,
        unit: float = 1.0,
        seed: int = 0,
    ) -> Dataset:
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        (folder / "depth").mkdir()
        random = np.random.default_rng(seed)
        samples = []
        for index in range(count):
            image, depth = draw_scene(random, height, width)
            depth = np.where(random.random(depth.shape) < keep, depth * unit, 0).astype(np.float32)
            write_image(folder / f"images/{index}.png", image)
            write_depth(folder / f"depth/{index}.png", depth)
            samples.append(
                Sample(
                    id=f"{name}-{index}",
                    image=f"images/{index}.png",
                    depth=f"depth/{index}.png",
                    width=width,
                    height=height,
                    intrinsics=(width, width, (width - 1) / 2, 0.4 * height),
                )
            )
        return write_dataset(folder, samples, name=name, role="train")

    return make
