"""Drawing a depth map with a pipeline of any known family: loading one, and what its call takes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from alberti.diffusion.folders import component_config, locate
from alberti.diffusion.objective import normalise_depth
from alberti.errors import CheckpointError, ConfigError, DataError
from alberti.families.adapters import family_of
from alberti.families.denoisers import DEPTH_MODE_XL_UNION

_WITH_CONTROLNET = {
    "StableDiffusionPipeline": "StableDiffusionControlNetPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLControlNetPipeline",
    "StableDiffusion3Pipeline": "StableDiffusion3ControlNetPipeline",
    "FluxPipeline": "FluxControlNetPipeline",
    "QwenImagePipeline": "QwenImageControlNetPipeline",
    "ZImagePipeline": "ZImageControlNetPipeline",
}
_UNION = {"StableDiffusionXLControlNetPipeline": "StableDiffusionXLControlNetUnionPipeline"}


def load_pipeline(base: str, controlnet: str | None = None, *, dtype: torch.dtype = torch.float32) -> Any:
    """A diffusers pipeline that takes depth: a base's own, or a base with a depth ControlNet.

    Args:
        base, controlnet: folders in diffusers' layout, or hub ids.

    Raises:
        CheckpointError: no such model, one that cannot be loaded, or one that takes no depth.
    """
    import diffusers

    folder = locate(base)
    name = str(component_config(folder, ".", "model_index.json").get("_class_name"))
    parts: dict[str, Any] = {}
    if controlnet is not None:
        if name not in _WITH_CONTROLNET:
            raise CheckpointError(f"{base}: a {name} takes no ControlNet here; known are {', '.join(_WITH_CONTROLNET)}")
        place = locate(controlnet)
        kind = str(component_config(place, ".", "config.json").get("_class_name"))
        name = _WITH_CONTROLNET[name]
        name = _UNION.get(name, name) if kind == "ControlNetUnionModel" else name
        parts["controlnet"] = _loaded(getattr(diffusers, kind, None), place, kind, dtype)
    if name == "StableDiffusionControlNetPipeline":
        parts["safety_checker"] = None
    pipe = _loaded(getattr(diffusers, name, None), folder, name, dtype, **parts)
    try:
        family_of(pipe)
    except ConfigError as error:
        raise CheckpointError(f"{base}: takes no depth map as it is ({error}); name a depth ControlNet as well") from None
    return pipe


def _loaded(kind: Any, folder: Path, name: str, dtype: torch.dtype, **parts: Any) -> Any:
    if kind is None:
        raise CheckpointError(f"{folder}: {name} is not a class of the installed diffusers")
    try:
        return kind.from_pretrained(folder, torch_dtype=dtype, use_safetensors=True, **parts)
    except (OSError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder}: cannot be loaded as {name}: {error}") from error


def draw(pipe: Any, depth: np.ndarray, prompt: str, *, steps: int, seed: int, **options: Any) -> np.ndarray:
    """One picture (H, W, 3) uint8 of a depth map (H, W) in metres; ``options`` go to the pipeline's call."""
    generator = torch.Generator().manual_seed(seed)
    taken = {"prompt": prompt, "num_inference_steps": steps, "generator": generator, "output_type": "np"}
    picture = pipe(**taken, **condition_inputs(pipe, depth), **options).images[0]
    found: np.ndarray = np.rint(255 * picture).astype(np.uint8)
    return found


def condition_inputs(pipe: Any, depth: np.ndarray) -> dict[str, Any]:
    """What a pipeline's call takes for a depth map: near is bright."""
    family, size = family_of(pipe), (depth.shape[0], depth.shape[1])
    values = normalise_depth(torch.from_numpy(np.ascontiguousarray(depth, dtype=np.float32))[None])
    shade = np.rint(255 * (values[0, 0].numpy() + 1) / 2).astype(np.uint8)
    picture = Image.fromarray(np.repeat(shade[..., None], 3, axis=2))
    if family.name == "sd2-depth":
        if not values.any():
            raise DataError("depth map: has one value everywhere, which StableDiffusionDepth2ImgPipeline cannot draw")
        blank = Image.fromarray(np.full((*size, 3), 127, dtype=np.uint8))  # all of it is repainted
        return {"image": blank, "depth_map": values[:, 0], "strength": 1.0}
    if "Union" in type(pipe).__name__:
        return {"control_image": [picture], "control_mode": [DEPTH_MODE_XL_UNION]}
    if family.denoiser == "unet":
        return {"image": picture}
    return {"control_image": picture, "height": size[0], "width": size[1]}
