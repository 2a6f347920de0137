"""Straight pictures from a diffusers pipeline as it is, by vanishing-point guidance while it samples.

    guide = VanishingGuidance(depth=depth, camera=camera)
    with guide.attached(pipe):
        picture = pipe("a street at noon", image=..., ...).images[0]

Nothing of the pipeline is rewritten. Every diffusers pipeline calls its denoiser and, after classifier-free guidance and
whatever else it does, ``scheduler.step(output, t, sample)``, where the clean latent x0 is known. While a guide is attached, the
denoiser's call, and all that the pipeline makes of its answer, is recorded with gradients; the step is the pipeline's own, and
what it returns is moved down the gradient of :class:`alberti.diffusion.guidance.VanishingEnergy` through decoder and denoiser.
"""

import functools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from alberti.data.transforms import stack_vanishing_points
from alberti.diffusion.config import VanishingGuidance as Settings
from alberti.diffusion.guidance import VanishingEnergy, even_step
from alberti.errors import ConfigError, DataError
from alberti.families.adapters import Call, family_of, gather, leaf, leaf_tensors
from alberti.families.codecs import tiny_decoder
from alberti.families.steps import NoiseStep, check_scheduler, drops_the_sample, noise_step, step_index
from alberti.geometry.camera import Camera
from alberti.geometry.depth_points import points_of_depth
from alberti.geometry.presence import present
from alberti.geometry.surfaces import points_on_surfaces

_DECODED_PIXELS = 4 * 512**2
"""Pixels that are decoded with gradients at once."""
_DTYPES = (torch.float32, torch.bfloat16)
_LARGE = 2_000_000_000
"""Parameters of a denoiser that keeps only what it must between forward and backward pass, unless told otherwise."""
_MARK = "_alberti_guidance"
_NO_SURFACE = "no surface of the depth map runs along a vanishing point, as where it is one wall that faces the camera"
_NOT_FINITE = (
    "guidance: the gradient through decoder and {} is not finite, though what they answer is. In float16 it may have "
    "overflowed: use bfloat16 or float32. On NVIDIA's Hopper torch from 2.11 on attends by cuDNN, whose backward pass has had "
    "such faults: torch.backends.cuda.enable_cudnn_sdp(False) has it take another kernel"
)


