"""The training loop: resume, processes, averages, learning rate, failures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from alberti.checkpoints import Checkpoints, flatten_state, unflatten_state
from alberti.errors import CheckpointError, ConfigError
from alberti.seeding import torch_generator
from alberti.training import Batch, NonFiniteLossError, Optimisation, global_batch, logged_to, lr_at, train_loop

CONFIG = Optimisation(steps=12, batch_size=4, lr=1e-2, ema_decay=0.9, checkpoint_every=3, log_every=5, warmup_steps=2, seed=3)


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.Linear(8, 1))


def _loss(model: nn.Module, batch: Batch):
    pairs = zip(batch.indices, batch.visits, strict=True)
    inputs = torch.stack([torch.randn(3, generator=torch_generator(1, index, visit)) for index, visit in pairs])
    losses = (model(inputs)[:, 0] - inputs.sum(1)).square()
    return losses, {"first": torch.where(torch.tensor(batch.indices) < 2, losses, torch.nan)}


class Killed(Exception):
    pass


def _train(folder: Path | None, stop_after: int | None = None, loss=_loss, config=CONFIG):
    def on_step(done: int, model: nn.Module) -> None:
        if done == stop_after:
            raise Killed

    return train_loop(
        _model(), loss, 10, config, checkpoints=folder, run_key={"test": 1}, description="test", device="cpu", on_step=on_step
    )


def _assert_same(a, b):
    assert a.history == b.history
    for name, value in a.model.state_dict().items():
        assert torch.equal(value, b.model.state_dict()[name])
    for name, value in a.ema_state.items():
        assert torch.equal(value, b.ema_state[name])


@pytest.mark.parametrize("stop_after", [1, 3, 7, 11])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, stop_after):
    with pytest.raises(Killed):
        _train(tmp_path, stop_after)
    _assert_same(_train(tmp_path), _train(None))


def test_what_is_logged_comes_once_even_after_an_interruption(tmp_path):
    seen = []
    with logged_to(lambda description, rows: seen.append([(description, row["step"]) for row in rows])):
        with pytest.raises(Killed):
            _train(tmp_path, 11)
        assert seen == [[("test", 5.0)], [("test", 10.0)]]
        seen.clear()
        history = _train(tmp_path).history  # goes on from step 9
    assert [row["step"] for row in history] == [5.0, 10.0, 12.0]
    assert seen == [[("test", 5.0)], [("test", 10.0)], [("test", 12.0)]]
    seen.clear()
    _train(tmp_path)
    assert seen == []  # nobody listens any more


def test_a_damaged_checkpoint_is_reported_and_the_one_before_used(tmp_path, capsys):
    with pytest.raises(Killed):
        _train(tmp_path, 8)
    newest = next(tmp_path.glob("*/step-6/state.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-7])
    _assert_same(_train(tmp_path), _train(None))
    assert "checkpoint of step 6" in capsys.readouterr().err


def test_only_damaged_checkpoints_are_an_error(tmp_path):
    with pytest.raises(Killed):
        _train(tmp_path, 8)
    for path in tmp_path.glob("*/step-*/state.json"):
        path.write_text("{")
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        _train(tmp_path)


def test_another_run_key_does_not_see_the_checkpoints(tmp_path):
    Checkpoints(tmp_path, {"a": 1}).save(1, {"x": torch.ones(1)})
    assert Checkpoints(tmp_path, {"a": 2}).load_latest() is None


def test_state_survives_flattening():
    state = {"a": {0: torch.arange(3), "b": [1, None, (2.5, "x")]}, "c": torch.tensor(True)}
    skeleton, tensors = flatten_state(state)
    back = unflatten_state(json.loads(json.dumps(skeleton)), tensors)
    assert back["a"]["b"] == [1, None, (2.5, "x")]
    assert torch.equal(back["a"][0], torch.arange(3))
    assert back["c"].item() is True


def test_ema_follows_its_closed_form():
    seen = []
    result = train_loop(
        _model(),
        _loss,
        10,
        CONFIG,
        checkpoints=None,
        run_key={},
        description="test",
        device="cpu",
        on_step=lambda done, model: seen.append(model[0].weight.detach().clone()),
    )
    d, n = CONFIG.ema_decay, CONFIG.steps
    expected = d**n * _model()[0].weight + sum((1 - d) * d ** (n - 1 - i) * value for i, value in enumerate(seen))
    torch.testing.assert_close(result.ema_state["0.weight"], expected)


def test_every_sample_comes_once_an_epoch_and_batches_depend_on_the_step_alone():
    batches = [global_batch(5, step, 4, 10) for step in range(5)]
    flat = [pair for batch in batches for pair in zip(batch.visits, batch.indices, strict=True)]
    assert sorted(flat) == [(epoch, index) for epoch in range(2) for index in range(10)]
    assert global_batch(5, 3, 4, 10) == batches[3]


def test_learning_rate_schedule_at_its_corners():
    config = Optimisation(steps=110, batch_size=1, lr=1.0, lr_schedule="cosine", lr_final=0.1, warmup_steps=10)
    assert lr_at(0, config) == pytest.approx(0.1)
    assert lr_at(9, config) == lr_at(10, config) == pytest.approx(1.0)
    assert lr_at(60, config) == pytest.approx(0.55)
    assert lr_at(110, config) == pytest.approx(0.1)


def test_polynomial_rate_falls_with_power_nine_tenths():
    config = Optimisation(steps=100, batch_size=1, lr=1.0, lr_schedule="polynomial", lr_final=0.1)
    assert lr_at(0, config) == pytest.approx(1.0)
    assert lr_at(50, config) == pytest.approx(0.1 + 0.9 * 0.5**0.9)
    with pytest.raises(ValidationError, match="lr_schedule"):
        Optimisation(steps=1, batch_size=1, lr=1.0, lr_schedule="linear")


def test_micro_batches_give_the_same_training():
    whole = _train(None, config=Optimisation(steps=6, batch_size=4, lr=1e-2), loss=_deterministic_loss)
    parts = _train(None, config=Optimisation(steps=6, batch_size=4, lr=1e-2, accumulate=2), loss=_deterministic_loss)
    torch.testing.assert_close(whole.model[0].weight, parts.model[0].weight, rtol=1e-5, atol=1e-6)


def _deterministic_loss(model, batch):
    model.eval()
    return _loss(model, batch)


def test_a_value_that_applies_to_no_sample_is_left_out_of_the_log():
    history = _train(None, loss=lambda model, batch: (_loss(model, batch)[0], {"never": torch.full((4,), torch.nan)})).history
    assert all("never" not in row and "loss" in row for row in history)


def test_non_finite_loss_names_step_and_samples(tmp_path):
    def loss(model, batch):
        losses, values = _loss(model, batch)
        return losses * (torch.nan if batch.step == 4 else 1.0), values

    with pytest.raises(NonFiniteLossError, match="step 4") as error:
        _train(tmp_path, loss=loss)
    written = json.loads(next(tmp_path.glob("*/not-finite-step-4.json")).read_text())
    assert written["indices"] == global_batch(3, 4, 4, 10).indices
    assert str(written["indices"]) in str(error.value)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match="does not divide"):
        _train(None, config=Optimisation(steps=1, batch_size=3, lr=1e-2, accumulate=2))


_SCRIPT = """
import sys, torch
sys.path.insert(0, {tests!r})
from test_loop import _deterministic_loss, _model
from alberti.training import Optimisation, train_loop
from pathlib import Path
config = Optimisation(steps=8, batch_size=4, lr=1e-2, ema_decay=0.9, checkpoint_every=3, log_every=5, seed=3)
result = train_loop(_model(), _deterministic_loss, 10, config, checkpoints=Path({folder!r}) / "checkpoints", run_key={{}},
                    description="two", device="cpu")
import json, os
if os.environ.get("RANK", "0") == "0":
    weights = [value.tolist() for value in result.model.state_dict().values()]
    Path({folder!r}, "out.json").write_text(json.dumps([result.history, weights]))
"""


def test_two_processes_give_the_curve_of_one(tmp_path):
    outputs = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        script = folder / "train.py"
        script.write_text(_SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder)))
        launcher = [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        env = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, *launcher, str(script)], check=True, env=env, timeout=120)
        outputs.append(json.loads((folder / "out.json").read_text()))
    (history_one, weights_one), (history_two, weights_two) = outputs
    for one, two in zip(history_one, history_two, strict=True):
        assert one == pytest.approx(two, rel=1e-4)
    for one, two in zip(weights_one, weights_two, strict=True):
        torch.testing.assert_close(torch.tensor(one), torch.tensor(two), rtol=1e-4, atol=1e-5)


def test_the_process_is_left_as_it_was():
    before = torch.backends.cudnn.benchmark
    seen = []
    _train(None, loss=lambda model, batch: (seen.append(torch.backends.cudnn.benchmark), _loss(model, batch))[1])
    assert seen
    assert all(seen)
    assert torch.backends.cudnn.benchmark == before
