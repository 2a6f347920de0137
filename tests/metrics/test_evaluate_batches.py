"""Predicting several frames at once scores them as one by one."""

from pathlib import Path

import numpy as np

from alberti.data.kitti import KittiReader, KittiRecord, write_kitti
from alberti.geometry.camera import Camera
from alberti.metrics.evaluation import evaluate_batches, evaluate_frames


def record(size: tuple[int, int], seed: int) -> KittiRecord:
    random, (height, width) = np.random.default_rng(seed), size
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    camera = Camera(40, 40, width / 2 - 0.5, height / 2 - 0.5, width, height)
    depth = np.rint(random.uniform(1, 70, (height, width)) * 256) / 256
    return KittiRecord(image=image, camera=camera, split="test", depth=depth)


def test_batches_of_one_size_give_the_rows_of_single_frames(tmp_path: Path) -> None:
    sizes = [(40, 64)] * 3 + [(32, 64)] * 2 + [(40, 64)] * 2
    frames = write_kitti(tmp_path, [record(size, seed) for seed, size in enumerate(sizes)])
    reader, groups = KittiReader(tmp_path), []

    def one(image: np.ndarray) -> np.ndarray:
        return image[..., 0] / 4 + 1

    def several(images: list[np.ndarray]) -> list[np.ndarray]:
        groups.append([image.shape[:2] for image in images])
        return list(np.stack(images)[..., 0] / 4 + 1)

    single = evaluate_frames(frames, one, reader, "eigen_benchmark")
    batched = evaluate_batches(frames, several, reader, "eigen_benchmark", batch_size=2, workers=2)
    assert batched.rows.equals(single.rows)
    assert [len(group) for group in groups] == [2, 1, 2, 2]
    assert all(len(set(group)) == 1 for group in groups)
