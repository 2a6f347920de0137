"""What guidance and the constraint cost at real size, with random weights, on a GPU. Prints JSON, a part at a time.

    python benchmarks/guidance_sizes.py [--parts sdxl flux lora] [--pixels 1024] [--steps 6] [--budget 480]
    python benchmarks/guidance_sizes.py --tiny --device cpu --pixels 64      # the same calls, very small, to rehearse

sdxl: Stable Diffusion XL with a depth ControlNet, classifier-free guidance; flux: FLUX.1-Depth. Each through diffusers' own
pipeline, seconds a step unguided and guided: with the VAE's decoder, with a tiny one, through the decoder alone. lora: one
training step of FLUX.1-Depth with adapters, without and with the constraint, through its VAE's decoder and through a tiny one.
Seconds are medians; memory is the peak that torch reserved for tensors, in GiB.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import diffusers
import torch
from torch import Tensor

from alberti.diffusion.config import FinetuneConfig
from alberti.diffusion.constrained import ConstraintTerm
from alberti.diffusion.lora import add_lora
from alberti.diffusion.objective import denoising_loss, predict_x0
from alberti.families.adapters import family_of
from alberti.families.denoisers import FamilyDenoiser
from alberti.families.model import PipelineModel
from alberti.guidance import VanishingGuidance

BATCH = 1


@contextmanager
def on(options: argparse.Namespace) -> Iterator[None]:
    """Networks made here are on the device, and in bfloat16 there if it is a GPU."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype_of(options))
    try:
        with torch.device(options.device):
            yield
    finally:
        torch.set_default_dtype(before)


def dtype_of(options: argparse.Namespace) -> torch.dtype:
    return torch.bfloat16 if options.device != "cpu" else torch.float32


def vae(options: argparse.Namespace, channels: int, **settings: Any) -> Any:
    """The layout that Stable Diffusion's, XL's and FLUX's have in common."""
    return diffusers.AutoencoderKL(
        block_out_channels=(16, 16, 32, 32) if options.tiny else (128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1 if options.tiny else 2,
        latent_channels=channels,
        norm_num_groups=8 if options.tiny else 32,
        **settings,
    ).eval()


def tiny_vae(options: argparse.Namespace, channels: int) -> Any:
    """An AutoencoderTiny, as taesdxl and taef1 are."""
    return diffusers.AutoencoderTiny(latent_channels=channels).eval()


def sdxl(options: argparse.Namespace) -> tuple[Any, Any, dict[str, Any]]:
    """(pipeline, tiny autoencoder, what a call takes); text encoders are left out, embeddings are random."""
    width, tiny = (64, True) if options.tiny else (2048, False)
    with on(options):
        unet = diffusers.UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(32, 64, 64) if tiny else (320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 1, 1) if tiny else (1, 2, 10),
            attention_head_dim=(2, 4, 4) if tiny else (5, 10, 20),
            cross_attention_dim=width,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=6 * 256 + 1280,
        ).eval()
        control = diffusers.ControlNetModel.from_unet(unet).to(options.device, dtype_of(options)).eval()
        decoder, small = vae(options, 4, scaling_factor=0.13025, force_upcast=False), tiny_vae(options, 4)
    pipe = diffusers.StableDiffusionXLControlNetPipeline(
        vae=decoder,
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=unet,
        controlnet=control,
        scheduler=diffusers.EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        add_watermarker=False,
    )
    text, pooled = (random(options, BATCH, *shape) for shape in ((77, width), (1280,)))
    call = {
        "prompt_embeds": text,
        "negative_prompt_embeds": -text,
        "pooled_prompt_embeds": pooled,
        "negative_pooled_prompt_embeds": -pooled,
        "image": torch.rand(1, 3, options.pixels, options.pixels),
        "guidance_scale": 5.0,
    }
    return pipe, small, call


