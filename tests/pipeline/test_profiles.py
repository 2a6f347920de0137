"""Profiles compose to complete params, and what is generated is in step with the code."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from alberti.errors import ConfigError
from pipeline import profiles
from pipeline.profiles import compose, with_graph
from stages.shared.graph import check_graph
from stages.shared.params import check_params, first_difference, load_params

PROFILES = profiles.profiles()
_GPU = ("base", "base_wide", "guidance", "photos", "real", "real_arms", "tiny_decoder", "trials")
EXPERIMENTS = [*(("gpu", name) for name in _GPU), ("default", "laptop")]


def test_params_yaml_equals_the_composed_default(composed: Callable[[str], dict], project: Path) -> None:
    """If this fails: `make params`."""
    assert yaml.safe_load((project / "params.yaml").read_text()) == composed("default")


def test_sections_are_the_schema_s_defaults(project: Path) -> None:
    """If this fails: `make params`."""
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (project / "conf" / "section").glob("*.yaml")}
    assert files == profiles.sections()


@pytest.mark.parametrize(("profile", "experiment"), [*((profile, None) for profile in PROFILES), *EXPERIMENTS])
def test_what_hydra_composes_is_complete(project: Path, profile: str, experiment: str | None) -> None:
    """As `dvc exp run -S profile=... -S experiment=...` writes it: nothing is left to a default in code."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    chosen = [f"profile={profile}", *([f"experiment={experiment}"] if experiment else [])]
    profiles.register_graph(project)
    with initialize_config_dir(str(project / "conf"), version_base=None):
        config = hydra_compose("config", overrides=chosen)
    values = profiles._without_graph(config)
    expected = with_graph(values, project)
    assert first_difference(values, {key: value for key, value in expected.items() if key != "graph"}) is None
    assert set(config.graph) == set(expected["graph"])
    check_graph(check_params(expected))


def test_there_are_these_experiments(project: Path) -> None:
    assert {path.stem for path in (project / "conf" / "experiment").glob("*.yaml")} == {name for _, name in EXPERIMENTS}


@pytest.mark.parametrize("profile", PROFILES)
def test_names_in_profiles_exist_in_the_library(composed: Callable[[str], dict], profile: str) -> None:
    from alberti.metrics.depth import check_alignment, get_protocol
    from alberti.metrics.features import EXTRACTORS
    from stages.shared.streets import scene_config

    params = check_params(composed(profile))
    assert params.evaluate_images.extractor in EXTRACTORS
    for test in params.evaluate_depth.test_sets.values():
        get_protocol(test.protocol)
        for alignments in test.alignment.values():
            for alignment in alignments:
                check_alignment(alignment)
    for source in params.prepare.roles().values():
        if source.scenes is not None:
            scene_config(source.scenes)


def test_overrides_reach_what_inherits(project: Path) -> None:
    values = compose(project, "smoke", ["seeds=[5]", "finetune.training.steps=3", "arms.constrained.weight=0.07"])
    assert values["seeds"] == [5]
    assert values["arms"]["unconstrained"]["training"]["steps"] == 3
    assert values["arms"]["constrained"]["weight"] == 0.07
    assert values["arms"]["unconstrained"]["weight"] is None


def test_an_arm_is_one_override_away(project: Path) -> None:
    values = compose(project, "smoke", ["+section@arms.strong=arm", "arms.strong.weight=0.1"])
    assert values["arms"]["strong"]["weight"] == 0.1
    assert values["arms"]["strong"]["training"] == values["arms"]["constrained"]["training"]
    assert "strong-0" in values["graph"]["evaluate_images"]


def test_unknown_profile_and_override_are_refused(project: Path) -> None:
    with pytest.raises(ConfigError, match="there are default"):
        compose(project, "smok")
    with pytest.raises(ConfigError, match="there are default"):
        compose(project, "shared")
    with pytest.raises(ConfigError, match="fintune"):
        compose(project, "smoke", ["fintune.steps=3"])
    with pytest.raises(ConfigError, match=r"prepare\.train: data source vkitti2: unknown option"):
        compose(project, "smoke", ["prepare.train.source=vkitti2", "prepare.train.root=x", "+prepare.train.options.scens=[]"])


def test_a_file_edited_by_hand_is_completed(composed: Callable[[str], dict], tmp_path: Path) -> None:
    values = composed("smoke")
    values["seeds"] = [0, 1]
    del values["graph"], values["references"]["batch_size"]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    assert profiles.main(["--complete", str(path)]) == 0
    params = load_params(path, complete=True)
    check_graph(params)
    assert "constrained-1" in params.graph["finetune"]
    path.write_text("seeds: []")
    assert profiles.main(["--complete", str(path)]) == 1
