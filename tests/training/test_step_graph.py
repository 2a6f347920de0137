import pytest
import torch
from torch import nn

from alberti.training import Batch, Optimisation, train_loop


class _Regression:
    """A loss in two parts: y = 3 x for inputs drawn from the batch's indices."""

    def prepare(self, batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
        return {"x": torch.tensor(batch.indices, dtype=torch.float32)[:, None] / 10}

    def compute(self, model: nn.Module, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        losses = (model(inputs["x"]) - 3 * inputs["x"]).square().mean(dim=1)
        return losses, {"square": losses.detach()}

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        device = next(model.parameters()).device
        return self.compute(model, {name: value.to(device) for name, value in self.prepare(batch, device).items()})


def _train(device, checkpoints=None, stop=None, **changes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 1))
    settings = {
        "steps": 40,
        "batch_size": 8,
        "lr": 1e-2,
        "lr_schedule": "cosine",
        "warmup_steps": 5,
        "ema_decay": 0.9,
        "log_every": 10,
    }
    config = Optimisation(**settings | {"checkpoint_every": 10 if checkpoints else 0} | changes)

    def on_step(step, _):
        if step == stop:
            raise KeyboardInterrupt

    return train_loop(
        model,
        _Regression(),
        20,
        config,
        checkpoints=checkpoints,
        run_key={},
        description="test",
        device=device,
        on_step=on_step,
    )


def test_on_a_cpu_nothing_is_captured():
    plain, asked = _train("cpu"), _train("cpu", cuda_graph=True)
    assert plain.history == asked.history
    assert all(torch.equal(plain.ema_state[name], asked.ema_state[name]) for name in plain.ema_state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="captures CUDA work")
def test_a_captured_training_is_the_same_training():
    plain, captured = _train("cuda"), _train("cuda", cuda_graph=True)
    for before, after in zip(plain.history, captured.history, strict=True):
        assert after == pytest.approx(before, rel=1e-4)
    for name, value in plain.ema_state.items():
        assert torch.allclose(value, captured.ema_state[name], rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="captures CUDA work")
def test_a_captured_training_resumes(tmp_path):
    whole = _train("cuda", cuda_graph=True)
    with pytest.raises(KeyboardInterrupt):
        _train("cuda", tmp_path, stop=25, cuda_graph=True)
    resumed = _train("cuda", tmp_path, cuda_graph=True)
    assert [row["loss"] for row in resumed.history] == pytest.approx([row["loss"] for row in whole.history], rel=1e-4)
