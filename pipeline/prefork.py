"""Runs the units of a plan for make, as forks of one process that has imported everything.

    python -m pipeline.prefork --run RUN --units N --seconds S --stamp STAMP --expected S -- UNIT stages.X --name NAME

A makefile of `pipeline.export` calls this for each unit; the Prefect flow does the same below `dvc repro` (:func:`shim`). The
first call starts a server for RUN, which imports torch, diffusers and the rest once. Every unit is a child of that server and
need not wait for the imports, which take longer than many a unit. A child gets the GPU with the fewest units, its share of the
cores, and a log in RUN/logs. Without a server (a platform that cannot fork, a server that was killed or imported other code) a
unit runs in a process of its own.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_START_SECONDS = 120.0
"""How long a server may take to import."""
_IDLE_SECONDS = 120.0
"""After which a server that nobody asks ends by itself."""
_PATIENCE_SECONDS = 5.0
"""That a unit which was told to stop has for it."""
_NO_SERVER = ".no-server"
"""File in `.done` that says that a server has given up: nobody then starts another."""
_NODE = "ALBERTI_NODE"
"""The variable with the node's name."""
_HEAVY = (
    "torch", "torchvision", "diffusers", "transformers", "accelerate", "timm", "cv2", "pandas", "scipy.stats",
    "alberti.diffusion.model", "alberti.diffusion.train", "alberti.diffusion.sample", "alberti.depth.models",
    "alberti.depth.train", "alberti.depth.predict", "alberti.metrics.images", "alberti.metrics.features",
    "alberti.data.scenes.generate", "alberti.report.page", "stages.shared.running",
)  # fmt: skip


# --- the client: light, for make starts it once for each unit


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one unit, or stop the server; the unit's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--units", type=int, default=1, help="number of units in the plan")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds that all units are expected to take together")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="params file of the plan")
    parser.add_argument("--stamp", type=Path, help="file to write when the unit is done")
    parser.add_argument("--expected", type=float, default=1.0, help="seconds that this unit is expected to take")
    parser.add_argument("--keep-for", nargs="+", default=[], metavar="OUT", help="leave the stamp as it is if these are, too")
    parser.add_argument("--stop", action="store_true", help="stop the server of the run")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("command", nargs="*", help="the unit's name, its module, the module's arguments")
    options = parser.parse_args(arguments)
    run = options.run.resolve()
    if options.serve:
        return _serve(run)
    if options.stop:
        stop(run)
        return 0
    unit, module, *own = options.command
    if options.stamp is None:
        code = _run_unit(run, unit, module, own, dict(os.environ))
        return 128 - code if code < 0 else code
    for old in options.stamp.parent.glob(f"{unit}.*"):  # of other params: the outs are about to change
        if old.name != options.stamp.name or not options.keep_for:
            old.unlink()
    own += ["--params", str(options.params.resolve()), "--root", str(run), "--project", str(Path.cwd())]
    start = time.monotonic()
    code = _run_unit(run, unit, module, own)
    seconds = time.monotonic() - start
    if code == 0:
        outs = {out: hashlib.sha256((run / out).read_bytes()).hexdigest() for out in options.keep_for}
        if not outs or _outs_of(options.stamp) != outs:
            stamp = {"seconds": round(seconds, 2), "expected": options.expected, "outs": outs}
            _write(options.stamp, json.dumps(stamp))
        _say_progress(run, unit, seconds, options.units, options.seconds)
    else:
        _say_failure(run, unit, code)
    return code


def shim(folder: Path, run: Path) -> None:
    """Write a program `python` into ``folder`` that is this Python, but runs `-m stages.X` by the server of ``run``.

    The name of the unit, for its log, is in the variable ALBERTI_UNIT.
    """
    own = f"{shlex.quote(sys.executable)} -m pipeline.prefork --run {shlex.quote(str(run))}"
    text = (
        '#!/bin/sh\ncase "$1 $2" in\n'
        f"'-m stages.watch'|'-m stages.prepare') ;;\n"  # they import little
        f'"-m stages."*) shift; exec {own} -- "$ALBERTI_UNIT" "$@" ;;\n'
        f'esac\nexec {shlex.quote(sys.executable)} "$@"\n'
    )
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".python-{os.getpid()}-{threading.get_ident()}"
    temporary.write_text(text)
    temporary.chmod(0o755)
    temporary.replace(folder / "python")


def warmed(environment: Mapping[str, str], run: Path, unit: str, node: str = "") -> dict[str, str]:
    """``environment`` in which `python -m stages.X` runs by the server of ``run``, with the log of ``unit``.

    ``node``: where several nodes of a cluster share the folder, or even the machine, each has a server of its own.
    """
    programs = run / ".alberti" / "warm"
    shim(programs, run)
    path = f"{programs}{os.pathsep}{environment.get('PATH', '')}"
    return {**environment, "PATH": path, "ALBERTI_UNIT": unit, _NODE: node}


