"""`alberti distil-decoder` on a tiny real base, through the command line."""

import subprocess
import sys
from pathlib import Path

from diffusion.toy import CAPTIONS, TINY, write_toy

from alberti.diffusion.base import BaseConfig, DepthDiffusion, build_small_base


def _distil(folder: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "alberti.cli", "distil-decoder", "base", "data", "--out", "tiny", "--device", "cpu"]
    return subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, timeout=240)


def test_the_written_folder_is_the_base_with_a_tiny_decoder(tmp_path: Path) -> None:
    write_toy(tmp_path / "data")
    build_small_base(BaseConfig.smoke(**TINY), CAPTIONS).save(tmp_path / "base")
    done = _distil(tmp_path, "--steps", "3", "--batch-size", "2", "--width", "8", "--blocks", "1")
    assert done.returncode == 0, done.stderr
    assert "L1 against the full decoder" in done.stdout
    assert DepthDiffusion.load(tmp_path / "tiny").tiny_decoder is not None
    again = _distil(tmp_path)
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_a_bad_setting_is_one_paragraph(tmp_path: Path) -> None:
    done = _distil(tmp_path, "--precision", "fp8")
    assert done.returncode == 1
    assert "precision" in done.stderr
    assert "Traceback" not in done.stderr
