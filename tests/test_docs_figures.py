"""Pages of the docs quote docs/results/*.json: each figure here is formatted from the JSON and looked for in the page."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alberti.report.markdown import markdown


@pytest.fixture
def results(project: Path) -> Callable[[str], dict[str, Any]]:
    def read(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((project / "docs" / "results" / f"{name}.json").read_text(encoding="utf-8"))
        return found

    return read


@pytest.fixture
def page(project: Path) -> Callable[[str], str]:
    """A page of docs/ with its lines joined."""
    return lambda name: " ".join((project / "docs" / name).read_text(encoding="utf-8").split())


def _interval(cell: dict[str, float], digits: int, scale: float = 1, *, signed: bool = False) -> str:
    number = f"{{:{'+' if signed else ''}.{digits}f}}"
    mean, low, high = (number.format(scale * cell[key] + 0.0) for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _points(cell: dict[str, float]) -> str:
    """As running text has it: `+19.0 points (18.6 to 19.4)`, with signs in the brackets where they differ."""
    low, high = 100 * cell["low"], 100 * cell["high"]
    inner = f"{low:.1f} to {high:.1f}" if low > 0 else f"{low:+.1f} to {high:+.1f}"
    return f"{100 * cell['mean']:+.1f} points ({inner})"


def test_every_page_of_tables_is_generated_from_the_results_beside_it(
    project: Path, results: Callable[[str], dict[str, Any]]
) -> None:
    """If this fails: `python -m pipeline.results` wrote one of the two files and not the other."""
    folder = project / "docs" / "results"
    names = {path.stem for path in folder.glob("*.json")}
    assert {"gpu", "laptop", "trials", "guidance", "default"} <= names
    assert {path.stem for path in folder.glob("*.md")} == names | {"README"}
    for name in names:
        assert (folder / f"{name}.md").read_text(encoding="utf-8") == markdown(results(name)), name


def test_what_the_table_of_results_says_of_a_run_is_its_verdict(
    page: Callable[[str], str], results: Callable[[str], dict[str, Any]]
) -> None:
    for name in ("laptop", "default"):
        for arm in ("guided", "constrained"):
            change = _points(results(name)["images"]["differences"][f"{arm} - unconstrained"]["consistency_2"])
            assert change in page("results/README.md")


@pytest.mark.parametrize(
    ("start", "arm"),
    [("original", "original"), ("unconstrained", "unconstrained"), ("condition", "condition"), ("kitti", "kitti")],
)
def test_errors_on_real_frames(project: Path, results: Callable[[str], dict[str, Any]], start: str, arm: str) -> None:
    models = results("gpu")["depth"]["real"]["models"]
    cells = [_interval(models[model]["arms"][arm]["abs_rel"], 3) for model in ("pixelformer", "dpt")]
    lines = (project / "docs" / "results" / "README.md").read_text(encoding="utf-8").splitlines()
    (row,) = (line for line in lines if line.split("|")[1:2] and line.split("|")[1].split(":")[0].strip() == start)
    assert [cell.strip() for cell in row.strip("|").split("|")[1:]] == cells


@pytest.mark.parametrize(
    "pair", ["unconstrained / original", "constrained / unconstrained", "grid / unconstrained", "guided / unconstrained"]
)
def test_changes_on_real_frames(page: Callable[[str], str], results: Callable[[str], dict[str, Any]], pair: str) -> None:
    models = results("gpu")["depth"]["real"]["models"]
    cells = [_interval(models[model]["relative"][pair]["abs_rel"], 1, 100, signed=True) for model in ("pixelformer", "dpt")]
    row = f"| {pair.replace(' / ', ' against ')}, % | {' | '.join(cells)} |".replace("| +0.0 (", "| 0.0 (").replace(
        "| -0.0 (", "| 0.0 ("
    )
    assert row in page("results/README.md")


@pytest.mark.parametrize("name", ["results/README.md", "method.md"])
@pytest.mark.parametrize("arm", ["guided", "grid"])
def test_straightness(page: Callable[[str], str], results: Callable[[str], dict[str, Any]], name: str, arm: str) -> None:
    found = results("gpu")
    text, distances = page(name), found["distances"]["arms"]
    assert _points(found["images"]["differences"][f"{arm} - unconstrained"]["consistency_2"]) in text
    if arm == "guided":
        lengths = [
            found["images"]["arms"][which]["level_line_length"]["mean"] for which in ("unconstrained", "guided", "renders")
        ]
        assert "{:,.0f} to {:,.0f} px (renders {:,.0f}".format(*lengths) in text
        assert f"{distances['guided']['frechet_distance']['mean']:.1f}" in text


def test_the_published_loss(page: Callable[[str], str], results: Callable[[str], dict[str, Any]]) -> None:
    assert _points(results("gpu")["images"]["differences"]["constrained - unconstrained"]["consistency_2"]) in page(
        "results/README.md"
    )


@pytest.mark.parametrize("arm", ["orientation", "guided"])
def test_trials_of_constraints(page: Callable[[str], str], results: Callable[[str], dict[str, Any]], arm: str) -> None:
    cell = results("trials")["images"]["differences"][f"{arm} - unconstrained"]["consistency_2"]
    low, high = 100 * cell["low"], 100 * cell["high"]
    assert f"**{100 * cell['mean']:+.1f} ({low:.1f} to {high:.1f})**" in page("log.md")


@pytest.mark.parametrize(
    ("start", "arm"),
    [
        ("unguided", "unconstrained"),
        ("fewer stray edges", "guided"),
        ("the same, surface by surface", "surfaces"),
        ("balance 0.5, points everywhere", "grid_everywhere"),
        ("balance 0.5, surface by surface", "grid"),
    ],
)
def test_trials_of_guidance(page: Callable[[str], str], results: Callable[[str], dict[str, Any]], start: str, arm: str) -> None:
    found = results("guidance")
    means = {name: cell["mean"] for name, cell in (found["images"]["arms"][arm] | found["distances"]["arms"][arm]).items()}
    formats = {
        "consistency_2": "{:.3f}",
        "surface_consistency_2": "{:.3f}",
        "level_line_length": "{:.0f}",
        "perspective_loss": "{:.2f}",
    }
    formats |= {"frechet_distance": "{:.1f}", "kernel_distance": "{:.3f}"}
    row = " | ".join(text.format(means[name]) for name, text in formats.items())
    assert f"| {start} | {row} |" in page("log.md").replace("**", "")


def test_typical_scores(page: Callable[[str], str], results: Callable[[str], dict[str, Any]]) -> None:
    arms, megapixels = results("gpu")["images"]["arms"], 320 * 96 / 1e6
    for arm in ("renders", "reconstructions", "guided", "unconstrained"):
        shares = [f"{arms[arm][key]['mean']:.2f}" for key in ("consistency_2", "consistency_5")]
        length = f"{round(arms[arm]['line_length']['mean'] / megapixels, -3):,.0f}"
        assert f"| {' | '.join([*shares, length])} |" in page("tutorials/score.md")
