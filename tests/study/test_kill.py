"""The real command in a process of its own, killed with SIGKILL while raters answer: nothing acknowledged is lost."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from project_tools import environment

from alberti.study.client import Client
from alberti.study.collect import collect
from alberti.study.design import Study

RATERS = 6


@contextlib.contextmanager
def served(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "alberti.cli", "study", "serve", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    try:
        assert process.stdout is not None
        assert f"127.0.0.1:{port}" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Visitor(threading.Thread):
    """Answers pair after pair, asking again whenever the server is away."""

    def __init__(self, url: str):
        super().__init__(daemon=True)
        self.client, self.acknowledged, self.done = Client(url, timeout=10), [], False
        assert self.client.begin().status == 303

    def run(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                state = self.client.state()
                if state["phase"] == "done":
                    self.done = True
                    return
                trial = state["trial"]
                chosen = "left" if trial["index"] % 3 else "right"
                if self.client.answer(trial, chosen).status == 200:
                    self.acknowledged.append((trial["index"], chosen))
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL, which this system has not")
def test_a_killed_server_loses_no_acknowledged_answer_and_raters_go_on(folder: Path, study: Study) -> None:
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    with served(folder, port) as process:
        visitors = [Visitor(url) for _ in range(RATERS)]
        for visitor in visitors:
            visitor.start()
        while sum(len(visitor.acknowledged) for visitor in visitors) < 2 * RATERS:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    at_kill = {f"r{n}": list(visitor.acknowledged) for n, visitor in enumerate(visitors, 1)}
    kept = {(answer.rater, answer.trial, answer.chosen) for answer in collect(folder)}
    assert {(rater, *answer) for rater, answers in at_kill.items() for answer in answers} <= kept
    assert any(not visitor.done for visitor in visitors)
    with served(folder, port):
        for visitor in visitors:
            visitor.join(60)
    assert all(visitor.done for visitor in visitors)
    answers = collect(folder)
    assert len(answers) == RATERS * study.trials
    assert all(answer.chosen == ("left" if answer.trial % 3 else "right") for answer in answers)
    assert all(answer.finished for answer in answers)


def test_an_interrupt_ends_the_server(folder: Path) -> None:
    with served(folder, _free_port()) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)


def test_a_port_in_use_is_said(folder: Path) -> None:
    port = _free_port()
    with served(folder, port):
        command = [sys.executable, "-m", "alberti.cli", "study", "serve", str(folder), "--port", str(port)]
        second = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60)
    assert second.returncode == 1
    assert f"127.0.0.1:{port}: cannot listen there" in second.stderr
