"""Settings of the diffusion part. Light on purpose: neither torch nor diffusers is imported here."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from alberti.errors import in_words
from alberti.training.settings import Optimisation, Precision


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BaseConfig(_Frozen):
    """A small depth-conditioned latent diffusion model and its training from scratch.

    The defaults have about 13 M parameters: 3.5 M VAE (4x smaller latents), 8.6 M UNet, 0.8 M text encoder.
    """

    height: int = 128
    """Height of training pictures, in pixels. Must divide by 2 to the number of halvings in VAE and UNet: 16 with the default
    channels.
    """
    width: int = 128
    """Width of training pictures, in pixels; the same rule as for `height`."""
    prediction_type: Literal["epsilon", "v_prediction"] = "v_prediction"
    """What the UNet predicts: the noise, or the velocity `v` (Salimans & Ho 2022), which also trains well at the highest noise
    levels.
    """
    latent_channels: int = 4
    """Channels of the VAE's latent. More keep more of a picture and are harder to generate."""
    vae_channels: tuple[int, ...] = (32, 64, 128)
    """Channels of the VAE at each level, finest first. Each level after the first halves the size."""
    vae_layers: int = 2
    """Residual blocks per level of the VAE."""
    unet_channels: tuple[int, ...] = (64, 128, 160)
    """Channels of the UNet at each level, finest first. Each level after the first halves the size; the finest has no
    attention.
    """
    unet_layers: int = 1
    """Residual blocks per level of the UNet."""
    head_dim: int = 32
    """Channels per attention head of the UNet."""
    groups: int = 16
    """Groups of the group normalisation in VAE and UNet; every channel number must divide by it."""
    text_width: int = 128
    """Width of the text encoder, and of its output per token."""
    text_layers: int = 3
    """Transformer layers of the text encoder."""
    text_heads: int = 4
    """Attention heads per layer of the text encoder."""
    vocabulary: int = 1024
    """Size of the tokenizer's vocabulary, trained on the captions of the data."""
    max_tokens: int = 48
    """Longest caption in tokens; longer ones are cut."""

    vae: Optimisation = Optimisation(
        steps=8000, batch_size=128, lr=4e-4, warmup_steps=200, ema_decay=0.999,
        lr_schedule="cosine", weight_decay=0.0, checkpoint_every=1000, log_every=50,
    )  # fmt: skip
    """How the VAE is trained."""
    unet: Optimisation = Optimisation(
        steps=20000, batch_size=256, lr=4e-4, warmup_steps=500, ema_decay=0.9995,
        lr_schedule="cosine", weight_decay=0.0, checkpoint_every=1000, log_every=50,
    )  # fmt: skip
    """How the UNet and, with it, the text encoder are trained."""
    kl_weight: float = 3e-5
    """Weight of the VAE's KL divergence, beside the L1 loss. Small, so that the latent keeps detail."""
    gradient_weight: float = 1.0
    """Weight of the VAE's loss on image gradients at three scales, beside the L1 loss. It keeps edges crisp."""
    caption_dropout: float = 0.1
    """Probability that a sample is trained with the empty caption, which classifier-free guidance needs."""
    min_snr_gamma: float | None = 5.0
    """Gamma of the min-SNR weights of the denoising loss (Hang et al. 2023); null: all noise levels count alike."""
    flip: bool = True
    """Mirror each sample, picture and depth map together, with probability 0.5."""
    compile: bool = False
    """Compile the networks with torch.compile: faster steps after a wait at the start."""
    channels_last: bool = False
    """Keep pictures and weights in the channels-last memory layout, which is faster on some GPUs."""

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
            "vae": Optimisation(steps=30, batch_size=8, lr=2e-3, lr_schedule="cosine", weight_decay=0.0),
            "unet": Optimisation(steps=30, batch_size=8, lr=1e-3, lr_schedule="cosine", weight_decay=0.0, ema_decay=0.9),
        }
        return cls.model_validate(values | changes)

    def key(self) -> dict[str, Any]:
        """What of the settings changes the result, JSON-able."""
        rest = self.model_dump(mode="json", exclude={"vae", "unet"})
        return {**rest, "vae": self.vae.key(), "unet": self.unet.key()}


Lines = Annotated[int, Field(gt=1)]


