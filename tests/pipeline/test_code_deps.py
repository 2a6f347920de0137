"""What makes a stage stale: every module that it can import and every param that it reads, and nothing else.

The proofs are by mutation: a module or a value changes, and the stages that DVC holds stale are compared with those that can
import the one or read the other.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from pydantic import BaseModel

from alberti.data.sources import READERS as READERS_OF_DATA
from alberti.data.sources import reader_of
from alberti.errors import ConfigError
from pipeline.code_deps import PLACES, code_of_role, update_dvc_yaml
from pipeline.graph import read_units
from pipeline.imports import ImportGraph
from pipeline.profiles import compose, dump, with_graph
from stages.prepare import WAYS, way_of
from stages.shared.graph import check_graph
from stages.shared.layout import Layout
from stages.shared.params import Params, check_params
from stages.shared.source_params import FILES_OF_READERS

Run = Callable[..., subprocess.CompletedProcess[str]]


@cache
def stage_deps(project: Path) -> dict[str, tuple[str, list[str]]]:
    """Stage instance as DVC resolves it -> its module and its code deps."""
    from dvc.repo import Repo

    with Repo(str(project)) as repo:
        return {
            stage.name: (
                stage.cmd.split()[2],
                [dep.def_path for dep in stage.deps if dep.def_path.split("/")[0] in ("alberti", "stages")],
            )
            for stage in repo.index.stages
        }


def covered(path: str, deps: list[str]) -> bool:
    return any(path == dep or path.startswith(f"{dep}/") for dep in deps)


def test_dvc_yaml_lists_the_code_as_it_is(project: Path) -> None:
    """If this fails: `make params`."""
    assert update_dvc_yaml(project) == (project / "dvc.yaml").read_text()


def test_a_changed_module_makes_exactly_those_stages_stale_that_can_import_it(project: Path) -> None:
    graph = ImportGraph(project)
    params = check_params(compose(project, "default"))
    modules = sorted(
        path.relative_to(project).as_posix() for top in ("alberti", "stages") for path in (project / top).rglob("*.py")
    )
    assert len(modules) > 150
    for stage, (module, deps) in stage_deps(project).items():
        expected = graph.reach(module)
        if module == "stages.prepare":
            role = stage.partition("@")[2]
            expected |= graph.reach(WAYS[way_of(role, params.prepare.roles()[role])])
        listed = {path for path in modules if covered(path, deps)}
        extra, missing = listed - expected - {"stages/__init__.py"}, expected - listed
        assert not missing, f"{stage} can import {sorted(missing)}"
        assert not extra, f"{stage} cannot import {sorted(extra)}"


@pytest.mark.parametrize(
    ("module", "stale", "fresh"),
    [
        ("alberti/data/vkitti2.py", [], ["prepare@train", "prepare@test", "annotate@train", "base"]),
        ("alberti/data/kitti/writer.py", ["prepare@kitti", "prepare@test"], ["prepare@train", "prepare@condition"]),
        ("alberti/annotate.py", ["annotate@train"], ["finetune@constrained-0", "finetune@unconstrained-0", "prepare@train"]),
        ("alberti/diffusion/guidance.py", ["generate@guided-0"], ["finetune_depth@dpt-kitti-0", "annotate@train"]),
        ("alberti/diffusion/constraints.py", ["finetune@constrained-0"], ["annotate@train", "evaluate_depth@dpt-original"]),
        ("alberti/files.py", ["prepare@train", "report", "annotate@train"], []),
        ("pipeline/flow.py", [], ["prepare@train", "report"]),
    ],
)
def test_examples_of_it(project: Path, module: str, stale: list[str], fresh: list[str]) -> None:
    deps = {stage: found for stage, (_, found) in stage_deps(project).items()}
    assert [stage for stage in stale if not covered(module, deps[stage])] == []
    assert [stage for stage in fresh if covered(module, deps[stage])] == []


def test_readers_of_other_sources_are_no_code_of_a_role(project: Path) -> None:
    params = check_params(compose(project, "paper"))
    code = {role: code_of_role(role, section, project) for role, section in params.prepare.roles().items()}
    assert all(len(entries) == PLACES for entries in code.values())
    assert "alberti/data/holicity.py" in code["train"]
    assert "alberti/data/vkitti2.py" not in code["train"]
    assert {"alberti/data/vkitti2.py", "alberti/data/synthia_al.py"} <= set(code["condition"])
    assert "alberti/data/holicity.py" not in code["condition"]
    assert not any(entry.startswith("alberti/data/scenes") for entries in code.values() for entry in entries)


def leaves(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key


def at(values: dict, key: str) -> tuple[Any, str]:
    *parents, last = key.split(".")
    for name in parents:
        values = values[name]
    return values, last


def param_keys(project: Path, folder: Path, values: dict) -> dict[str, dict[str, Any]]:
    """Stage instance -> key of a param that it depends on -> the value, for these params."""
    from dvc.repo import Repo

    (folder / "params.yaml").write_text(dump(values))
    with Repo(str(folder)) as repo:
        names = {stage.name: [name for dep in stage.deps for name in getattr(dep, "params", [])] for stage in repo.index.stages}
    return {stage: _read(keys, values) for stage, keys in names.items()}


@pytest.fixture
def bare(project: Path, tmp_path: Path) -> Path:
    """A DVC repository with this dvc.yaml and nothing else."""
    shutil.copy(project / "dvc.yaml", tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    return tmp_path


READERS = {
    "prepare": lambda key: {f"prepare@{key.split('.')[1]}", f"watch@{key.split('.')[1]}"},
    "annotate": lambda key: {"annotate@train"},
    "base": lambda key: {"base"},
    "arms": lambda key: {f"finetune@{key.split('.')[1]}-0"},
    "generate": lambda key: {"generate@base-0", "generate@unconstrained-0", "generate@constrained-0"},
    "variants": lambda key: {f"generate@{key.split('.')[1]}-0"},
    "base_depth": lambda key: {f"base_depth@{key.split('.')[1]}"},
    "evaluate_images": lambda key: {
        "references", *(f"evaluate_images@{arm}-0" for arm in ("base", "unconstrained", "constrained", "guided"))
    },
    "references": lambda key: {"references"},
}  # fmt: skip
"""Section -> the stages that read a key of it."""


def test_a_changed_param_makes_stale_what_reads_it(project: Path, bare: Path, composed: Callable[[str], dict]) -> None:
    """Every leaf of every section, one at a time, on the plain values: no stage may overlook it, and no other may care."""
    values = composed("default")
    before = param_keys(project, bare, values)
    for key in leaves({name: section for name, section in values.items() if name in READERS}):
        changed = composed("default")
        section, name = at(changed, key)
        section[name] = "changed"
        after = {stage: _read(read, changed) for stage, read in before.items() if stage != "report"}
        stale = {stage for stage, read in after.items() if read != before[stage]}
        expected = READERS[key.partition(".")[0]](key) & set(before)
        if key in ("annotate.roles", "variants.guided.arm"):
            expected = set()  # they decide which instances there are, and act through `graph`
        assert stale == expected, key


def _read(keys: Iterable[str], values: dict) -> dict[str, Any]:
    result = {}
    for key in keys:
        section, name = at(values, key)
        result[key] = section[name]
    return result


def composed_change(project: Path, bare: Path, before: dict, *overrides: str) -> set[str]:
    after = param_keys(project, bare, compose(project, "default", overrides))
    return {stage for stage in after if stage != "report" and after[stage] != before.get(stage)}


def test_what_arms_inherit_reaches_only_arms_that_use_it(project: Path, bare: Path) -> None:
    before = param_keys(project, bare, compose(project, "default"))
    assert composed_change(project, bare, before, "finetune.weight=0.05") == {"finetune@constrained-0"}
    assert composed_change(project, bare, before, "arms.constrained.weight=0.07") == {"finetune@constrained-0"}
    assert composed_change(project, bare, before, "finetune.num_lines=500") == {"finetune@constrained-0"}
    assert composed_change(project, bare, before, "finetune.training.lr=1e-3") == {
        "finetune@constrained-0", "finetune@unconstrained-0"
    }  # fmt: skip
    assert composed_change(project, bare, before, "variants.guided.arm=base") == {"generate@guided-0"}
    assert composed_change(project, bare, before, "variants.guided.generate.vanishing_guidance.strength=2") == {
        "generate@guided-0"
    }
    assert composed_change(project, bare, before, "evaluate_depth.test_sets.test.alignment.dpt=[median]") == {
        stage for stage in before if stage.startswith("evaluate_depth@dpt-")
    }
    assert composed_change(project, bare, before, "finetune_depth.train.dpt.training.steps=3") == {
        stage for stage in before if stage.startswith("finetune_depth@dpt-")
    }


def test_another_seed_adds_instances_and_leaves_the_others_as_they_are(project: Path, bare: Path) -> None:
    before = param_keys(project, bare, compose(project, "default"))
    after = param_keys(project, bare, compose(project, "default", ["seeds=[0,1]"]))
    assert {stage: read for stage, read in after.items() if stage in before and stage != "report"} == {
        stage: read for stage, read in before.items() if stage != "report"
    }
    added = set(after) - set(before)
    assert "finetune@constrained-1" in added
    assert all(stage.endswith("-1") for stage in added)


def test_a_changed_default_is_a_changed_param(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What profiles begin from are the defaults in code: `make params` writes them, a test compares them."""
    from alberti.diffusion.config import SampleConfig
    from pipeline import profiles

    assert profiles.sections()["generate"]["negative_prompt"] == ""
    monkeypatch.setattr(profiles.schema.GenerateParams.model_fields["negative_prompt"], "default", "blurry")
    assert SampleConfig.model_fields["negative_prompt"].default == ""
    assert profiles.sections()["generate"]["negative_prompt"] == "blurry"


