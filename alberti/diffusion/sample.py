"""Generating pictures from depth maps: batched, resumable, and the same bytes for any number of processes."""

import inspect
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from alberti.data.manifest import Dataset, Sample, write_dataset
from alberti.device import choose_device
from alberti.diffusion.config import SampleConfig
from alberti.diffusion.guidance import Points, VanishingGuide, guide_decoder, require_points
from alberti.diffusion.hashing import model_hash
from alberti.diffusion.model import DepthDiffusion
from alberti.errors import ConfigError
from alberti.families.steps import noise_step
from alberti.files import sha256_file, sha256_json
from alberti.geometry.camera import Camera
from alberti.geometry.depth_points import vanishing_points_from_depth
from alberti.geometry.surfaces import points_on_surfaces
from alberti.images import write_image
from alberti.progress import Progress
from alberti.seeding import torch_generator

_WRITERS = 4


def solver_of(model: DepthDiffusion, config: SampleConfig) -> Any:
    """The diffusers scheduler that samples, set up from the model's own and set to ``config.steps``."""
    settings = dict(model.scheduler.config)
    if model.schedule.prediction_type == "flow":
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler as Solver

        if config.solver != "ddim":
            raise ConfigError(f"solver: a flow-matching model is sampled with its Euler steps ('ddim'), got {config.solver!r}")
    elif config.solver == "ddim":
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler as Solver
    else:
        from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler as Solver
    known = inspect.signature(Solver.__init__).parameters
    solver = Solver.from_config({name: value for name, value in settings.items() if name in known})
    if (mu := model.time_shift) is None:
        solver.set_timesteps(config.steps)
    else:  # as the pipelines of such models do
        solver.set_timesteps(sigmas=np.linspace(1.0, 1 / config.steps, config.steps).tolist(), mu=mu)
    return solver


