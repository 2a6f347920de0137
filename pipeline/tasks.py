"""The task that the flow runs for every unit: `dvc repro` of one stage, its output in a file and in Prefect's logs."""

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from pipeline.parcels import Parcel, fetch, send
from pipeline.prefork import warmed

_LAST_LINES = 8
_EXITED = re.compile(r"exited with (-?\d+)")
_KILLED = {-9, -15, 128 + 9, 128 + 15}
_OUT_OF_MEMORY = "the device ran out of memory"


class UnitError(RuntimeError):
    """A unit whose `dvc repro` failed; the message holds its last lines."""


class PassingError(UnitError):
    """A failure that may pass: the stage was killed, or shared a GPU that was full."""


def may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Whether Prefect should try again; what a person must mend comes out the same every time."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, PassingError)


@task(
    task_run_name="{name}",
    retries=2,
    retry_delay_seconds=[2, 15],
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,  # DVC caches
    persist_result=False,
)
def run_unit(
    name: str, workspace: str, force: bool = False, gpu: str | None = None, threads: int | None = None, warm: bool = False
) -> None:
    """Reproduce unit ``name`` in ``workspace``.

    Args:
        force: also if nothing changed.
        gpu: index of the GPU that it shall use; None leaves that as it is.
        threads: for numerical libraries; None leaves that as it is.
        warm: the stage runs in a fork of a process that has its imports done, one for this flow or, on Ray, this node.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    if threads is not None:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    # stages call `python`: it must be this one, whether or not its environment is active in the worker
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    if warm and os.name == "posix":
        environment = warmed(environment, Path(workspace), name, node_of_ray())
    reproduce(name, Path(workspace), environment, force, say=get_run_logger().info)


@task(
    task_run_name="{name}",
    retries=2,
    retry_delay_seconds=[2, 15],
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def run_unit_elsewhere(
    name: str, remote: dict[str, str], parcels: list[Parcel], force: bool, threads: int, revision: str = ""
) -> Parcel:
    """Reproduce unit ``name`` in this machine's copy of the code, which is the current folder, and send what it made.

    Args:
        remote: DVC's, where outs come from and go to.
        parcels: what the units made that it waits for.
        revision: the project's Git commit.
    """
    workspace = Path.cwd()
    fetch(workspace, remote, parcels, revision)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    reproduce(name, workspace, environment, force, say=get_run_logger().info)
    return send(workspace, name)


def node_of_ray() -> str:
    """The id of the Ray node on which this runs; "" elsewhere."""
    ray = sys.modules.get("ray")
    return str(ray.get_runtime_context().get_node_id()) if ray is not None and ray.is_initialized() else ""


def reproduce(name: str, workspace: Path, environment: Mapping[str, str], force: bool, say: Callable[[str], Any]) -> None:
    """`dvc repro` of one unit; its lines go to `logs/` in the workspace and to ``say``.

    Raises:
        PassingError: it was killed, or its GPU was full.
        UnitError: it failed otherwise.
    """
    # parallel runs need --wait-for-lock, before `repro`: DVC's lock else gives up after 3 seconds
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
    if force:
        command.append("--force")
    last: deque[str] = deque(maxlen=_LAST_LINES)

    def heard(line: str) -> None:
        last.append(line)
        say(line)

    code = run_supervised(command, workspace, environment, workspace / "logs" / f"{name}.log", heard)
    if code:
        message = f"unit {name} failed with exit code {code}: " + " | ".join(last)
        raise PassingError(message) if _passes(code, last) else UnitError(message)


def _passes(code: int, lines: "deque[str]") -> bool:
    codes = {code, *(int(found) for line in lines for found in _EXITED.findall(line))}
    return bool(codes & _KILLED) or any(_OUT_OF_MEMORY in line for line in lines)


_running: set["subprocess.Popen[bytes]"] = set()
_stopping = threading.Event()


def run_supervised(
    command: list[str], folder: Path, environment: Mapping[str, str], log: Path, say: Callable[[str], Any]
) -> int:
    """Run a command under `supervisor.py`; its exit code. It ends with this process, however this process ends.

    Args:
        log: its output, written by the command itself: a file does not break where a pipe would.
        say: gets each line soon after it was written.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    log.touch()
    supervisor = [sys.executable, "-I", "-S", str(Path(__file__).with_name("supervisor.py")), str(log)]
    process = subprocess.Popen([*supervisor, *command], cwd=folder, env=environment, stdin=subprocess.PIPE)
    _running.add(process)
    try:
        if _stopping.is_set():
            _let_go(process)
        with open(log, "rb") as written:
            left, ended = b"", False
            while not ended:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                ended = process.poll() is not None
                *lines, left = re.split(rb"[\r\n]+", left + written.read())
                if ended:
                    lines.append(left)
                for line in lines:
                    if text := line.decode(errors="replace").rstrip():
                        say(text)
        return process.returncode
    finally:
        _let_go(process)
        process.wait()
        _running.discard(process)


def _let_go(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()


def stop_units() -> None:
    """End every unit that this process runs, and start no other."""
    _stopping.set()
    for process in _running.copy():
        _let_go(process)


def allow_units() -> None:
    """Let units start again after :func:`stop_units`."""
    _stopping.clear()
