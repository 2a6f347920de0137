"""The params: typed, frozen, complete, and errors that name the key."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from alberti.diffusion.config import VanishingGuidance
from alberti.errors import ConfigError
from stages.shared.params import check_params, first_difference, load_params, plain


@pytest.fixture
def values(composed: Callable[[str], dict]) -> dict:
    return composed("smoke")


def test_committed_params_load(project: Path) -> None:
    params = load_params(project / "params.yaml", complete=True)
    assert params.arms["constrained"].constraint == "perspective"
    assert params.arms["unconstrained"].constraint is None
    assert params.arms["constrained"].training == params.arms["unconstrained"].training
    assert params.picture_arms == ["base", "unconstrained", "constrained", "guided"]
    assert params.weights_of("guided") == "unconstrained"
    assert params.sampling("guided").vanishing_guidance == VanishingGuidance()
    assert params.sampling("unconstrained").vanishing_guidance is None


def test_params_are_frozen(project: Path) -> None:
    with pytest.raises(ValidationError):
        load_params(project / "params.yaml").generate.steps = 3


@pytest.mark.parametrize(
    ("keys", "named", "suggested"),
    [
        (("finetun",), "finetun:", "'finetune'"),
        (("finetune", "training", "lrate"), "finetune.training.lrate", "'lr"),
        (("base", "train", "vae", "step"), "base.train.vae.step", "'steps'"),
        (("base_depth", "dpt", "train", "training", "batchsize"), "base_depth.dpt.train.training.batchsize", "'batch_size'"),
        (("prepare", "train", "scenes", "widht"), "prepare.train.scenes.widht", "'width'"),
        (("arms", "constrained", "wieght"), "arms.constrained.wieght", "'weight'"),
        (("evaluate_depth", "test_sets", "test", "protcol"), "evaluate_depth.test_sets.test.protcol", "'protocol'"),
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


def test_missing_section_is_named(values: dict) -> None:
    del values["annotate"]
    with pytest.raises(ConfigError, match="annotate: missing"):
        check_params(values)


def test_a_file_that_leaves_defaults_out_runs_by_hand_and_is_refused_where_dvc_looks(values: dict, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    del values["arms"]["constrained"]["num_lines"]
    path.write_text(yaml.safe_dump(values))
    assert load_params(path).arms["constrained"].num_lines == 1000  # the library's, not the profile's 200
    with pytest.raises(ConfigError, match=r"arms\.constrained\.num_lines is not written out.*make params"):
        load_params(path, complete=True)


def test_first_difference() -> None:
    assert first_difference({"a": {"b": [1, 2]}}, {"a": {"b": (1, 2)}}) is None
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 2}}) == "a.b"
    assert first_difference({"a": {}}, {"a": {"c": 0}}) == "a.c"
    assert first_difference({"a": {}, "d": 1}, {"a": {}}) == "d"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("finetune_depth", "arms"), ["base", "constraned"], "finetune_depth.arms: 'constraned'.*did you mean 'constrained'"),
        (("evaluate_depth", "arms"), ["orignal"], "did you mean 'original'"),
        (("evaluate_depth", "arms"), ["kitti", "kitti"], "twice"),
        (("evaluate_depth", "test_sets"), {}, "evaluate_depth.test_sets"),
        (("evaluate_depth", "test_sets", "test", "alignment"), {"dpt": ["median"]}, "no alignment of pixelformer"),
        (("seeds",), [], "seeds"),
        (("seeds",), [1, 1], "seeds: expected different numbers"),
        (("seeds",), [-1], "seeds: expected different numbers from 0"),
        (("watch",), ["trian"], "watch: 'trian' is not among .*did you mean 'train'"),
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


@pytest.mark.parametrize("name", ["base", "kitti", "original", "condition", "a-b"])
def test_names_that_are_taken_or_would_be_ambiguous(values: dict, name: str) -> None:
    values["arms"][name] = values["arms"]["constrained"]
    with pytest.raises(ConfigError, match=f"arms.{name}: not a name"):
        check_params(values)


def test_a_test_set_is_a_role_of_its_own(values: dict) -> None:
    values["prepare"]["real"] = copy.deepcopy(values["prepare"]["test"])
    values["evaluate_depth"]["test_sets"]["real"] = values["evaluate_depth"]["test_sets"]["test"]
    params = check_params(values)
    assert list(params.prepare.roles()) == ["train", "condition", "kitti", "test", "real"]
    assert plain(params)["prepare"]["real"] == plain(params)["prepare"]["test"]
    values["evaluate_depth"]["test_sets"]["other"] = values["evaluate_depth"]["test_sets"]["test"]
    with pytest.raises(ConfigError, match=r"evaluate_depth.test_sets: 'other' is not among test, real"):
        check_params(values)


def test_unreadable_files(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(ConfigError, match="no such params file"):
        load_params(path)
    for text, message in (("a: [1", "not valid YAML"), ("- 1", "expected a mapping")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_params(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_params(path)


def test_values_are_not_changed_by_checking(values: dict) -> None:
    before = copy.deepcopy(values)
    check_params(values)
    assert values == before


def test_the_seed_of_a_run_reaches_the_library(values: dict) -> None:
    params = check_params(values)
    assert params.arms["constrained"].library_config(7).training.seed == 7
    assert params.generate.library_config(7).seed == 7
    assert params.finetune_depth.train.dpt.library_config(7).training.seed == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arm": "constrianed"}, "variants.slow.arm: 'constrianed' is not among .*did you mean 'constrained'"),
        ({"generate": {"stpes": 3}}, "variants.slow.generate.stpes: no such parameter; did you mean 'steps'"),
        ({"finetune": {}}, "variants.slow.finetune: no such parameter"),
    ],
)
def test_variants_that_contradict_the_rest_are_refused(values: dict, change: dict, message: str) -> None:
    values["variants"] = {"slow": {"arm": "base", "generate": values["generate"], **change}}
    with pytest.raises(ConfigError, match=message):
        check_params(values)
    values["variants"] = {"constrained": {"arm": "base", "generate": values["generate"]}}
    with pytest.raises(ConfigError, match=r"variants\.constrained: an arm of that name"):
        check_params(values)
