"""Training a base from scratch, at a size of seconds."""

import json

import pytest
import torch
from diffusion.toy import SIZE, base_config, write_toy

from alberti.data.scenes import SceneConfig
from alberti.diffusion.base import DepthDiffusion, UNetTrainer, _EncodedOnce, _UNetLoss, train_base
from alberti.diffusion.image_losses import gradient_difference
from alberti.diffusion.sources import DatasetSource, SceneSource
from alberti.errors import ConfigError, DataError
from alberti.training.schedule import Batch
from alberti.training.settings import Optimisation

CPU = torch.device("cpu")


def _bytes(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def test_training_lowers_both_losses_and_sets_the_scale(trained, toy):
    folder, metrics = trained
    vae, unet = metrics["history"]["vae"], metrics["history"]["unet"]
    assert vae[-1]["loss"] < 0.8 * vae[0]["loss"]
    assert unet[-1]["loss"] < unet[0]["loss"]
    assert {"mse_t0", "mse_t3"} <= set(unet[-1])
    json.dumps(metrics)
    model = DepthDiffusion.load(folder)
    assert model.vae.config.scaling_factor == metrics["scaling_factor"] != 1
    data = DatasetSource(toy).batch(range(len(toy)), [0] * len(toy), CPU)
    with torch.no_grad():
        mean, deviation = model.encode_image(data["image"])
    assert (mean.square() + deviation.square()).mean().item() == pytest.approx(1, abs=1e-3)


def test_an_interrupted_training_ends_in_the_same_bytes(trained, toy, tmp_path, monkeypatch):
    import alberti.diffusion.base as module

    calls = []
    original = module._UNetLoss.compute

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(module._UNetLoss, "compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_base(toy, tmp_path / "model", base_config(), checkpoints=tmp_path / "checkpoints", device="cpu")
    assert not (tmp_path / "model").exists()
    monkeypatch.undo()
    metrics = train_base(toy, tmp_path / "model", base_config(), checkpoints=tmp_path / "checkpoints", device="cpu")
    assert metrics == trained[1]
    assert _bytes(tmp_path / "model") == _bytes(trained[0])


def test_it_trains_on_rendered_streets(tmp_path):
    source = SceneSource(8, seed=0, config=SceneConfig(width=SIZE, height=SIZE, supersample=1))
    short = Optimisation(steps=1, batch_size=2, lr=1e-3)
    config = base_config(vae=short, unet=short)
    metrics = train_base(source, tmp_path / "model", config, checkpoints=None, device="cpu")
    assert metrics["vae"]["psnr"] > 0
    assert DepthDiffusion.load(tmp_path / "model").tokenizer.tokenize("facades") == ["facades</w>"]


def test_it_goes_on_from_a_base_at_two_sizes(trained, toy, tmp_path):
    config = SceneConfig("mixed", 2 * SIZE, SIZE, 1, "driving")
    wide = SceneSource(3, seed=0, config=config, fresh=False)
    unet = Optimisation(steps=2, batch_size=4, lr=1e-3)
    made = train_base(
        toy, tmp_path / "model", base_config(unet=unet), checkpoints=None, device="cpu", others=[wide], start=trained[0]
    )
    before, after = DepthDiffusion.load(trained[0]), DepthDiffusion.load(tmp_path / "model")
    assert made["history"]["vae"] == []
    assert made["scaling_factor"] == before.vae.config.scaling_factor
    for key, value in before.vae.state_dict().items():
        assert torch.equal(value, after.vae.state_dict()[key])
    assert any(not torch.equal(value, after.unet.state_dict()[key]) for key, value in before.unet.state_dict().items())
    with pytest.raises(ConfigError, match="a multiple of the 2 sources"):
        odd = base_config(unet=Optimisation(steps=1, batch_size=3, lr=1e-3))
        train_base(toy, tmp_path / "odd", odd, checkpoints=None, device="cpu", others=[wide], start=trained[0])


def test_a_source_gives_its_share_of_a_batch_and_comes_round_more_often(trained, toy):
    wide = SceneSource(3, seed=0, config=SceneConfig("mixed", 2 * SIZE, SIZE, 1, "kitti"), fresh=False)
    model = DepthDiffusion.load(trained[0])
    config = base_config(unet=Optimisation(steps=1, batch_size=4, lr=1e-3))
    encoded = [_EncodedOnce(DatasetSource(toy), model, config), _EncodedOnce(wide, model, config)]
    loss = _UNetLoss(encoded, config, model)
    batch = Batch([0, 1, 4, 5], [0, 0, 2, 2], 0)
    rounds = -(-len(toy) // 3)
    assert loss._share(batch, 0, len(toy)) == Batch([0, 1], [0, 0], 0)
    assert loss._share(batch, 1, 3) == Batch([1, 2], [2 * rounds + 1, 2 * rounds + 1], 0)
    inputs = loss.prepare(batch, CPU)
    assert inputs["mean/1"].shape[-1] == 2 * inputs["mean/0"].shape[-1]
    losses, values = loss.compute(UNetTrainer(model), inputs)
    assert losses.shape == values["mse"].shape == (4,)
    alone = _UNetLoss(encoded[:1], config, model)
    first, _ = alone.compute(UNetTrainer(model), alone.prepare(Batch([0, 1], [0, 0], 0), CPU))
    torch.testing.assert_close(losses[:2], first)


def test_another_picture_size_is_refused(toy, tmp_path):
    with pytest.raises(ConfigError, match="32 x 32 pixels, but the base is set up for 64 x 64"):
        train_base(toy, tmp_path / "model", base_config(height=64, width=64), checkpoints=None, device="cpu")


def test_scene_source_is_fresh_or_kept():
    config = SceneConfig(width=32, height=32, supersample=1)
    fresh, kept = SceneSource(4, 0, config), SceneSource(4, 0, config, fresh=False)
    first, again = fresh.batch([1, 2], [0, 0], CPU), fresh.batch([1, 2], [0, 1], CPU)
    assert torch.equal(first["image"][0], again["image"][0])
    assert not torch.equal(first["image"][1], again["image"][1])
    stored = kept.batch([2, 1], [5, 6], CPU)
    assert torch.equal(stored["image"].flip(0), first["image"])
    assert torch.equal(stored["vanishing_points"].flip(0), first["vanishing_points"])
    assert stored["captions"] == first["captions"][::-1]
    assert stored["ids"] == first["ids"][::-1]


def test_dataset_source_reads_what_is_there(toy):
    source = DatasetSource(toy)
    batch = source.batch([3, 0], [0, 0], CPU)
    assert batch["ids"] == ["toy-3", "toy-0"]
    expected = torch.from_numpy(toy.read_image(toy[3])).permute(2, 0, 1) / 255
    torch.testing.assert_close(batch["image"][0], expected)
    torch.testing.assert_close(batch["depth"][1], torch.from_numpy(toy.read_depth(toy[0])))
    torch.testing.assert_close(batch["vanishing_points"][0, 0], torch.tensor(toy[3].vanishing_points[0]))


def test_dataset_source_keeps_large_sets_in_a_file(toy, monkeypatch):
    import alberti.diffusion.sources as module

    whole = DatasetSource(toy).batch([1, 4], [0, 0], CPU)
    monkeypatch.setattr(module, "_IN_MEMORY", 100)
    mapped = DatasetSource(toy).batch([1, 4], [0, 0], CPU)
    assert torch.equal(mapped["image"], whole["image"])
    assert torch.equal(mapped["depth"], whole["depth"])


def test_dataset_source_refuses_several_sizes_and_missing_depth(toy, tmp_path):
    other = write_toy(tmp_path / "data", count=2)
    samples = other.samples
    other.samples = [samples[0], samples[1].model_copy(update={"width": 64})]
    with pytest.raises(DataError, match=r"toy-1.*64 x 32.*one size"):
        DatasetSource(other)
    other.samples = [samples[0], samples[1].model_copy(update={"depth": None})]
    with pytest.raises(DataError, match=r"toy-1.*no depth"):
        DatasetSource(other)


def test_gradient_difference_sees_edges_and_not_brightness():
    image = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(gradient_difference(image + 0.3, image), torch.zeros(2), atol=1e-6, rtol=0)
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    # a slope of 1 across: 1, 2 and 4 a pixel at the three scales, over three
    assert gradient_difference(ramp, torch.zeros_like(ramp)).item() == pytest.approx(7 / 3)