class VanishingGuidance:
    """Turns the edges of a pipeline's pictures towards the scene's vanishing points while they are sampled.

    Args:
        vanishing_points: (K, 3) homogeneous pixels of the picture for all pictures of a call, or a list of such, one per prompt
            (None: that picture is left as it is). None: found in ``depth``.
        depth: (H, W) metres of the picture's size, 0 = no measurement, or a list of such, one per prompt. With it edges are
            turned only to points that their surface contains.
        camera: of the picture's size, or a list. Without one, points are found in ``depth`` under an assumed camera.
        strength: how far a latent value is moved at most by as many guided steps as the run has; noise has a standard
            deviation of 1. 0: the pipeline's own pictures, bit for bit.
        balance: 0: stray edges are turned whichever way is nearest. 1: as many edges towards each of a surface's points.
        tolerance: degrees by which an edge that is half stray misses its vanishing point.
        surfaces: False: all edges are turned to all points, whatever ``depth`` says.
        hold: price on how much edge a picture has, of which guidance alone draws more. 0: none. 0.4 takes away most of
            that. hold_from: the share of signal power from which steps ask it.
        alpha_min, alpha_max: the window of denoising steps that are guided, by share of signal power: 0 is noise, 1 is clean.
        every: guide each n-th step of the window only, counted from its last, n times as far.
        decoder: "full", the pipeline's VAE; or an AutoencoderTiny of the family, which costs much less.
        decoder_dtype: what the decoder computes in; None: as the pipeline's VAE. torch.bfloat16 takes half as long where the
            processor has it.
        through: "denoiser"; or "decoder", the gradient of the decoder alone, at a fraction of the cost and of the gain.
        checkpointing: have the denoiser compute activations again in the backward pass, to save memory. None: if it has more
            than two billion parameters.

    Raises:
        ConfigError: neither points nor depth, or an option that is out of range.
        DataError: points, depth map and camera that do not fit each other; no vanishing point found, or none that a surface of
            the depth map runs along.
    """

    def __init__(
        self,
        vanishing_points: Any = None,
        *,
        depth: Any = None,
        camera: Camera | Sequence[Camera] | None = None,
        strength: float = 1.6,
        balance: float = 0.5,
        tolerance: float = 8.0,
        surfaces: bool = True,
        hold: float = 0.0,
        hold_from: float = 0.7,
        alpha_min: float = 0.25,
        alpha_max: float = 1.0,
        every: int = 1,
        decoder: Any = "full",
        decoder_dtype: torch.dtype | None = None,
        through: Literal["denoiser", "decoder"] = "denoiser",
        checkpointing: bool | None = None,
    ):
        if not 0 <= strength < float("inf") or every % 1 != 0 or every < 1 or through not in ("denoiser", "decoder"):
            raise ConfigError(
                "guidance: expected strength >= 0, every >= 1 and through 'denoiser' or 'decoder', got "
                f"{strength}, {every}, {through!r}"
            )
        self.strength, self.every, self.through, self.checkpointing, self.decoder = (
            strength,
            every,
            through,
            checkpointing,
            decoder,
        )
        if isinstance(decoder, str) and decoder != "full":
            raise ConfigError(f"decoder: expected 'full' or an AutoencoderTiny, got {decoder!r}")
        if decoder_dtype not in (None, *_DTYPES):
            raise ConfigError(f"decoder_dtype: expected one of {', '.join(map(str, _DTYPES))} or None, got {decoder_dtype!r}")
        self.decoder_dtype = decoder_dtype
        self.settings = Settings(
            strength=strength or 1.0,
            balance=balance,
            tolerance=tolerance,
            surfaces=surfaces,
            hold=hold,
            hold_from=hold_from,
            alpha_min=alpha_min,
            alpha_max=alpha_max,
        )
        self.scenes = _scenes(vanishing_points, depth, camera, surfaces)
        self._attachment: _Attachment | None = None

    @contextmanager
    def attached(self, pipe: Any) -> Iterator["VanishingGuidance"]:
        """Guide ``pipe`` within a ``with`` block; whatever happens there, the pipeline is as before afterwards."""
        self.attach(pipe)
        try:
            yield self
        finally:
            self.detach()

    def attach(self, pipe: Any) -> None:
        """Guide what ``pipe`` samples from now on.

        Raises:
            ConfigError: a pipeline of an unknown family, a scheduler whose x0 cannot be had, or one that is guided already.
        """
        if self._attachment is not None:
            raise ConfigError("guidance: is attached already; detach() it first, or make another one for another pipeline")
        self._attachment = _Attachment(self, pipe)

    def detach(self) -> None:
        """Leave the pipeline as it was before :meth:`attach`; without an attached pipeline nothing happens."""
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            attachment.undo()


class _Scenes:
    """What is known of the pictures of a call: points, surfaces, and the size that they belong to, a list each."""

    def __init__(self, points: list[Any], surfaces: list[np.ndarray | None], sizes: list[tuple[int, int] | None]):
        self.points, self.surfaces, self.sizes = points, surfaces, sizes

    def of_batch(self, count: int, height: int, width: int) -> tuple[list[Any], list[np.ndarray | None]]:
        """Points and surfaces of ``count`` pictures of a size; several pictures a prompt follow each other."""
        known = len(self.points)
        if count % known:
            raise DataError(
                f"guidance: has vanishing points for {known} prompts, but {count} pictures are sampled; give one set for "
                "all, or one per prompt"
            )
        for size in self.sizes:
            if size not in (None, (height, width)):
                raise DataError(
                    f"guidance: its depth map or camera is of {size[1]} x {size[0]} pixels, the picture of {width} x {height}; "
                    "resize them (Camera.resize, alberti.data.transforms), or set the pipeline's height and width"
                )
        repeat = count // known
        return [each for each in self.points for _ in range(repeat)], [each for each in self.surfaces for _ in range(repeat)]


def _scenes(points: Any, depth: Any, camera: Any, use_surfaces: bool) -> _Scenes:
    given, depths = _per_prompt(points, 2, "vanishing_points"), _per_prompt(depth, 2, "depth")
    cameras = list(camera) if isinstance(camera, Sequence) else [camera]
    if points is None and depth is None:
        raise ConfigError(
            "guidance: give vanishing_points, or a depth map to find them in (with its camera, if it is known); "
            "`alberti annotate` finds those of a photograph"
        )
    count = max(len(given), len(depths), len(cameras))
    parts = [_repeated(part, count) for part in (given, depths, cameras)]
    rows = [_scene(*each, use_surfaces) for each in zip(parts[0], parts[1], parts[2], strict=True)]
    if not any(len(points) for points, _, _ in rows if points is not None):
        raise DataError("guidance: no vanishing points were found or given; nothing could be guided")
    idle = [surfaces is not None and not surfaces.any() for _, surfaces, _ in rows]
    if all(idle):
        raise DataError(f"guidance: {_NO_SURFACE}; with surfaces=False every edge may turn to every point")
    if any(idle):
        where = ", ".join(str(place) for place, each in enumerate(idle) if each)
        warnings.warn(f"guidance: pictures {where} (counted from 0) are not guided: {_NO_SURFACE}", stacklevel=4)
    return _Scenes(*(list(column) for column in zip(*rows, strict=True)))


