"""A distilled tiny decoder stands in for the VAE's in the constraint."""

import pytest
import torch
from diffusion.toy import SIZE

from alberti.diffusion.base import DepthDiffusion
from alberti.diffusion.config import FinetuneConfig, TinyDecoderConfig
from alberti.diffusion.tiny import build_tiny_decoder, distil_tiny_decoder
from alberti.diffusion.train import finetune
from alberti.training.settings import Optimisation


def test_it_learns_to_decode_and_is_used(base_folder, toy, points, tmp_path):
    base = DepthDiffusion.load(base_folder)
    training = Optimisation(steps=30, batch_size=4, lr=5e-3, lr_schedule="cosine", log_every=5)
    config = TinyDecoderConfig(training=training, width=8, blocks=1)
    history = distil_tiny_decoder(base, toy, config, checkpoints=None, device="cpu")
    assert history[-1]["l1"] < 0.6 * history[0]["l1"]
    base.save(tmp_path / "model")
    loaded = DepthDiffusion.load(tmp_path / "model")
    latents = torch.randn(2, 4, SIZE // 2, SIZE // 2)
    with torch.no_grad():
        assert torch.equal(loaded.decode(latents, tiny=True), base.decode(latents, tiny=True))
        error = (loaded.decode(latents, tiny=True) - loaded.decode(latents)).abs().mean()
    assert error < 0.3
    tuned = FinetuneConfig(training=Optimisation(steps=2, batch_size=2, lr=1e-5, log_every=1), decoder="tiny", num_lines=50)
    result = finetune(loaded, toy, points, tuned, checkpoints=None, run_key={}, device="cpu")
    assert result.history[-1]["constraint"] > 0
    assert result.model.tiny_decoder is not None


def test_it_has_the_factor_of_its_vae(base):
    tiny = build_tiny_decoder(base, TinyDecoderConfig(width=8, blocks=1))
    assert tiny.decode(torch.zeros(1, 4, 8, 8)).sample.shape == (1, 3, 8 * base.factor, 8 * base.factor)


def test_checkpoints_go_only_when_the_result_is_there(base_folder, toy, tmp_path, monkeypatch):
    config = TinyDecoderConfig(training=Optimisation(steps=2, batch_size=2, lr=5e-4, checkpoint_every=1), width=8, blocks=1)
    kept = tmp_path / "checkpoints"

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    options = {"checkpoints": kept, "device": "cpu", "out": tmp_path / "out"}
    monkeypatch.setattr(DepthDiffusion, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        distil_tiny_decoder(DepthDiffusion.load(base_folder), toy, config, **options)
    assert list(kept.rglob("state.safetensors"))
    monkeypatch.undo()
    distil_tiny_decoder(DepthDiffusion.load(base_folder), toy, config, **options)
    assert DepthDiffusion.load(tmp_path / "out").tiny_decoder is not None
    assert not list(kept.rglob("state.safetensors"))