def flux(options: argparse.Namespace) -> tuple[Any, Any, dict[str, Any]]:
    """FLUX.1-Depth-dev, likewise."""
    tiny = options.tiny
    with on(options):
        transformer = diffusers.FluxTransformer2DModel(
            in_channels=128,
            out_channels=64,
            num_layers=1 if tiny else 19,
            num_single_layers=1 if tiny else 38,
            attention_head_dim=32 if tiny else 128,
            num_attention_heads=2 if tiny else 24,
            joint_attention_dim=64 if tiny else 4096,
            axes_dims_rope=(8, 12, 12) if tiny else (16, 56, 56),
            guidance_embeds=True,
        ).eval()
        settings = {"scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False, "use_post_quant_conv": False}
        decoder, small = vae(options, 16, **settings), tiny_vae(options, 16)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096
    )
    pipe = diffusers.FluxControlPipeline(
        vae=decoder,
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        transformer=transformer,
        scheduler=scheduler,
    )
    call = {
        "prompt_embeds": random(options, BATCH, 32 if tiny else 512, 64 if tiny else 4096),
        "pooled_prompt_embeds": random(options, BATCH, 768),
        "control_image": 2 * torch.rand(1, 3, options.pixels, options.pixels) - 1,
        "height": options.pixels,
        "width": options.pixels,
        "guidance_scale": 10.0,
    }
    return pipe, small, call


def random(options: argparse.Namespace, *shape: int) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return values.to(options.device, dtype_of(options))


def points(pixels: int) -> list[tuple[float, float, float]]:
    """Across, upright, and into the middle of the picture."""
    return [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (pixels / 2, pixels / 2, 1.0)]


def measured(options: argparse.Namespace, work: Callable[[], float]) -> dict[str, Any]:
    """The seconds that ``work`` returns and the peak of memory, or that there was not enough."""
    cuda = options.device != "cpu"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        found: dict[str, Any] = {"seconds": round(work(), 4)}
    except torch.OutOfMemoryError:
        found = {"seconds": None, "out_of_memory": True}
    if cuda:
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return found


def step_seconds(options: argparse.Namespace, pipe: Any, call: dict[str, Any], guide: VanishingGuidance | None) -> float:
    """Median seconds between the ends of steps, the first two left out."""
    ends: list[float] = []

    def note(*args: Any) -> dict[str, Any]:
        synchronise(options)
        ends.append(time.perf_counter())
        return {}

    with guide.attached(pipe) if guide is not None else nullcontext():
        pipe(
            **call,
            num_inference_steps=options.steps,
            output_type="latent",
            callback_on_step_end=note,
            generator=torch.Generator().manual_seed(0),
        )
    return statistics.median([after - before for before, after in itertools.pairwise(ends[1:])])


def synchronise(options: argparse.Namespace) -> None:
    if options.device != "cpu":
        torch.cuda.synchronize()


