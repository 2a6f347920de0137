"""Fine-tuning: what the arms share, what the constraint does, what is refused."""

import copy

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusion.toy import SIZE, finetune_config
from pydantic import ValidationError

from alberti.diffusion.base import DepthDiffusion
from alberti.diffusion.config import ConstraintSettings, FinetuneConfig
from alberti.diffusion.constrained import ConstraintTerm, _ValuesWithGradient
from alberti.diffusion.decoding import ChannelsLastGroupNorm
from alberti.diffusion.latents import training_cache
from alberti.diffusion.randomness import chance, gaussian, timesteps
from alberti.diffusion.sources import DatasetSource
from alberti.diffusion.train import Objective, finetune
from alberti.errors import CheckpointError, ConfigError, DataError
from alberti.training import Batch, NonFiniteLossError
from alberti.training.settings import Optimisation

CPU = torch.device("cpu")


def _config(**changes) -> FinetuneConfig:
    return finetune_config(**({"steps": 4, "batch_size": 4, "lr": 1e-3, "num_lines": 60, "log_every": 1} | changes))


def _run(base_folder, toy, points, config, checkpoints=None, **options):
    base = DepthDiffusion.load(base_folder)
    return finetune(base, toy, points, config, checkpoints=checkpoints, run_key={}, device="cpu", **options)


def _weights(result) -> torch.Tensor:
    return torch.cat([value.flatten() for value in result.model.unet.parameters()]).detach()


def _same_update(one, other, base_folder) -> bool:
    """Whether two runs moved the weights alike: Adam turns the rounding of a vanishing gradient into a small step."""
    start = torch.cat([value.flatten() for value in DepthDiffusion.load(base_folder).unet.parameters()]).detach()
    return bool((_weights(one) - _weights(other)).norm() < 0.02 * (_weights(one) - start).norm())


def test_the_constraint_is_lowered(trained, toy, points):
    common = {"steps": 20, "lr": 2e-3}
    weak = _run(trained[0], toy, points, _config(weight=1e-9, **common))
    strong = _run(trained[0], toy, points, _config(weight=3.0, **common))
    # The same noise and order at every step, so the two differ by the constraint alone.
    assert strong.history[0]["constraint"] == weak.history[0]["constraint"]
    tail = slice(-8, None)
    after = [np.mean([row["constraint"] for row in run.history[tail]]) for run in (strong, weak)]
    assert after[0] < 0.97 * after[1]


def test_arms_see_the_same_noise_and_order(base_folder, toy, points):
    runs = [
        _run(base_folder, toy, points, _config(steps=1, **arm))
        for arm in ({"constraint": None}, {"weight": 0.5}, {"constraint": "orientation", "schedule": "alpha_bar"})
    ]
    first = [{name: value for name, value in run.history[0].items() if name.startswith("mse")} for run in runs]
    assert first[0] == first[1] == first[2]
    assert "constraint" not in runs[0].history[0]
    assert not torch.equal(_weights(runs[0]), _weights(runs[1]))


def test_draws_depend_on_seed_id_and_visit_only():
    together = gaussian(0, "noise", ["a", "b"], [0, 3], (2, 2), CPU)
    assert torch.equal(together[1:], gaussian(0, "noise", ["b"], [3], (2, 2), CPU))
    for other in (gaussian(1, "noise", ["b"], [3], (2, 2), CPU), gaussian(0, "latent", ["b"], [3], (2, 2), CPU)):
        assert not torch.equal(together[1:], other)
    ids, visits = [str(index) for index in range(400)], [0] * 400
    assert 150 < int(chance(0, "flip", ids, visits, 0.5).sum()) < 250
    t = timesteps(0, ids, visits, 1000)
    assert 0 <= int(t.min()) < 50
    assert 950 < int(t.max()) < 1000


