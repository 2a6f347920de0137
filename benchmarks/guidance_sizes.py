"""What guidance and the constraint cost at real size, with random weights, on a GPU. Prints JSON, each figure when it is known.

    python benchmarks/guidance_sizes.py [--parts attention sdxl flux lora] [--sdpa auto] [--pixels 1024] [--budget 480]
    python benchmarks/guidance_sizes.py --tiny --device cpu --pixels 64      # the same calls, very small, to rehearse

attention: whether each attention kernel of torch, and our kernels of the perspective loss, are right at FLUX's size, forwards
and backwards; ``--sdpa auto`` then takes torch's own choice if that is right, else the fastest that is. sdxl: Stable Diffusion
XL with a depth ControlNet, classifier-free guidance; flux: FLUX.1-Depth. Each through diffusers' own pipeline, seconds a step
unguided and guided: with the VAE's decoder, with a tiny one, through the decoder alone. lora: one training step of FLUX.1-Depth
with adapters, without and with the constraint, through its VAE's decoder and through a tiny one. Seconds are medians; memory is
the peak of tensors and of what torch reserved for them, in GiB.

Each part runs in a process of its own. One that dies runs once more under CUDA_LAUNCH_BLOCKING=1, where the trace names the
operation at fault, and the others go on.
"""

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import threading
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
from alberti.errors import AlbertiError
from alberti.families.adapters import family_of
from alberti.families.denoisers import FamilyDenoiser
from alberti.families.model import PipelineModel
from alberti.guidance import VanishingGuidance
from alberti.losses.perspective import perspective_loss, torch_loss

BATCH = 1
PARTS = ("attention", "sdxl", "flux", "lora")
KERNELS = ("flash", "efficient", "cudnn")
ALLOWED_ERROR = 0.05
"""Relative error of an attention kernel in bfloat16, against float32, up to which it counts as right."""


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


@torch.no_grad()
def draw_weights(network: Any, blocks: int) -> Any:
    """Random weights as a transformer starts its training: N(0, 0.02), those that end a residual smaller by the depth.

    All that the network holds is written here, whatever its constructors left: no element is uninitialised.
    """
    for name, value in network.named_parameters():
        if value.ndim < 2:
            value.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            continue
        ends = name.endswith(("to_out.0.weight", "to_add_out.weight", "ff.net.2.weight", "ff_context.net.2.weight"))
        ends = ends or ("single_transformer_blocks" in name and name.endswith("proj_out.weight"))
        value.normal_(0.0, 0.02 / math.sqrt(2 * blocks) if ends else 0.02)
    for name, value in itertools.chain(network.named_parameters(), network.named_buffers()):
        if not value.isfinite().all():
            raise SystemExit(f"{name}: not finite after it was drawn")
    return network


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
        draw_weights(transformer, 2 if tiny else 57)
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
    except AlbertiError as error:
        found = {"seconds": None, "error": str(error)}
    if cuda:
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        found["reserved_gib"] = round(torch.cuda.max_memory_reserved() / 2**30, 2)
    return found


def tell(part: str, name: str, found: Any) -> None:
    """One line of JSON, at once; the parent collects them."""
    print(json.dumps({"part": part, "name": name, "found": found}), flush=True)


def use_kernel(name: str) -> None:
    """Have attention on GPUs computed by one of ``KERNELS``, or "math"; what it cannot do is done by "math". "default": torch
    chooses.
    """
    allowed = KERNELS if name == "default" else (name,)
    torch.backends.cuda.enable_flash_sdp("flash" in allowed)
    torch.backends.cuda.enable_mem_efficient_sdp("efficient" in allowed)
    torch.backends.cuda.enable_cudnn_sdp("cudnn" in allowed)
    torch.backends.cuda.enable_math_sdp(True)