def guided(options: argparse.Namespace, made: tuple[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """A step of a pipeline, unguided and guided in several ways, and what it costs over the unguided one."""
    pipe, small, call = made
    pipe.set_progress_bar_config(disable=True)
    always = {"alpha_min": 0.0}
    guides = {
        "plain": None,
        "guided": VanishingGuidance(points(options.pixels), **always),
        "guided, tiny decoder": VanishingGuidance(points(options.pixels), decoder=small, **always),
        "guided through the decoder alone": VanishingGuidance(points(options.pixels), through="decoder", **always),
        "guided, activations kept": VanishingGuidance(points(options.pixels), checkpointing=False, **always),
    }
    found: dict[str, Any] = {"parameters": parameters(pipe)}
    for name, guide in guides.items():
        found[name] = measured(options, lambda guide=guide: step_seconds(options, pipe, call, guide))
        seconds = found[name]["seconds"]
        if seconds is not None and found["plain"]["seconds"]:
            found[name]["over_plain"] = round(seconds / found["plain"]["seconds"], 2)
        print(json.dumps({name: found[name]}), flush=True)
    return found


def parameters(pipe: Any) -> dict[str, int]:
    networks = {name: module for name, module in pipe.components.items() if isinstance(module, torch.nn.Module)}
    return {name: sum(value.numel() for value in module.parameters()) for name, module in networks.items()}


def lora(options: argparse.Namespace, made: tuple[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """Training steps of FLUX.1-Depth with adapters of rank 16: unconstrained, and constrained through either decoder."""
    pipe, small, call = made
    model = PipelineModel(pipe, tiny_decoder=small)
    model.check_size(options.pixels, options.pixels)
    for module in model.modules().values():
        module.requires_grad_(False)
    add_lora(model.unet, 16, model.lora_targets)
    model.unet.enable_gradient_checkpointing()
    model.unet.train()
    shapes = {"text": tuple(call["prompt_embeds"].shape[1:]), "pooled": tuple(call["pooled_prompt_embeds"].shape[1:])}
    denoiser = FamilyDenoiser(family_of(pipe), pipe, shapes, model.guidance).to(options.device)
    trained = [value for value in denoiser.parameters() if value.requires_grad]
    found: dict[str, Any] = {"trained_parameters": sum(value.numel() for value in trained), "rank": 16}
    for name, decoder in (("unconstrained", None), ("constrained", "full"), ("constrained, tiny decoder", "tiny")):
        step = training_step(options, model, denoiser, trained, call, decoder)
        found[name] = measured(options, lambda step=step: repeated(options, step))
        seconds, plain = found[name]["seconds"], found["unconstrained"]["seconds"]
        if seconds is not None and plain:
            found[name]["over_unconstrained"] = round(seconds / plain, 2)
        print(json.dumps({name: found[name]}), flush=True)
    return found


def training_step(
    options: argparse.Namespace,
    model: PipelineModel,
    denoiser: FamilyDenoiser,
    trained: list[Tensor],
    call: dict[str, Any],
    decoder: str | None,
) -> Callable[[], None]:
    """One step on random latents, as ``alberti.diffusion.train`` makes it."""
    device, side = options.device, options.pixels // model.factor
    precision = "no" if device == "cpu" else "bf16"
    term = None
    if decoder is not None:
        config = FinetuneConfig.model_validate(
            {"training": {"steps": 1, "batch_size": BATCH, "lr": 1e-4, "precision": precision}, "decoder": decoder}
        )
        term = ConstraintTerm(model, config, torch.device(device))
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    schedule, generator = model.schedule, torch.Generator(device).manual_seed(0)
    draw = {"generator": generator, "device": device}
    x0, noise = (torch.randn(BATCH, 16, side, side, **draw) for _ in range(2))
    images, depth = (torch.rand(BATCH, channels, options.pixels, options.pixels, **draw) for channels in (3, 1))
    text = torch.cat([call["prompt_embeds"].flatten(1), call["pooled_prompt_embeds"]], dim=1)
    where = torch.tensor([points(options.pixels)] * BATCH, device=device)
    times = torch.full((BATCH,), 400)
    level = schedule.alpha_bar(times).to(device)
    model_times = schedule.model_timesteps(times).to(device)

    def step() -> None:
        x_t = schedule.add_noise(x0, noise, level)
        with torch.autocast(torch.device(device).type, torch.bfloat16, precision == "bf16"):
            prediction = denoiser(x_t, model_times, text, depth).float()
            loss = denoising_loss(prediction, schedule.target(x0, noise, level), level, schedule)
            if term is not None:
                estimate = predict_x0(prediction, x_t, level, schedule.prediction_type)
                loss = loss + 0.01 * term(estimate, images, where, level)
        loss.mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def repeated(options: argparse.Namespace, step: Callable[[], None]) -> float:
    """Median seconds of a step, the first left out."""
    seconds = []
    for _ in range(options.steps):
        synchronise(options)
        start = time.perf_counter()
        step()
        synchronise(options)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("sdxl", "flux", "lora"), default=["sdxl", "flux", "lora"])
    parser.add_argument("--pixels", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=6, help="steps of each measurement")
    parser.add_argument("--budget", type=float, default=480, help="start no part after so many seconds")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="very small networks, to rehearse")
    parser.add_argument("--out", help="write the JSON here as well, after every part")
    options = parser.parse_args()
    start, result = time.perf_counter(), {"settings": vars(options), "torch": torch.__version__}
    if options.device != "cpu":
        result["gpu"] = torch.cuda.get_device_name()
    made = None
    for part in options.parts:
        if time.perf_counter() - start > options.budget:
            print(f"{part}: left out, the budget of {options.budget:g} s is spent", flush=True)
            continue
        if part != "lora" or made is None:
            made = None  # before the next one is made: both do not fit
            if options.device != "cpu":
                torch.cuda.empty_cache()
            made = sdxl(options) if part == "sdxl" else flux(options)
        result[part] = (lora if part == "lora" else guided)(options, made)
        if part == "sdxl":
            made = None
        result["elapsed"] = round(time.perf_counter() - start, 1)
        if options.out:
            with open(options.out, "w") as file:
                json.dump(result, file, indent=2)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
