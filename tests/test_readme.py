"""README says what docs/results/gpu.json says, is short, and links to what is there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

ARMS = ("unconstrained", "constrained", "grid", "guided")


@pytest.fixture
def readme(project: Path) -> str:
    return (project / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def results(project: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project / "docs" / "results" / "gpu.json").read_text(encoding="utf-8"))
    return found


def _row(readme: str, start: str) -> list[float]:
    (line,) = (line for line in readme.splitlines() if line.startswith(f"| {start}"))
    return [float(cell.strip(" %")) for cell in line.strip("|").split("|")[1:]]


@pytest.mark.parametrize(("title", "model"), [("PixelFormer", "pixelformer"), ("DPT", "dpt")])
def test_errors_on_real_frames(readme: str, results: dict[str, Any], title: str, model: str) -> None:
    test_set = results["depth"]["real"]["models"][model]
    means = [round(test_set["arms"][arm]["abs_rel"]["mean"], 3) for arm in (*ARMS, "condition")]
    assert _row(readme, f"real frames: {title}") == means
    original = round(test_set["arms"]["original"]["abs_rel"]["mean"], 3)
    assert f"{title}'s is {original}" in " ".join(readme.split())
    assert f"on {test_set['setting']['n']} real KITTI frames of {test_set['setting']['scenes']} scenes" in readme


@pytest.mark.parametrize(
    ("start", "metric", "scale", "digits"),
    [("line within 2°", "consistency_2", 100, 1), ("line that recedes", "level_line_length", 1, 0)],
)
def test_what_pictures_are_like(
    readme: str, results: dict[str, Any], start: str, metric: str, scale: float, digits: int
) -> None:
    arms = results["images"]["arms"]
    assert _row(readme, start) == [round(scale * arms[arm][metric]["mean"], digits) for arm in (*ARMS, "renders")]


def test_distances(readme: str, results: dict[str, Any]) -> None:
    arms = results["distances"]["arms"]
    assert _row(readme, "squared Fréchet")[:-1] == [round(arms[arm]["frechet_distance"]["mean"], 1) for arm in ARMS]


def test_the_first_screen_is_short(readme: str) -> None:
    lines = readme.splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 160
    assert len(readme.split("```console")[0].split()) < 90


def test_links_lead_somewhere(project: Path) -> None:
    pages = [*project.glob("*.md"), *(project / "docs").rglob("*.md"), project / "pretrained" / "README.md"]
    broken = [
        f"{page.relative_to(project)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert not broken


def test_code_of_the_readme_imports(readme: str) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    exec("\n".join(line for line in code.splitlines() if line.startswith(("import", "from"))), {})
