"""The command line as a person meets it."""

import subprocess
import sys


def _alberti(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "alberti.cli", *arguments], capture_output=True, text=True, timeout=120)


def test_help_lists_every_command_without_importing_them():
    code = "import sys; from alberti.cli import build_app; build_app(['--help']); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
    text = _alberti("--help").stdout
    for name in ("annotate", "score", "predict-depth", "evaluate-depth", "doctor"):
        assert name in text


def test_version_is_printed():
    result = _alberti("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("alberti ")


def test_an_unknown_command_is_named():
    result = _alberti("anotate")
    assert result.returncode != 0
    assert "anotate" in result.stderr


def test_a_users_mistake_becomes_one_paragraph_and_exit_code_one(tmp_path):
    result = _alberti("annotate", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out.jsonl"))
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "nowhere" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out.jsonl").exists()
