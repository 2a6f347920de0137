"""From a finished run's summary to one JSON, tables and figures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_workspace import ARMS, report_inputs, write_workspace

from alberti.files import read_json, write_json
from alberti.report.summary import summarise
from pipeline.results import main


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    write_workspace(root, count=4, seeds=(3,))
    write_json(root / "metrics" / "summary.json", summarise(report_inputs(root, (3,))))
    return root


def test_command_writes_json_tables_and_figures(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, text, figures = tmp_path / "r.json", tmp_path / "r.md", tmp_path / "figures"
    main([str(finished), "--out", str(out), "--markdown", str(text), "--figures", str(figures), "--scenes", "2"])
    assert capsys.readouterr().out.strip() == str(out)
    written = read_json(out)
    assert written["name"] == "r"
    assert list(written["images"]["arms"]) == [*ARMS, "guided", "renders", "reconstructions"]
    assert "| constrained - unconstrained |" in text.read_text()
    names = {"arms.png", "pictures.jpg", "lines.jpg", "vanishing_lines.jpg", "profiles.png"}
    assert {path.name for path in figures.iterdir()} == names
    assert Image.open(figures / "pictures.jpg").width == 7 * 256 + 6 * 6
    spread = [np.asarray(Image.open(path).convert("L")).std() for path in figures.iterdir()]
    assert min(spread) > 5


def test_command_says_which_arm_is_not_there(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    with pytest.raises(SystemExit, match="error: constraint: not an arm with pictures"):
        main([str(finished), "--out", str(out), "--figures", str(tmp_path), "--arms", "constraint"])


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"summary\.json"):
        main([str(tmp_path), "--out", str(tmp_path / "r.json")])
