"""The DAG as DVC sees it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from alberti.errors import ConfigError
from pipeline.graph import stage_graph


def test_every_stage_comes_after_what_it_waits_for(project: Path) -> None:
    graph = stage_graph(project)
    seen: set[str] = set()
    for stage, upstream in graph.items():
        assert seen.issuperset(upstream)
        seen.add(stage)
    assert graph["generate@constrained"] == ["finetune@constrained", "prepare@condition"]
    assert "prepare@train" not in graph["generate@constrained"]
    assert {"evaluate_images@constrained", "evaluate_depth@dpt-kitti", "evaluate_depth@dpt-original"} <= set(graph["report"])


def test_stage_modules_match_dvc_yaml(project: Path) -> None:
    """Stage X runs `stages.X`, reads section X and depends on stages/X.py; finetune_depth_kitti is finetune_depth."""
    stages = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]
    for name, definition in stages.items():
        stage = definition.get("do", definition)
        module = name.removesuffix("_kitti")
        assert f"python -m stages.{module}" in stage["cmd"]
        assert f"stages/{module}.py" in stage["deps"]
        assert any(param.split(".")[0] == module for param in stage["params"])
        for dependency in stage["deps"]:
            if "$" not in dependency and dependency.split("/")[0] in ("alberti", "stages", "pretrained"):
                assert (project / dependency).exists(), dependency


def test_a_new_arm_in_params_is_all_it_takes(project_copy: Path) -> None:
    values = yaml.safe_load((project_copy / "params.yaml").read_text())
    values["arms"]["strong"] = {"constraint": "perspective", "weight": 0.1}
    (project_copy / "params.yaml").write_text(yaml.safe_dump(values))
    graph = stage_graph(project_copy)
    assert {"finetune@strong", "generate@strong", "evaluate_images@strong"} <= set(graph)
    assert "evaluate_images@strong" in graph["report"]


def test_arms_depend_on_their_own_overrides_only(
    project_copy: Path, run_in: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    from dvc.repo import Repo

    with Repo(str(project_copy)) as repo:
        stage = next(stage for stage in repo.index.stages if stage.name == "finetune@constrained")
        params = [name for dependency in stage.deps for name in getattr(dependency, "params", [])]
    assert sorted(params) == ["arms.constrained", "finetune", "seed"]


def test_broken_dvc_yaml_is_one_error(project_copy: Path) -> None:
    (project_copy / "dvc.yaml").write_text("stages: {a: {cmd: 'x', outz: [b]}}")
    with pytest.raises(ConfigError, match=r"dvc\.yaml"):
        stage_graph(project_copy)
