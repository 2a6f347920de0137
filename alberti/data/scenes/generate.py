"""Rendered scenes as an iterator or as a data set on disk, in constant memory."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alberti.data.manifest import Dataset, Sample, write_dataset
from alberti.data.scenes.config import SceneConfig
from alberti.data.scenes.render import render_batch
from alberti.errors import ConfigError
from alberti.files import sha256_file
from alberti.geometry.camera import Camera
from alberti.images import write_depth, write_image
from alberti.parallel import ordered_results
from alberti.progress import Progress

_CPU_SAMPLES, _GPU_SAMPLES = 16 * 128 * 128 * 4, 256 * 128 * 128 * 4


@dataclass
class RenderedScene:
    """A picture of a street and what is known about it.

    ``image`` (H, W, 3) uint8; ``depth`` (H, W) float32 metres along the optical axis at the pixels' centres, 0 = sky;
    ``vanishing_points`` (K, 3) float64 homogeneous pixels of unit norm, those with most visible structure first.
    ``seed`` and ``config`` are what it was rendered from, so that other sensors can look at the same scene.
    """

    id: str
    image: np.ndarray
    depth: np.ndarray
    camera: Camera
    vanishing_points: np.ndarray
    caption: str
    seed: int
    config: SceneConfig


def default_batch_size(config: SceneConfig, device: str | torch.device) -> int:
    """Scenes rendered at once: few on the CPU, so that they fit its cache; many on a GPU."""
    budget = _CPU_SAMPLES if torch.device(device).type == "cpu" else _GPU_SAMPLES
    return max(1, budget // (config.width * config.height * config.supersample**2))


def render_scenes(
    ids: Iterable[str],
    seed: int,
    config: SceneConfig,
    *,
    device: str | torch.device = "cpu",
    batch_size: int | None = None,
    with_images: bool = True,
    workers: int = 1,
) -> Iterator[RenderedScene]:
    """Render one scene an id, in order and in constant memory.

    A scene depends on (seed, id, config) only: on the CPU its bytes are the same for any ``batch_size`` and any number
    of ``workers``; on a GPU values may differ by rounding. Without ``with_images`` the pictures are black, and much
    cheaper.

    Args:
        workers: processes, on the CPU. More than one starts fresh processes, so a script that asks for them needs the
            usual ``if __name__ == "__main__":``.
    """
    size = default_batch_size(config, device) if batch_size is None else batch_size
    if size < 1:
        raise ConfigError(f"batch_size: expected at least 1, got {size}")
    if workers > 1 and torch.device(device).type != "cpu":
        raise ConfigError(f"workers: a GPU renders in one process, got {workers}")
    jobs = (_Job(batch, seed, config, str(device), with_images) for batch in _batches(ids, size))
    for scenes in ordered_results(_render, jobs, workers):
        yield from scenes


@dataclass(frozen=True)
class _Job:
    """A batch to render, in this process or another."""

    ids: list[str]
    seed: int
    config: SceneConfig
    device: str
    with_images: bool


def _render(job: _Job) -> list[RenderedScene]:
    with one_thread():
        rendered = render_batch(job.ids, job.seed, job.config, job.device, with_images=job.with_images)
    return _unpack(job.ids, rendered, job.seed, job.config)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let tensor operations run in one thread. Casting rays is many short ones: threads that share each of them meet at a
    barrier after each, and crawl as soon as another process takes a core.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _batches(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    remaining = iter(ids)
    while batch := list(islice(remaining, size)):
        yield batch


def _unpack(ids: list[str], rendered: dict[str, Any], seed: int, config: SceneConfig) -> list[RenderedScene]:
    images = rendered["image"].permute(0, 2, 3, 1).cpu().numpy()
    depths, points = rendered["depth"].cpu().numpy(), rendered["vanishing_points"].cpu().numpy()
    intrinsics = rendered["intrinsics"].cpu().tolist()
    return [
        RenderedScene(
            id=sample_id,
            image=images[i].copy(),
            depth=depths[i].copy(),
            camera=Camera.from_intrinsics(intrinsics[i], config.width, config.height),
            vanishing_points=points[i][np.abs(points[i]).max(axis=1) > 0],
            caption=rendered["captions"][i],
            seed=seed,
            config=config,
        )
        for i, sample_id in enumerate(ids)
    ]


def render_dataset(
    folder: str | Path,
    *,
    name: str,
    role: str,
    count: int,
    seed: int,
    config: SceneConfig,
    device: str | torch.device = "cpu",
    with_images: bool = True,
    batch_size: int | None = None,
    workers: int = 1,
) -> Dataset:
    """Render ``count`` scenes into an existing folder: images/<id>.png, depth/<id>.png and the manifest.

    Ids are <role>-<number>, so that sets of different roles never share a scene, whatever their seeds. The caller holds
    the folder (``alberti.files.atomic_folder``). Without ``with_images`` there are depth maps only. ``workers`` as in
    :func:`render_scenes`.
    """
    if count < 1:
        raise ConfigError(f"count: expected at least 1 scene, got {count}")
    folder = Path(folder)
    ids = (f"{role}-{index:06d}" for index in range(count))
    scenes = render_scenes(ids, seed, config, device=device, batch_size=batch_size, with_images=with_images, workers=workers)
    with Progress(f"rendering {name}", total=count, unit="scenes") as progress:
        rows = _write(folder, scenes, with_images, progress)
        return write_dataset(folder, rows, name=name, role=role, notes="procedurally rendered streets")


def _write(folder: Path, scenes: Iterable[RenderedScene], with_images: bool, progress: Progress) -> Iterator[Sample]:
    for scene in scenes:
        image, depth = f"images/{scene.id}.png" if with_images else None, f"depth/{scene.id}.png"
        hashes = {}
        if image is not None:
            write_image(folder / image, scene.image)
            hashes["image"] = sha256_file(folder / image)
        write_depth(folder / depth, scene.depth)
        hashes["depth"] = sha256_file(folder / depth)
        yield Sample(
            id=scene.id,
            image=image,
            depth=depth,
            width=scene.camera.width,
            height=scene.camera.height,
            intrinsics=scene.camera.intrinsics,
            vanishing_points=[(float(x), float(y), float(w)) for x, y, w in scene.vanishing_points],
            vanishing_points_source="true",
            caption=scene.caption,
            sha256=hashes,
        )
        progress.advance()
