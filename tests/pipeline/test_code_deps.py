"""What makes a stage stale: every module that it can import and every param that it reads, and nothing else.

The proofs are by mutation: a module or a value changes, and the stages that DVC holds stale are compared with those that can
import the one or read the other.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.code_deps import PLACES, code_of_role, update_dvc_yaml
from pipeline.imports import ImportGraph
from pipeline.profiles import compose, dump, with_graph
from stages.prepare import WAYS, way_of
from stages.shared.params import check_params

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
