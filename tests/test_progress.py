"""Progress: plain lines in a log, a bar with rate and time left on a terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import alberti.progress
from alberti.progress import Progress, track


def test_a_log_gets_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 4.0, 12.0, 12.0, 12.0, 20.0])
    monkeypatch.setattr(alberti.progress.time, "monotonic", lambda: next(now))
    with Progress("training", total=100, unit="steps", initial=40) as progress:
        progress.advance(note="loss 2")  # after 4 s: too early for a line
        progress.advance(23, note="loss 1")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["training: 64/100 steps, 2.0/s, 0:18 left  loss 1", "training: 64/100 steps, 1.2/s, 0:20"]


def test_items_come_through_and_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(["a", "b"], "reading")) == ["a", "b"]
    assert list(track(iter("abc"), "reading", unit="files")) == ["a", "b", "c"]
    assert [line.split(", ")[0] for line in capsys.readouterr().err.splitlines()] == ["reading: 2/2 images", "reading: 3 files"]


SCRIPT = """
import time
from alberti.progress import Progress
with Progress("outer [1]", 3, "steps", initial=1) as outer:
    for index in range(2):
        with Progress("inner", 4, "images") as inner:
            for _ in range(4):
                time.sleep(0.03)
                inner.advance()
        outer.advance(note=f"loss {index}")
print("printed")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_bars_also_nested_ones(project: Path) -> None:
    import pty

    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=project, stderr=terminal, stdout=subprocess.PIPE, env=environment, text=True
    )
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(controller, 4096):
            shown += chunk
    except OSError:  # Linux's word for the end
        pass
    os.close(controller)
    assert process.communicate()[0] == "printed\n"
    assert process.returncode == 0
    text = shown.decode()
    assert "outer [1]" in text
    assert "3/3" in text
    assert "4/4" in text
    assert "loss 1" in text
    assert "/s" in text
