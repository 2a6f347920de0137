"""A depth-conditioned latent diffusion model: loaded from, and saved to, a folder in diffusers' own layout."""

import importlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from alberti.diffusion.folders import (
    EXTRAS,
    check_tokenizer,
    check_weights,
    component_config,
    conditioning_of,
    locate,
    usable_extras,
    vae_factor,
)
from alberti.diffusion.objective import normalise_depth
from alberti.diffusion.schedules import NoiseSchedule
from alberti.errors import CheckpointError, ConfigError
from alberti.extras import extra
from alberti.files import atomic_folder, write_json
from alberti.reading import first_line, reading
from alberti.weights import own_weights, quiet, read_tensors

with extra("diffusion", "alberti's diffusion code"):
    import diffusers
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.modeling_clip import CLIPTextModel
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

_CONTROLNET = "diffusers.models.controlnets.controlnet.ControlNetModel"
_AUTOENCODER_TINY = "diffusers.models.autoencoders.autoencoder_tiny.AutoencoderTiny"
TINY_DECODER = "tiny_decoder"


class Denoiser(nn.Module):
    """UNet, with a ControlNet or with depth as one more input channel: (x_t, t, text, depth) -> prediction."""

    def __init__(self, unet: nn.Module, controlnet: nn.Module | None = None):
        super().__init__()
        self.unet, self.controlnet = unet, controlnet

    def forward(self, x_t: Tensor, timesteps: Tensor, text: Tensor, condition: Tensor) -> Tensor:
        """x_t (B, C, h, w); timesteps (B,); text (B, L, D); condition as :meth:`DepthDiffusion.condition` makes it."""
        if self.controlnet is None:
            return self.unet(torch.cat([x_t, condition], dim=1), timesteps, text, return_dict=False)[0]
        down, middle = self.controlnet(x_t, timesteps, text, condition, return_dict=False)
        return self.unet(
            x_t,
            timesteps,
            text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]


