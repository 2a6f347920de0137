"""The import graph, on a small project whose imports are known."""

from pathlib import Path

import pytest

from alberti.errors import ConfigError
from pipeline.imports import ImportGraph, folded

FILES = {
    "alberti/__init__.py": "",
    "alberti/errors.py": "",
    "alberti/low/__init__.py": "",
    "alberti/low/a.py": "from alberti.errors import E\nimport numpy.linalg",
    "alberti/low/b.py": "def f():\n    from alberti.low import a\n",
    "alberti/low/unused.py": "import alberti.low.b",
    "alberti/high/__init__.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from alberti.high.c import thing\n"
        "def __getattr__(name): ...\n"
    ),
    "alberti/high/c.py": "from .d import x",
    "alberti/high/d.py": "",
    "stages/__init__.py": "",
    "stages/one.py": (
        "from typing import TYPE_CHECKING\nimport alberti.low.b\nif TYPE_CHECKING:\n    import alberti.low.unused\n"
    ),
    "stages/two.py": "from alberti.high import thing",
    "stages/three.py": "import typing\nif typing.TYPE_CHECKING:\n    import alberti.low.b\nelse:\n    import alberti.low.a\n",
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_imports_inside_functions_count_and_those_for_type_checkers_do_not(small: Path) -> None:
    assert ImportGraph(small).reach("stages.one") == {
        "stages/__init__.py", "stages/one.py", "alberti/__init__.py", "alberti/low/__init__.py", "alberti/low/b.py",
        "alberti/low/a.py", "alberti/errors.py",
    }  # fmt: skip


def test_a_name_that_a_package_gives_when_first_used_counts_with_its_home(small: Path) -> None:
    reached = ImportGraph(small).reach("stages.two")
    assert {"alberti/high/__init__.py", "alberti/high/c.py", "alberti/high/d.py"} <= reached
    assert "alberti/low/a.py" not in reached


def test_the_other_branch_of_a_type_checking_block_runs(small: Path) -> None:
    reached = ImportGraph(small).reach("stages.three")
    assert "alberti/low/a.py" in reached
    assert "alberti/low/b.py" not in reached


def test_an_unknown_module_is_refused(small: Path) -> None:
    with pytest.raises(ConfigError, match=r"stages\.four: no such module"):
        ImportGraph(small).reach("stages.four")


def test_folders_stand_for_their_files_only_if_all_are_meant(small: Path) -> None:
    low = {f"alberti/low/{name}.py" for name in ("__init__", "a", "b", "unused")}
    assert folded(low, small) == ["alberti/low"]
    assert folded(low - {"alberti/low/unused.py"}, small) == sorted(low - {"alberti/low/unused.py"})
    (small / "alberti/low/template.html").write_text("")
    assert folded(low, small) == sorted(low)
