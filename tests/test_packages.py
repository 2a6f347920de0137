"""What importing the library does and does not do."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LAZY = ("alberti.depth", "alberti.losses", "alberti.metrics", "alberti.training")
LIGHT = (
    *LAZY,
    "alberti.training.settings",
    "alberti.diffusion.config",
    "alberti.depth.config",
    "alberti.processes",
    "alberti.progress",
)
UNIX_ONLY = {"fcntl", "pwd", "grp", "resource", "termios"}


def modules(project: Path, *folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for folder in folders:
        for path in sorted((project / folder).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def test_settings_and_packages_import_nothing_heavy(project: Path) -> None:
    code = f"import sys, {', '.join(LIGHT)}; print({{'torch', 'numpy', 'rich', 'accelerate', 'cv2'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("package", LAZY)
def test_public_names_resolve(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_names_are_imported_from_where_they_live(project: Path) -> None:
    """A name taken from a lazy package would hide from the imports what a module depends on."""
    for path, tree in modules(project, "alberti", "stages", "pipeline"):
        if path.name == "__init__.py":
            continue
        taken = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module in LAZY]
        assert not taken, f"{path} imports from {taken[0]}: name the module"


def test_no_module_needs_what_only_unix_has(project: Path) -> None:
    """Locks are filelock's, so that the library imports on Windows."""
    for path, tree in modules(project, "alberti"):
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not UNIX_ONLY & set(names), path


def test_importing_calls_nothing_for_its_effect(project: Path) -> None:
    """No module sets the environment, the garbage collector or threads of the interpreter that imports it."""
    for path, tree in modules(project, "alberti"):
        for node in tree.body:
            called = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
            stored = isinstance(node, ast.Assign) and any(isinstance(target, ast.Subscript) for target in node.targets)
            assert not called, f"{path}:{node.lineno}"
            assert not stored, f"{path}:{node.lineno}"