class ConstraintSettings(_Frozen):
    """How a constraint acts in fine-tuning: the definitions and defaults of those fields of :class:`FinetuneConfig` that only a
    constraint uses.
    """

    weight: NonNegativeFloat = 0.01
    """Weight of the constraint in the loss. 0.01 is the paper's configuration."""
    vanishing_points: Literal["dataset", "detected"] = "dataset"
    """Which vanishing points the constraint gets: those of the data set, or those that stage `annotate` found in its pictures.
    """
    schedule: Literal["all", "alpha_bar", "t_max"] = "all"
    """Noise levels that the constraint acts at: `all` alike, as published; `alpha_bar`: weighted by the share of signal power;
    `t_max`: from `t_min` to `t_max` only.
    """
    t_min: NonNegativeInt = 0
    """Least timestep, inclusive, at which the constraint acts under schedule `t_max`. 0 is clean."""
    t_max: NonNegativeInt = 1000
    """Largest timestep, inclusive, at which the constraint acts under schedule `t_max`. 999 is pure noise in Stable Diffusion.
    """
    num_lines: Lines = 1000
    """Lines through each vanishing point along which pictures are compared."""
    decoder: Literal["full", "tiny"] = "full"
    """What decodes the estimate for the constraint: the VAE's decoder, or the base's `tiny_decoder`, which is cheaper."""
    decode_chunk: NonNegativeInt = 0
    """Pictures that the decoder holds in memory at once; 0: as many as fit in about 12 GiB."""
    rollout_steps: NonNegativeInt = 0
    """0: the constraint acts on the one-step estimate, as published. Above: on pictures that the model samples itself in this
    many steps from the batch's depth maps; `schedule` is then not used.
    """
    rollout_gradient_steps: PositiveInt = 2
    """Last steps of the rollout that gradients flow through; the memory of a training step grows with them."""
    compile_decoder: bool = False
    """Compile the decoder that the constraint looks through, channels last. With Stable Diffusion's VAE a step then takes 1.6
    times an unconstrained one's instead of 3, after a minute of compiling.
    """

    @model_validator(mode="after")
    def _consistent(self) -> "ConstraintSettings":
        if self.t_min > self.t_max:
            raise ValueError(f"t_min: must not exceed t_max = {self.t_max}, got {self.t_min}")
        if self.rollout_steps and self.rollout_gradient_steps > self.rollout_steps:
            raise ValueError(
                f"rollout_gradient_steps: at most rollout_steps = {self.rollout_steps}, got {self.rollout_gradient_steps}"
            )
        return self


class FinetuneConfig(_Frozen):
    """Fine-tuning of a base, with or without a constraint.

    The fields from ``weight`` to ``compile_decoder`` are a constraint's, see :class:`ConstraintSettings`. Left out, they have
    the defaults of that class with a constraint, and are None without one; ``constrained`` has them as one object.
    """

    training: Optimisation
    """Steps, batch, learning rate, precision and checkpoints."""

    constraint: str | None = "perspective"
    """A name of :data:`alberti.diffusion.constraints.CONSTRAINTS`; null: fine-tune without a constraint."""
    weight: NonNegativeFloat | None = None
    vanishing_points: Literal["dataset", "detected"] | None = None
    schedule: Literal["all", "alpha_bar", "t_max"] | None = None
    t_min: NonNegativeInt | None = None
    t_max: NonNegativeInt | None = None
    num_lines: Lines | None = None
    decoder: Literal["full", "tiny"] | None = None
    decode_chunk: NonNegativeInt | None = None
    rollout_steps: NonNegativeInt | None = None
    rollout_gradient_steps: PositiveInt | None = None
    compile_decoder: bool | None = None

    prediction_type: Literal["epsilon", "v_prediction", "flow"] | None = None
    """What the base is expected to predict; a base that predicts something else is refused. null: whatever it predicts."""
    train: Literal["unet", "controlnet", "all"] = "unet"
    """Which networks are trained. The VAE and the text encoder never are."""
    lora_rank: int = Field(default=0, ge=0)
    """0: train all weights. Above: train low-rank adapters of this rank on the UNet's attention."""
    min_snr_gamma: float | None = None
    """Gamma of the min-SNR weights of the denoising loss (Hang et al. 2023); null: all noise levels count alike."""
    flip: bool = True
    """Mirror each sample (picture, depth map and vanishing points together) with probability 0.5."""
    caption_dropout: float = Field(default=0.0, ge=0, le=1)
    """Probability that a sample is trained with the empty caption."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, slower steps, the same result."""
    channels_last: bool = False
    """Keep networks and pictures in the channels-last memory layout, which is faster on some GPUs."""
    compile: bool = False
    """Compile the denoiser, and the constraint's decoder with it, by torch.compile: faster steps after a wait at the start."""

    validate_every: int = Field(default=0, ge=0)
    """Steps between validation pictures; 0: none."""
    validation_samples: int = Field(default=4, gt=0)
    """Number of validation pictures, the first of the data set."""

    @model_validator(mode="before")
    @classmethod
    def _fill_constraint(cls, values: Any) -> Any:
        """The constraint's fields that are left out: defaults where there is a constraint, None where there is none."""
        if not isinstance(values, dict):
            return values
        constraint = values.get("constraint", cls.model_fields["constraint"].default)
        known = ConstraintSettings.model_fields
        if constraint is not None:
            if empty := [name for name in known if name in values and values[name] is None]:
                raise ValueError(f"{empty[0]}: the constraint {constraint!r} needs a value; leave it out for the default")
            return {name: field.default for name, field in known.items()} | values
        if spare := [name for name in known if values.get(name) is not None]:
            raise ValueError(
                f"{spare[0]}: only a constraint makes use of it, and constraint is null; leave it out, or name a constraint"
            )
        return values

    @model_validator(mode="after")
    def _consistent(self) -> "FinetuneConfig":
        try:
            _ = self.constrained
        except ValidationError as error:
            raise ValueError(in_words(error.errors()[0])) from None
        if self.lora_rank and self.train != "unet":
            raise ValueError(f"lora_rank: adapters sit on the UNet, so train must be 'unet', got {self.train!r}")
        return self

    @property
    def constrained(self) -> ConstraintSettings | None:
        """The constraint's fields; None without a constraint."""
        if self.constraint is None:
            return None
        return ConstraintSettings.model_validate({name: getattr(self, name) for name in ConstraintSettings.model_fields})

    def key(self) -> dict[str, Any]:
        """What of the settings changes the result, apart from ``training``: how memory is saved and what is shown does not."""
        indifferent = {"training", "vanishing_points", "validate_every", "validation_samples", "gradient_checkpointing"}
        return self.model_dump(mode="json", exclude=indifferent)


