"""The whole DAG in one process: what runs, what is shared, what is skipped, and that outs are those of the stages by hand."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from alberti.errors import ConfigError
from stages.experiment import Options, run_experiment, run_job, set_up
from stages.plan import Hashes, Job, Plan

Stage = Callable[..., tuple[int, str]]
ONLY = ("evaluate_images", "references")


@pytest.fixture
def values(prepared: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((prepared / "params.yaml").read_text()))


@pytest.fixture
def ran(capfd: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """The units that ran since the last call, as `workspace unit`."""
    return lambda: re.findall(r"^\[\d+/\d+\] (\S+ \S+) [\d.]+ s$", capfd.readouterr().out, re.MULTILINE)


def test_experiment_end_to_end(
    values: dict, tmp_path: Path, ran: Callable[[], list[str]], stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(tmp_path / "runs", (0, 1), ONLY)
    assert run_experiment(values, options)
    done = ran()
    assert {"shared prepare@train", "shared base", "shared finetune@base", "shared references"} <= set(done)
    for seed in ("seed0", "seed1"):
        assert {f"{seed} finetune@constrained", f"{seed} generate@base", f"{seed} evaluate_images@constrained"} <= set(done)
    assert not any("annotate" in unit or "depth" in unit or "kitti" in unit for unit in done)
    one, two = (tmp_path / "runs" / name / "metrics/images/constrained.json" for name in ("seed0", "seed1"))
    assert json.loads(one.read_text()) != json.loads(two.read_text())

    assert run_experiment(values, options)
    assert ran() == []

    # by hand, in the seed's workspace: the same bytes
    by_runner = one.read_bytes(), one.with_suffix(".csv").read_bytes()
    monkeypatch.chdir(tmp_path / "runs/seed0")
    for name in ("finetune", "generate", "evaluate_images"):
        assert stage(name, "--name", "constrained")[0] == 0
    assert (one.read_bytes(), one.with_suffix(".csv").read_bytes()) == by_runner

    # another weight: one arm again, in both seeds
    values["arms"]["constrained"] = {"constraint": "perspective", "weight": 0.5}
    assert run_experiment(values, options)
    names = [f"{unit}@constrained" for unit in ("finetune", "generate", "evaluate_images")]
    assert ran() == [f"{seed} {name}" for seed in ("seed0", "seed1") for name in names]

    # an out that is gone is made again, and what follows from it is not: its inputs are the same
    (tmp_path / "runs/seed1/metrics/images/base.json").unlink()
    assert run_experiment(values, options)
    assert ran() == ["seed1 evaluate_images@base"]


def test_killed_units_start_again_and_done_ones_do_not(
    values: dict, tmp_path: Path, ran: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import stages.generate

    real = stages.generate.generate_arm
    options = Options(tmp_path / "runs", (0,), ("generate",), ("base", "unconstrained"))

    def killed(params: Any, name: str) -> None:
        if name == "unconstrained":
            raise KeyboardInterrupt
        real(params, name)

    with monkeypatch.context() as patch:
        patch.setattr(stages.generate, "generate_arm", killed)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(values, options)
    assert "seed0 generate@base" in ran()
    assert run_experiment(values, options)
    assert ran() == ["seed0 generate@unconstrained"]


def test_no_unit_starts_after_the_time_is_up(values: dict, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert not run_experiment(values, Options(tmp_path / "runs", (0,), ("prepare",), stop_after=0.0))
    assert "run it again" in capfd.readouterr().out
    assert not (tmp_path / "runs/shared/data").exists()


def plan(values: dict, tmp_path: Path, project: Path) -> Plan:
    return Plan({**values, "seed": 3}, tmp_path, Hashes(project), project)


def workspaces(values: dict, tmp_path: Path, project: Path) -> dict[str, str]:
    made = plan(values, tmp_path, project)
    return {unit.id: made.workspace(unit) for unit in made.units}


def test_what_no_seed_changes_is_shared(values: dict, tmp_path: Path, project: Path) -> None:
    where = workspaces(values, tmp_path, project)
    shared = {
        "prepare@train",
        "annotate",
        "base",
        "finetune@base",
        "base_depth@dpt",
        "evaluate_depth@dpt-original",
        "references",
    }
    assert {where[unit] for unit in shared} == {"shared"}
    seeded = {"finetune@constrained", "generate@base", "evaluate_images@base", "finetune_depth@dpt-constrained", "report"}
    assert {where[unit] for unit in seeded} == {"seed3"}


def test_a_section_with_its_own_seed_is_shared(values: dict, tmp_path: Path, project: Path) -> None:
    values["generate"]["seed"] = 0
    values["variants"] = {"other": {"arm": "base", "generate": {"seed": 5}}, "tuned": {"arm": "constrained"}}
    where = workspaces(values, tmp_path, project)
    assert where["evaluate_images@base"] == where["evaluate_images_variant@other"] == "shared"
    assert where["generate@constrained"] == where["generate_variant@tuned"] == "seed3"


def test_annotations_are_made_for_arms_that_read_them(values: dict, tmp_path: Path, project: Path) -> None:
    def upstream() -> set[str]:
        made = plan(values, tmp_path, project)
        return {unit.id for unit in made.needed(made.targets(["finetune"], ["constrained"]))}

    assert upstream() == {"prepare@train", "base", "finetune@constrained"}
    values["arms"]["constrained"]["vanishing_points"] = "detected"
    assert upstream() == {"prepare@train", "base", "annotate", "finetune@constrained"}


def test_arms_choose_depth_models_too(values: dict, tmp_path: Path, project: Path) -> None:
    made = plan(values, tmp_path, project)
    chosen = {unit.id for unit in made.targets(["evaluate_images", "evaluate_depth"], ["constrained", "original"])}
    assert chosen == {"evaluate_images@constrained"} | {
        f"evaluate_depth@{model}-{arm}" for model in ("dpt", "pixelformer") for arm in ("original", "constrained")
    }


@pytest.mark.parametrize(
    ("stages", "arms", "message"),
    [(["finetuned"], None, "--only finetuned: .*finetune"), (["finetune"], ["constraint"], "--arms constraint: .*constrained")],
)
def test_unknown_stage_and_arm_are_named(
    values: dict, tmp_path: Path, project: Path, stages: list[str], arms: list[str] | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(values, tmp_path, project).targets(stages, arms)


def test_other_code_is_another_unit_unless_any_code_will_do(values: dict, tmp_path: Path, project: Path) -> None:
    def train(any_code: bool, code: str | None) -> tuple[Plan, Job]:
        hashes = Hashes(project)
        hashes._known |= {"stages/prepare.py": code}
        made = Plan({**values, "seed": 3}, tmp_path, hashes, project, any_code)
        return made, next(made.jobs([unit for unit in made.units if unit.id == "prepare@train"]))

    first, job = train(False, "one")
    set_up(first, "shared", project)
    run_job(first, job)
    for any_code, code, holds in ((False, "one", True), (False, "another", False), (True, "another", True)):
        later, job = train(any_code, code)
        assert (later.stamp(job) is not None) == holds


def test_what_follows_a_stage_that_always_runs_depends_on_what_it_wrote(
    values: dict, tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages import units

    monkeypatch.setattr("stages.plan.read_units", lambda *_: [
        units.Unit("watch", "watch", "", ("seed",), (), ("list.json",), always=True),
        units.Unit("base", "base", "", ("base",), ("list.json",), ("models/base",)),
    ])  # fmt: skip

    def key(text: str) -> str:
        made = plan(values, tmp_path, project)
        jobs = made.jobs(made.units)
        watch = next(jobs)
        assert made.stamp(watch) is None
        (tmp_path / watch.workspace).mkdir(exist_ok=True)
        (tmp_path / watch.workspace / "list.json").write_text(text)
        return next(jobs).key

    assert key("one") == key("one") != key("two")
