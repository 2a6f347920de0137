"""The scripts of ``examples/`` run and do what they say."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from diffusion.toy import CAPTIONS, TINY
from project_tools import PROJECT

from alberti.diffusion.base import BaseConfig, build_small_base
from alberti.images import read_image

EXAMPLES = sorted((PROJECT / "examples").glob("*.py"))


def _example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PROJECT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path):
    assert len([line for line in path.read_text().splitlines() if line.strip()]) < 40


def test_a_pipeline_as_it_is_draws_another_picture_guided(tmp_path: Path, monkeypatch):
    build_small_base(BaseConfig.smoke(**TINY), CAPTIONS).save(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    _example("guided_pipeline").main(str(tmp_path / "base"), side=32, steps=3)
    plain, guided = (read_image(tmp_path / f"{name}.png") for name in ("plain", "guided"))
    assert plain.shape == guided.shape == (32, 32, 3)
    assert not np.array_equal(plain, guided)


def test_the_loss_trains(capsys):
    history = _example("perspective_loss").main(streets=2, steps=30)
    assert np.mean(history[-5:]) < 0.8 * np.mean(history[:5])
    assert "step 20" in capsys.readouterr().out


def test_a_wavy_picture_scores_less():
    found = _example("score_pictures").main()
    assert found["wavy.png"] < found["straight.png"] - 0.1