def start_noise(ids: Sequence[str], seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal (B, *shape) on the CPU, each sample's from (seed, id)."""
    return torch.stack([torch.randn(shape, generator=torch_generator(seed, "sample", name)) for name in ids])


@torch.no_grad()
def sample_images(
    model: DepthDiffusion,
    depth: Tensor,
    captions: Sequence[str],
    ids: Sequence[str],
    config: SampleConfig,
    vanishing_points: Sequence[Points] | None = None,
    decoder: nn.Module | None = None,
    cameras: Sequence[Camera | None] | None = None,
) -> Tensor:
    """Pictures for depth maps.

    Args:
        depth: (B, H, W) metres, 0 = no measurement, on any device.
        captions: B prompts. ids: B names; each picture's noise follows from (config.seed, id).
        vanishing_points: for each picture a list of homogeneous pixels, or None; used by ``config.vanishing_guidance``
            only, which leaves pictures without points as they are.
        decoder: what :func:`decoder_to_guide` made of the model, which many calls can share; None: made here.
        cameras: for each picture its camera, or None; used by ``config.vanishing_guidance.surfaces`` only. A picture
            without a camera is guided to all of its points everywhere.

    Returns:
        (B, 3, H, W) float32 in [0, 1] on the model's device.
    """
    model.check_size(*depth.shape[-2:])
    device, denoise = model.device, _Denoise(model, depth, captions, config)
    shape = (model.latent_channels, depth.shape[1] // model.factor, depth.shape[2] // model.factor)
    solver, guide = solver_of(model, config), _guide(model, config, depth, vanishing_points, cameras, decoder)
    latents = start_noise(ids, config.seed, shape).to(device) * float(getattr(solver, "init_noise_sigma", 1.0))
    # The solver's times stay on the CPU: comparing them on a GPU would wait for it at every step.
    for index, time in enumerate(solver.timesteps):
        denoise.at(solver, time)
        push = guide.push(denoise, latents, noise_step(solver, index)) if guide is not None else None
        latents = solver.step(denoise(latents), time, latents, return_dict=False)[0]
        if push is not None:
            latents = latents + push
    return model.decode(latents.to(next(model.vae.parameters()).dtype)).float().clamp(0, 1)


class _Denoise:
    """The model's answer for pictures of one batch, with classifier-free guidance where it is asked for."""

    def __init__(self, model: DepthDiffusion, depth: Tensor, captions: Sequence[str], config: SampleConfig):
        self.network, self.dtype = model.denoiser(), next(model.unet.parameters()).dtype
        self.condition = model.condition(depth.to(model.device)).to(self.dtype)
        self.text = model.encode_text(captions).to(self.dtype)
        self.scale = config.guidance_scale
        self.unwanted = model.encode_text([config.negative_prompt]).to(self.dtype) if self.scale > 1 else None

    def at(self, solver: Any, time: Tensor) -> None:
        """Set the time (a scalar on the CPU) of the calls to come."""
        self.solver, self.time = solver, time

    def __call__(self, latents: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Predictions (R, C, h, w), float32, for the noisy latents of the batch's pictures ``rows``."""
        inputs = latents
        if hasattr(self.solver, "scale_model_input"):
            inputs = self.solver.scale_model_input(latents, self.time)
        text, condition = self.text[rows], self.condition[rows]
        if self.unwanted is not None:
            text = torch.cat([self.unwanted.expand(len(text), *self.unwanted.shape[1:]), text])
            inputs, condition = torch.cat([inputs, inputs]), torch.cat([condition, condition])
        times = torch.full((len(inputs),), self.time.item(), device=inputs.device, dtype=self.time.dtype)
        prediction = self.network(inputs.to(self.dtype), times, text, condition).float()
        if self.unwanted is None:
            return prediction
        without, wanted = prediction.chunk(2)
        return without + self.scale * (wanted - without)


def _guide(
    model: DepthDiffusion,
    config: SampleConfig,
    depth: Tensor,
    points: Sequence[Points] | None,
    cameras: Sequence[Camera | None] | None,
    decoder: nn.Module | None,
) -> VanishingGuide | None:
    if config.vanishing_guidance is None:
        return None
    if points is None:
        raise ConfigError("vanishing_guidance: needs vanishing_points, a list for each picture; none were given")
    if decoder is None:
        decoder = decoder_to_guide(model, config)
    surfaces = None
    if config.vanishing_guidance.surfaces and cameras is not None:
        surfaces = [
            points_on_surfaces(each.cpu().numpy(), np.array(found), camera) if camera is not None and found else None
            for each, found, camera in zip(depth, points, cameras, strict=True)
        ]
    return VanishingGuide(model, config.vanishing_guidance, points, config.steps, decoder, surfaces)


def decoder_to_guide(model: DepthDiffusion, config: SampleConfig) -> nn.Module | None:
    """A model's decoder for all batches that ``config.vanishing_guidance`` guides, set up as :func:`prepare` does; None
    without guidance. Make it once: of Stable Diffusion's decoder it is a copy of 200 MB.
    """
    if config.vanishing_guidance is None:
        return None
    decoder = guide_decoder(model, config.vanishing_guidance)
    if config.channels_last:
        decoder.to(memory_format=torch.channels_last)
    if config.compile:
        decoder.compile()
    return decoder


def to_uint8(images: Tensor) -> np.ndarray:
    """(B, 3, H, W) in [0, 1] -> (B, H, W, 3) uint8, rounded to nearest."""
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def generate(
    model: DepthDiffusion,
    dataset: Dataset,
    out: str | Path,
    config: SampleConfig,
    *,
    work: str | Path | None = None,
    device: str | torch.device | None = None,
) -> None:
    """Generate one picture for every sample of ``dataset`` from its depth map and caption, as the data-set folder
    ``out``.

    Depth is not copied: the new data set's ``depth_root`` refers to that of ``dataset``; intrinsics, vanishing
    points and captions are carried over. Pictures are written one by one into a folder below ``work``, so that an
    interrupted call goes on where it stopped. Under ``torchrun`` the batches are shared among the processes, and the
    last one to finish writes ``out``; batches are cut along the data set's order, so the bytes are those of a single
    process.

    Args:
        model: moved to ``device``, and to bfloat16 where ``config.precision`` says so.
        work: for unfinished pictures; should outlive an interruption. None: a hidden sibling of ``out``.

    Raises:
        ConfigError: pictures of a size that the model cannot make; vanishing-point guidance, and neither vanishing points nor
            cameras to find some with in the depth maps.
        DataError: a depth map is missing or damaged.
    """
    out = Path(out)
    work = Path(work) if work is not None else out.parent
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if config.vanishing_guidance is not None:
        require_points(dataset)
    for width, height in {(sample.width, sample.height) for sample in dataset}:
        model.check_size(height, width)
    prepare(model, config, device)
    # a data set may come with points that its files do not have
    points = [sample.vanishing_points for sample in dataset] if config.vanishing_guidance is not None else None
    key = sha256_json({
        "config": config.model_dump(), "data": dataset.info.fingerprint, "model": model_hash(model), "points": points
    })  # fmt: skip
    partial = work / f".generate-{key[:16]}"
    (partial / "images").mkdir(parents=True, exist_ok=True)
    batches = [batch for index, batch in enumerate(_batches(dataset, config.batch_size)) if index % world == rank]
    missing = [batch for batch in batches if not all(_path(partial, sample).is_file() for sample in batch)]
    with (
        Progress("generating", sum(map(len, missing)), "images") as progress,
        ThreadPoolExecutor(_WRITERS) as pool,
    ):
        decoder = decoder_to_guide(model, config) if missing else None
        pending: list[Any] = []
        for batch in missing:
            pictures = to_uint8(_sample_batch(model, dataset, batch, config, decoder))
            for done in pending:
                done.result()
            pending = [
                pool.submit(write_image, _path(partial, sample), picture)
                for sample, picture in zip(batch, pictures, strict=True)
            ]
            progress.advance(len(batch))
        for done in pending:
            done.result()
    _finish(dataset, partial, out, config)


def prepare(model: DepthDiffusion, config: SampleConfig, device: str | torch.device | None) -> None:
    """Move a model to ``device`` (None: a GPU if there is one) and set it up for sampling, in place."""
    model.to(choose_device(device), torch.bfloat16 if config.precision == "bf16" else None)
    for module in model.modules().values():
        module.eval()
        if config.channels_last:
            module.to(memory_format=torch.channels_last)
    if config.compile:
        model.unet.compile()
        model.vae.decoder.compile()


def _batches(dataset: Dataset, batch_size: int) -> list[list[Sample]]:
    """Batches of samples of one size, along the data set's order, whatever the number of processes."""
    dataset.require_depth()
    by_size: dict[tuple[int, int], list[Sample]] = {}
    for sample in dataset:
        by_size.setdefault((sample.width, sample.height), []).append(sample)
    return [samples[start : start + batch_size] for samples in by_size.values() for start in range(0, len(samples), batch_size)]


def _sample_batch(
    model: DepthDiffusion, dataset: Dataset, batch: list[Sample], config: SampleConfig, decoder: nn.Module | None
) -> Tensor:
    depths = [dataset.read_condition(sample) for sample in batch]
    captions = [sample.caption or "" for sample in batch]
    # other kinds of depth say nothing of which way surfaces face
    cameras = [dataset.camera(sample) if dataset.metric_depth else None for sample in batch]
    points = None
    if config.vanishing_guidance is not None:
        points = [_points(*each) for each in zip(batch, depths, cameras, strict=True)]
    depth = torch.from_numpy(np.stack(depths))
    return sample_images(model, depth, captions, [sample.id for sample in batch], config, points, decoder, cameras)


def _points(sample: Sample, depth: np.ndarray, camera: Camera | None) -> Points:
    """The manifest's points of a picture, or else those of its depth map's planes; None without points and camera."""
    if sample.vanishing_points is not None or camera is None:
        return sample.vanishing_points
    found: list[list[float]] = vanishing_points_from_depth(depth, camera).tolist()
    return found


def _path(folder: Path, sample: Sample) -> Path:
    return folder / "images" / f"{sample.id}.png"


def _finish(dataset: Dataset, partial: Path, out: Path, config: SampleConfig) -> None:
    """Turn the finished pictures into the data set ``out``, in whichever process sees all of them first."""
    lock = partial.with_name(f"{partial.name}.lock")
    with FileLock(lock):
        if not partial.is_dir() or not all(_path(partial, sample).is_file() for sample in dataset):
            return
        write_dataset(
            partial,
            (_generated(sample, partial) for sample in dataset),
            name=f"{dataset.info.name}-generated",
            role="generated",
            depth_root=os.path.relpath(dataset.depth_root, out.resolve()),
            depth_kind=dataset.info.depth_kind,
            depth_scale=dataset.info.depth_scale,
            depth_format=dataset.info.depth_format,
            notes=f"generated from the depth of {dataset.info.name}: {config.solver}, {config.steps} steps, guidance "
            f"{config.guidance_scale:g}, seed {config.seed}",
        )
        if out.exists():
            shutil.rmtree(out)
        shutil.move(partial, out)
    with suppress(OSError):  # Windows minds a process that still waits with it open
        lock.unlink()


def _generated(sample: Sample, folder: Path) -> Sample:
    hashes = {name: value for name, value in sample.sha256.items() if name == "depth"}
    path = _path(folder, sample)
    return sample.model_copy(update={"image": f"images/{path.name}", "sha256": {"image": sha256_file(path), **hashes}})
