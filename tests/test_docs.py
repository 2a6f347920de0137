"""The documentation builds without a warning, loads nothing from elsewhere, and its links lead somewhere."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.links import anchors, broken_links, link_page, links

NEEDED = ("mkdocs", "material", "mkdocstrings")
EXTERNAL = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//[^\"'> ]+[^>]*>")


@pytest.fixture(scope="session")
def site(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. MkDocs ends with an error at the first warning."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=project,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    return out


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    found = {
        tag
        for page in site.rglob("*.html")
        for tag in EXTERNAL.findall(page.read_text(encoding="utf-8"))
        if 'rel="canonical"' not in tag and "rel=canonical" not in tag
    }
    assert not found
    styles = [
        path for path in site.rglob("*.css") if re.search(r"url\([\"']?https?://|@import", path.read_text(encoding="utf-8"))
    ]
    assert not styles


@pytest.mark.parametrize("name", ["perspective_loss", "VanishingGuidance", "Camera", "depth_metrics", "DepthModel", "Dataset"])
def test_public_names_are_in_the_reference(site: Path, name: str) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    assert re.search(rf'id="alberti\.[a-z_.]+\.{name}"', pages)


def test_links_and_anchors_lead_somewhere(project: Path) -> None:
    assert not broken_links(project)


def test_links_that_leave_the_project_are_listed(project: Path) -> None:
    """If this fails: `python -m pipeline.reference`."""
    assert (project / "docs" / "links.md").read_text(encoding="utf-8") == link_page(project)


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    for folder in ("docs", "pretrained"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pretrained" / "README.md").write_text("# Weights\n", encoding="utf-8")
    (tmp_path / "docs" / "b.md").write_text("# A `title`, of two\n", encoding="utf-8")
    page = tmp_path / "docs" / "a.md"
    page.write_text(
        "[1](b.md) [2](b.md#a-title-of-two) [3](b.md#no) [4](c.md) [5](https://x.org/y)\n`[6](d.md)`\n", encoding="utf-8"
    )
    assert broken_links(tmp_path) == ["docs/a.md: b.md#no", "docs/a.md: c.md"]
    assert "https://x.org/y" in link_page(tmp_path)
    assert len(list(links(page))) == 5
    assert anchors("# 1 What it does?\n") == {"1-what-it-does"}
