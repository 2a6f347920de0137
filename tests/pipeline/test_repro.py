"""`dvc repro` for real, on a cut-down smoke profile: killed and restarted, forced, and with nothing changed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from project_tools import environment

from pipeline.graph import stage_graph
from pipeline.profiles import compose

OVERRIDES = (
    "~arms.unconstrained",
    "finetune.training.steps=40",
    "finetune_depth.models=[pixelformer]",
    "evaluate_depth.arms=[constrained]",
    "prepare.kitti.scenes.splits.train=2",
)


def metrics(folder: Path) -> dict[str, object]:
    """Every metrics file, whole."""
    files = sorted((folder / "metrics").rglob("*.json"))
    return {str(path.relative_to(folder)): json.loads(path.read_text()) for path in files}


def repro_until(folder: Path, done: Callable[[], bool]) -> None:
    """Start `dvc repro` and `kill -9` it, with all that it started, as soon as ``done`` says so."""
    command = [sys.executable, "-m", "dvc", "repro"]
    path = folder.parent / "killed.log"
    with open(path, "wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 240
        while not done():
            assert process.poll() is None, path.read_text()
            assert time.monotonic() < end, path.read_text()
            time.sleep(0.02)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_forced_and_unchanged_runs_agree(
    project: Path, project_copy: Path, run_in: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    values = compose(project, "smoke", OVERRIDES)
    (project_copy / "params.yaml").write_text(yaml.safe_dump(values))
    checkpoints = project_copy / "checkpoints" / "finetune"
    repro_until(project_copy, lambda: any(checkpoints.glob("*/step-*")))
    assert not (project_copy / "models/finetuned/constrained/0").exists()

    restarted = run_in(project_copy, "dvc", "repro", timeout=900)
    assert restarted.returncode == 0, restarted.stdout + restarted.stderr
    assert "'prepare@train' didn't change" in restarted.stdout
    after_kill = metrics(project_copy)
    assert set(stage_graph(project_copy)) >= {"report", "evaluate_depth@pixelformer-constrained-0"}
    assert (project_copy / "report/index.html").is_file()

    forced = run_in(project_copy, "dvc", "repro", "--force", timeout=900)
    assert forced.returncode == 0, forced.stdout + forced.stderr
    assert "didn't change" not in forced.stdout
    assert metrics(project_copy) == after_kill

    unchanged = run_in(project_copy, "dvc", "repro", timeout=900)
    assert "Data and pipelines are up to date" in unchanged.stdout
    shown = run_in(project_copy, "dvc", "metrics", "show", "--json")
    assert "within2" in shown.stdout