@pytest.mark.slow
def test_dvc_status_says_so(project_copy: Path, run_in: Run) -> None:
    """On a sample, with DVC itself: prepared once, then a module and a value changed."""
    values = yaml.safe_load((project_copy / "params.yaml").read_text())
    for role in ("train", "condition", "kitti", "test"):
        scenes = values["prepare"][role]["scenes"]
        scenes |= {"splits": dict.fromkeys(scenes["splits"], 1), "width": 64, "height": 64, "supersample": 1}
    (project_copy / "params.yaml").write_text(dump(with_graph(values, project_copy)))
    targets = ["prepare@train", "prepare@condition", "prepare@kitti", "prepare@test", "annotate@train"]
    done = run_in(project_copy, "dvc", "repro", *targets)
    assert done.returncode == 0, done.stderr

    def stale() -> set[str]:
        found = run_in(project_copy, "dvc", "status", "--json", *targets)
        assert found.returncode == 0, found.stderr
        return set(yaml.safe_load(found.stdout))

    assert stale() == set()
    for module, expected in {
        "alberti/data/vkitti2.py": set(),
        "alberti/data/kitti/writer.py": {"prepare@kitti", "prepare@test"},
        "alberti/annotate.py": {"annotate@train"},
        "alberti/data/scenes/render.py": set(targets) - {"annotate@train"},
    }.items():
        path = project_copy / module
        before = path.read_text()
        path.write_text(before + "# changed\n")
        assert stale() == expected, module
        path.write_text(before)
    values["prepare"]["train"]["scenes"]["seed"] = 99
    (project_copy / "params.yaml").write_text(dump(with_graph(values, project_copy)))
    assert stale() == {"prepare@train"}


