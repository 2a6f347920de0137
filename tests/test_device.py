"""The choice of a device, and the marker of absent points."""

import numpy as np
import pytest
import torch

from alberti.device import choose_device
from alberti.errors import ConfigError
from alberti.geometry.presence import present


def test_a_device_is_what_is_named_or_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    best = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device().type == choose_device("auto").type == best
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")
    for name in ("abacus", "cuda:99"):
        with pytest.raises(ConfigError, match=f"device: '{name}' cannot be used here.*expected cpu, cuda"):
            choose_device(name)


def test_launched_processes_have_a_gpu_each_unless_they_are_kept_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device() == torch.device("cuda:3")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert choose_device() == torch.device("cpu")


def test_rows_of_zeros_are_no_points() -> None:
    rows = np.array([[0.6, 0.8, 0.0], [0, 0, 0], [0, 0, 1e-9], [-1, 0, 0]])
    expected = [True, False, True, True]
    assert present(rows).tolist() == expected
    assert present(torch.tensor(rows).expand(2, 4, 3)).tolist() == [expected] * 2
    assert present(np.zeros((0, 3))).shape == (0,)
    assert not present(rows[1])
