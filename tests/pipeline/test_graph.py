"""The DAG as DVC sees it."""

import subprocess
import sys
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
    """Stage X runs `stages.X`, reads section X and depends on stages/X.py; finetune_depth_reference is finetune_depth, and
    a variant's stage that of the arms.
    """
    stages = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]
    for name, definition in stages.items():
        stage = definition.get("do", definition)
        module = name.removesuffix("_reference").removesuffix("_variant")
        assert f"python -m stages.{module}" in stage["cmd"]
        assert f"stages/{module}.py" in stage["deps"]
        assert name == "report" or any(param.split(".")[0] == module for param in stage["params"])
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


def test_a_variant_waits_for_the_arm_whose_weights_it_has(project_copy: Path) -> None:
    values = yaml.safe_load((project_copy / "params.yaml").read_text())
    values["variants"] = {"slow": {"arm": "constrained", "generate": {"steps": 20}}}
    (project_copy / "params.yaml").write_text(yaml.safe_dump(values))
    graph = stage_graph(project_copy)
    assert graph["generate_variant@slow"] == ["finetune@constrained", "prepare@condition"]
    assert "evaluate_images_variant@slow" in graph["report"]


def test_broken_dvc_yaml_is_one_error(project_copy: Path) -> None:
    (project_copy / "dvc.yaml").write_text("stages: {a: {cmd: 'x', outz: [b]}}")
    with pytest.raises(ConfigError, match=r"dvc\.yaml"):
        stage_graph(project_copy)


GROUND_FLOOR = {
    "errors",
    "files",
    "images",
    "progress",
    "seeding",
    "checkpoints",
    "parallel",
    "overlays",
    "image_folder",
    "partial_file",
    "processes",
    "weights",
    "device",
}
"""What changes no outs, or reads and writes them as everything does."""
ELSEWHERE = {
    "alberti/diffusion/config.py": "its values are params",
    "alberti/depth/__init__.py": "names only",
    "alberti/depth/config.py": "its values are params",
    "alberti/training/__init__.py": "names only",
    "alberti/training/settings.py": "its values are params",
    "alberti/data/fit.py": "its values are params; prepare depends on all of alberti/data",
    "alberti/data/captions.py": "its values are params; prepare depends on all of alberti/data",
    "alberti/diffusion/hashing.py": "keys of checkpoints",
    "alberti/data/manifest.py": "the contract between stages, versioned",
    "alberti/geometry/camera.py": "conventions, fixed",
    "alberti/geometry/presence.py": "conventions, fixed",
    "alberti/losses/_sweep.py": "losses/depth.py does not use it",
    "alberti/losses/perspective.py": "losses/depth.py does not use it",
    "alberti/metrics/depth.py": "validation of depth training does not use it",
    "alberti/metrics/perspective.py": "only finetune's reading of annotations imports it",
    "alberti/annotate.py": "finetune only reads its rows",
}


def test_stages_depend_on_the_modules_that_they_import(project: Path) -> None:
    """A new module that a stage uses must be among its deps, or here with a reason."""
    stages = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]
    for name, definition in stages.items():
        if name == "report":
            continue  # it shows what others made
        stage = definition.get("do", definition)
        deps = [dependency for dependency in stage["deps"] if dependency.startswith("alberti")]
        module = f"stages.{name.removesuffix('_reference').removesuffix('_variant')}"
        code = f"import sys, {module}; print(*(m for m in sys.modules if m.startswith('alberti.')))"
        if name == "finetune":
            code = code.replace("import sys,", "import sys, alberti.diffusion.train,")
        done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
        for imported in done.stdout.split():
            path = project / (imported.replace(".", "/") + ".py")
            relative = path.relative_to(project).as_posix()
            if not path.is_file() or imported.split(".")[1] in GROUND_FLOOR or relative in ELSEWHERE:
                continue
            if imported.startswith("alberti.data.scenes") and name in ("base", "finetune"):
                continue  # rendering on the fly, which no stage does
            assert any(relative == dep or relative.startswith(dep + "/") for dep in deps), f"{name} imports {relative}"
