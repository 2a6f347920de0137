"""Profiles compose, and params.yaml is the default."""

from pathlib import Path

import pytest
import yaml

from alberti.errors import ConfigError
from pipeline.profiles import PROFILES, compose
from stages.params import check_params


def test_params_yaml_equals_the_composed_default(project: Path) -> None:
    """If this fails: `make params`."""
    assert yaml.safe_load((project / "params.yaml").read_text()) == compose(project, "default")


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_has_valid_params(project: Path, profile: str) -> None:
    check_params(compose(project, profile), f"{profile}: ")


@pytest.mark.parametrize("profile", PROFILES)
def test_names_in_profiles_exist_in_the_library(project: Path, profile: str) -> None:
    from alberti.metrics.depth import check_alignment, get_protocol
    from alberti.metrics.features import EXTRACTORS

    params = check_params(compose(project, profile))
    assert params.evaluate_images.extractor in EXTRACTORS
    get_protocol(params.evaluate_depth.protocol)
    for alignment in params.evaluate_depth.alignment.values():
        check_alignment(alignment)


def test_overrides(project: Path) -> None:
    assert compose(project, "smoke", ["seed=5", "finetune.training.steps=3"])["seed"] == 5


def test_unknown_profile_and_override_are_refused(project: Path) -> None:
    with pytest.raises(ConfigError, match="there are default"):
        compose(project, "smok")
    with pytest.raises(ConfigError, match="fintune"):
        compose(project, "smoke", ["fintune.steps=3"])
