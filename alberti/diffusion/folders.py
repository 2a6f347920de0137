"""Model folders in diffusers' layout: finding, checking and describing them. Only JSON and safetensors are read."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open

from alberti.errors import CheckpointError, DataError
from alberti.reading import first_line, read_json, reading

MIRRORS = "sd2-community/stable-diffusion-2-depth"
_WITHDRAWN = "stabilityai/stable-diffusion-2"
# Subfolders only: some repositories carry a single-file copy of several gigabytes at their root.
_PATTERNS = ["*.json", "*/*.json", "*/*.txt", "*/*.safetensors"]
EXTRAS = ("depth_estimator", "feature_extractor")
"""What diffusers' depth pipeline wants beside the networks, and nothing here uses."""
_RENAMED = {"DPTFeatureExtractor": "DPTImageProcessor"}
_WEIGHTS = ("diffusion_pytorch_model", "model")
_VARIANT = re.compile(r"(?:diffusion_pytorch_model|model)\.(?P<variant>[\w-]+?)(?:-\d{5}-of-\d{5})?\.safetensors")
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
    try:
        config = read_json(path)
    except DataError as error:
        raise CheckpointError(str(error)) from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return config


def check_weights(folder: Path, component: str) -> str | None:
    """Raise CheckpointError unless the component has sound safetensors files; returns their variant.

    A variant is a second form of the same weights, named ``<file>.fp16.safetensors``: read where the plain form is not there.
    """
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
        except Exception as error:
            raise CheckpointError(
                f"{path}: damaged or truncated ({first_line(error)}); copy or train the model again"
            ) from None
    names = [path.name for path in files]
    if any(re.fullmatch(rf"{stem}(-\d{{5}}-of-\d{{5}})?\.safetensors", name) for stem in _WEIGHTS for name in names):
        _check_shards(folder / component, None)
        return None
    variants = sorted({match["variant"] for name in names if (match := _VARIANT.fullmatch(name))})
    if len(variants) != 1:
        known = f"variants {', '.join(variants)}" if variants else f"files {', '.join(names[:4])}"
        raise CheckpointError(
            f"{folder / component}: expected diffusion_pytorch_model.safetensors or model.safetensors, found the {known}; save "
            "the model without variant, or rename the files of one"
        )
    _check_shards(folder / component, variants[0])
    return variants[0]


def _check_shards(folder: Path, variant: str | None) -> None:
    """CheckpointError if an index lists parts that are not there."""
    suffix = f".{variant}" if variant else ""
    for stem in _WEIGHTS:
        index = folder / f"{stem}.safetensors.index{suffix}.json"
        if not index.is_file():
            continue
        with reading(index, "index of the weights", CheckpointError):
            parts = set(read_json(index)["weight_map"].values())
        missing = sorted(part for part in parts if not (folder / str(part)).is_file())
        if missing and not (folder / f"{stem}{suffix}.safetensors").is_file():
            raise CheckpointError(f"{folder}: {', '.join(missing[:3])} missing, which {index.name} lists; copy the model again")


def check_tokenizer(folder: Path) -> None:
    """Raise CheckpointError unless there is a vocabulary: without one every caption becomes the same tokens."""
    place = folder / "tokenizer"
    if (place / "tokenizer.json").is_file():
        return
    missing = [name for name in ("vocab.json", "merges.txt") if not (place / name).is_file()]
    if missing:
        found = ", ".join(sorted(path.name for path in place.iterdir())[:6]) if place.is_dir() else "no such folder"
        raise CheckpointError(
            f"{place}: no tokenizer's vocabulary: expected tokenizer.json, or vocab.json and merges.txt; found {found}. Copy "
            "the model again"
        )


def usable_extras(folder: Path, index: dict[str, Any]) -> dict[str, list[str]] | None:
    """Entries for model_index.json of the base's own :data:`EXTRAS`; None where diffusers could not read them back.

    They are then written anew, untrained, which is said on stderr: the estimator counts only where a pipeline is not given
    ``depth_map``.
    """
    if not any((folder / name).exists() for name in EXTRAS):
        return None
    problem = next(_extras_problems(folder), None)
    if problem is not None:
        print(f"note: {folder}: {problem}; a saved model gets an untrained depth estimator: pass depth_map", file=sys.stderr)
        return None
    defaults = {"depth_estimator": "DPTForDepthEstimation", "feature_extractor": "DPTImageProcessor"}
    entries = {}
    for name in EXTRAS:
        entry = index.get(name)
        entries[name] = current_class(entry) if entry and _is_known(entry) else ["transformers", defaults[name]]
    return entries


def current_class(entry: list[str]) -> list[str]:
    """An entry of model_index.json: Stable Diffusion 2's names a class that transformers 5 no longer has."""
    return [entry[0], _RENAMED.get(entry[1], entry[1])]


def _is_known(entry: Any) -> bool:
    """Whether an entry of model_index.json names a class that the installed transformers has."""
    import transformers

    sound = isinstance(entry, list) and len(entry) == 2 and entry[0] == "transformers" and isinstance(entry[1], str)
    return sound and hasattr(transformers, current_class(entry)[1])


def _extras_problems(folder: Path) -> Iterator[str]:
    for name, file in zip(EXTRAS, ("config.json", "preprocessor_config.json"), strict=True):
        try:
            config = component_config(folder, name, file)
        except CheckpointError:
            yield f"{name}/ has no {file} that can be read"
            return
        if name == "depth_estimator" and config.get("model_type") != "dpt":
            yield f"{name}/ is of type {config.get('model_type')!r}, no dpt"
    try:
        if check_weights(folder, "depth_estimator") is not None:
            yield "depth_estimator/ holds weights of a variant alone"
    except CheckpointError:
        yield "depth_estimator/ holds no sound model.safetensors"


def vae_factor(vae_config: dict[str, Any]) -> int:
    """How many image pixels one latent pixel is wide."""
    return int(2 ** (len(vae_config["block_out_channels"]) - 1))


def conditioning_of(folder: Path) -> str:
    """How the base takes depth: "concat" (one more UNet input channel) or "controlnet".

    Raises:
        CheckpointError: it takes no depth.
    """
    unet, vae = component_config(folder, "unet"), component_config(folder, "vae")
    for component, config, key in (("unet", unet, "in_channels"), ("vae", vae, "latent_channels")):
        if not isinstance(config.get(key), int):
            raise CheckpointError(
                f"{folder / component / 'config.json'}: {key}: expected a number, got {config.get(key)!r:.80}"
            )
    extra = unet["in_channels"] - vae["latent_channels"]
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
