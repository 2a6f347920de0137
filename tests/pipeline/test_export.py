"""A plan for make: run for real, killed, changed, failed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from project_tools import PROJECT, environment

from alberti.errors import ConfigError
from alberti.images import write_image
from pipeline import prefork
from pipeline.export import makefile, slurm
from pipeline.profiles import compose
from pipeline.units import Unit, chosen, levels, longest_first, read_units

TARGET = "evaluate_depth@pixelformer-original"
SMALL = ["prepare.train.scenes.splits.all=4", "prepare.test.scenes.splits.test=2", "finetune_depth.models=[pixelformer]"]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def plan(folder: Path, *overrides: str, only: tuple[str, ...] = (TARGET,)) -> Path:
    values = compose(PROJECT, "smoke", [*SMALL, *overrides])
    path = folder / "plan.mk"
    path.write_text(makefile(chosen(read_units(PROJECT, values), only), values, "test"))
    return path


def make(path: Path, run: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "-f", str(path), f"RUN={run}", f"PYTHON={sys.executable}", *arguments]
    env = {**_environment(), **extra}
    return subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=300)


def _environment() -> dict[str, str]:
    """Without what a `make test` around says to the makes that it starts."""
    own = {name: value for name, value in environment().items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return {**own, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}


def ran(done: subprocess.CompletedProcess[str]) -> list[str]:
    return re.findall(r"^\[\d+/\d+\] (\S+)", done.stdout, re.MULTILINE)


def result(run: Path) -> dict:
    return json.loads((run / "metrics/depth/pixelformer/original/all/test.json").read_text())


def test_units_run_once_and_again_where_what_they_read_changed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = make(plan(tmp_path), run, "-j2")
    assert first.returncode == 0, first.stdout + first.stderr
    assert sorted(ran(first)) == sorted(["prepare@train", "prepare@test", "base_depth@pixelformer", TARGET])
    assert result(run)["n"] == 2
    again = make(plan(tmp_path), run, "-j2")
    assert ran(again) == []
    os.utime(tmp_path / "plan.mk", (1, 1))  # a plan that was written before the run, as one that is carried there may be
    changed_plan = plan(tmp_path, "prepare.test.scenes.seed=9")
    os.utime(changed_plan, (1, 1))
    changed = make(changed_plan, run, "-j2")
    assert sorted(ran(changed)) == [TARGET, "prepare@test"]
    assert {json.loads(path.read_text())["prepare"]["test"]["scenes"]["seed"] for path in run.glob("params-*.yaml")} == {4, 9}
    back = make(plan(tmp_path), run, "-j2")
    assert sorted(ran(back)) == [TARGET, "prepare@test"], "the outs were another plan's"
    alone = make(plan(tmp_path), tmp_path / "alone", ALBERTI_PREFORK="0")
    assert alone.returncode == 0, alone.stderr
    assert result(tmp_path / "alone") == result(run), "with and without a server"


def test_a_failed_unit_stops_only_what_needs_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    path = plan(tmp_path, "base_depth.pixelformer.weights=nosuch/folder/weights.pth", "base_depth.pixelformer.train=null")
    done = make(path, run, "-k", "-j2")
    assert done.returncode != 0
    assert "base_depth@pixelformer failed (1): error: " in done.stderr
    assert "prepare@test" in ran(done)
    assert TARGET not in ran(done)


@pytest.mark.slow
def test_killed_server_and_stopped_make_leave_nothing_behind_that_writes(tmp_path: Path) -> None:
    long = "base_depth.pixelformer.train.training.steps=300"
    run, path = tmp_path / "run", plan(tmp_path, long)
    command = ["make", "-f", str(path), f"RUN={run}", f"PYTHON={sys.executable}", "-j2"]
    env = _environment()
    checkpoints = run / "checkpoints" / "depth"
    for stop in (signal.SIGKILL, signal.SIGINT):
        with subprocess.Popen(
            command, cwd=PROJECT, env=env, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as running:
            end = time.monotonic() + 120
            before = set(checkpoints.rglob("step-*"))
            while not set(checkpoints.rglob("step-*")) - before and time.monotonic() < end:
                assert running.poll() is None
                time.sleep(0.05)
            os.killpg(running.pid, stop)
            running.wait(timeout=30)
        end = time.monotonic() + 20
        while time.monotonic() < end and _units_of(run):
            time.sleep(0.1)
        assert _units_of(run) == []
        assert not (run / "models/depth/pixelformer/original").exists()
    done = make(plan(tmp_path, long), run, "-j2")
    assert done.returncode == 0, done.stderr
    whole = make(plan(tmp_path, long), tmp_path / "whole", "-j2")
    assert whole.returncode == 0, whole.stderr
    assert result(run) == result(tmp_path / "whole")


def _units_of(run: Path) -> list[str]:
    """Processes that train in a run: children of its server that are no server."""
    found = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [line.split(None, 2) for line in found[1:]]
    servers = {pid for pid, _, args in rows if str(run) in args and "--serve" in args}
    return [pid for pid, parent, args in rows if parent in servers or (str(run) in args and "stages." in args)]


def unit(name: str, seconds: float, *waits_for: str) -> Unit:
    return Unit(name, f"python -m stages.{name}", waits_for, "k", seconds)


def test_the_longest_chain_goes_first() -> None:
    units = [unit("short", 1), unit("start", 1), unit("end", 50, "start"), unit("long", 20)]
    assert [one.id for one in longest_first(units)] == ["start", "end", "long", "short"]
    assert [[one.id for one in wave] for wave in levels(units)] == [["short", "start", "long"], ["end"]]
    assert [one.id for one in chosen(units, ["end"])] == ["start", "end"]
    with pytest.raises(ConfigError, match="did you mean start"):
        chosen(units, ["starts"])
    with pytest.raises(ConfigError, match="--only nosuch: neither a stage"):
        chosen(units, ["nosuch"])


def test_keys_follow_params_and_what_comes_before(tmp_path: Path) -> None:
    def keys(*overrides: str) -> dict[str, str]:
        return {one.id: one.key for one in read_units(PROJECT, compose(PROJECT, "smoke", overrides))}

    before, after = keys(), keys("finetune.weight=0.5")
    changed = {name for name in before if before[name] != after[name]}
    assert "finetune@constrained-0" in changed
    assert "evaluate_images@constrained-0" in changed
    assert "report" in changed
    assert not changed & {"finetune@unconstrained-0", "generate@base-0", "evaluate_depth@dpt-original", "base"}


def test_slurm_submits_a_wave_after_the_other(tmp_path: Path) -> None:
    """With a `sbatch` of our own that runs a job array at once."""
    values = compose(PROJECT, "smoke", SMALL)
    units = chosen(read_units(PROJECT, values), (TARGET,))
    script = tmp_path / "plan.sh"
    script.write_text(slurm(units, values, "test"))
    fake = tmp_path / "bin" / "sbatch"
    fake.parent.mkdir()
    fake.write_text(_SBATCH)
    fake.chmod(0o755)
    env = {**_environment(), "RUN": str(tmp_path / "run")}
    env["PATH"] = f"{fake.parent}{os.pathsep}{env['PATH']}"
    (fake.parent / "python3").symlink_to(sys.executable)
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(["bash", str(script)], cwd=PROJECT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert result(tmp_path / "run")["n"] == 2
    assert "wave 1 of 3: 2 units, job 1" in done.stdout
    assert "wave 3 of 3: 1 units, job 3" in done.stdout
    assert (tmp_path / "bin/log").read_text().splitlines() == ["", "afterok:1", "afterok:2"]


_SBATCH = """#!/bin/bash
# what Slurm's sbatch would do, at once: a job array from 0 to N of the wrapped command
here=$(dirname "$0")
for word in "$@"; do
  case $word in
    --array=0-*) last=${word#--array=0-} ;;
    --dependency=*) after=${word#--dependency=} ;;
  esac
done
while [ "$1" != --wrap ]; do shift; done
echo "$after" >> "$here/log"
for id in $(seq 0 "$last"); do SLURM_ARRAY_TASK_ID=$id bash -c "$2" >> "$here/out" 2>&1 || exit 1; done
wc -l < "$here/log"
"""


def test_data_that_lie_elsewhere_are_looked_at_every_time(tmp_path: Path) -> None:
    """As under DVC: what follows runs again only if they changed."""
    photos = tmp_path / "photos"
    (photos / "images").mkdir(parents=True)
    for name in ("a", "b"):
        write_image(photos / "images" / f"{name}.png", np.full((64, 64, 3), 90, np.uint8))
    source = {"source": "folder", "root": f"'{photos}'", "scenes": "null"}
    overrides = [f"prepare.train.{key}={value}" for key, value in source.items()]
    path = plan(tmp_path, "watch=[train]", *overrides, "+prepare.train.options.depth=false", only=("prepare@train",))
    run = tmp_path / "run"
    both = ["watch@train", "prepare@train"]
    assert ran(make(path, run)) == both
    assert ran(make(path, run)) == ["watch@train"]
    shutil.copy(photos / "images" / "a.png", photos / "images" / "c.png")
    assert ran(make(path, run)) == both
    stamp = next((run / ".done").glob("prepare@train.*"))
    assert ran(make(path, run, "ALWAYS=", str(stamp))) == [], "as the later jobs of Slurm"


def test_each_node_has_a_server_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sockets = {prefork._socket_path(tmp_path, node) for node in ("", "one", "two")}
    sockets.add(prefork._socket_path(tmp_path / "other", "one"))
    assert len(sockets) == 4
    here = prefork.warmed({}, tmp_path, "base", "one")
    monkeypatch.setenv("ALBERTI_NODE", here["ALBERTI_NODE"])
    assert prefork._socket_path(tmp_path) == prefork._socket_path(tmp_path, "one")
