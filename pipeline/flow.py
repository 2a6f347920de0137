"""The Prefect flow: a task for every stage of the DVC graph.

Independent stages run side by side; a stage that fails stops only what depends on it; what stages print goes to the
run's logs. Each task is `dvc repro` of one stage, so that caching, the lock file and resuming are DVC's own.
"""

import os
import queue
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from alberti.processes import visible_gpus
from pipeline.graph import stage_graph
from pipeline.workspace import open_workspace

_LAST_LINES = 8


class StageError(RuntimeError):
    """A stage whose `dvc repro` failed; the message holds its last lines."""


@task(task_run_name="{stage}", cache_policy=NO_CACHE)  # DVC caches
def run_stage(stage: str, workspace: str, force: bool, slots: "queue.Queue[str | None]") -> None:
    """Reproduce one stage in ``workspace``, on the next free of ``slots`` (a GPU's index, or None for the CPU)."""
    slot = slots.get()
    try:
        _reproduce(stage, Path(workspace), force, slot)
    finally:
        slots.put(slot)


def _reproduce(stage: str, workspace: Path, force: bool, gpu: str | None) -> None:
    # parallel runs need --wait-for-lock, before `repro`: DVC's lock else gives up after 3 seconds
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage]
    if force:
        command.append("--force")
    # stages call `python`: it must be this one, whether or not its environment is active in the worker
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    environment["PYTHONUNBUFFERED"] = "1"
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    logger = get_run_logger()
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(
        command,
        cwd=workspace,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if text := line.rstrip():
                last.append(text)
                logger.info(text)
    if process.returncode:
        raise StageError(f"stage {stage} failed with exit code {process.returncode}: " + " | ".join(last))


@flow(name="alberti", task_runner=ThreadPoolTaskRunner(max_workers=64))  # type: ignore[arg-type]
def alberti(profile: str = "default", overrides: list[str] | None = None, parallel: int = 2, force: bool = False) -> State:
    """Run the pipeline of one profile.

    Args:
        profile: a name in `conf/profile/`. If params.yaml holds just this profile, the project itself is reproduced, else
            a copy in `.alberti/runs/<profile>/`; params.yaml is never changed.
        overrides: Hydra overrides on top, such as `seed=1`.
        parallel: how many stages run side by side; with several GPUs, stages are dealt out over them.
        force: run every stage, unchanged or not.
    """
    with open_workspace(Path.cwd(), profile, overrides or ()) as workspace:
        get_run_logger().info("profile %s runs in %s", profile, workspace)
        return _run_graph(workspace, max(parallel, 1), force)


def _run_graph(workspace: Path, parallel: int, force: bool) -> State[None]:
    gpus = visible_gpus()
    slots: queue.Queue[str | None] = queue.Queue()
    for index in range(parallel):
        slots.put(gpus[index % len(gpus)] if gpus else None)
    futures: dict[str, PrefectFuture[None]] = {}
    for stage, upstream in stage_graph(workspace).items():
        waits = [futures[name] for name in upstream]
        submit: Any = run_stage.submit  # its overloads know no wait_for together with arguments
        futures[stage] = submit(stage, str(workspace), force, slots, wait_for=waits)
    failed, skipped = [], []
    for stage, future in futures.items():
        future.wait()
        if future.state.is_pending():  # Prefect leaves a task "NotReady" when what it waits for failed
            skipped.append(stage)
        elif not future.state.is_completed():
            failed.append(stage)
    if failed or skipped:
        message = f"failed: {', '.join(failed)}"
        return Failed(message=message + (f"; not run, as they depend on it: {', '.join(skipped)}" if skipped else ""))
    report = workspace / "report" / "index.html"
    return Completed(message=f"{len(futures)} stages; report: {report}")