def _scene(points: Any, depth: np.ndarray | None, camera: Camera | None, use_surfaces: bool) -> tuple[Any, Any, Any]:
    """(points, surfaces, size) of one picture."""
    size = None if camera is None else (camera.height, camera.width)
    if depth is not None:
        if not np.isfinite(depth).all():
            raise DataError("depth: expected finite metres, 0 = no measurement; got NaN or infinity")
        if size is not None and depth.shape != size:
            raise DataError(f"depth: expected the camera's (height, width) {size}, got {depth.shape}")
        size = (depth.shape[0], depth.shape[1])
    if points is None and depth is not None:
        found = points_of_depth(depth, camera)
        points = found.points
        if camera is None:
            camera = found.camera
            warnings.warn(
                f"guidance: no camera was given; its focal length is {found.camera_source}, {camera.fx:.0f} pixels",
                stacklevel=5,
            )
    surfaces = None
    if points is not None and len(points):
        if not present(points).all():
            raise DataError("vanishing_points: (0, 0, 0) is no point of the projective plane; leave out what is absent")
        points = stack_vanishing_points([points])[0].astype(np.float64)
        if use_surfaces and depth is not None and camera is not None:
            surfaces = points_on_surfaces(depth, points, camera)
    return points, surfaces, size


def _per_prompt(values: Any, ndim: int, name: str) -> list[Any]:
    """A list, one per prompt, of arrays of ``ndim`` dimensions or None; a single one stands for all prompts."""
    if values is None:
        return [None]
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    if isinstance(values, np.ndarray) or (
        len(values) and all(each is not None and np.ndim(each) == ndim - 1 for each in values)
    ):
        array = np.asarray(values, dtype=np.float64 if name == "vanishing_points" else np.float32)
        rows = [array] if array.ndim == ndim else list(array)
    else:
        rows = [None if each is None or not len(each) else np.asarray(each) for each in values]
    for row in rows:
        if row is not None and (row.ndim != ndim or (name == "vanishing_points" and row.shape[1] != 3)):
            raise DataError(
                f"{name}: expected {'(K, 3)' if name == 'vanishing_points' else '(H, W)'} a picture, got {row.shape}"
            )
    return rows or [None]


def _repeated(values: list[Any], count: int) -> list[Any]:
    if len(values) not in (1, count):
        raise DataError(
            f"guidance: points, depth maps and cameras must be one for all or one per prompt, got {len(values)} and {count}"
        )
    return values * count if len(values) == 1 else values