def attention(options: argparse.Namespace) -> None:
    """Each attention kernel, and the kernels of the perspective loss, against plain float32 at FLUX's size."""
    tell("attention", "perspective loss", loss_kernels(options))
    heads, width = (2, 32) if options.tiny else (24, 128)
    tokens = (options.pixels // 16) ** 2 + (32 if options.tiny else 512)
    draw = {"generator": torch.Generator(options.device).manual_seed(0), "device": options.device, "dtype": dtype_of(options)}
    inputs = [torch.randn(BATCH, tokens, heads, width, **draw) for _ in range(3)]
    slope = torch.randn(BATCH, tokens, heads, width, **draw)
    use_kernel("math")
    exact = attended([value.float() for value in inputs], slope.float())
    for name in (*(KERNELS if options.device != "cpu" else ()), "default"):  # what may kill the process comes last
        use_kernel(name)
        start, found = 0.0, []
        for _ in range(3):
            synchronise(options)
            start = time.perf_counter()
            found = attended(inputs, slope)
            synchronise(options)
        seconds = time.perf_counter() - start
        errors = [relative_error(value, wanted) for value, wanted in zip(found, exact, strict=True)]
        right = all(error <= ALLOWED_ERROR for error in errors)
        named = dict(zip(("forward", "by_query", "by_key", "by_value"), errors, strict=True))
        tell("attention", name, {"right": right, "seconds": round(seconds, 5), "relative_error": named, "tokens": tokens})


def attended(inputs: list[Tensor], slope: Tensor) -> list[Tensor]:
    """Attention among tokens (B, T, heads, D) laid out as diffusers has them, and its gradients by query, key and value."""
    leaves = [value.clone().requires_grad_() for value in inputs]
    query, key, value = (leaf.permute(0, 2, 1, 3) for leaf in leaves)
    result = torch.nn.functional.scaled_dot_product_attention(query, key, value).permute(0, 2, 1, 3)
    return [result.detach(), *torch.autograd.grad(result, leaves, slope)]


def relative_error(value: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference over that of what is wanted; infinite where a number is not finite."""
    if not value.isfinite().all():
        return math.inf
    return float(f"{float((value.float() - wanted).norm() / wanted.norm()):.2e}")


def loss_kernels(options: argparse.Namespace) -> dict[str, Any]:
    """The perspective loss and its gradient as they are computed here, against PyTorch's operations alone."""
    draw = {"generator": torch.Generator(options.device).manual_seed(0), "device": options.device}
    shape = (2, 3, options.pixels, options.pixels)
    pred, target = torch.rand(shape, **draw).requires_grad_(), torch.rand(shape, **draw)
    where = torch.tensor([points(options.pixels)] * 2, device=options.device)
    found, wanted = perspective_loss(pred, target, where), torch_loss(pred, target, where, num_lines=1000)
    slopes = [torch.autograd.grad(each.sum(), pred)[0] for each in (found, wanted)]
    return {"relative_error": relative_error(found.detach(), wanted.detach()), "of_gradient": relative_error(*slopes)}


def first_not_finite(pipe: Any, call: dict[str, Any]) -> dict[str, Any]:
    """Of one unguided step: the largest value that any part of the denoiser gives, or the part whose answer is not finite."""
    largest: dict[str, float] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            for each in output if isinstance(output, tuple) else (output,):
                if isinstance(each, Tensor):
                    value = float(each.abs().max()) if each.isfinite().all() else math.inf
                    largest[name] = max(largest.get(name, 0.0), value)

        return hook

    network = pipe.transformer
    handles = [module.register_forward_hook(note(name)) for name, module in network.named_modules() if name.count(".") <= 2]
    try:
        pipe(**call, num_inference_steps=1, output_type="latent", generator=torch.Generator().manual_seed(0))
    finally:
        for handle in handles:
            handle.remove()
    bad = [name for name, value in largest.items() if math.isinf(value)]
    return {"first": bad[0]} if bad else {"first": None, "largest": round(max(largest.values()), 3)}


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


def guided(options: argparse.Namespace, part: str, made: tuple[Any, Any, dict[str, Any]]) -> None:
    """A step of a pipeline, unguided and guided in several ways, and what it costs over the unguided one."""
    pipe, small, call = made
    pipe.set_progress_bar_config(disable=True)
    tell(part, "parameters", parameters(pipe))
    if part == "flux":
        tell(part, "not finite", first_not_finite(pipe, call))
    always = {"alpha_min": 0.0}
    guides = {
        "plain": None,
        "guided": VanishingGuidance(points(options.pixels), **always),
        "guided, tiny decoder": VanishingGuidance(points(options.pixels), decoder=small, **always),
        "guided through the decoder alone": VanishingGuidance(points(options.pixels), through="decoder", **always),
        "guided, activations kept": VanishingGuidance(points(options.pixels), checkpointing=False, **always),
    }
    plain = None
    for name, guide in guides.items():
        found = measured(options, lambda guide=guide: step_seconds(options, pipe, call, guide))
        plain = found["seconds"] if name == "plain" else plain
        if found["seconds"] is not None and plain:
            found["over_plain"] = round(found["seconds"] / plain, 2)
        tell(part, name, found)


def parameters(pipe: Any) -> dict[str, int]:
    networks = {name: module for name, module in pipe.components.items() if isinstance(module, torch.nn.Module)}
    return {name: sum(value.numel() for value in module.parameters()) for name, module in networks.items()}


def lora(options: argparse.Namespace, made: tuple[Any, Any, dict[str, Any]]) -> None:
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
    tell("lora", "adapters", {"trained_parameters": sum(value.numel() for value in trained), "rank": 16})
    plain = None
    for name, decoder in (("unconstrained", None), ("constrained", "full"), ("constrained, tiny decoder", "tiny")):
        step = training_step(options, model, denoiser, trained, call, decoder)
        found = measured(options, lambda step=step: repeated(options, step))
        plain = found["seconds"] if decoder is None else plain
        if found["seconds"] is not None and plain:
            found["over_unconstrained"] = round(found["seconds"] / plain, 2)
        tell("lora", name, found)


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
    checked: list[bool] = []

    def step() -> None:
        x_t = schedule.add_noise(x0, noise, level)
        with torch.autocast(torch.device(device).type, torch.bfloat16, precision == "bf16"):
            prediction = denoiser(x_t, model_times, text, depth).float()
            loss = denoising_loss(prediction, schedule.target(x0, noise, level), level, schedule)
            if term is not None:
                estimate = predict_x0(prediction, x_t, level, schedule.prediction_type)
                loss = loss + 0.01 * term(estimate, images, where, level)
        loss.mean().backward()
        if not checked:  # once, for it waits for the GPU
            checked.append(all(bool(value.grad.isfinite().all()) for value in trained if value.grad is not None))
            if not checked[0]:
                raise AlbertiError("the gradient of an adapter is not finite")
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


def run_part(options: argparse.Namespace, part: str) -> None:
    """One part, in this process."""
    use_kernel(options.sdpa)
    if part == "attention":
        attention(options)
    elif part == "lora":
        lora(options, flux(options))
    else:
        guided(options, part, sdxl(options) if part == "sdxl" else flux(options))


def start_part(options: argparse.Namespace, part: str, kernel: str, seconds: float, blocking: bool) -> tuple[list[Any], str]:
    """One part in a process of its own: (what it told, what it died of or "")."""
    command = [sys.executable, __file__, "--inside", part, "--sdpa", kernel, "--device", options.device]
    command += ["--pixels", str(options.pixels), "--steps", str(2 if blocking else options.steps)]
    command += ["--tiny"] if options.tiny else []
    environment = {**os.environ, **({"CUDA_LAUNCH_BLOCKING": "1"} if blocking else {})}
    told: list[Any] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        complaints: list[str] = []
        reader = threading.Thread(target=complaints.extend, args=(process.stderr,))
        killer = threading.Timer(seconds, process.kill)
        reader.start()
        killer.start()
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith('{"part"'):
                told.append(json.loads(line))
        code = process.wait()
        out_of_time = not killer.is_alive()
        killer.cancel()
        reader.join()
    if code == 0:
        return told, ""
    return told, f"out of time after {seconds:.0f} s" if out_of_time else "".join(complaints)[-3000:]


def chosen_kernel(told: list[Any]) -> str:
    """torch's own choice if it is right, else the fastest kernel that is, else plain operations."""
    right = {each["name"]: each["found"]["seconds"] for each in told if each["found"].get("right")}
    if "default" in right:
        return "default"
    return min(right, key=lambda name: float(right[name]), default="math")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--pixels", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=6, help="steps of each measurement")
    parser.add_argument("--sdpa", default="auto", choices=("auto", "default", "math", *KERNELS), help="attention's kernel")
    parser.add_argument("--budget", type=float, default=480, help="seconds for all parts")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="very small networks, to rehearse")
    parser.add_argument("--out", help="write the JSON here as well, after every part")
    parser.add_argument("--inside", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        run_part(options, options.inside)
        return
    start = time.perf_counter()
    result: dict[str, Any] = {"settings": vars(options), "torch": torch.__version__, "diffusers": diffusers.__version__}
    if options.device != "cpu":
        result["gpu"] = torch.cuda.get_device_name()
    kernel = "default" if options.sdpa == "auto" else options.sdpa
    for part in options.parts:
        left = options.budget - (time.perf_counter() - start)
        told, fault = start_part(options, part, kernel, left, False) if left > 0 else ([], "not begun, no time left")
        if part == "attention" and options.sdpa == "auto":
            kernel = chosen_kernel(told)
        result[part] = {"sdpa": kernel, **{each["name"]: each["found"] for each in told}}
        left = options.budget - (time.perf_counter() - start)
        if fault:
            result[part]["fault"] = fault
            print(f"{part}: {fault}", flush=True)
            if "CUDA" in fault and left > 0:
                result[part]["fault, blocking"] = start_part(options, part, kernel, left, True)[1]
                print(f"{part}, blocking: {result[part]['fault, blocking']}", flush=True)
        result["elapsed"] = round(time.perf_counter() - start, 1)
        if options.out:
            with open(options.out, "w") as file:
                json.dump(result, file, indent=2)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
