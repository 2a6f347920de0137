"""Settings of the diffusion part. Light on purpose: neither torch nor diffusers is imported here."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Schedule(_Frozen):
    """How long and how fast one network is trained."""

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    lr: float = Field(gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    lr_schedule: Literal["constant", "cosine", "polynomial"] = "cosine"
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    accumulate: int = Field(default=1, gt=0)


class BaseConfig(_Frozen):
    """A small depth-conditioned latent diffusion model and its training from scratch.

    The defaults have about 13 M parameters: 3.5 M VAE (4x smaller latents), 8.6 M UNet, 0.8 M text encoder.
    """

    height: int = 128
    width: int = 128
    prediction_type: Literal["epsilon", "v_prediction"] = "v_prediction"
    latent_channels: int = 4
    vae_channels: tuple[int, ...] = (32, 64, 128)
    vae_layers: int = 2
    unet_channels: tuple[int, ...] = (64, 128, 160)
    unet_layers: int = 1
    head_dim: int = 32
    groups: int = 16
    text_width: int = 128
    text_layers: int = 3
    text_heads: int = 4
    vocabulary: int = 1024
    max_tokens: int = 48

    vae: Schedule = Schedule(steps=8000, batch_size=128, lr=4e-4, warmup_steps=200, ema_decay=0.999)
    unet: Schedule = Schedule(steps=20000, batch_size=256, lr=4e-4, warmup_steps=500, ema_decay=0.9995)
    kl_weight: float = 3e-5
    gradient_weight: float = 1.0
    """Weight of the loss on image gradients at three scales, which keeps edges crisp, beside the L1 loss."""
    caption_dropout: float = 0.1
    min_snr_gamma: float | None = 5.0
    flip: bool = True
    precision: Literal["no", "bf16"] = "no"
    compile: bool = False
    channels_last: bool = False
    cuda_graph: bool = False
    """On a GPU replay whole training steps as CUDA graphs: small networks else wait for Python."""
    checkpoint_every: int = 1000
    log_every: int = 50
    seed: int = 0

    @model_validator(mode="after")
    def _sizes_fit(self) -> "BaseConfig":
        factor = 2 ** (len(self.vae_channels) - 1) * 2 ** (len(self.unet_channels) - 1)
        for name in ("height", "width"):
            if getattr(self, name) % factor:
                raise ValueError(
                    f"{name}: must divide by {factor} (VAE and UNet halve it that often), got {getattr(self, name)}"
                )
        for name in ("vae_channels", "unet_channels"):
            if any(channels % self.groups for channels in getattr(self, name)):
                raise ValueError(f"{name}: must divide by groups = {self.groups}, got {getattr(self, name)}")
        return self

    @classmethod
    def smoke(cls, **changes: object) -> "BaseConfig":
        """A size for tests: each network well under half a million parameters, seconds on a CPU."""
        values: dict[str, object] = {
            "height": 64,
            "width": 64,
            "vae_channels": (8, 16, 16),
            "vae_layers": 1,
            "unet_channels": (16, 32),
            "unet_layers": 1,
            "head_dim": 8,
            "groups": 8,
            "text_width": 32,
            "text_layers": 1,
            "text_heads": 2,
            "vocabulary": 640,
            "max_tokens": 32,
            "vae": Schedule(steps=30, batch_size=8, lr=2e-3),
            "unet": Schedule(steps=30, batch_size=8, lr=1e-3, ema_decay=0.9),
            "checkpoint_every": 20,
            "log_every": 10,
        }
        return cls.model_validate(values | changes)


class FinetuneConfig(_Frozen):
    """Fine-tuning of a base, with or without a constraint."""

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    lr: float = Field(default=1e-5, gt=0)
    lr_schedule: Literal["constant", "cosine", "polynomial"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = 1e-2
    accumulate: int = Field(default=1, gt=0)
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["no", "bf16"] = "no"
    seed: int = 0

    constraint: str | None = "perspective"
    """A name of :data:`alberti.diffusion.constraints.CONSTRAINTS`; None fine-tunes without one."""
    weight: float = Field(default=0.01, ge=0)
    schedule: Literal["all", "alpha_bar", "t_max"] = "all"
    t_min: int = Field(default=0, ge=0)
    t_max: int = Field(default=1000, ge=0)
    """The window of timesteps, inclusive, for schedule "t_max"."""
    num_lines: int = Field(default=1000, gt=1)
    decoder: Literal["full", "tiny"] = "full"
    decode_chunk: int = Field(default=0, ge=0)
    """Images that the decoder holds in memory at once; 0: as many as fit in about 12 GiB, see ``ConstraintTerm``."""
    rollout_steps: int = Field(default=0, ge=0)
    """0: the constraint acts on the one-step estimate, as published. Otherwise on pictures that the model samples itself in
    this many steps from the batch's depth maps; ``schedule`` then has no say.
    """
    rollout_gradient_steps: int = Field(default=2, gt=0)
    """Last steps of the rollout that gradients flow through; the memory of a training step grows with them."""

    prediction_type: Literal["epsilon", "v_prediction", "flow"] | None = None
    """What the base is expected to predict; a base that predicts something else is refused. None: whatever it
    predicts.
    """
    train: Literal["unet", "controlnet", "all"] = "unet"
    lora_rank: int = Field(default=0, ge=0)
    """0: all weights; otherwise low-rank adapters on the UNet's attention."""
    min_snr_gamma: float | None = None
    flip: bool = True
    caption_dropout: float = Field(default=0.0, ge=0, le=1)
    gradient_checkpointing: bool = False
    channels_last: bool = False
    compile: bool = False
    """The denoiser, and the constraint's decoder with it."""
    compile_decoder: bool = False
    """The constraint's decoder alone, channels last: with Stable Diffusion's VAE a step takes 1.6 times an unconstrained one's
    instead of 3, after a minute of compiling.
    """
    cuda_graph: bool = False
    """On a GPU replay whole training steps as CUDA graphs: small networks else wait for Python. The constraint then decodes all
    samples of a batch, also those that its schedule leaves out.
    """

    checkpoint_every: int = Field(default=0, ge=0)
    log_every: int = Field(default=10, gt=0)
    validate_every: int = Field(default=0, ge=0)
    """Steps between validation pictures; 0: none."""
    validation_samples: int = Field(default=4, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> "FinetuneConfig":
        if self.t_min > self.t_max:
            raise ValueError(f"t_min: must not exceed t_max = {self.t_max}, got {self.t_min}")
        if self.rollout_steps and self.rollout_gradient_steps > self.rollout_steps:
            raise ValueError(
                f"rollout_gradient_steps: at most rollout_steps = {self.rollout_steps}, got {self.rollout_gradient_steps}"
            )
        if self.lora_rank and self.train != "unet":
            raise ValueError(f"lora_rank: adapters sit on the UNet, so train must be 'unet', got {self.train!r}")
        return self


class VanishingGuidance(_Frozen):
    """Turning edges towards the scene's vanishing points while a picture is sampled; docs/method.md defines it."""

    strength: float = Field(default=1.6, gt=0)
    """How far a latent value is moved at most by as many guided steps as the run has: each moves it by less than
    strength / steps. Noise has a standard deviation of 1.
    """
    alpha_min: float = Field(default=0.25, ge=0, le=1)
    alpha_max: float = Field(default=1.0, ge=0, le=1)
    """The window of denoising steps, by alpha_bar, the share of signal power: 0 is noise, 1 is clean."""
    tolerance: float = Field(default=8.0, gt=0, le=45)
    """Degrees by which an edge that is half stray misses its vanishing point."""
    surfaces: bool = True
    """Edges are turned only to those points that the surface they lie on contains, as the depth map has it; edges of
    surfaces that are built along no vanishing point (trees, roofs, windscreens) are left alone. A picture whose manifest
    row has no intrinsics is guided to all its points everywhere, and so are all pictures with false.
    """
    balance: float = Field(default=0.5, ge=0, le=1)
    """0: stray edges are turned whichever way is nearest, which is mostly upright. 1: each surface is to have as many edges
    towards each of its points.
    """
    decoder: Literal["full", "tiny"] = "full"
    chunk: int = Field(default=8, gt=0)
    """Images that go through denoiser and decoder with gradients at once."""

    @model_validator(mode="after")
    def _window(self) -> "VanishingGuidance":
        if self.alpha_min > self.alpha_max:
            raise ValueError(f"alpha_min: must not exceed alpha_max = {self.alpha_max}, got {self.alpha_min}")
        return self


class SampleConfig(_Frozen):
    """How pictures are generated."""

    steps: int = Field(default=50, gt=0)
    solver: Literal["ddim", "dpm++"] = "ddim"
    guidance_scale: float = Field(default=7.5, ge=0)
    """Classifier-free guidance (Ho & Salimans 2022); 1 or less: no second evaluation."""
    negative_prompt: str = ""
    vanishing_guidance: VanishingGuidance | None = None
    """None: pictures are sampled without regard to vanishing points."""
    batch_size: int = Field(default=8, gt=0)
    """Images of a batch. Batches are cut along the data set's order, so it, not the number of processes, is part of
    the result.
    """
    seed: int = 0
    precision: Literal["no", "bf16"] = "no"
    compile: bool = False
    channels_last: bool = False


class TinyDecoderConfig(_Frozen):
    """Distilling a small decoder that stands in for the VAE's when the constraint decodes its estimates."""

    steps: int = Field(default=4000, gt=0)
    batch_size: int = Field(default=16, gt=0)
    lr: float = Field(default=5e-4, gt=0)
    warmup_steps: int = Field(default=100, ge=0)
    width: int = Field(default=64, gt=0)
    """Channels at every level."""
    blocks: int = Field(default=3, gt=0)
    """Residual blocks a level."""
    estimates: float = Field(default=0.5, ge=0, le=1)
    """Share of samples that are the base's own one-step estimates at random noise levels, the rest are true latents."""
    gradient_weight: float = 1.0
    precision: Literal["no", "bf16"] = "no"
    checkpoint_every: int = 500
    log_every: int = Field(default=50, gt=0)
    seed: int = 0