class _Attachment:
    """One guide at work in one pipeline: hooks on the networks, and the scheduler's step in a wrapper, until :meth:`undo`."""

    def __init__(self, guide: VanishingGuidance, pipe: Any):
        self.guide, self.pipe, self.family = guide, pipe, family_of(pipe)
        self.scheduler = pipe.scheduler
        check_scheduler(self.scheduler)
        if hasattr(self.scheduler, _MARK):
            raise ConfigError("guidance: this pipeline's scheduler is guided already; detach() that guide first")
        self.denoiser, *self.controls = self.family.networks(pipe)
        self.codec = self.family.codec(pipe)
        self._energies: dict[tuple[Any, ...], VanishingEnergy] = {}
        self._decoder: nn.Module | None = None
        self._forget()
        self._restore: list[Any] = []
        if guide.strength > 0:
            self._take_over()

    def undo(self) -> None:
        for restore in reversed(self._restore):
            restore()
        self._restore, self._energies, self._decoder = [], {}, None
        self._forget()

    def _take_over(self) -> None:
        scheduler, original = self.scheduler, self.scheduler.step
        before = scheduler.__dict__.get("step")

        @functools.wraps(original)
        def step(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
            push = self._push(model_output, timestep, sample)
            result = original(model_output.detach(), timestep, sample, *args, **kwargs)
            return result if push is None else _moved(result, push)

        scheduler.step = step
        setattr(scheduler, _MARK, self.guide)
        self._restore.append(lambda: delattr(scheduler, _MARK))
        self._restore.append(lambda: scheduler.__dict__.pop("step") if before is None else setattr(scheduler, "step", before))
        for network in (self.denoiser, *self.controls):
            self._hook(network)

    def _hook(self, network: Any) -> None:
        handle = network.register_forward_pre_hook(self._record, with_kwargs=True)
        self._restore.append(handle.remove)
        if self.guide.through == "decoder" or not self._differentiable(network):
            return
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.requires_grad_(False)
                self._restore.append(functools.partial(parameter.requires_grad_, True))
        if getattr(network, "_compiled_call_impl", None) is not None:
            warnings.warn("guidance: a network compiled in place runs uncompiled while it is guided", stacklevel=5)
            self._restore.append(functools.partial(setattr, network, "_compiled_call_impl", network._compiled_call_impl))
            network._compiled_call_impl = None
        if not hasattr(network, "gradient_checkpointing"):  # read, but never set, by ZImageControlNetModel of diffusers 0.42
            network.gradient_checkpointing = False
            self._restore.append(functools.partial(delattr, network, "gradient_checkpointing"))
        wanted = self.guide.checkpointing
        if wanted is None:
            wanted = sum(parameter.numel() for parameter in network.parameters()) > _LARGE
        if (
            wanted
            and hasattr(network, "enable_gradient_checkpointing")
            and not getattr(network, "is_gradient_checkpointing", False)
        ):
            network.enable_gradient_checkpointing()
            self._restore.append(network.disable_gradient_checkpointing)

    def _differentiable(self, network: Any) -> bool:
        """Whether gradients through a network survive until the step: its weights must not move away before."""
        why = None
        if _moves_weights_in_place(network):
            why = "diffusers' group offloading moves its weights away before the step"
        elif network is not self.denoiser and _is_offloaded_whole(network):
            why = "model offloading moves it away before the step"
        if why is None:
            return True
        what = "denoiser" if network is self.denoiser else "ControlNet"
        warnings.warn(
            f"guidance: no gradients through the {what} ({type(network).__name__}): {why}. Pictures are guided without "
            "them, to a weaker effect; keep it on the device for the full one",
            stacklevel=6,
        )
        self._fixed.add(id(network))
        return False

    def _forget(self) -> None:
        """Before the first call of a step."""
        self._time: float | None = None
        self._guided = False
        self._calls: list[tuple[Call, Any]] = []
        self._last: Call | None = None
        self._fixed: set[int] = getattr(self, "_fixed", set())
        self._grad_before: bool | None = None

    def _record(self, network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before a network is called: from here on the pipeline is recorded with gradients, if this step is to be guided."""
        if self.pipe.scheduler is not self.scheduler:
            raise ConfigError("guidance: the pipeline's scheduler was replaced after attaching; set it before attach()")
        call = Call(args, kwargs)
        time = self.family.scheduler_time(call)
        if self._time != time:
            self._forget()
            self._time, self._guided = time, self._is_guided(time)
        self._last = call
        if not self._guided or self.guide.through == "decoder" or id(network) in self._fixed:
            return None
        if torch.is_inference_mode_enabled():
            raise ConfigError(
                "guidance: torch.inference_mode allows no gradients; call the pipeline without it, it uses no_grad itself"
            )
        if self._grad_before is None:
            self._grad_before = torch.is_grad_enabled()
            torch.set_grad_enabled(True)
        leaves = leaf(call.latents)
        self._calls.append((call, leaves))
        return call.with_latents(leaves)

    def _is_guided(self, time: float) -> bool:
        index = step_index(self.scheduler, time)
        if not self._is_inside(index) or drops_the_sample(self.scheduler, index):
            return False
        later = range(index + 1, len(self.scheduler.timesteps))
        return sum(map(self._is_inside, later)) % self.guide.every == 0

    def _is_inside(self, index: int) -> bool:
        """Whether a step is in the window of noise."""
        settings = self.guide.settings
        return settings.alpha_min <= noise_step(self.scheduler, index).alpha_bar <= settings.alpha_max

    def _push(self, output: Tensor, time: Any, sample: Tensor) -> Tensor | None:
        """What to add to the next sample; None where this step is not guided."""
        if self._grad_before is not None:
            torch.set_grad_enabled(self._grad_before)
        guided, calls, last = self._guided, self._calls, self._last
        self._forget()
        if last is None:
            raise ConfigError(
                f"guidance: {type(self.pipe).__name__} made a step without calling its {self.family.denoiser}; was it "
                "replaced after attaching? Nothing would be guided"
            )
        if not guided:
            return None
        index = step_index(self.scheduler, time)
        step = noise_step(self.scheduler, index)
        gradient = self._gradient(step, output, sample, calls, last)
        if gradient is None:
            return None
        if not gradient.isfinite().all():
            raise DataError(_NOT_FINITE.format(self.family.denoiser))
        share = self.guide.strength * self.guide.every * step.next_scale / self.scheduler.num_inference_steps
        return -share * even_step(gradient)

    def _gradient(
        self, step: NoiseStep, output: Tensor, sample: Tensor, calls: list[tuple[Call, Any]], last: Call
    ) -> Tensor | None:
        """Of the energy by the noisy sample, float32 in the sample's shape; None where no picture has points."""
        estimates = self.codec.unpack(step.x0(sample, output.detach()), self.family.grid(last))
        if not estimates.isfinite().all():
            what = "the denoiser's answer" if sample.isfinite().all() else "what the step starts from"
            raise DataError(f"guidance: {what} is not finite; in float16 it may have overflowed: use bfloat16 or float32")
        energy = self._energy(estimates)
        if not len(energy.rows):
            return None
        slope = torch.zeros_like(estimates)
        slope[energy.rows] = self._slope(energy, estimates[energy.rows], step.alpha_bar)
        direct = self.codec.pack(slope)
        gradient = step.from_sample * direct
        if not calls:
            return gradient
        if not output.requires_grad:
            warnings.warn(
                "guidance: the denoiser's answer carries no gradient; guiding through the decoder alone", stacklevel=4
            )
            return gradient
        leaves = [tensor for _, each in calls for tensor in leaf_tensors(each)]
        found = list(torch.autograd.grad(output, leaves, (step.from_output * direct).to(output.dtype), allow_unused=True))
        for _, each in calls:
            own = [found.pop(0) for _ in leaf_tensors(each)]
            gradient = gradient + step.input_scale * gather(own, each, sample)
        return gradient

    def _slope(self, energy: VanishingEnergy, estimates: Tensor, alpha_bar: float) -> Tensor:
        pixels = estimates.shape[-1] * estimates.shape[-2] * self.codec.factor**2
        # on a CPU a picture alone stays in its caches
        chunk = max(1, _DECODED_PIXELS // pixels) if estimates.device.type != "cpu" else 1
        parts = [slice(start, start + chunk) for start in range(0, len(estimates), chunk)]
        return torch.cat([energy.slope(estimates[part], part, alpha_bar) for part in parts])

    def _energy(self, estimates: Tensor) -> VanishingEnergy:
        count, height, width = len(estimates), *(side * self.codec.factor for side in estimates.shape[-2:])
        key = (count, height, width, estimates.device)
        if key not in self._energies:
            points, surfaces = self.guide.scenes.of_batch(count, height, width)
            found = None if all(each is None for each in surfaces) else surfaces
            self._energies[key] = VanishingEnergy(
                self._made_decoder(estimates.device), self.guide.settings, points, found, estimates.device
            )
        return self._energies[key]

    def _made_decoder(self, device: torch.device) -> nn.Module:
        if self._decoder is None:
            chosen = self.guide.decoder
            self._decoder = self.codec.decoder() if isinstance(chosen, str) else tiny_decoder(chosen)
            self._decoder.to(device, self.guide.decoder_dtype)
        return self._decoder


def _moves_weights_in_place(network: Any) -> bool:
    """diffusers' group offloading, whose hooks swap the memory of parameters."""
    for module in network.modules():
        registry = getattr(module, "_diffusers_hook", None)
        if registry is not None and any("group_offloading" in name for name in getattr(registry, "hooks", {})):
            return True
    return False


def _is_offloaded_whole(network: Any) -> bool:
    """accelerate's model offloading, which moves a network away when the next one is called."""
    return type(getattr(network, "_hf_hook", None)).__name__ == "CpuOffload"


def _moved(result: Any, push: Tensor) -> Any:
    """A scheduler's answer, a tuple or an output with ``prev_sample``, with the push added."""
    if isinstance(result, tuple):
        return (result[0] + push.to(result[0].dtype), *result[1:])
    result.prev_sample = result.prev_sample + push.to(result.prev_sample.dtype)
    return result