def text_fields(kind: Any, place: str = "") -> Iterator[str]:
    """`Model.field` of every field of the schema that holds text."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield from text_fields(field.annotation, f"{kind.__name__}.{name}")
    elif kind is str or kind is Any:
        yield place
    for inner in get_args(kind):
        yield from text_fields(inner, place)


PHOTOS = {"source": "folder", "root": "/photos", "scenes": None}
KITTI = {"source": "kitti", "root": "/kitti", "scenes": None}
TRAINED = {"source": "train", "scenes": {"splits": {"all": 1}, "width": 64, "height": 64, "style": "kitti", "seed": 1}}
NAME_FILES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "CaptionConfig.model": ("prepare.train", "captions", {"model": "PATH"}, "prepare@train"),
    "DepthEstimateConfig.model": ("prepare.train", "", {**PHOTOS, "estimate_depth": {"model": "PATH"}}, "prepare@train"),
    "SourceParams.options": ("prepare.test", "", {**KITTI, "options": {"test": "PATH"}}, "prepare@test"),
    "NativeSource.options": (
        "prepare.train", "",
        {**PHOTOS, "root": None, "source": "several", "fit": {"width": 64, "height": 64},
         "sources": [{"source": "holicity", "root": "/holicity", "options": {"captions": "PATH"}}]},
        "prepare@train",
    ),
    "BaseParams.path": ("base", "", {"source": "path", "path": "PATH"}, "base"),
    "BaseParams.id": ("base", "", {"source": "hub", "id": "PATH"}, "base"),
    "BaseParams.start": ("base", "", {**TRAINED, "train": {}, "start": "PATH"}, "base"),
    "DepthStartParams.weights": ("base_depth.dpt", "", {"weights": "PATH"}, "base_depth@dpt"),
    "DepthStartParams.backbone_weights": ("base_depth.dpt", "", {"backbone_weights": "PATH"}, "base_depth@dpt"),
    "TestSetParams.scenes": ("evaluate_depth.test_sets.test", "", {"scenes": "PATH"}, "evaluate_depth@dpt-original"),
}  # fmt: skip
"""Field -> a section, a key in it ("": the section itself), what changes there, and the unit that reads the file."""
WATCHED = {"SourceParams.root", "NativeSource.root"}
"""Data of 100 GB, which stage `watch` looks at."""
NO_FILES = {
    "Params.profile", "Params.watch", "Params.arms", "Params.variants", "Params.graph", "VariantParams.arm",
    "CaptionConfig.revision", "CaptionConfig.prompt", "CaptionConfig.template", "DepthEstimateConfig.revision",
    "SceneParams.splits", "SceneParams.style", "SceneParams.camera", "BaseParams.revision", "ArmParams.constraint",
    "GenerateParams.negative_prompt", "DepthStartParams.size", "DepthStartParams.revision", "FinetuneDepthParams.arms",
    "EvaluateImagesParams.extractor", "EvaluateDepthParams.arms", "EvaluateDepthParams.test_sets", "TestSetParams.protocol",
    "TestSetParams.alignment",
}  # fmt: skip


def test_every_param_that_may_name_a_file_is_known() -> None:
    """A new text field of the schema belongs into one of the three lists."""
    assert set(text_fields(Params)) == {*NAME_FILES, *WATCHED, *NO_FILES}


def test_every_option_of_a_reader_that_may_name_a_file_is_known() -> None:
    found = {
        (name, option)
        for name in READERS_OF_DATA
        for option, hint in get_type_hints(reader_of(name)).items()
        if str in (hint, *get_args(hint)) and option not in ("root", "index", "return")
    }
    files = {(name, option) for name, options in FILES_OF_READERS.items() for option in options}
    assert found - files == {("folder", "depth_format"), ("folder", "depth_kind"), ("holicity", "split")}


@pytest.mark.parametrize("field", NAME_FILES)
def test_a_file_or_folder_that_a_param_names_is_a_dependency(project_copy: Path, composed: Any, field: str) -> None:
    section, key, changes, unit = NAME_FILES[field]
    named = "own/model"
    (project_copy / named).mkdir(parents=True)
    values = composed("default")
    place, last = at(values, section)
    place[last] = merged(place[last], {key: changes} if key else changes, named)
    if "train" in changes:
        place[last]["train"] = composed_section(project_copy)
    (project_copy / "params.yaml").write_text(dump(with_graph(values, project_copy)))
    reads = {name for name, found in read_units(project_copy).items() if named in found.deps}
    assert unit in reads
    assert {name.partition("@")[0] for name in reads} == {unit.partition("@")[0]}


def composed_section(project: Path) -> dict:
    """How a base is trained."""
    found = yaml.safe_load((project / "conf/section/base_train.yaml").read_text())
    return {**found, "width": 64, "height": 64}


def merged(before: Any, changes: dict[str, Any], named: str) -> dict[str, Any]:
    values = yaml.safe_load(yaml.safe_dump(changes).replace("PATH", named))
    return {**(before or {}), **values}


def test_a_folder_that_dvc_does_not_look_into_is_refused(project_copy: Path, composed: Any) -> None:
    (project_copy / "datasets" / "base").mkdir(parents=True)
    values = composed("default")
    values["base"] |= {"source": "path", "path": "datasets/base"}
    with pytest.raises(ConfigError, match=r"datasets/base: a folder that \.dvcignore hides"):
        with_graph(values, project_copy)


def test_a_model_that_came_or_went_is_another_graph(project_copy: Path, composed: Any) -> None:
    """`own/model` is a repository of the hub until it is a folder here."""
    values = composed("default")
    values["base_depth"]["dpt"] |= {"weights": "own/model"}
    params = check_params(with_graph(values, project_copy))
    check_graph(params, layout=Layout(project=project_copy))
    (project_copy / "own" / "model").mkdir(parents=True)
    with pytest.raises(ConfigError, match="or to the files that they name"):
        check_graph(params, layout=Layout(project=project_copy))
