"""Random weights in the layouts that the published ones come in, below `datasets/weights/`.

The classes, sizes and file names are those of the model hub's folders and of PixelFormer's release; only the numbers are
random, and the tokenizers are small. So what loads here loads there, as far as layouts can show it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from alberti.files import write_json, write_text
from pipeline.rehearsal.sizes import Size

SD2_DEPTH, DPT, PIXELFORMER, BLIP = "stable-diffusion-2-depth", "dpt-hybrid-midas", "pixelformer_kitti.pth", "blip"
_TOKENS = 77
_WORDS = ["a street with brick facades, two cars, trees and a clear sky", "a photograph of a city street at night"]
_DPT_PROCESSOR = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "ensure_multiple_of": 1,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "keep_aspect_ratio": False,
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"height": 384, "width": 384},
}


def write_weights(root: Path, size: Size, device: str) -> None:
    """Write the four models below ``root``; drawn on ``device``, since that takes seconds on a GPU and minutes elsewhere."""
    torch.manual_seed(0)
    write_sd2_depth(root / SD2_DEPTH, size, device)
    write_depth_weights(root, size, device)
    write_blip(root / BLIP, size, device)


def write_depth_weights(root: Path, size: Size, device: str) -> None:
    """Write DPT's folder and PixelFormer's checkpoint below ``root``."""
    write_dpt(root / DPT, size, device)
    _write_processor(root / DPT, "DPTImageProcessor")
    write_pixelformer(root / PIXELFORMER, size, device)


def write_sd2_depth(folder: Path, size: Size, device: str) -> None:
    """stable-diffusion-2-depth's folder: UNet with a fifth input channel, VAE, text encoder, tokenizer, PNDM scheduler that
    predicts epsilon, and the DPT of its pipeline under the class name of 2022.
    """
    for name, build in SD2_NETWORKS.items():
        with torch.device(device):
            network = build(size)
        network.save_pretrained(folder / name)
        del network  # gone before the next is drawn
    _name_as_in_2022(folder)
    _write_tokenizer(folder / "tokenizer", size.text["vocab_size"])
    write_dpt(folder / "depth_estimator", size, device)
    _write_processor(folder / "feature_extractor", "DPTFeatureExtractor")
    write_json(folder / "scheduler" / "scheduler_config.json", _SCHEDULER)
    write_json(folder / "model_index.json", _INDEX)


def _unet(size: Size) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel(in_channels=5, out_channels=4, **size.unet)


def _vae(size: Size) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = len(size.vae["block_out_channels"])
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * levels, "up_block_types": ("UpDecoderBlock2D",) * levels}
    return AutoencoderKL(latent_channels=4, scaling_factor=0.18215, **blocks, **size.vae)


def _text_encoder(size: Size) -> Any:
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    ids: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    return CLIPTextModel(CLIPTextConfig(**size.text, max_position_embeddings=_TOKENS, hidden_act="gelu", **ids))


SD2_NETWORKS: dict[str, Callable[[Size], Any]] = {"unet": _unet, "vae": _vae, "text_encoder": _text_encoder}


def _name_as_in_2022(folder: Path) -> None:
    """Give the VAE's and the text encoder's weights the names of the published files, which today's classes convert."""
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    renamed = {}
    for key, value in load_file(path).items():
        for new, old in _OLD_ATTENTION.items():
            key = key.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
        renamed[key] = value
    save_file(renamed, path, {"format": "pt"})
    path = folder / "text_encoder" / "model.safetensors"
    state = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in load_file(path).items()}
    state["text_model.embeddings.position_ids"] = torch.arange(_TOKENS)[None]
    save_file(state, path, {"format": "pt"})


_OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
_SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.10.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
_INDEX = {
    "_class_name": "StableDiffusionDepth2ImgPipeline",
    "_diffusers_version": "0.10.0.dev0",
    "depth_estimator": ["transformers", "DPTForDepthEstimation"],
    "feature_extractor": ["transformers", "DPTFeatureExtractor"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def _write_tokenizer(folder: Path, vocabulary: int) -> None:
    """The slow tokenizer's files, as the hub has them, of a small vocabulary."""
    from alberti.diffusion.tokenizer import END, START, train_tokenizer

    backend: Any = train_tokenizer(_WORDS, min(vocabulary, 1024), _TOKENS)._tokenizer
    model = json.loads(backend.to_str())["model"]
    for number in range(vocabulary - len(model["vocab"])):  # as many tokens as the text encoder has embeddings
        model["vocab"][f"<|{number}|>"] = len(model["vocab"])
    write_json(folder / "vocab.json", model["vocab"])
    write_text(folder / "merges.txt", "#version: 0.2\n" + "".join(f"{' '.join(pair)}\n" for pair in model["merges"]))
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": "!"}
    write_json(folder / "special_tokens_map.json", special)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": _TOKENS, "do_lower_case": True, "errors": "replace"}
    write_json(folder / "tokenizer_config.json", {**settings, **special, "pad_token": END})


def write_dpt(folder: Path, size: Size, device: str) -> None:
    """A DPT's ``config.json`` and ``model.safetensors``, as in Intel/dpt-hybrid-midas."""
    from alberti.depth.dpt import build_dpt

    with torch.device(device):
        network = build_dpt(size.dpt)
    network.save_pretrained(folder)


def _write_processor(folder: Path, name: str) -> None:
    write_json(folder / "preprocessor_config.json", {"feature_extractor_type": name, **_DPT_PROCESSOR})


def write_pixelformer(path: Path, size: Size, device: str) -> None:
    """A checkpoint as PixelFormer's training writes it: ``{"model": state}`` with the prefix of data parallelism."""
    from alberti.depth.pixelformer import PixelFormer

    with torch.device(device):
        network = PixelFormer.from_variant(size.pixelformer)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": {f"module.{key}": value.cpu() for key, value in network.state_dict().items()}}, path)


def write_blip(folder: Path, size: Size, device: str) -> None:
    """Salesforce/blip-image-captioning-base's folder, with made-up words."""
    from transformers.models.blip.configuration_blip import BlipConfig
    from transformers.models.blip.image_processing_blip import BlipImageProcessor
    from transformers.models.blip.modeling_blip import BlipForConditionalGeneration
    from transformers.models.blip.processing_blip import BlipProcessor

    words, pixels = size.blip["words"], size.blip["image_size"]
    ids = {"pad_token_id": 0, "bos_token_id": words - 2, "eos_token_id": 102, "sep_token_id": 102}
    config = BlipConfig(
        text_config={**size.blip["text"], "vocab_size": words, **ids},
        vision_config={**size.blip["vision"], "image_size": pixels},
    )
    with torch.device(device):
        model = BlipForConditionalGeneration(config)
    model.save_pretrained(folder)
    processor = BlipImageProcessor(size={"height": pixels, "width": pixels})
    BlipProcessor(processor, _bert_tokenizer(words)).save_pretrained(folder)


def _bert_tokenizer(words: int) -> Any:
    from transformers import BertTokenizerFast

    names = [f"word{index}" for index in range(words)]
    for index, name in ((0, "[PAD]"), (100, "[UNK]"), (101, "[CLS]"), (102, "[SEP]"), (103, "[MASK]")):
        names[index] = name
    return BertTokenizerFast(vocab={name: index for index, name in enumerate(names)})
