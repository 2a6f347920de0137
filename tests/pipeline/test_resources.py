"""What units need, which goes first, and that a unit ends with whoever started it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from alberti.errors import ConfigError
from pipeline.graph import Unit
from pipeline.resources import DEFAULTS, needs_of, path_lengths
from pipeline.tasks import run_supervised

SUPERVISOR = Path(__file__).parents[2] / "pipeline" / "supervisor.py"


def unit(name: str, *upstream: str) -> Unit:
    return Unit(name, "python -m stages.x", (), (), (), upstream)


def test_every_stage_has_needs(project: Path) -> None:
    import yaml

    assert set(DEFAULTS) == set(yaml.safe_load((project / "dvc.yaml").read_text())["stages"])


def test_needs_are_overridden_by_stage() -> None:
    assert needs_of("finetune", ["finetune.seconds=3600", "base.gpu=false"]).seconds == 3600
    assert not needs_of("base", ["finetune.seconds=3600", "base.gpu=false"]).gpu
    for wrong in ("finetun.seconds=1", "finetune.second=1", "finetune.seconds=long", "finetune"):
        with pytest.raises(ConfigError, match="finetun"):
            needs_of("finetune", [wrong])


def test_length_is_that_of_the_longest_chain() -> None:
    units = {one.name: one for one in (unit("a"), unit("b", "a"), unit("c", "a"), unit("d", "b", "c"))}
    assert path_lengths(units, {"a": 1, "b": 10, "c": 2, "d": 5}) == {"a": 16, "b": 15, "c": 7, "d": 5}


def test_output_and_exit_code_of_a_command(tmp_path: Path) -> None:
    lines: list[str] = []
    command = ["sh", "-c", "echo one; echo two >&2; printf three; exit 3"]
    assert run_supervised(command, tmp_path, {"PATH": "/usr/bin:/bin"}, tmp_path / "logs" / "x.log", lines.append) == 3
    assert lines == ["one", "two", "three"]
    assert run_supervised(["sh", "-c", "kill -9 $$"], tmp_path, {}, tmp_path / "logs" / "x.log", lines.append) == 137


def test_a_command_ends_when_its_owner_lets_go(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", str(SUPERVISOR), str(tmp_path / "log")]
    script = f"sleep 600 & echo $! > {tmp_path}/pid; wait"
    with subprocess.Popen([*command, "sh", "-c", script], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
            time.sleep(0.02)
        process.stdin.close()  # as when the owner is killed
        assert process.wait(8) == 143
    sleeper = (tmp_path / "pid").read_text().strip()
    status = Path("/proc") / sleeper / "stat"
    assert not status.exists() or " Z " in status.read_text()
