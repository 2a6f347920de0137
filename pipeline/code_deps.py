"""The code that each stage of dvc.yaml depends on, kept in step with the import graph.

A stage depends on every module that it can import and on no other. `make params` writes these lists into dvc.yaml. What a
role's source decides, the reader, is an entry of params.yaml (`graph.prepare.<role>.code`), for which dvc.yaml has places.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alberti.data.sources import READERS
from alberti.errors import ConfigError
from pipeline.imports import PACKAGES, ImportGraph, folded, import_graph
from stages.prepare import WAYS, way_of
from stages.shared.graph import NOTHING
from stages.shared.params import Params
from stages.shared.source_params import SourceParams

PLACES = 36
"""How many entries of `graph.prepare.<role>.code` dvc.yaml lists."""


def code_of_stage(stage: str, project: str | Path) -> list[str]:
    """Files and folders, relative to the project, that every instance of a stage can import."""
    graph = import_graph(Path(project))
    return folded(_files_of_stage(stage, graph), project)


def _files_of_stage(stage: str, graph: ImportGraph) -> set[str]:
    found = graph.reach(f"stages.{stage}")
    if stage == "prepare":
        found |= set.intersection(*(graph.reach(way) for way in WAYS.values()))
    return found


def code_of_role(role: str, section: SourceParams, project: str | Path, files: Sequence[str] = ()) -> list[str]:
    """What an instance of `prepare` can import besides, for its source, and ``files``: always :data:`PLACES` entries.

    Raises:
        ConfigError: more than that; PLACES and dvc.yaml then need to grow.
    """
    graph = import_graph(Path(project))
    modules = [WAYS[way_of(role, section)], *(READERS[native.source].partition(":")[0] for native in section.natives())]
    entries = [*folded(graph.reach(*modules) - _files_of_stage("prepare", graph), project), *files]
    if len(entries) > PLACES:
        raise ConfigError(f"prepare.{role}: {len(entries)} files of code and data, and dvc.yaml has places for {PLACES}")
    return entries + [NOTHING] * (PLACES - len(entries))


def add_code(graph: dict[str, dict[str, Any]], params: Params, project: str | Path) -> dict[str, dict[str, Any]]:
    """``graph`` with the code of each role in it, and behind it the files and folders that the role's params name."""
    roles = {
        role: {**instance, "code": code_of_role(role, params.prepare.roles()[role], project, instance["files"])}
        for role, instance in graph["prepare"].items()
    }
    return {**graph, "prepare": roles}


def check_seen(graph: Mapping[str, Mapping[str, Any]], project: str | Path, where: str = "") -> None:
    """Refuse a folder that params name and .dvcignore hides: to DVC it is empty, whatever is in it; ConfigError says so."""
    named = {graph["base"]["all"]["model"], *(one["weights"] for one in graph["base_depth"].values())}
    named |= {path for one in graph["prepare"].values() for path in one["files"]}
    home = Path(project).resolve()
    folders = [path for path in sorted(named) if not path.startswith("pretrained/") and (home / path).is_dir()]
    if not folders:
        return
    from dvc.fs import localfs
    from dvc.ignore import DvcIgnoreFilter

    hidden = DvcIgnoreFilter(localfs, str(home))
    for path in folders:
        if (home / path).is_relative_to(home) and hidden.is_ignored_dir(str(home / path)):
            raise ConfigError(
                f"{where}{path}: a folder that .dvcignore hides, so that DVC would not see a file of it change; put it "
                "elsewhere in the project, or outside of it"
            )


def update_dvc_yaml(project: str | Path) -> str:
    """The text of dvc.yaml with every stage's code as it is now; comments stay."""
    import io

    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 1000, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load((Path(project) / "dvc.yaml").read_text(encoding="utf-8"))
    for stage, definition in document["stages"].items():
        deps = _definition(definition)["deps"]
        others = [dep for dep in deps if dep.split("/")[0] not in PACKAGES and not dep.startswith("${item.code[")]
        places = [f"${{item.code[{place}]}}" for place in range(PLACES)] if stage == "prepare" else []
        deps[:] = [*code_of_stage(stage, project), *places, *others]
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def _definition(stage: Mapping[str, Any]) -> Any:
    return stage.get("do", stage)
