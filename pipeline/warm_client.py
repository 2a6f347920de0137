"""What stands for `python` while units run warm: stages run in forks of a process that has done the imports.

Everything else, and a stage for which no such process can be had, runs as it is. Of the standard library alone; started as
`python -I -S warm_client.py PYTHON ARGUMENT ...`, by the small script `python` that :func:`pipeline.warm.shim` writes.
"""

import array
import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time

LIGHT = ("stages.watch", "stages.prepare")
"""They import little: a process of their own costs less than waiting for one that has everything."""
_PATIENCE = 120.0
"""Seconds for the server's imports; afterwards the stage runs cold."""


def main() -> None:
    """Run warm where that is possible, and exit as the stage did."""
    python, *arguments = sys.argv[1:]
    address = os.environ.get("ALBERTI_WARM", "")
    if address and arguments[:1] == ["-m"] and arguments[1].startswith("stages.") and arguments[1] not in LIGHT:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            code = _ask(python, address, arguments[1:])
            if code is not None:
                os._exit(code)
    os.execv(python, [python, *arguments])


def _ask(python: str, address: str, arguments: "list[str]") -> "int | None":
    """The exit code of the stage; None if the server does not take it."""
    with _connect(python, address) as connection:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        body = json.dumps([arguments, os.getcwd(), dict(os.environ), cores]).encode()
        files = array.array("i", [1, 2])
        connection.sendmsg([struct.pack("!I", len(body))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
        connection.sendall(body)
        connection.settimeout(_PATIENCE)
        if connection.recv(1) != b"y":
            return None
        connection.settimeout(None)
        answer = connection.recv(1)
        return answer[0] if answer else 128 + signal.SIGKILL


def _connect(python: str, address: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(OSError):
        connection.connect(address)
        return connection
    with open(f"{address}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):
            connection.connect(address)
            return connection
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address)
        with open(f"{address}.log", "ab") as log:
            command = [python, "-m", "pipeline.warm", address, os.environ.get("ALBERTI_OWNER", "0")]
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + 10
        while True:
            try:
                connection.connect(address)
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
            else:
                return connection


if __name__ == "__main__":
    main()
