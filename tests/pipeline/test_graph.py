"""The DAG as DVC sees it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from alberti.errors import ConfigError
from pipeline.graph import stage_graph
from pipeline.profiles import dump, with_graph


def test_every_stage_comes_after_what_it_waits_for(project: Path) -> None:
    graph = stage_graph(project)
    seen: set[str] = set()
    for stage, upstream in graph.items():
        assert seen.issuperset(upstream)
        seen.add(stage)
    assert graph["generate@constrained-0"] == ["finetune@constrained-0", "prepare@condition"]
    assert "prepare@train" not in graph["generate@constrained-0"]
    assert {"evaluate_images@constrained-0", "evaluate_depth@dpt-kitti-0", "evaluate_depth@dpt-original"} <= set(
        graph["report"]
    )


def test_stage_modules_match_dvc_yaml(project: Path) -> None:
    """Stage X runs `stages.X` and depends on stages/X.py, and every module of `stages` is one."""
    stages = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]
    for name, definition in stages.items():
        stage = definition.get("do", definition)
        assert f"python -m stages.{name}" in stage["cmd"]
        assert f"stages/{name}.py" in stage["deps"]
        for dependency in stage["deps"]:
            if "$" not in dependency and dependency.split("/")[0] in ("alberti", "stages", "pretrained"):
                assert (project / dependency).exists(), dependency
    assert {path.stem for path in (project / "stages").glob("*.py")} == {*stages, "__init__"}


def change(folder: Path, edit: Callable[[dict], object]) -> None:
    values = yaml.safe_load((folder / "params.yaml").read_text())
    edit(values)
    (folder / "params.yaml").write_text(dump(with_graph(values, folder)))


def test_a_new_arm_in_params_is_all_it_takes(project_copy: Path) -> None:
    change(project_copy, lambda values: values["arms"].update(strong=values["arms"]["constrained"] | {"weight": 0.1}))
    graph = stage_graph(project_copy)
    assert {"finetune@strong-0", "generate@strong-0", "evaluate_images@strong-0"} <= set(graph)
    assert "evaluate_images@strong-0" in graph["report"]


def test_a_variant_waits_for_the_arm_whose_weights_it_has(project_copy: Path) -> None:
    slow = {"arm": "constrained"}
    change(project_copy, lambda values: values["variants"].update(slow=slow | {"generate": values["generate"]}))
    graph = stage_graph(project_copy)
    assert graph["generate@slow-0"] == ["finetune@constrained-0", "prepare@condition"]
    assert "evaluate_images@slow-0" in graph["report"]


def test_detected_points_make_an_arm_wait_for_the_annotator(project_copy: Path) -> None:
    before = stage_graph(project_copy)["finetune@constrained-0"]
    change(project_copy, lambda values: values["arms"]["constrained"].update(vanishing_points="detected"))
    after = stage_graph(project_copy)
    assert set(after["finetune@constrained-0"]) - set(before) == {"annotate@train"}
    assert "annotate@train" not in after["finetune@unconstrained-0"]


def test_every_seed_has_its_own_and_data_are_shared(project_copy: Path) -> None:
    change(project_copy, lambda values: values.update(seeds=[0, 1]))
    graph = stage_graph(project_copy)
    assert graph["generate@constrained-1"] == ["finetune@constrained-1", "prepare@condition"]
    assert graph["finetune@constrained-1"] == graph["finetune@constrained-0"]
    assert len([stage for stage in graph if stage.startswith("prepare")]) == 4


def test_broken_dvc_yaml_is_one_error(project_copy: Path) -> None:
    (project_copy / "dvc.yaml").write_text("stages: {a: {cmd: 'x', outz: [b]}}")
    with pytest.raises(ConfigError, match=r"dvc\.yaml"):
        stage_graph(project_copy)
