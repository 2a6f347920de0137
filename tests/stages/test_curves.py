"""Curves of trainings: a file for each quantity, whole after an interruption."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from torch import nn

from alberti.training import train_loop
from alberti.training.settings import Optimisation
from stages.shared.curves import curves, read_curves

Stage = Callable[..., tuple[int, str]]


def _train(description: str = "test", steps: int = 6, extra: dict[str, float] | None = None) -> list[dict[str, float]]:
    model = nn.Linear(2, 1)
    config = Optimisation(steps=steps, batch_size=2, lr=0.1, log_every=2)

    def loss(wrapped, batch):
        values = wrapped(torch.ones(2, 2))[:, 0].square()
        more = {name: torch.full((2,), value) for name, value in (extra or {}).items()}
        return values, {"sometimes": torch.full((2,), float("nan") if batch.step > 1 else 1.0), **more}

    torch.manual_seed(0)
    model.reset_parameters()
    run = {"checkpoints": None, "run_key": {}, "description": description, "device": "cpu"}
    return train_loop(model, loss, 4, config, **run).history


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_a_quantity_a_line_a_logged_step(tmp_path: Path) -> None:
    with curves(tmp_path / "run"):
        history = _train()
    table = read_curves(tmp_path)["run"]
    assert table["step"].tolist() == [2, 4, 6]
    assert table["loss"].tolist() == [row["loss"] for row in history]
    # a quantity that did not apply at a step has no line there
    assert (tmp_path / "run" / "sometimes.tsv").read_text() == "step\tsometimes\n2\t1.0\n"


def test_several_trainings_share_a_folder(tmp_path: Path) -> None:
    with curves(tmp_path / "base", group=str.lower):
        _train("VAE")
        _train("UNet")
    assert set(read_curves(tmp_path / "base")) == {"vae", "unet"}
    assert {path.suffix for path in (tmp_path / "base").rglob("*") if path.is_file()} == {".tsv"}


def test_a_term_that_is_0_throughout_has_no_curve(tmp_path: Path) -> None:
    with curves(tmp_path / "run"):
        _train(extra={"never": 0.0})
    assert not (tmp_path / "run" / "never.tsv").exists()
    assert (tmp_path / "run" / "loss.tsv").is_file()


def test_a_training_without_steps_leaves_an_empty_folder_and_none_of_last_time(tmp_path: Path) -> None:
    with curves(tmp_path / "run"):
        _train()
    with curves(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []
    assert read_curves(tmp_path) == {}


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.is_file() else 0


def test_after_kill_9_every_step_is_there_once(here: Path, stage: Stage, project: Path) -> None:
    values = yaml.safe_load((here / "params.yaml").read_text())
    values["arms"]["constrained"]["training"] |= {"steps": 16, "checkpoint_every": 3, "log_every": 1}
    (here / "params.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "stages.finetune", "--name", "constrained"]
    environment = {**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    loss = here / "plots/finetune/constrained/0" / "loss.tsv"
    with subprocess.Popen(command, cwd=here, env=environment, stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 120
        while _lines(loss) < 6 and time.monotonic() < deadline:
            assert running.poll() is None
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    # curves are there while training runs
    assert 6 <= _lines(loss) < 17
    assert not (here / "metrics/finetune/constrained/0.json").exists()
    assert stage("finetune", "--name", "constrained")[0] == 0
    resumed = _files(here / "plots")
    assert read_curves(here / "plots/finetune")["constrained/0"]["step"].tolist() == list(range(1, 17))
    assert stage("finetune", "--name", "constrained")[0] == 0
    assert _files(here / "plots") == resumed