@dataclass
class DepthDiffusion:
    """The networks of one model folder.

    ``extras`` is the folder that ``depth_estimator`` and ``feature_extractor`` are copied from when saving: diffusers'
    pipeline wants them, nothing here uses them. ``extras_index`` has their entries of model_index.json. ``tiny_decoder`` is
    an ``AutoencoderTiny`` that decodes scaled latents.
    """

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    controlnet: Any = None
    tiny_decoder: Any = None
    extras: Path | None = None
    extras_index: dict[str, list[str]] | None = None

    @classmethod
    def load(
        cls,
        path_or_id: str | Path,
        *,
        revision: str | None = None,
        controlnet: str | Path | None = None,
        tiny_decoder: str | Path | None = None,
        prediction_type: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "DepthDiffusion":
        """Load a diffusers folder or hub id: stable-diffusion-2-depth and its kin, or a UNet with a depth ControlNet.

        Args:
            path_or_id: a local folder, or "owner/name" on the model hub.
            revision: branch, tag or commit on the hub.
            controlnet: folder or hub id of a depth ControlNet, for a base that does not hold one.
            tiny_decoder: folder or hub id of an AutoencoderTiny for this VAE's latents, say madebyollin/taesd; None:
                the one in the folder's ``tiny_decoder``, if there is one.
            prediction_type: refuse a model that predicts something else; None accepts any.

        Raises:
            CheckpointError: no such model, no way in for depth, damaged or pickled weights, no vocabulary, or one that is
                not the text encoder's, a prediction type that the scheduler contradicts, a second text encoder (SDXL).
        """
        folder = locate(path_or_id, revision)
        index = component_config(folder, ".", "model_index.json")
        second = index.get("text_encoder_2")
        if isinstance(second, list) and second and second[0] is not None:
            raise CheckpointError(f"{path_or_id}: has two text encoders (SDXL); expected a Stable Diffusion 1 or 2 model")
        if controlnet is None:
            conditioning_of(folder)
        check_tokenizer(folder)
        extras = usable_extras(folder, index)
        options: dict[str, Any] = {"use_safetensors": True, "torch_dtype": dtype}
        model = cls(
            unet=_read(UNet2DConditionModel, folder, "unet", options),
            vae=_read(AutoencoderKL, folder, "vae", options),
            text_encoder=_read(CLIPTextModel, folder, "text_encoder", {"use_safetensors": True, "dtype": dtype}),
            tokenizer=_read_tokenizer(folder),
            scheduler=_read_scheduler(folder),
            controlnet=_read_part(_CONTROLNET, folder / "controlnet", controlnet, options),
            tiny_decoder=_read_part(_AUTOENCODER_TINY, folder / TINY_DECODER, tiny_decoder, options),
            extras=None if extras is None else folder,
            extras_index=extras,
        )
        model.check_vocabulary(folder)
        model._check_widths(folder)
        _ = model.schedule  # an unknown noise schedule shows here, not when training has begun
        if prediction_type is not None:
            model.check_prediction_type(prediction_type)
        return model.to(device)

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> "DepthDiffusion":
        """Move every network, in place."""
        for module in self.modules().values():
            nn.Module.to(module, device=device, dtype=dtype)  # diffusers' own override only adds a warning
        return self

    def modules(self) -> dict[str, nn.Module]:
        """The networks by component name, absent ones left out."""
        names = ("unet", "vae", "text_encoder", "controlnet", TINY_DECODER)
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def schedule(self) -> NoiseSchedule:
        """The training noise schedule; CheckpointError for a scheduler of an unknown kind."""
        return NoiseSchedule.from_scheduler(self.scheduler)

    @property
    def factor(self) -> int:
        """Image pixels a latent pixel."""
        return vae_factor(self.vae.config)

    @property
    def latent_channels(self) -> int:
        return int(self.vae.config.latent_channels)

    @property
    def time_shift(self) -> float | None:
        """mu of a flow's dynamic time shift at the picture size last checked; None: its scheduler has none."""
        return None

    @property
    def condition_channels(self) -> int:
        """Of :meth:`condition`, all alike."""
        return 1 if self.controlnet is None else 3

    @property
    def lora_targets(self) -> list[str]:
        """Names of the denoiser's layers that low-rank adapters sit on."""
        from alberti.diffusion.lora import TARGETS

        return TARGETS

    def tokenizers(self) -> list[Any]:
        return [self.tokenizer]

    def denoiser(self) -> Denoiser:
        return Denoiser(self.unet, self.controlnet)

    def frozen_decoder(self, **options: Any) -> nn.Module:
        """A frozen copy of the decoder, cheap to differentiate: latents to pictures in [-1, 1]; ``FrozenDecoder``'s options."""
        from alberti.diffusion.decoding import FrozenDecoder

        return FrozenDecoder(self.vae, **options)

    def check_vocabulary(self, folder: Path) -> None:
        """CheckpointError unless the tokenizer has as many tokens as the text encoder has embeddings."""
        tokens, embeddings = len(self.tokenizer), self.text_encoder.config.vocab_size
        if tokens != embeddings:
            raise CheckpointError(
                f"{folder / 'tokenizer'}: a vocabulary of {tokens} tokens, but text_encoder has embeddings of {embeddings}; "
                "the two are not of one model: copy both again"
            )

    def _check_widths(self, folder: Path) -> None:
        """CheckpointError where two parts do not fit each other, which would show at the first step."""
        unet, latent = self.unet.config, self.vae.config.latent_channels
        pairs = [("vae's latent channels", latent, "unet's output channels", unet.out_channels)]
        if isinstance(unet.cross_attention_dim, int) and unet.encoder_hid_dim is None:
            pairs.append(("text_encoder's width", self.text_encoder.config.hidden_size, "unet's", unet.cross_attention_dim))
        if self.controlnet is not None:
            pairs.append(("controlnet's input channels", self.controlnet.config.in_channels, "unet's", unet.in_channels))
            pairs.append(("controlnet's width", self.controlnet.config.cross_attention_dim, "unet's", unet.cross_attention_dim))
        if self.tiny_decoder is not None:
            pairs.append(("tiny decoder's latent channels", self.tiny_decoder.config.latent_channels, "vae's", latent))
        for mine, found, other, expected in pairs:
            if found != expected:
                raise CheckpointError(f"{folder}: {mine} {found} and {other} {expected} do not fit; they are not of one model")

    def check_prediction_type(self, expected: str) -> None:
        """CheckpointError unless the scheduler says that the model predicts ``expected``."""
        found = self.schedule.prediction_type
        if found != expected:
            raise CheckpointError(
                f"prediction_type: expected {expected!r}, but the model's scheduler ({type(self.scheduler).__name__}) "
                f"says {found!r}; training on the wrong one destroys the model. Correct the parameter, or "
                f"scheduler_config.json."
            )

    def check_decoder(self, name: str, option: str) -> None:
        """ConfigError if the setting ``option`` asks for the "tiny" decoder and there is none."""
        if name == "tiny" and self.tiny_decoder is None:
            raise ConfigError(
                f"{option}: 'tiny' needs a model with a {TINY_DECODER} folder; make one with `alberti distil-decoder`, "
                "or set it to 'full'"
            )

    def check_size(self, height: int, width: int) -> None:
        """ConfigError unless VAE and UNet can work on images of this size."""
        multiple = self.factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        for name, value in (("height", height), ("width", width)):
            if value % multiple:
                raise ConfigError(
                    f"image {name} {value}: must divide by {multiple} (the VAE makes latents {self.factor} times smaller, "
                    f"the UNet halves them {len(self.unet.config.block_out_channels) - 1} times); crop or resize to "
                    f"{max(multiple, value // multiple * multiple)}"
                )

    def condition(self, depth: Tensor) -> Tensor:
        """(B, H, W) metres -> what the denoiser is given, float32.

        (B, 1, H/f, W/f) in [-1, 1] for a depth-concatenating UNet; (B, 3, H, W) in [0, 1], near bright, for a
        ControlNet.
        """
        if self.controlnet is not None:
            return ((normalise_depth(depth) + 1) / 2).repeat(1, 3, 1, 1)
        return normalise_depth(depth, (depth.shape[1] // self.factor, depth.shape[2] // self.factor))

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Token ids, padded or cut to the model's length: (B, L) long."""
        limit = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
        tokens = self.tokenizer(list(captions), padding="max_length", max_length=limit, truncation=True, return_tensors="pt")
        return tokens.input_ids

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Text embeddings (B, L, D) of captions, on the text encoder's device."""
        return self.text_encoder(self.tokenize(captions).to(self.text_encoder.device))[0]

    def encode_image(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in [0, 1] -> mean and standard deviation of their scaled latents, each (B, C, h, w)."""
        self.check_size(*images.shape[-2:])
        posterior = self.vae.encode(images * 2 - 1).latent_dist
        scale = self.vae.config.scaling_factor
        return posterior.mean * scale, posterior.std * scale

    def decode(self, latents: Tensor, tiny: bool = False) -> Tensor:
        """Scaled latents (B, C, h, w) -> images (B, 3, H, W) around [0, 1], not clamped."""
        if tiny:
            return (self.tiny_decoder.decode(latents, return_dict=False)[0] + 1) / 2
        return (self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0] + 1) / 2

    def save(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write the model atomically so that diffusers' pipeline loads it without this code.

        StableDiffusionDepth2ImgPipeline for a depth-concatenating UNet, StableDiffusionControlNetPipeline for a
        ControlNet. LoRA adapters are written twice: merged into the UNet, and on their own, for the base, in ``lora/``.

        Args:
            dtype: store weights in this type (float16 halves the folder); None keeps theirs.
        """
        from alberti.diffusion.lora import merged_unet, write_lora

        with atomic_folder(folder) as target, quiet():
            write_lora(self.unet, target / "lora")
            modules = {**self.modules(), "unet": merged_unet(self.unet)}
            for name, module in modules.items():
                _write(module, target / name, dtype)
            # Whether something was tokenised before must not show in the folder's bytes.
            self.tokenizer.backend_tokenizer.no_padding()
            self.tokenizer.backend_tokenizer.no_truncation()
            self.tokenizer.save_pretrained(target / "tokenizer")
            self.scheduler.save_pretrained(target / "scheduler")
            if self.controlnet is None:
                self._write_extras(target)
            write_json(target / "model_index.json", self._index())

    def _write_extras(self, target: Path) -> None:
        if self.extras is None:
            from alberti.diffusion.depth_estimator import write_untrained_estimator

            write_untrained_estimator(target)
            return
        for name in EXTRAS:
            shutil.copytree(self.extras / name, target / name, ignore=shutil.ignore_patterns("*.bin", "*.msgpack", "*.h5"))

    def _index(self) -> dict[str, Any]:
        index: dict[str, Any] = {
            "_diffusers_version": diffusers.__version__,
            "vae": ["diffusers", "AutoencoderKL"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "scheduler": ["diffusers", type(self.scheduler).__name__],
        }
        if self.controlnet is not None:
            absent = {name: [None, None] for name in ("safety_checker", "feature_extractor", "image_encoder")}
            kind: dict[str, Any] = {
                "_class_name": "StableDiffusionControlNetPipeline",
                "requires_safety_checker": False,
            }
            return {**kind, **index, "controlnet": ["diffusers", "ControlNetModel"], **absent}
        estimator = {"depth_estimator": ["transformers", "DPTForDepthEstimation"]}
        if self.extras is not None and self.extras_index is not None:
            estimator = self.extras_index
        return {
            "_class_name": "StableDiffusionDepth2ImgPipeline",
            **index,
            "feature_extractor": ["transformers", "DPTImageProcessor"],
            **estimator,
        }


def _read(kind: Any, folder: Path, component: str, options: dict[str, Any]) -> Any:
    variant = check_weights(folder, component)
    component_config(folder, component)
    try:
        with quiet():
            network, report = kind.from_pretrained(folder / component, output_loading_info=True, variant=variant, **options)
    except Exception as error:  # diffusers, transformers and safetensors each have their own
        raise CheckpointError(f"{folder / component}: cannot be loaded as {kind.__name__}: {first_line(error)}") from error
    # Weights left out would be random ones, with no more than a warning.
    if missing := sorted(str(key) for key in [*report["missing_keys"], *report["mismatched_keys"]]):
        raise CheckpointError(
            f"{folder / component}: the weights do not fit config.json: {', '.join(missing[:3])} and "
            f"{max(0, len(missing) - 3)} more are missing or of another shape; copy or train the model again"
        )
    own_weights(network)
    return network.eval()


def _read_scheduler(folder: Path) -> Any:
    name = component_config(folder, "scheduler", "scheduler_config.json").get("_class_name", "DDIMScheduler")
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if kind is None or not name.endswith("Scheduler"):
        raise CheckpointError(f"{folder / 'scheduler'}: scheduler {name!r} is not one of diffusers {diffusers.__version__}")
    with reading(folder / "scheduler", "scheduler", CheckpointError):
        return kind.from_pretrained(folder / "scheduler")


def _read_tokenizer(folder: Path) -> CLIPTokenizer:
    with reading(folder / "tokenizer", "tokenizer", CheckpointError):
        return CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)


def _read_part(kind: str, own: Path, given: str | Path | None, options: dict[str, Any]) -> Any:
    """A network that a base may hold (``own``), or be given; None if neither. Its class is imported only if needed."""
    path = locate(given) if given is not None else own
    if not path.is_dir():
        return None
    module, name = kind.rsplit(".", 1)
    return _read(getattr(importlib.import_module(module), name), path.parent, path.name, options)


def _write(module: Any, folder: Path, dtype: torch.dtype | None) -> None:
    module.save_pretrained(folder, safe_serialization=True)
    if dtype is None:
        return
    # Converted in the file, not in memory: the model goes on in its own precision.
    for path in folder.glob("*.safetensors"):
        tensors = read_tensors(path)
        stored = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
        save_file(stored, path, {"format": "pt"})
