"""The last words of `make repro`: tables with one named control, the verdict, the report's path."""

from pathlib import Path

import pytest
from report_workspace import report_inputs, write_workspace

from alberti.files import write_json
from alberti.report.summary import summarise
from pipeline.summary import print_summary


def test_summary_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    write_workspace(tmp_path, count=3)
    summary = summarise(report_inputs(tmp_path))
    write_json(tmp_path / "metrics" / "summary.json", summary)
    print_summary(tmp_path)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines()[:-1])) <= 120
    assert "changes against “unconstrained”" in shown
    assert "pixelformer on kitti: 12 real frames of 5 scenes" in " ".join(shown.split())
    for line in summary["verdict"]:
        assert line["answer"] in " ".join(shown.split())
    assert "worse" in shown
    assert "One seed" in shown
    assert str(tmp_path / "report" / "index.html") in shown.replace("\n", "")