def stop(run: Path, node: str | None = None) -> None:
    """End the server of ``run``, if there is one, and what it runs; ``node``: as :func:`warmed` has it."""
    _given_up(run, node).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        _ask(run, {"stop": True}, node)


def _run_unit(run: Path, unit: str, module: str, arguments: Sequence[str], environment: dict[str, str] | None = None) -> int:
    """Run a unit by the server, which gives it a GPU, or exactly with ``environment``; without a server by itself."""
    request = {
        "environment": environment,
        "unit": unit,
        "module": module,
        "arguments": list(arguments),
        "cwd": os.getcwd(),
        "jobs": _jobs(),
    }
    if hasattr(os, "fork") and os.environ.get("ALBERTI_PREFORK", "1") != "0":
        _ensure_server(run)
        with contextlib.suppress(OSError, ValueError):
            return int(_ask(run, request))
    with open(run / "logs" / f"{unit}.log", "ab") as log:
        environment = environment or {**os.environ, **_threads(_jobs()), **_gpu_of(unit)}
        return subprocess.run([sys.executable, "-m", module, *arguments], stdout=log, stderr=log, env=environment).returncode


def _gpu_of(unit: str) -> dict[str, str]:
    """A GPU by the unit's name: without a server nobody knows which has the fewest units."""
    gpus = _gpus()
    return {"CUDA_VISIBLE_DEVICES": gpus[zlib.crc32(unit.encode()) % len(gpus)]} if gpus else {}


def _jobs() -> int:
    """How many units make runs at once."""
    for word in shlex.split(os.environ.get("MAKEFLAGS", "")):
        if word.startswith("-j") and word[2:].isdigit():
            return max(1, int(word[2:]))
    return 1


def _threads(jobs: int) -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // jobs)))}


def _given_up(run: Path, node: str | None = None) -> Path:
    return run / ".done" / (_NO_SERVER + (os.environ.get(_NODE, "") if node is None else node))


def _socket_path(run: Path, node: str | None = None) -> str:
    # a socket's path has at most about 100 characters, a run's folder may have more
    import tempfile

    own = hashlib.sha256(f"{run} {os.environ.get(_NODE, '') if node is None else node}".encode()).hexdigest()[:16]
    return str(Path(tempfile.gettempdir()) / f"alberti-{os.getuid()}-{own}.sock")


def _ensure_server(run: Path) -> None:
    """Wait for the run's server, and start it if there is none."""
    path, log = _socket_path(run), run / "logs" / "prefork.log"
    for folder in ("logs", ".done"):
        (run / folder).mkdir(parents=True, exist_ok=True)
    given_up = _given_up(run)
    if _reachable(path) or given_up.exists():
        return
    from filelock import FileLock

    with FileLock(run / ".done" / f".server{os.environ.get(_NODE, '')}"):  # held by whoever starts it
        if _reachable(path) or given_up.exists():
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        command = [sys.executable, "-m", "pipeline.prefork", "--run", str(run), "--serve"]
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **_threads(_jobs())}
        environment.pop("MAKEFLAGS", None)
        with open(log, "ab") as file:
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment,
                                      start_new_session=True, close_fds=True)  # fmt: skip
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and server.poll() is None and not _reachable(path):
            time.sleep(0.05)


