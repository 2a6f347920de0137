"""The page of `dvc plots show` draws without a network."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.plots_page import SCRIPTS, write_scripts

pytest.importorskip("vl_convert")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHART = {
    "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
    "data": {"values": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]},
    "mark": "line",
    "encoding": {"x": {"field": "step", "type": "quantitative"}, "y": {"field": "loss", "type": "quantitative"}},
}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_chart_is_drawn_offline(project: Path, tmp_path: Path) -> None:
    chart = f'<div id="chart"></div><script>vegaEmbed("#chart", {CHART!r});</script>'
    page = (project / ".dvc" / "plots.html").read_text(encoding="utf-8").replace("{plot_divs}", chart)
    out = tmp_path / "dvc_plots" / "index.html"
    out.parent.mkdir()
    out.write_text(page, encoding="utf-8")

    def drawn() -> bool:
        command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * 127.0.0.1:1"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000", "--dump-dom", out.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        return "<canvas" in done.stdout or "<svg" in done.stdout

    assert not drawn(), "it takes the scripts from elsewhere"
    assert write_scripts(tmp_path) == tmp_path / SCRIPTS
    assert drawn()
