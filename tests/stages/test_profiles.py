"""Composing params without Hydra."""

from pathlib import Path

import pytest

from alberti.errors import ConfigError
from pipeline.profiles import PROFILES, compose
from stages.params import check_params
from stages.profiles import compose_plain

EXPERIMENTS = ("base", "guidance", "laptop", "tiny_decoder", "trials")


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_are_what_hydra_makes_of_them(project: Path, profile: str) -> None:
    assert compose_plain(project / "conf", profile) == compose(project, profile)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiments_are_what_hydra_makes_of_them(project: Path, experiment: str) -> None:
    values = compose_plain(project / "conf", "gpu", experiment)
    assert values == compose(project, "gpu", [f"experiment={experiment}"])
    check_params(values)


@pytest.mark.parametrize("experiment", [None, *EXPERIMENTS])
def test_constraints_of_arms_exist(project: Path, experiment: str | None) -> None:
    from alberti.diffusion.constraints import CONSTRAINTS

    params = check_params(compose_plain(project / "conf", "gpu", experiment))
    assert {params.arm(name).constraint for name in params.arms} <= {None, *CONSTRAINTS}


def test_the_papers_profile_has_the_papers_arms_only(project: Path) -> None:
    params = check_params(compose_plain(project / "conf", "paper"))
    assert (params.picture_arms, params.finetune_depth.arms) == (["base", "unconstrained", "constrained"],) * 2


def test_every_experiment_is_tested(project: Path) -> None:
    assert {path.stem for path in (project / "conf/experiment").glob("*.yaml")} == set(EXPERIMENTS)


@pytest.mark.parametrize(("experiment", "roles"), [("trials", ["condition"]), ("guidance", ["condition", "test"])])
def test_trials_use_data_of_their_own(project: Path, experiment: str, roles: list[str]) -> None:
    """A setting chosen on the trials is reported on other pictures, and other test frames if it was chosen by such."""
    trials, final = (compose_plain(project / "conf", "gpu", name)["prepare"] for name in (experiment, None))
    seeds = [values[role]["scenes"]["seed"] for values, names in ((trials, roles), (final, final)) for role in names]
    assert len(set(seeds)) == len(roles) + 4


def test_overrides_are_yaml(project: Path) -> None:
    overrides = ["arms.constrained.weight=0.5", "arms.strong={constraint: perspective, steps: 3}", "finetune_depth.arms=[base]"]
    added = ["arms.constrained.weight=0.5", "+arms.strong={constraint: perspective, steps: 3}", "finetune_depth.arms=[base]"]
    assert compose_plain(project / "conf", "smoke", None, overrides) == compose(project, "smoke", added)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("smok",), "profile 'smok'.*there are default"),
        (("smoke", "trails"), "experiment 'trails'.*trials"),
        (("smoke", None, ["seed"]), "KEY=VALUE"),
        (("smoke", None, ["a=[1"]), "not valid YAML"),
    ],
)
def test_what_is_not_there_is_named(project: Path, arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose_plain(project / "conf", *arguments)
