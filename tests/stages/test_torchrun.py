"""Stages under ``torchrun``: real processes that talk through gloo."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stages.shared.curves import read_curves

Stage = Callable[..., tuple[int, str]]
Torchrun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def torchrun(here: Path, project: Path) -> Torchrun:
    """`torchrun --nproc_per_node 2 ARGUMENTS` in the workspace, on the CPU."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        environment = {**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        return subprocess.run([*launcher, *arguments], cwd=here, env=environment, capture_output=True, text=True, timeout=300)

    return run


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.name}/{name}": value
        for path in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def _paths(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("command", "out"),
    [
        (("finetune", "--name", "constrained"), "models/finetuned/constrained/0"),
        pytest.param(("base",), "models/base", marks=pytest.mark.slow),
    ],
)
def test_two_processes_leave_what_one_leaves(
    here: Path, stage: Stage, torchrun: Torchrun, command: tuple[str, ...], out: str
) -> None:
    assert stage(*command)[0] == 0
    alone = here / "alone"
    for folder in ("metrics", "plots", out):
        (alone / folder).parent.mkdir(parents=True, exist_ok=True)
        (here / folder).rename(alone / folder)
    done = torchrun("-m", f"stages.{command[0]}", *command[1:])
    assert done.returncode == 0, done.stderr[-3000:]
    for folder in ("metrics", "plots", out):
        assert _paths(alone / folder) == _paths(here / folder)
    one, two = _weights(alone / out), _weights(here / out)
    assert one.keys() == two.keys()
    # Together, not one by one: Adam's first steps are a learning rate long whatever the gradient, so that rounding decides
    # where a weight goes whose gradient is all but 0.
    flat = {key: torch.cat([value.flatten().double() for value in weights.values()]) for key, weights in ((1, one), (2, two))}
    assert (flat[2] - flat[1]).norm() < 1e-3 * flat[1].norm()
    tables = read_curves(here / "plots")
    for run, table in read_curves(alone / "plots").items():
        for column in table:
            assert tables[run][column].tolist() == pytest.approx(table[column].tolist(), rel=1e-3, nan_ok=True)
    # the main process alone shows progress
    assert done.stderr.count("steps, ") == len(tables)
    assert list((here / "checkpoints").rglob("step-*")) == []


_VALIDATED = """
from pathlib import Path
from alberti import processes
from alberti.data.manifest import Dataset
from alberti.depth.config import Augmentation, DepthTrainConfig
from alberti.depth.models import DepthModel
from alberti.depth.train import train_depth
from alberti.training.settings import Optimisation
from alberti.weights import weights_hash

processes.join()
data = Dataset.open("data/train")
training = Optimisation(steps=4, batch_size=2, lr=3e-2, seed=1)  # so fast that the last weights are not the best
config = DepthTrainConfig(training=training, augmentation=Augmentation(crop=(64, 64)), validate_every=1, validation_images=2)
result = train_depth(DepthModel.load("models/depth/pixelformer/original/all"), data, config, validation=data)
Path(f"digest-{processes.rank()}").write_text(weights_hash(result.model))
Path(f"best-{processes.rank()}").write_text(str(result.best_step))
processes.leave()
"""


def test_the_best_weights_are_the_main_process_s_everywhere(torchrun: Torchrun, here: Path) -> None:
    (here / "script.py").write_text(_VALIDATED)
    done = torchrun("script.py")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (here / "best-0").read_text() in ("1", "2", "3")
    assert (here / "digest-0").read_text() == (here / "digest-1").read_text()


def test_generation_is_shared_and_annotation_done_once(torchrun: Torchrun, here: Path, stage: Stage) -> None:
    assert stage("generate", "--name", "base")[0] == 0
    made, alone = here / "data/generated/base/0", here / "alone"
    made.rename(alone)
    for command in (("generate", "--name", "base"), ("annotate", "--name", "train")):
        done = torchrun("-m", f"stages.{command[0]}", *command[1:])
        assert done.returncode == 0, done.stderr[-3000:]
    assert _paths(made) == _paths(alone)
    for path in (made / "images").iterdir():
        assert path.read_bytes() == (alone / "images" / path.name).read_bytes()
    assert (here / "metrics/annotate/train.json").is_file()


_FAILS = """
import os, runpy, sys
import alberti.diffusion.train as train
from alberti.errors import DataError

def broken(*arguments, **options):
    raise DataError("the disk of the second machine is gone")

if os.environ["RANK"] == "1":
    train.finetune = broken
sys.argv = ["stages.finetune", "--name", "constrained"]
runpy.run_module("stages.finetune", run_name="__main__")
"""


def test_one_process_that_fails_ends_the_others(torchrun: Torchrun, here: Path) -> None:
    (here / "script.py").write_text(_FAILS)
    done = torchrun("script.py")  # the main process waits for the other one, for hours if nobody ended it
    assert done.returncode != 0
    assert "process 1: error: the disk of the second machine is gone" in done.stderr
    assert not (here / "models/finetuned").exists()
    assert not (here / "metrics").exists()
