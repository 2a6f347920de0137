"""One and two processes: the same loss curve from the same global batch, and the same pictures to the byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("two_processes.py")


def _launch(processes: int, *arguments: Path) -> None:
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *launcher, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_equal_one(base_folder, toy, tmp_path):
    for processes in (1, 2):
        (tmp_path / str(processes)).mkdir()
        _launch(processes, base_folder, toy.folder, tmp_path / str(processes))
    one, two = (json.loads((tmp_path / name / "history.json").read_text()) for name in ("1", "2"))
    for row, other in zip(one, two, strict=True):
        assert other == pytest.approx(row, rel=1e-4)
    pictures = sorted((tmp_path / "1" / "made" / "images").iterdir())
    assert len(pictures) == len(toy)
    for path in pictures:
        assert path.read_bytes() == (tmp_path / "2" / "made" / "images" / path.name).read_bytes()
