"""Model folders in diffusers' layout: finding, checking and describing them. Only JSON and safetensors are read."""

import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from alberti.errors import CheckpointError
from alberti.files import read_json

MIRRORS = "sd2-community/stable-diffusion-2-depth"
_WITHDRAWN = "stabilityai/stable-diffusion-2"
# Subfolders only: some repositories carry a single-file copy of several gigabytes at their root.
_PATTERNS = ["*.json", "*/*.json", "*/*.txt", "*/*.safetensors"]
_OTHER_COPIES = ["*.fp16.*", "*.non_ema.*", "*.bf16.*", "safety_checker/*", "image_encoder/*"]


def locate(path_or_id: str | Path, revision: str | None = None) -> Path:
    """The local folder of a model: the path itself, or the hub's files, downloaded into its cache.

    Raises:
        CheckpointError: no such folder, and no such hub id or no network.
    """
    path = Path(path_or_id)
    if path.is_dir():
        return path
    name = str(path_or_id)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith((".", "/")) or path.parent.is_dir():
        raise CheckpointError(f"{name}: no such model folder, and not a hub id of the form owner/name")
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(name, revision=revision, allow_patterns=_PATTERNS, ignore_patterns=_OTHER_COPIES)
    except Exception as error:  # the hub client raises a dozen unrelated kinds: no network, no repository, gated, ...
        raise CheckpointError(_unavailable(name, revision, error)) from error
    return Path(folder)


def _unavailable(name: str, revision: str | None, error: Exception) -> str:
    wanted = name + (f" at revision {revision}" if revision else "")
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    moved = f" The stable-diffusion-2 models left their first hub account in November 2025: try the mirror {MIRRORS}."
    return (
        f"{wanted}: cannot be had from the model hub ({reason[:200]}).{moved if name.startswith(_WITHDRAWN) else ''} "
        f"Give another id (a mirror, say {MIRRORS}), or the path of a local folder in diffusers' layout."
    )


def component_config(folder: Path, component: str, file: str = "config.json") -> dict[str, Any]:
    """A component's JSON config; CheckpointError if it is missing or malformed."""
    path = folder / component / file
    if not path.is_file():
        raise CheckpointError(
            f"{path}: missing; expected a model folder in diffusers' layout: unet, vae, text_encoder, tokenizer, scheduler"
        )
    config = read_json(path)
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return config


def check_weights(folder: Path, component: str) -> None:
    """Raise CheckpointError unless the component has sound safetensors files."""
    files = sorted((folder / component).glob("*.safetensors"))
    if not files:
        others = sorted(path.name for path in (folder / component).glob("*.bin"))
        found = f"only {', '.join(others)}, which would have to be unpickled" if others else "none"
        raise CheckpointError(
            f"{folder / component}: expected *.safetensors, found {found}. Save the model with safe_serialization=True."
        )
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                file.keys()
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: damaged or truncated ({error}); copy or train the model again") from None


def vae_factor(vae_config: dict[str, Any]) -> int:
    """How many image pixels one latent pixel is wide."""
    return int(2 ** (len(vae_config["block_out_channels"]) - 1))


def conditioning_of(folder: Path) -> str:
    """How the base takes depth: "concat" (one more UNet input channel) or "controlnet".

    Raises:
        CheckpointError: it takes no depth.
    """
    unet, vae = component_config(folder, "unet"), component_config(folder, "vae")
    extra = int(unet["in_channels"]) - int(vae["latent_channels"])
    has_controlnet = (folder / "controlnet" / "config.json").is_file()
    if extra == 1 and not has_controlnet:
        return "concat"
    if extra == 0 and has_controlnet:
        return "controlnet"
    raise CheckpointError(
        f"{folder}: the UNet has {unet['in_channels']} input channels, its VAE {vae['latent_channels']} latent channels "
        f"and there is {'a' if has_controlnet else 'no'} ControlNet; expected one channel more for depth "
        f"(stable-diffusion-2-depth), or equal channels and a depth ControlNet (controlnet=PATH_OR_ID)"
    )