def _reachable(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        probe.sendall(b'{"ping": true}\n')
        return bool(probe.makefile().readline())


def _ask(run: Path, request: dict[str, Any], node: str | None = None) -> str:
    """The server's answer to a request: a unit's exit code. OSError if it ends without one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(_socket_path(run, node))
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer = connection.makefile().readline()
    if not answer:
        raise OSError("the server ended")
    return answer


def _say_progress(run: Path, unit: str, seconds: float, units: int, expected: float) -> None:
    """One line: how many units are done, and when the rest will be."""
    stamps = [path for path in (run / ".done").iterdir() if not path.name.startswith(".")]
    done, started = 0.0, time.time()
    for path in stamps:
        with contextlib.suppress(ValueError, KeyError, OSError):
            done += json.loads(path.read_text())["expected"]
            started = min(started, path.stat().st_mtime)
    elapsed = time.time() - started
    left = "" if done <= 0 or elapsed < 5 else f", about {_minutes(elapsed / done * max(expected - done, 0))} left"
    sys.stdout.write(f"[{len(stamps)}/{units}] {unit} {seconds:.1f} s{left}\n")
    sys.stdout.flush()


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def _outs_of(stamp: Path) -> Any:
    """What a stamp says of its unit's outs; None without a stamp."""
    return json.loads(stamp.read_text()).get("outs") if stamp.is_file() else None


def _say_failure(run: Path, unit: str, code: int) -> None:
    log = run / "logs" / f"{unit}.log"
    lines = log.read_text(errors="replace").replace("\r", "\n").strip().splitlines() if log.is_file() else []
    last = next((line for line in reversed(lines) if line.startswith("error:")), lines[-1] if lines else "no output")
    how = f"was ended by signal {-code}" if code < 0 else f"failed ({code})"
    sys.stderr.write(f"{unit} {how}: {last}\n  all of it: {log}\n")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


# --- the server


def _serve(run: Path) -> int:
    """Import everything, then fork a child for each request until nobody asks any more."""
    import gc
    import importlib
    import selectors

    # a process that has initialised CUDA cannot be forked: who asks for GPUs while it is imported is answered by the driver
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    for name in _HEAVY:
        try:
            importlib.import_module(name)
        except ImportError as error:  # a unit that needs it says so
            print(f"not imported: {name} ({error})", flush=True)
    gc.freeze()
    code = _own_code()
    gpus = _gpus()
    if gpus and not _children_can_use_gpus():
        print("a fork of this process cannot use the GPU: units run in processes of their own", flush=True)
        _given_up(run).touch()
        return 1
    path = _socket_path(run)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(128)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, _Child] = {}
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(wake_read, selectors.EVENT_READ)
    idle_since = time.monotonic()
    while children or time.monotonic() - idle_since < _IDLE_SECONDS:
        for key, _ in selector.select(timeout=2):
            if key.fileobj is listener:
                connection, _ = listener.accept()
                request = json.loads(connection.makefile().readline() or "{}")
                if request.get("stop"):
                    connection.close()
                    os.unlink(path)
                    return 0
                if "module" not in request:
                    connection.sendall(b"0\n")
                    connection.close()
                    continue
                if any(_changed(path) != stamp for path, stamp in code.items()):
                    connection.close()  # what was imported is not the code of now: the unit runs in a process of its own
                    continue
                own = request.get("environment") is not None
                gpu = None if own or not gpus else min(gpus, key=[child.gpu for child in children.values()].count)
                pid = _fork(run, request, gpu, (listener, connection))
                children[pid] = _Child(connection, gpu)
                selector.register(connection, selectors.EVENT_READ, pid)
            elif key.fileobj == wake_read:
                os.read(wake_read, 4096)
            else:  # make was stopped, and its client with it: so is the unit
                selector.unregister(key.fileobj)
                os.kill(key.data, signal.SIGINT)
                children[key.data].until = time.monotonic() + _PATIENCE_SECONDS
        for pid, child in list(children.items()):
            if time.monotonic() > child.until:
                os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del children[pid]
                with contextlib.suppress(KeyError, ValueError):
                    selector.unregister(child.connection)
                with contextlib.suppress(OSError):
                    child.connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                child.connection.close()
                idle_since = time.monotonic()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return 0


@dataclass
class _Child:
    connection: socket.socket
    gpu: str | None
    until: float = math.inf
    """When its patience ends, once it was told to stop."""


def _own_code() -> dict[str, tuple[int, int] | None]:
    """The project's files that are imported, with time and size."""
    folder = Path(__file__).resolve().parent.parent
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return {file: _changed(file) for file in files if file and Path(file).resolve().is_relative_to(folder)}


def _changed(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _children_can_use_gpus() -> bool:
    """Whether a fork of this process can initialise CUDA: not if anything that was imported has done so before."""
    import torch

    pid = os.fork()
    if not pid:
        try:
            torch.cuda.init()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _gpus() -> list[str]:
    from alberti.processes import visible_gpus

    return visible_gpus()


def _fork(run: Path, request: dict[str, Any], gpu: str | None, sockets: tuple[socket.socket, ...]) -> int:
    """A child that runs the unit as `python -m MODULE ARGUMENTS` would, with its output in the unit's log."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where make was started in the background
        _die_with_parent()
        for own in sockets:
            own.close()
        log = os.open(run / "logs" / f"{request['unit']}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1, closefd=False), os.fdopen(2, "w", 1, closefd=False)
        os.chdir(request["cwd"])
        if request.get("environment") is not None:
            os.environ.clear()
            os.environ.update(request["environment"])
        threads = _threads(request["jobs"])
        os.environ.update(threads)
        if gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        _limit_threads(int(threads["OMP_NUM_THREADS"]))
        code = _run_module(request["module"], request["arguments"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _die_with_parent() -> None:
    """A server that is killed takes its units with it: nothing may still write what the next run writes."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # Linux alone has it
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _limit_threads(count: int) -> None:
    import cv2
    import torch

    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def _run_module(module: str, arguments: list[str]) -> int:
    import runpy
    import traceback

    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=False)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
