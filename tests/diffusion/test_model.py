"""Model folders: what we save, diffusers loads; what we cannot use, we refuse with a reason."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionControlNetPipeline, StableDiffusionDepth2ImgPipeline
from diffusion.toy import CAPTIONS, SIZE, TINY
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from alberti.diffusion.base import BaseConfig, DepthDiffusion, build_small_base
from alberti.diffusion.lora import add_lora
from alberti.diffusion.tokenizer import train_tokenizer
from alberti.errors import CheckpointError, ConfigError


def _inputs(channels: int = 1) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    size = SIZE // 2
    condition = torch.rand(2, channels, SIZE if channels == 3 else size, SIZE if channels == 3 else size, generator=generator)
    return (
        torch.randn(2, 4, size, size, generator=generator),
        torch.tensor([10, 700]),
        torch.randn(2, TINY["max_tokens"], TINY["text_width"], generator=generator),
        condition,
    )


def _edit(folder: Path, file: str, **values) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def copied(base_folder, tmp_path) -> Path:
    return Path(shutil.copytree(base_folder, tmp_path / "model"))


def test_the_default_base_fits_its_budget():
    model = build_small_base(BaseConfig(), CAPTIONS)
    total = sum(p.numel() for module in model.modules().values() for p in module.parameters())
    assert total < 14e6
    smoke = build_small_base(BaseConfig.smoke(), CAPTIONS)
    for module in smoke.modules().values():
        assert sum(p.numel() for p in module.parameters()) < 0.5e6


def test_weights_follow_from_the_seed():
    smoke = BaseConfig.smoke(**TINY)
    settings = [smoke, smoke, smoke.model_copy(update={"unet": smoke.unet.model_copy(update={"seed": 1})})]
    first, second, other = (build_small_base(config, CAPTIONS) for config in settings)
    for a, b, c in zip(first.unet.parameters(), second.unet.parameters(), other.unet.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.ndim < 2 or not torch.equal(a, c)


def test_round_trip(base, tmp_path):
    base.save(tmp_path / "model")
    loaded = DepthDiffusion.load(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(base.denoiser()(*_inputs()), loaded.denoiser()(*_inputs()))
        assert torch.equal(base.encode_text(CAPTIONS), loaded.encode_text(CAPTIONS))
    assert loaded.schedule.prediction_type == "v_prediction"
    loaded.save(tmp_path / "again")
    for path in sorted((tmp_path / "model").rglob("*.safetensors")):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(tmp_path / "model")).read_bytes()


def test_saving_in_half_precision_halves_the_file_and_not_the_model(base, tmp_path):
    before = {name: value.clone() for name, value in base.unet.state_dict().items()}
    base.save(tmp_path / "whole")
    base.save(tmp_path / "half", dtype=torch.float16)
    file = "unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "half" / file).stat().st_size < 0.6 * (tmp_path / "whole" / file).stat().st_size
    assert all(torch.equal(before[name], value) for name, value in base.unet.state_dict().items())
    loaded = DepthDiffusion.load(tmp_path / "half")
    assert next(loaded.unet.parameters()).dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.denoiser()(*_inputs()), base.denoiser()(*_inputs()), rtol=0.05, atol=0.05
        )  # fmt: skip


def test_diffusers_own_pipeline_loads_and_runs_it(base_folder):
    pipe = StableDiffusionDepth2ImgPipeline.from_pretrained(base_folder, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    inverse = torch.linspace(0, 1, SIZE).expand(1, SIZE, SIZE).clone()
    images = pipe(
        CAPTIONS[0], image=torch.rand(1, 3, SIZE, SIZE), depth_map=inverse, num_inference_steps=2, output_type="np"
    ).images
    assert images.shape == (1, SIZE, SIZE, 3)
    assert np.isfinite(images).all()
    loaded = DepthDiffusion.load(base_folder)
    with torch.no_grad():
        x, t, text, condition = _inputs()
        assert torch.equal(pipe.unet(torch.cat([x, condition], 1), t, text).sample, loaded.denoiser()(x, t, text, condition))


def test_the_pipelines_depth_conditioning_is_ours(base_folder):
    pipe = StableDiffusionDepth2ImgPipeline.from_pretrained(base_folder)
    depth = torch.rand(1, SIZE, SIZE) * 10 + 1
    small = torch.nn.functional.interpolate(1 / depth[:, None], size=(SIZE // 2, SIZE // 2), mode="bilinear")
    theirs = pipe.prepare_depth_map([depth], small[:, 0], 1, False, torch.float32, "cpu")
    torch.testing.assert_close(DepthDiffusion.load(base_folder).condition(depth), theirs, rtol=1e-4, atol=1e-4)


def test_a_controlnet_base_round_trips_and_runs_in_diffusers(controlnet_base, tmp_path):
    with torch.no_grad():
        for name, value in controlnet_base.controlnet.named_parameters():
            if "controlnet" in name:  # they start as zeros; let the ControlNet say something
                value.normal_(std=0.05)
    controlnet_base.save(tmp_path / "model")
    loaded = DepthDiffusion.load(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(loaded.denoiser()(*_inputs(3)), controlnet_base.denoiser()(*_inputs(3)))
    assert loaded.condition(torch.rand(2, SIZE, SIZE) + 1).shape == (2, 3, SIZE, SIZE)
    pipe = StableDiffusionControlNetPipeline.from_pretrained(tmp_path / "model")
    pipe.set_progress_bar_config(disable=True)
    condition = loaded.condition(torch.rand(1, SIZE, SIZE) + 1)
    images = pipe(CAPTIONS[0], image=condition, num_inference_steps=2, output_type="np").images
    assert images.shape == (1, SIZE, SIZE, 3)


def test_a_controlnet_of_its_own_folder(controlnet_base, tmp_path):
    controlnet_base.save(tmp_path / "model")
    shutil.move(tmp_path / "model" / "controlnet", tmp_path / "depth-controlnet")
    with pytest.raises(CheckpointError, match="no ControlNet"):
        DepthDiffusion.load(tmp_path / "model")
    loaded = DepthDiffusion.load(tmp_path / "model", controlnet=tmp_path / "depth-controlnet")
    assert loaded.controlnet is not None


def test_lora_is_saved_for_diffusers(base, base_folder, tmp_path):
    add_lora(base.unet, 2)
    with torch.no_grad():
        for name, value in base.unet.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.3)
        adapted = base.denoiser()(*_inputs())
        plain = DepthDiffusion.load(base_folder).denoiser()(*_inputs())
        assert (adapted - plain).abs().max() > 1e-3
    base.save(tmp_path / "model")
    merged = DepthDiffusion.load(tmp_path / "model")
    pipe = StableDiffusionDepth2ImgPipeline.from_pretrained(base_folder)
    pipe.load_lora_weights(tmp_path / "model" / "lora")
    x, t, text, condition = _inputs()
    with torch.no_grad():
        torch.testing.assert_close(merged.denoiser()(*_inputs()), adapted, rtol=1e-4, atol=1e-4)
        theirs = pipe.unet(torch.cat([x, condition], 1), t, text).sample
        torch.testing.assert_close(theirs, adapted, rtol=1e-4, atol=1e-4)
        assert torch.equal(base.denoiser()(*_inputs()), adapted)  # saving left the adapters in place


def test_a_base_without_a_way_in_for_depth(controlnet_base, tmp_path):
    controlnet_base.controlnet = None
    controlnet_base.save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="4 input channels"):
        DepthDiffusion.load(tmp_path / "model")


def test_a_prediction_type_that_the_scheduler_contradicts(base_folder):
    with pytest.raises(CheckpointError, match=r"'epsilon'.*'v_prediction'"):
        DepthDiffusion.load(base_folder, prediction_type="epsilon")


def test_a_scheduler_that_nobody_knows(copied):
    _edit(copied, "scheduler/scheduler_config.json", _class_name="MagicScheduler")
    with pytest.raises(CheckpointError, match="MagicScheduler"):
        DepthDiffusion.load(copied)


def test_truncated_weights_are_named(copied):
    path = copied / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"unet.diffusion_pytorch_model\.safetensors: damaged"):
        DepthDiffusion.load(copied)


def test_weights_that_do_not_fit_their_config(copied):
    _edit(copied, "unet/config.json", cross_attention_dim=24)
    with pytest.raises(CheckpointError, match="cannot be loaded as UNet2DConditionModel"):
        DepthDiffusion.load(copied)


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("unet/diffusion_pytorch_model.safetensors", "conv_in.weight"),
        ("text_encoder/model.safetensors", "final_layer_norm.weight"),
    ],
)
def test_weights_that_are_missing_do_not_stay_random(copied, file, key):
    state = load_file(copied / file)
    (name,) = (name for name in state if name.endswith(key))
    del state[name]
    save_file(state, copied / file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"do not fit config\.json"):
        DepthDiffusion.load(copied)


def test_a_folder_of_2022_is_saved_with_todays_class_names(copied, tmp_path):
    _edit(copied, "model_index.json", feature_extractor=["transformers", "DPTFeatureExtractor"])
    DepthDiffusion.load(copied).save(tmp_path / "saved")
    StableDiffusionDepth2ImgPipeline.from_pretrained(tmp_path / "saved")


def test_pickled_weights_are_not_read(copied):
    (copied / "vae" / "diffusion_pytorch_model.safetensors").rename(copied / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"diffusion_pytorch_model\.bin, which would have to be unpickled"):
        DepthDiffusion.load(copied)


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(CheckpointError, match=r"model_index\.json: missing"):
        DepthDiffusion.load(tmp_path)
    with pytest.raises(CheckpointError, match="no such model folder"):
        DepthDiffusion.load(tmp_path / "nothing")


def test_sdxl_is_refused(copied):
    _edit(copied, "model_index.json", text_encoder_2=["transformers", "CLIPTextModelWithProjection"])
    with pytest.raises(CheckpointError, match="SDXL"):
        DepthDiffusion.load(copied)


def test_a_hub_id_that_cannot_be_had_names_mirror_and_local_path(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError) as error:
        DepthDiffusion.load("stabilityai/stable-diffusion-2-depth", revision="main")
    message = str(error.value)
    assert "November 2025" in message
    assert "sd2-community/stable-diffusion-2-depth" in message
    assert "local folder" in message


def test_sizes_that_the_model_cannot_divide(base):
    base.check_size(SIZE, 2 * SIZE)
    with pytest.raises(ConfigError, match="width 34: must divide by 4"):
        base.check_size(SIZE, 34)


def test_config_checks_sizes():
    with pytest.raises(ValueError, match="height: must divide by 16"):
        BaseConfig(height=100)
    with pytest.raises(ValueError, match="vae_channels: must divide by groups"):
        BaseConfig(vae_channels=(30, 64))
    with pytest.raises(ValueError, match="unet_chanels"):
        BaseConfig(unet_chanels=(32, 64))


def test_tokenizer_is_deterministic_and_reads_back(tmp_path):
    tokenizer = train_tokenizer(CAPTIONS, 540, 16)
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    again = train_tokenizer(reversed(CAPTIONS * 2), 540, 16)
    texts = [*CAPTIONS, "Ein Straßenbild, 12 Häuser!", ""]
    assert loaded(texts).input_ids == tokenizer(texts).input_ids == again(texts).input_ids
    assert max(tokenizer.get_vocab().values()) < 540
    assert loaded.tokenize("street") == ["street</w>"]
    assert loaded.decode(loaded(CAPTIONS[0]).input_ids, skip_special_tokens=True) == CAPTIONS[0]


# --- what is found out at load, not after the training


@pytest.mark.parametrize("missing", ["tokenizer.json", "folder"])
def test_a_base_without_a_vocabulary_is_refused(copied, missing):
    shutil.rmtree(copied / "tokenizer") if missing == "folder" else (copied / "tokenizer" / missing).unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer: no tokenizer's vocabulary: expected tokenizer\.json"):
        DepthDiffusion.load(copied)


def test_a_vocabulary_of_half_its_files_is_refused(copied):
    (copied / "tokenizer/tokenizer.json").unlink()
    (copied / "tokenizer/vocab.json").write_text('{"a": 0}')
    with pytest.raises(CheckpointError, match=r"merges\.txt"):
        DepthDiffusion.load(copied)


def test_a_tokenizer_of_another_model_is_refused(copied):
    train_tokenizer(["another street"], 520, TINY["max_tokens"]).save_pretrained(copied / "tokenizer")
    with pytest.raises(CheckpointError, match=r"tokenizer: a vocabulary of \d+ tokens, but text_encoder has embeddings of"):
        DepthDiffusion.load(copied)
    (copied / "tokenizer/tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot read the tokenizer"):
        DepthDiffusion.load(copied)


def _drop(name):
    return lambda folder: shutil.rmtree(folder / name)


def _entry(name, value):
    def change(folder):
        index = json.loads((folder / "model_index.json").read_text())
        index.pop(name) if value is None else index.update({name: value})
        (folder / "model_index.json").write_text(json.dumps(index))

    return change


def _rename(folder, old, new):
    (folder / old).rename(folder / new)


@pytest.mark.parametrize(
    ("change", "untrained"),
    [
        (_drop("feature_extractor"), True),
        (_drop("depth_estimator"), True),
        (lambda folder: (_drop("feature_extractor")(folder), _drop("depth_estimator")(folder)), False),
        (_entry("feature_extractor", None), False),
        (_entry("depth_estimator", [None, None]), False),
        (_entry("feature_extractor", ["transformers", "NoSuchProcessor"]), False),
        (lambda folder: _rename(folder, "depth_estimator/model.safetensors", "depth_estimator/pytorch_model.bin"), True),
        (lambda folder: _rename(folder, "depth_estimator/model.safetensors", "depth_estimator/model.fp16.safetensors"), True),
        (lambda folder: (folder / "depth_estimator/model.safetensors").write_bytes(b"cut"), True),
        (lambda folder: (folder / "feature_extractor/preprocessor_config.json").write_text("{"), True),
    ],
)
def test_whatever_loads_is_saved_and_read_by_diffusers(copied, tmp_path, capsys, change, untrained):
    change(copied)
    DepthDiffusion.load(copied).save(tmp_path / "saved")
    assert ("untrained depth estimator" in capsys.readouterr().err) == untrained
    pipe = StableDiffusionDepth2ImgPipeline.from_pretrained(tmp_path / "saved")
    assert pipe.depth_estimator is not None
    assert pipe.feature_extractor is not None


def test_a_variant_alone_is_read_and_several_are_refused(copied, base, tmp_path):
    for part, network in (("vae", base.vae), ("unet", base.unet)):
        shutil.rmtree(copied / part)
        network.save_pretrained(copied / part, variant="fp16")
    loaded = DepthDiffusion.load(copied)
    assert torch.equal(loaded.vae.decoder.conv_in.weight, base.vae.decoder.conv_in.weight)
    loaded.save(tmp_path / "saved")
    assert [path.name for path in (tmp_path / "saved/vae").glob("*.safetensors")] == ["diffusion_pytorch_model.safetensors"]
    vae = copied / "vae"
    shutil.copy(vae / "diffusion_pytorch_model.fp16.safetensors", vae / "diffusion_pytorch_model.bf16.safetensors")
    with pytest.raises(CheckpointError, match="variants bf16, fp16; save the model without variant"):
        DepthDiffusion.load(copied)


def test_a_part_of_the_weights_that_is_missing_is_named(copied, base):
    shutil.rmtree(copied / "unet")
    base.unet.save_pretrained(copied / "unet", max_shard_size="200KB")
    shards = sorted((copied / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    DepthDiffusion.load(copied)
    shards[-1].unlink()
    with pytest.raises(CheckpointError, match=rf"{shards[-1].name} missing, which .*index\.json lists"):
        DepthDiffusion.load(copied)


def test_parts_of_two_models_are_refused(copied, base, tmp_path):
    other = build_small_base(BaseConfig.smoke(**{**TINY, "text_width": TINY["text_width"] * 2}), CAPTIONS)
    shutil.rmtree(copied / "text_encoder")
    other.text_encoder.save_pretrained(copied / "text_encoder")
    with pytest.raises(CheckpointError, match=r"text_encoder's width .* do not fit"):
        DepthDiffusion.load(copied)
