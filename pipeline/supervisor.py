"""Run one command in a process group of its own, its output in a file: `python -I -S supervisor.py LOG COMMAND ...`.

The group ends when the command does, on SIGTERM, and when whoever started this lets go of its standard input: a flow or a
Ray worker that is killed leaves no stage behind, and no pipe that could break. Of the standard library alone, to start fast.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

PATIENCE = 5.0
"""Seconds that a command has for its end before it is killed."""


def main() -> None:
    """Run, and exit as the command did: 128 + N where signal N ended it."""
    log, *command = sys.argv[1:]
    with open(log, "ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, close_fds=True
        )
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writer)
    stopped = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.append(True))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while process.poll() is None and not stopped:
        readable, _, _ = select.select([0, reader], [], [])
        if reader in readable:
            os.read(reader, 512)
        if 0 in readable and not os.read(0, 512):
            stopped.append(True)
    code = _end(process) if stopped else process.returncode
    sys.exit(128 - code if code < 0 else code)


def _end(process: "subprocess.Popen[bytes]") -> int:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    end = time.monotonic() + PATIENCE
    while _alive(process) and time.monotonic() < end:
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait() or -signal.SIGTERM


def _alive(process: "subprocess.Popen[bytes]") -> bool:
    """Whether anything of the group is left."""
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()
