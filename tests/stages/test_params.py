"""The params: typed, frozen, and errors that name the key."""

import copy
from pathlib import Path

import pytest
from pydantic import ValidationError

from alberti.diffusion.config import ConstraintSettings, VanishingGuidance
from alberti.errors import ConfigError
from pipeline.profiles import compose
from stages.params import check_params, load_params


@pytest.fixture
def values(project: Path) -> dict:
    return compose(project, "smoke")


def test_committed_params_load(project: Path) -> None:
    params = load_params(project / "params.yaml")
    assert params.arm("base").training.steps == 0
    assert params.arm("constrained").constraint == "perspective"
    assert params.arm("unconstrained").constraint is None
    assert params.arm("constrained").training.steps == params.arm("unconstrained").training.steps


def test_params_are_frozen(project: Path) -> None:
    with pytest.raises(ValidationError):
        load_params(project / "params.yaml").finetune.flip = False


@pytest.mark.parametrize(
    ("keys", "named", "suggested"),
    [
        (("finetun",), "finetun:", "'finetune'"),
        (("finetune", "training", "lrate"), "finetune.training.lrate", "'lr"),
        (("base", "train", "vae", "step"), "base.train.vae.step", "'steps'"),
        (("base_depth", "dpt", "train", "training", "batchsize"), "base_depth.dpt.train.training.batchsize", "'batch_size'"),
        (("prepare", "train", "scenes", "widht"), "prepare.train.scenes.widht", "'width'"),
        (("arms", "constrained", "wieght"), "arms.constrained.wieght", "'weight'"),
    ],
)
def test_misspelled_key_is_named_with_the_nearest(values: dict, keys: tuple, named: str, suggested: str) -> None:
    section = values
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = 1
    with pytest.raises(ConfigError, match="no such parameter") as error:
        check_params(values, "params.yaml: ")
    assert named in str(error.value)
    assert f"did you mean {suggested}" in str(error.value)


def test_wrong_type_and_range_name_key_and_value(values: dict) -> None:
    values["generate"]["steps"] = "many"
    values["finetune"]["training"]["batch_size"] = 0
    with pytest.raises(ConfigError) as error:
        check_params(values)
    assert "generate.steps" in str(error.value)
    assert "'many'" in str(error.value)
    assert "finetune.training.batch_size" in str(error.value)


def test_settings_of_a_constraint_are_refused_where_there_is_none(values: dict) -> None:
    values["arms"]["unconstrained"]["weight"] = 0.1
    with pytest.raises(ConfigError, match=r"arms\.unconstrained.*weight: only a constraint makes use of it"):
        check_params(values)


def test_missing_section_is_named(values: dict) -> None:
    del values["annotate"]
    with pytest.raises(ConfigError, match="annotate: missing"):
        check_params(values)


def test_adding_an_arm_is_one_edit(values: dict) -> None:
    values["arms"]["strong"] = {"constraint": "perspective", "weight": 0.1}
    arm = check_params(values).arm("strong")
    assert (arm.weight, arm.constraint, arm.training.lr) == (0.1, "perspective", values["finetune"]["training"]["lr"])


def test_experiment_seed_reaches_sections_without_their_own(values: dict) -> None:
    values["seed"] = 7
    values["arms"]["other"] = {"training": {"seed": 9}}
    params = check_params(values)
    assert params.arm("constrained").training.seed == 7
    assert params.arm("other").training.seed == 9
    assert params.sampling("base").seed == 7
    values["generate"]["seed"] = 3
    assert check_params(values).sampling("base").seed == 3


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("finetune_depth", "arms"), ["base", "constraned"], "finetune_depth.arms: 'constraned'.*did you mean 'constrained'"),
        (("evaluate_depth", "arms"), ["orignal"], "did you mean 'original'"),
        (("evaluate_depth", "arms"), ["kitti", "kitti"], "twice"),
        (("arms", "base"), {}, "arms.base"),
        (("arms", "kitti"), {}, "arms.kitti"),
        (("arms", "a-b"), {}, "arms.a-b"),
        (("base",), {"source": "path"}, "base: path: needed"),
        (("prepare", "train", "source"), "kitti", "root: needed"),
    ],
)
def test_contradictions(values: dict, path: tuple, value: object, message: str) -> None:
    section = values
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    with pytest.raises(ConfigError, match=message):
        check_params(values)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such params file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_params(tmp_path / "params.yaml")


def test_values_are_not_changed_by_checking(values: dict) -> None:
    before = copy.deepcopy(values)
    check_params(values)
    assert values == before


def test_a_variant_is_an_arm_sampled_in_another_way(values: dict) -> None:
    values["variants"] = {"slow": {"arm": "constrained", "generate": {"steps": 9}}}
    params = check_params(values)
    assert params.picture_arms == ["base", "unconstrained", "constrained", "slow"]
    assert (params.weights_of("slow"), params.weights_of("constrained")) == ("constrained", "constrained")
    assert params.sampling("slow").steps == 9
    assert params.sampling("slow").model_copy(update={"steps": values["generate"]["steps"]}) == params.sampling("constrained")


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"slow": {"arm": "constrianed"}}, "variants.slow.arm: 'constrianed' is not among .*did you mean 'constrained'"),
        (
            {"slow": {"arm": "base", "generate": {"stpes": 3}}},
            "variants.slow.generate.stpes: no such parameter; did you mean 'steps'",
        ),
        ({"slow": {"arm": "base", "finetune": {}}}, "variants.slow.finetune: no such parameter"),
        ({"constrained": {"arm": "base"}}, "variants.constrained: an arm of that name"),
        ({"kitti": {"arm": "base"}}, "variants.kitti: not a name"),
    ],
)
def test_variants_that_contradict_the_rest_are_refused(values: dict, variants: dict, message: str) -> None:
    values["variants"] = variants
    with pytest.raises(ConfigError, match=message):
        check_params(values)


def test_the_default_has_the_paper_s_arms_and_guidance_beside_them(project: Path) -> None:
    params = load_params(project / "params.yaml")
    assert params.arms == {
        "base": {"training": {"steps": 0}},
        "unconstrained": {"constraint": None},
        "constrained": ConstraintSettings().model_dump(include=set(params.arms["constrained"])) | {"constraint": "perspective"},
    }
    assert list(params.variants) == ["guided"]
    assert params.weights_of("guided") == "unconstrained"
    assert params.sampling("guided").vanishing_guidance == VanishingGuidance()
    assert params.sampling("guided").seed == params.sampling("unconstrained").seed == params.seed
