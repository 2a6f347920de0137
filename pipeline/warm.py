"""A process that has done the imports of all stages and runs each unit in a fork of itself.

`python -m pipeline.warm SOCKET OWNER` is started by the first unit that wants it (`warm_client.py`). PyTorch, diffusers and
what goes with them take seconds to import, as long as a small unit takes to run. Nothing but imports is shared: every unit is
a process of its own, with the environment, folder, cores and output of the client that asks for it. CUDA is not touched
before the fork. The process ends with its owner, and after a while without work.
"""

import array
import ast
import atexit
import contextlib
import gc
import hashlib
import importlib
import json
import os
import runpy
import selectors
import shlex
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.imports import ImportGraph, executed

_IDLE = 90.0
"""Seconds without work after which the process ends."""


def environment_for(project: Path, owner: int, environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` such that `python -m stages.X` runs warm, with the code of ``project``.

    Args:
        owner: the process with which the server ends.
    """
    folder = Path(tempfile.gettempdir()) / f"alberti-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        return dict(environment)
    name = hashlib.sha256(f"{project.resolve()} {owner} {sys.executable}".encode()).hexdigest()[:16]
    shim(folder / name)
    path = f"{folder / name}{os.pathsep}{environment.get('PATH', '')}"
    address = str(folder / f"{name}.socket")
    return {**environment, "ALBERTI_WARM": address, "ALBERTI_OWNER": str(owner), "PATH": path}


def shim(folder: Path) -> None:
    """Write a script `python` into ``folder`` that is this Python, but for stages."""
    folder.mkdir(exist_ok=True)
    client = Path(__file__).with_name("warm_client.py")
    python = shlex.quote(sys.executable)
    text = f'#!/bin/sh\nexec {python} -I -S {shlex.quote(str(client))} {python} "$@"\n'
    temporary = folder / f".python-{os.getpid()}"
    temporary.write_text(text)
    temporary.chmod(0o755)
    temporary.replace(folder / "python")


def preload(project: Path) -> None:
    """Import every module that a stage can import, lazily too, and what these import of other packages."""
    graph = ImportGraph(project)
    files = sorted(graph.reach(*(f"stages.{path.stem}" for path in sorted((project / "stages").glob("[a-z]*.py")))))
    for file in files:
        for module, name in _others(project / file):
            with contextlib.suppress(Exception):  # an optional package, or one of another system
                found = importlib.import_module(module)
                if name:
                    getattr(found, name)
    for file in files:
        if Path(file).parent.as_posix() == "stages":  # run as programs
            continue
        with contextlib.suppress(Exception):
            importlib.import_module(".".join(Path(file).with_suffix("").parts).removesuffix(".__init__"))


def _others(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name in it) of everything that a file imports of other packages."""
    for node in executed(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)


class Server:
    """Takes units from clients and runs each in a fork."""

    def __init__(self, address: Path, owner: int):
        self._owner = owner
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(address))
        self._listener.listen(256)
        self._children: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._added: dict[str, str] = {}
        self._stamps: dict[Path, tuple[int, int] | None] = {}

    def load(self) -> None:
        """Do the imports."""
        before = dict(os.environ)
        preload(Path.cwd())
        self._added = {key: value for key, value in os.environ.items() if key not in before}
        files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
        own = [Path(file) for file in files if file and Path(file).is_relative_to(Path.cwd())]
        self._stamps = {file: _stamp(file) for file in own}
        gc.collect()
        gc.freeze()  # a fork's collections need not look through it

    def serve(self) -> None:
        """Until the owner is gone, or nothing came for a while."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(reader, selectors.EVENT_READ)
        last = time.monotonic()
        while self._wanted() and (self._children or time.monotonic() - last < _IDLE):
            for key, _ in self._selector.select(1.0):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj == reader:
                    os.read(reader, 512)
                else:  # a client went away
                    self._kill(key.data)
            self._reap()
            if self._children:
                last = time.monotonic()
        for child in self._children:
            self._kill(child)

    def _wanted(self) -> bool:
        if not self._owner:
            return True
        try:
            os.kill(self._owner, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(5)
        try:
            request, files = _receive(connection)
        except (OSError, ValueError, struct.error):
            connection.close()
            return
        if any(_stamp(file) != stamp for file, stamp in self._stamps.items()):  # the code changed since it was imported
            with contextlib.suppress(OSError):
                connection.sendall(b"n")
            connection.close()
        elif child := os.fork():
            self._children[child] = connection
            self._selector.register(connection, selectors.EVENT_READ, child)
            with contextlib.suppress(OSError):
                connection.sendall(b"y")
        else:
            self._run(request, files)
        for file in files:
            os.close(file)

    def _run(self, request: list[Any], files: list[int]) -> None:
        code = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._listener.close()
            for connection in self._children.values():
                connection.close()
            for source, target in zip(files, (1, 2), strict=True):
                os.dup2(source, target)
            arguments, folder, environment, cores = request
            os.chdir(folder)
            os.environ.clear()
            os.environ.update({**self._added, **environment})
            os.environ.pop("ALBERTI_WARM", None)  # what a stage starts is started as usual
            _set_cores(cores)
            code = _run_module(arguments)
        finally:
            os._exit(code)

    def _kill(self, child: int) -> None:
        """End the unit ``child``: politely, and for certain five seconds later."""
        if connection := self._children.get(child):
            with contextlib.suppress(KeyError):
                self._selector.unregister(connection)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGTERM)

        def kill() -> None:
            time.sleep(5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)

        if os.fork() == 0:  # a thread would make later forks unsafe
            os.setsid()
            kill()
            os._exit(0)

    def _reap(self) -> None:
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not child:
                return
            connection = self._children.pop(child, None)
            if connection is not None:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(connection)
                code = os.waitstatus_to_exitcode(status)
                with contextlib.suppress(OSError):
                    connection.sendall(bytes([128 - code if code < 0 else code]))
                connection.close()


def _receive(connection: socket.socket) -> tuple[list[Any], list[int]]:
    files = array.array("i")
    header, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(2 * files.itemsize))
    for _, _, data in ancillary:
        files.frombytes(data[: len(data) - len(data) % files.itemsize])
    (left,) = struct.unpack("!I", header)
    body = bytearray()
    while len(body) < left:
        part = connection.recv(left - len(body))
        if not part:
            raise ValueError("the client went away")
        body += part
    request: list[Any] = json.loads(body)
    return request, list(files)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _set_cores(cores: list[int] | None) -> None:
    if cores is not None:
        os.sched_setaffinity(0, cores)
    torch = sys.modules.get("torch")
    if torch is not None:  # OpenMP was told of another number when it was loaded
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 0)) or len(cores or ()) or os.cpu_count() or 1)


def _run_module(arguments: list[str]) -> int:
    """As `python -m` would; its exit code."""
    sys.argv = ["-m", *arguments[1:]]
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code


def main() -> None:
    """Listen, import, serve."""
    address, owner = Path(sys.argv[1]), int(sys.argv[2])
    # torch then asks the driver's library how many GPUs there are, and leaves CUDA alone until a unit uses it
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    server = Server(address, owner)
    start = time.monotonic()
    server.load()
    print(f"imports took {time.monotonic() - start:.1f} s", flush=True)
    try:
        server.serve()
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(address.with_suffix(""))
            for suffix in (".socket", ".socket.lock", ".socket.log"):
                address.with_suffix(suffix).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
