"""Which files of the project a module can import, as its source says: the import graph, imports inside functions included.

Imports for type checkers alone do not run and do not count. A package whose names are imported when first used says under
`if TYPE_CHECKING` where each lives; importing such a name counts as importing its home. What is imported by a computed name
(`importlib.import_module`) is not seen here: dvc.yaml gets it from params (`pipeline.profiles`).
"""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from alberti.errors import ConfigError

PACKAGES = ("alberti", "stages")
"""What stages run."""


class ImportGraph:
    """The import graph of the project's packages."""

    def __init__(self, project: str | Path):
        self._project = Path(project)

    def reach(self, *modules: str) -> set[str]:
        """Files, relative to the project, that run or can be imported once ``modules`` are: their packages' too.

        Raises:
            ConfigError: no such module.
        """
        found: set[str] = set()
        stack = [file for module in modules for file in self._files(module, needed=True)]
        while stack:
            file = stack.pop()
            if file not in found:
                found.add(file)
                stack += self._imports(file)
        return found

    @cache  # noqa: B019  # a graph lives as long as the command that made it
    def _imports(self, file: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(found for module in self._named(file) for found in self._files(module)))

    def _named(self, file: str) -> Iterator[str]:
        """Modules that a file imports."""
        for node in _executed(self._tree(file)):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                home = self._home(file, node)
                for alias in node.names:
                    yield home
                    if self._path(f"{home}.{alias.name}") is not None:
                        yield f"{home}.{alias.name}"
                    elif (lazy := self._lazy(home).get(alias.name)) is not None:
                        yield lazy

    def _home(self, file: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = list(Path(file).with_suffix("").parts[: -node.level])
        return ".".join([*package, *([node.module] if node.module else [])])

    @cache  # noqa: B019
    def _lazy(self, package: str) -> dict[str, str]:
        """Name -> home of what a package gives when it is first used."""
        path = self._path(package)
        if path is None or not path.endswith("__init__.py"):
            return {}
        tree = self._tree(path)
        if not any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body):
            return {}
        blocks = [node for node in tree.body if isinstance(node, ast.If) and _for_type_checkers(node)]
        imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
        return {alias.asname or alias.name: self._home(path, node) for node in imports for alias in node.names}

    def _files(self, module: str, needed: bool = False) -> list[str]:
        """A module's file and those of the packages above it; nothing for modules of other projects."""
        if module.split(".")[0] not in PACKAGES:
            return []
        parts = module.split(".")
        names = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        paths = [self._path(name) for name in names]
        if needed and paths[-1] is None:
            raise ConfigError(f"{module}: no such module in {self._project}")
        return [path for path in paths if path is not None]

    @cache  # noqa: B019
    def _path(self, module: str) -> str | None:
        base = module.replace(".", "/")
        for path in (f"{base}.py", f"{base}/__init__.py"):
            if (self._project / path).is_file():
                return path
        return None

    @cache  # noqa: B019
    def _tree(self, file: str) -> ast.Module:
        return ast.parse((self._project / file).read_text(encoding="utf-8"), file)


@cache
def import_graph(project: Path) -> ImportGraph:
    """The graph of a project's files as they are when it is first asked for."""
    return ImportGraph(project)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those in `if TYPE_CHECKING` blocks."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _for_type_checkers(child):
            for other in child.orelse:
                yield other
                yield from _executed(other)
            continue
        yield child
        yield from _executed(child)


def _for_type_checkers(node: ast.If) -> bool:
    test = node.test
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def folded(files: Iterable[str], project: str | Path) -> list[str]:
    """The files, with a package's folder in the place of its files where all of them are among these; sorted."""
    left, result = set(files), set[str]()
    folders = sorted({parent.as_posix() for file in left for parent in Path(file).parents if parent.as_posix() != "."})
    for folder in folders:  # outer ones first
        own = {path.relative_to(project).as_posix() for path in (Path(project) / folder).rglob("*.py")}
        other = [path for path in (Path(project) / folder).rglob("*") if path.is_file() and path.suffix != ".py"]
        other = [path for path in other if "__pycache__" not in path.parts]
        if len(own) > 1 and own <= left and not other:
            result.add(folder)
            left -= own
    return sorted(result | left)
