"""`alberti study` from pictures to results, and its one-paragraph errors."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alberti.images import write_image
from alberti.study.answers import write_answers
from alberti.study.design import Study
from alberti.study.simulate import Raters, simulated_answers


@pytest.fixture
def arms(tmp_path: Path) -> list[str]:
    for arm in ("base", "constrained"):
        (tmp_path / arm).mkdir()
        for index in range(8):
            write_image(tmp_path / arm / f"{index}.png", np.full((40, 60, 3), 10 * index + len(arm), np.uint8))
    return [f"base={tmp_path / 'base'}", f"constrained={tmp_path / 'constrained'}"]


def test_from_pictures_to_results(
    alberti: Callable[..., int], arms: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    assert alberti("study", "create", out, *arms, "--pairs", 4, "--catch", 2, "--compare", "constrained:base") == 0
    assert f"next: alberti study serve {out}" in capsys.readouterr().out
    study = Study.open(out)
    assert alberti("study", "analyse", out) == 1
    assert "no answers yet" in capsys.readouterr().err
    write_answers(out / "answers.jsonl", simulated_answers(study, Raters(0.8), 10, seed=0))
    assert alberti("study", "analyse", out) == 0
    assert "constrained over base" in capsys.readouterr().out
    assert json.loads((out / "results" / "results.json").read_text())["raters"]["all"] == 10
    assert alberti("study", "export", out, tmp_path / "page", "--raters", 2) == 0
    assert alberti("study", "export", out, tmp_path / "tasks", "--raters", 1, "--label-studio") == 0
    assert (tmp_path / "page" / "index.html").is_file()
    assert (tmp_path / "tasks" / "tasks-0000.json").is_file()
    assert alberti("study", "status", out) == 0


def test_a_plan_makes_nothing(
    alberti: Callable[..., int],
    arms: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from alberti.study import plan

    monkeypatch.setattr(plan, "STUDIES", 3)
    assert alberti("study", "create", tmp_path / "study", *arms, "--pairs", 4, "--plan", "--raters", "4,8") == 0
    printed = capsys.readouterr().out
    assert "points" in printed
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["create", "OUT"], "at least two arms"),
        (["create", "OUT", "ARM", "ARM"], "already"),
        (["create", "OUT", "ARM", "OTHER", "--compare", "base"], "ARM:OTHER"),
        (["create", "OUT", "ARM", "OTHER", "--size", "big"], "WIDTHxHEIGHT"),
        (["create", "OUT", "--run", "OUT"], "at least two arms"),
        (["create", "OUT", "ARM", "OTHER", "--plan", "--raters", "many"], "whole numbers"),
        (["create", "OUT", "ARM", "missing=nowhere", "--plan"], "nowhere"),
        (["create", "OUT", "ARM", "OTHER", "--blocks", "beauty"], "beauty"),
        (["create", "OUT", "ARM", "x=OUT"], "no such folder"),
        (["create", "OUT", "a/b=FOLDER", "OTHER"], "name"),
        (["create", "OUT", "ARM", "OTHER", "--completion-url", "http://x"], "completion_url"),
        (["serve", "OUT"], "not a study"),
        (["analyse", "OUT"], "not a study"),
        (["export", "OUT", "OUT"], "not a study"),
        (["import", "OUT", "OUT"], "not a study"),
        (["status", "OUT"], "not a study"),
        (["proxies", "OUT", "ARM", "OTHER"], "--model"),
        (["proxies", "OUT", "ARM", "OTHER", "--model", "x"], "--straight"),
    ],
)
def test_errors_are_one_paragraph(
    alberti: Callable[..., int],
    arms: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    match: str,
) -> None:
    known = {"OUT": str(tmp_path / "nowhere"), "ARM": arms[0], "OTHER": arms[1]}
    filled = [
        known.get(text, text.replace("OUT", known["OUT"]).replace("FOLDER", known["ARM"].split("=")[1])) for text in arguments
    ]
    assert alberti("study", *filled) == 1
    printed = capsys.readouterr().err
    assert match in printed
    assert "Traceback" not in printed