class VanishingGuidance(_Frozen):
    """Turning edges towards the scene's vanishing points while a picture is sampled; docs/method.md defines it."""

    strength: float = Field(default=1.6, gt=0)
    """The most that guidance moves a latent value over the whole sampling; each guided step moves it by less than strength /
    steps. For scale: the noise has a standard deviation of 1.
    """
    alpha_min: float = Field(default=0.25, ge=0, le=1)
    """Guidance acts from this alpha_bar on. alpha_bar is the share of signal power: 0 is noise, 1 is clean."""
    alpha_max: float = Field(default=1.0, ge=0, le=1)
    """Guidance acts up to this alpha_bar."""
    tolerance: float = Field(default=8.0, gt=0, le=45)
    """Degrees. An edge that misses its vanishing point by this angle counts as half stray."""
    surfaces: bool = True
    """true: an edge is turned only to vanishing points that its surface contains, by the depth map; edges on surfaces that
    contain none (trees, roofs, windscreens) are left alone. false: every edge may turn to every point. A picture without
    intrinsics is treated as with false.
    """
    balance: float = Field(default=0.5, ge=0, le=1)
    """0: stray edges are turned whichever way is nearest, which is mostly upright. 1: each surface is to have as many edges
    towards each of its points.
    """
    hold: float = Field(default=0.0, ge=0)
    """Price on the amount of edge in a picture. Guidance alone draws a third more line than the scene has. 0: no price."""
    hold_from: float = Field(default=0.7, ge=0, le=1)
    """The share of signal power from which steps ask that price. Early steps decide where lines are, late ones how many: asked
    early, the price costs straightness.
    """
    decoder: Literal["full", "tiny"] = "full"
    """What decodes the estimate: the VAE's decoder, or the base's `tiny_decoder`, which is cheaper."""
    chunk: int = Field(default=8, gt=0)
    """Pictures that go through denoiser and decoder with gradients at once. Fewer need less memory."""

    @model_validator(mode="after")
    def _window(self) -> "VanishingGuidance":
        if self.alpha_min > self.alpha_max:
            raise ValueError(f"alpha_min: must not exceed alpha_max = {self.alpha_max}, got {self.alpha_min}")
        return self


class SampleConfig(_Frozen):
    """How pictures are generated."""

    steps: int = Field(default=50, gt=0)
    """Denoising steps per picture."""
    solver: Literal["ddim", "dpm++"] = "ddim"
    """`ddim`, or DPM-Solver++ of order two, which needs fewer steps."""
    guidance_scale: float = Field(default=7.5, ge=0)
    """Scale of classifier-free guidance (Ho & Salimans 2022). 1 or less: none, and half the work."""
    negative_prompt: str = ""
    """What classifier-free guidance leads away from; empty: the empty caption."""
    vanishing_guidance: VanishingGuidance | None = None
    """Turns edges towards vanishing points while a picture is sampled; null: off."""
    batch_size: int = Field(default=8, gt=0)
    """Pictures per batch. Batches are cut along the data set's order, so it, not the number of processes, is part of the
    result.
    """
    seed: int = 0
    """Noise follows from this seed and the sample's id."""
    precision: Precision = "no"
    """`no` computes in float32, `bf16` under autocast to bfloat16."""
    compile: bool = False
    """Compile UNet and decoder with torch.compile: faster after a wait at the start."""
    channels_last: bool = False
    """Keep networks in the channels-last memory layout, which is faster on some GPUs."""


class TinyDecoderConfig(_Frozen):
    """Distilling a small decoder that stands in for the VAE's when the constraint decodes its estimates."""

    training: Optimisation = Optimisation(
        steps=4000, batch_size=16, lr=5e-4, lr_schedule="cosine", warmup_steps=100, weight_decay=0.0,
        checkpoint_every=500, log_every=50,
    )  # fmt: skip
    """Steps, batch, learning rate and checkpoints."""
    width: int = Field(default=64, gt=0)
    """Channels at every level."""
    blocks: int = Field(default=3, gt=0)
    """Residual blocks per level."""
    estimates: float = Field(default=0.5, ge=0, le=1)
    """Share of samples that are the base's own one-step estimates at random noise levels, the rest are true latents."""
    gradient_weight: float = 1.0
    """Weight of the loss on image gradients, beside the L1 loss."""