def test_draws_are_standard_normal_and_independent():
    draws = gaussian(0, "noise", [str(index) for index in range(50)], [0] * 50, (3, 41, 33), CPU).double()
    values = draws.flatten()
    assert values.isfinite().all()
    assert abs(values.mean().item()) < 0.01
    assert values.var().item() == pytest.approx(1, abs=0.01)
    assert (values**4).mean().item() == pytest.approx(3, abs=0.05)
    flat = draws.flatten(1)
    across = torch.corrcoef(flat) - torch.eye(len(flat), dtype=torch.float64)
    assert across.abs().max() < 6 / flat.shape[1] ** 0.5
    for lag in (1, 33, flat.shape[1] // 2 + 1):
        assert abs((flat[:, lag:] * flat[:, :-lag]).mean().item()) < 6 / values.numel() ** 0.5


def test_interrupted_and_resumed_equals_uninterrupted(base_folder, toy, points, tmp_path, monkeypatch):
    config = _config(steps=6, checkpoint_every=2, ema_decay=0.9)
    whole = _run(base_folder, toy, points, config)
    original, calls = Objective.__call__, []

    def interrupted(self, model, batch):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(self, model, batch)

    monkeypatch.setattr(Objective, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _run(base_folder, toy, points, config, tmp_path)
    monkeypatch.undo()
    resumed = _run(base_folder, toy, points, config, tmp_path)
    assert resumed.history == whole.history
    assert torch.equal(_weights(resumed), _weights(whole))
    assert list(tmp_path.glob("*/step-*"))
    resumed.discard_checkpoints()
    assert not list(tmp_path.glob("*/step-*"))


def test_micro_batches_make_the_same_step(base_folder, toy, points):
    whole = _run(base_folder, toy, points, _config(steps=2))
    parts = _run(base_folder, toy, points, _config(steps=2, accumulate=2))
    assert _same_update(parts, whole, base_folder)
    assert parts.history[-1]["loss"] == pytest.approx(whole.history[-1]["loss"], rel=1e-4)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunked_values_and_gradients_are_those_of_plain_autograd(chunk):
    latents = torch.randn(5, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    scale = torch.arange(1.0, 6.0, dtype=torch.float64)

    def value(part, where):
        return scale[where] * part.sin().square().sum(dim=(1, 2, 3))

    weights = torch.rand(5, dtype=torch.float64)
    values = _ValuesWithGradient.apply(latents, value, chunk)
    (found,) = torch.autograd.grad((weights * values).sum(), latents)
    plain = value(latents, slice(None))
    (wanted,) = torch.autograd.grad((weights * plain).sum(), latents)
    torch.testing.assert_close(values, plain)
    torch.testing.assert_close(found, wanted)


def test_the_constraint_decodes_as_the_model_does(base, toy):
    data = DatasetSource(toy).batch([0, 1], [0, 0], CPU)
    term = ConstraintTerm(base, _config(decode_chunk=1), CPU)
    latents = torch.randn(2, 4, SIZE // 2, SIZE // 2)
    with torch.no_grad():
        decoded = base.decode(latents).clamp(0, 1)
    points = data["vanishing_points"]
    expected = term.constraint(decoded, data["image"], points, torch.ones(2), num_lines=60)
    torch.testing.assert_close(term(latents, data["image"], points, torch.ones(2)), expected)


def test_the_decoder_alone_can_be_compiled(base):
    plain, compiled = (ConstraintTerm(base, _config(compile_decoder=chosen), CPU) for chosen in (False, True))
    assert plain.decoder._compiled_call_impl is None
    assert compiled.decoder._compiled_call_impl is not None
    assert (plain.channels_last, compiled.channels_last) == (False, True)
    assert any(isinstance(module, ChannelsLastGroupNorm) for module in compiled.decoder.modules())
    assert [part._compiled_call_impl for part in (base.vae, base.unet)] == [None, None]


def test_samples_without_vanishing_points_are_counted_and_contribute_zero(base_folder, toy, points):
    some = {name: (value if index % 2 else []) for index, (name, value) in enumerate(points.items())}
    result = _run(base_folder, toy, some, _config(weight=10.0, steps=3, batch_size=2))
    assert result.counts == {
        "samples": 6,
        "without_vanishing_points": 3,
        "trained_parameters": sum(p.numel() for p in result.model.unet.parameters()),
    }
    del some["toy-1"]  # missing altogether counts the same
    assert _run(base_folder, toy, some, _config(steps=1)).counts["without_vanishing_points"] == 4


def test_the_loss_of_a_sample_without_points_is_its_denoising_loss(base, toy, points):
    config = _config(weight=10.0)
    some = {name: value for name, value in points.items() if name != "toy-2"}
    cache = training_cache(base, DatasetSource(toy, some), None, CPU)
    objective = Objective(base, cache, config, ConstraintTerm(base, config, CPU))
    losses, values = objective(base.denoiser(), Batch([1, 2, 3], [0, 0, 0], 0))
    torch.testing.assert_close(losses[1], values["mse"][1])
    assert values["constraint"].isnan().tolist() == [False, True, False]
    torch.testing.assert_close(losses[0], values["mse"][0] + 10 * values["constraint"][0])


def test_the_window_of_timesteps_decides_who_is_decoded(base, toy, points):
    config = _config(schedule="t_max", t_min=300, t_max=700)
    cache = training_cache(base, DatasetSource(toy, points), None, CPU)
    objective = Objective(base, cache, config, ConstraintTerm(base, config, CPU))
    indices, visits = [0, 1, 2, 3, 4, 5], [0] * 6
    _, values = objective(base.denoiser(), Batch(indices, visits, 0))
    t = timesteps(config.training.seed, cache.ids, visits, 1000)
    inside = (t >= 300) & (t <= 700)
    assert 0 < int(inside.sum()) < 6
    assert torch.equal(~values["constraint"].isnan(), inside)


def test_the_cache_holds_what_the_model_computes(base, toy, points, tmp_path):
    cache = training_cache(base, DatasetSource(toy, points), tmp_path, CPU)
    flipped, dropped = torch.tensor([False, True]), torch.tensor([True, False])
    found = cache.batch([1, 4], flipped, dropped, CPU)
    data = DatasetSource(toy).batch([1, 4], [0, 0], CPU)
    images = torch.stack([data["image"][0], data["image"][1].flip(-1)])
    depth = torch.stack([data["depth"][0], data["depth"][1].flip(-1)])
    with torch.no_grad():
        mean, deviation = base.encode_image(images)
        text = base.encode_text(["", data["captions"][1]])
    for name, wanted in {"mean": mean, "deviation": deviation, "condition": base.condition(depth), "text": text}.items():
        torch.testing.assert_close(getattr(found, name), wanted, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(cache.images([1, 4], flipped, CPU), images)
    x, y, w = data["vanishing_points"][1, 0].double()
    moved = cache.points([1, 4], flipped)[1, 0]
    torch.testing.assert_close((moved[:2] / moved[2]).double(), torch.stack([SIZE - 1 - x / w, y / w]), rtol=1e-4, atol=1e-3)
    stored = sorted((tmp_path / "latents").glob("*/*.npy"))
    times = [path.stat().st_mtime_ns for path in stored]
    training_cache(base, DatasetSource(toy, points), tmp_path, CPU)
    assert [path.stat().st_mtime_ns for path in stored] == times


def test_lora_trains_the_adapters_only(base_folder, toy, points, tmp_path):
    before = DepthDiffusion.load(base_folder)
    result = _run(base_folder, toy, points, _config(lora_rank=2, constraint=None, steps=2))
    assert result.counts["trained_parameters"] < 0.1 * sum(p.numel() for p in before.unet.parameters())
    frozen = {n.replace(".base_layer", ""): p for n, p in result.model.unet.named_parameters() if "lora" not in n}
    assert all(torch.equal(frozen[name], value) for name, value in before.unet.named_parameters())
    result.model.save(tmp_path / "model")
    assert (tmp_path / "model" / "lora" / "pytorch_lora_weights.safetensors").is_file()
    merged = DepthDiffusion.load(tmp_path / "model")
    assert any(not torch.equal(a, b) for a, b in zip(merged.unet.parameters(), before.unet.parameters(), strict=True))


def test_gradient_checkpointing_ema_min_snr_and_dropout_run(base_folder, toy, points):
    options = {
        "gradient_checkpointing": True,
        "channels_last": True,
        "ema_decay": 0.5,
        "min_snr_gamma": 5.0,
        "caption_dropout": 0.5,
    }
    plain = _run(base_folder, toy, points, _config(steps=2, caption_dropout=0.5, min_snr_gamma=5.0, ema_decay=0.5))
    result = _run(base_folder, toy, points, _config(steps=2, **options))
    assert _same_update(result, plain, base_folder)
    assert result.history[-1]["loss"] != result.history[-1]["mse"]


def test_bfloat16_runs_on_the_cpu(base_folder, toy, points):
    exact = _run(base_folder, toy, points, _config(steps=1))
    rounded = _run(base_folder, toy, points, _config(steps=1, precision="bf16"))
    for name in ("mse", "constraint"):
        assert rounded.history[0][name] == pytest.approx(exact.history[0][name], rel=0.05)
    assert _weights(rounded).dtype == torch.float32


def test_a_flow_matching_base(base_folder, toy, points):
    base = DepthDiffusion.load(base_folder)
    base.scheduler = FlowMatchEulerDiscreteScheduler()
    config = _config(steps=1, prediction_type="flow")
    result = finetune(base, toy, points, config, checkpoints=None, run_key={}, device="cpu")
    assert result.history[0]["constraint"] > 0


@pytest.mark.parametrize("part", ["controlnet", "all"])
def test_a_controlnet_base(controlnet_base, toy, points, part):
    before = copy.deepcopy(controlnet_base.modules())
    config = _config(steps=2, train=part)
    result = finetune(controlnet_base, toy, points, config, checkpoints=None, run_key={}, device="cpu")
    for name, module in result.model.modules().items():
        old = before[name].parameters()
        changed = any(not torch.equal(a, b) for a, b in zip(module.parameters(), old, strict=True))
        assert changed == (name == "controlnet" or (name == "unet" and part == "all"))


def test_validation_pictures_do_not_change_the_run(base_folder, toy, points, tmp_path):
    config = _config(steps=3, validate_every=2, validation_samples=2)
    shown = _run(base_folder, toy, points, config, validation=tmp_path)
    assert torch.equal(_weights(shown), _weights(_run(base_folder, toy, points, config)))
    pictures = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    assert pictures == ["000002/toy-0.png", "000002/toy-1.png", "000003/toy-0.png", "000003/toy-1.png"]


def test_a_non_finite_loss_stops_and_is_saved(base_folder, toy, points, tmp_path, monkeypatch):
    import alberti.diffusion.train as module

    def broken(*args, **options):
        return args[0].mean(dim=(1, 2, 3)) * torch.nan

    monkeypatch.setattr(module, "denoising_loss", broken)
    with pytest.raises(NonFiniteLossError, match="step 0"):
        _run(base_folder, toy, points, _config(), tmp_path)
    assert list(tmp_path.rglob("not-finite-step-0.json"))


def test_no_vanishing_points_at_all_is_an_error_with_a_constraint(base_folder, toy):
    with pytest.raises(DataError, match="not one of the 6 images has a vanishing point"):
        _run(base_folder, toy, {}, _config())
    assert _run(base_folder, toy, {}, _config(constraint=None, steps=1)).counts["without_vanishing_points"] == 6


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"constraint": "perspektive"}, ConfigError, "constraint: expected one of"),
        ({"decoder": "tiny"}, ConfigError, "distil"),
        ({"train": "controlnet"}, ConfigError, "needs a base with a ControlNet"),
        ({"prediction_type": "epsilon"}, CheckpointError, r"'epsilon'.*'v_prediction'"),
        ({"batch_size": 3, "accumulate": 2}, ConfigError, "batch_size 3"),
    ],
)
def test_what_cannot_be_done_is_refused(base_folder, toy, points, changes, error, message):
    with pytest.raises(error, match=message):
        _run(base_folder, toy, points, _config(**changes))


def test_what_only_a_constraint_uses_is_there_exactly_with_one():
    training = Optimisation(steps=1, batch_size=1, lr=1.0)
    plain, acting = FinetuneConfig(training=training, constraint=None), FinetuneConfig(training=training, weight=0.5)
    assert plain.constrained is None
    assert {getattr(plain, name) for name in ConstraintSettings.model_fields} == {None}
    assert acting.constrained == ConstraintSettings(weight=0.5)
    assert set(ConstraintSettings.model_fields) < set(FinetuneConfig.model_fields)
    for config in (plain, acting):
        assert FinetuneConfig.model_validate(config.model_dump()) == config
    with pytest.raises(ValidationError, match="num_lines: only a constraint makes use of it"):
        FinetuneConfig(training=training, constraint=None, num_lines=50)
    with pytest.raises(ValidationError, match="decoder: the constraint 'perspective' needs a value"):
        FinetuneConfig(training=training, decoder=None)


def test_config_refuses_contradictions_and_misspellings():
    with pytest.raises(ValueError, match="t_min"):
        _config(t_min=500, t_max=100)
    with pytest.raises(ValueError, match="lora_rank"):
        _config(lora_rank=4, train="all")
    with pytest.raises(ValueError, match="wieght"):
        _config(wieght=1)
