"""The instances of every stage: which seeds they have, what they read and write."""

from collections.abc import Callable
from pathlib import Path

import pytest

from alberti.errors import ConfigError
from pipeline.profiles import with_graph
from stages.shared.graph import NOTHING, check_graph, derive
from stages.shared.layout import Layout, instance_name
from stages.shared.params import check_params


@pytest.fixture
def values(composed: Callable[[str], dict]) -> dict:
    return composed("default")


def test_what_no_seed_changes_has_one_instance(values: dict) -> None:
    values["seeds"] = [0, 3]
    graph = derive(check_params(values))
    assert list(graph["finetune"]) == ["unconstrained-0", "unconstrained-3", "constrained-0", "constrained-3"]
    assert [name for name in graph["generate"] if name.startswith("base")] == ["base-0", "base-3"]
    assert [name for name in graph["evaluate_depth"] if "original" in name] == ["dpt-original", "pixelformer-original"]
    assert graph["evaluate_depth"]["dpt-original"]["weights"] == "models/depth/dpt/original/all"
    for stage in ("prepare", "annotate", "base", "base_depth"):
        one = derive(check_params({**values, "seeds": [0]}))[stage]
        assert graph[stage] == one


def test_no_two_instances_write_the_same(values: dict) -> None:
    values["seeds"] = [0, 1, 2]
    outs = [
        value
        for instances in derive(check_params(values)).values()
        for instance in instances.values()
        for key, value in instance.items()
        if key in ("out", "metrics", "rows") or (key == "plots")
    ]
    assert len(outs) == len(set(outs))


def test_a_pinned_seed_takes_an_instance_off_the_axis(values: dict) -> None:
    values["seeds"] = [0, 1]
    values["generate"]["seed"] = 5
    graph = derive(check_params(values))
    assert "base" in graph["generate"]  # its weights have no seed either
    assert graph["generate"]["base"]["out"] == "data/generated/base/all"
    assert "constrained-1" in graph["generate"]  # its weights have one
    assert graph["finetune_depth"]["dpt-base-1"]["pictures"] == "data/generated/base/all"
    values["finetune_depth"]["train"]["dpt"]["training"]["seed"] = 2
    graph = derive(check_params(values))
    assert "dpt-base" in graph["finetune_depth"]
    assert "pixelformer-base-0" in graph["finetune_depth"]
    values["arms"]["constrained"]["training"]["seed"] = 4
    assert "constrained" in derive(check_params(values))["finetune"]


def test_points_come_from_the_data_set_or_from_annotate(values: dict) -> None:
    graph = derive(check_params(values))
    assert graph["finetune"]["constrained-0"]["points"] == "data/train"
    values["arms"]["constrained"]["vanishing_points"] = "detected"
    graph = derive(check_params(values))
    assert graph["finetune"]["constrained-0"]["points"] == "data/annotations/train"
    assert graph["finetune"]["unconstrained-0"]["points"] == "data/train"


def test_a_variant_reads_its_arm_s_weights(values: dict) -> None:
    graph = derive(check_params(values))
    assert graph["generate"]["guided-0"]["weights"] == "models/finetuned/unconstrained/0"
    assert graph["generate"]["guided-0"]["sampling"] == "variants.guided.generate"
    values["variants"]["guided"]["arm"] = "base"
    assert derive(check_params(values))["generate"]["guided-0"]["weights"] == "models/base"


def test_what_a_setting_leaves_unread_is_no_dependency(values: dict) -> None:
    graph = derive(check_params(values))
    assert graph["base"]["all"] == {"model": "pretrained/base", "pictures": NOTHING}
    assert graph["prepare"]["train"]["watched"] == NOTHING
    assert graph["base_depth"]["dpt"]["pictures"] == NOTHING
    assert graph["finetune_depth"]["dpt-constrained-0"]["mix"] == NOTHING
    values["finetune_depth"]["train"]["dpt"]["mix_ratio"] = 0.5
    graph = derive(check_params(values))
    assert graph["finetune_depth"]["dpt-constrained-0"]["mix"] == "data/kitti"
    assert graph["finetune_depth"]["dpt-kitti-0"]["mix"] == NOTHING
    assert graph["finetune_depth"]["pixelformer-constrained-0"]["mix"] == NOTHING


def test_a_model_s_evaluation_knows_its_own_alignment_alone(values: dict) -> None:
    before = derive(check_params(values))["evaluate_depth"]
    values["evaluate_depth"]["test_sets"]["test"]["alignment"]["dpt"] = ["median"]
    after = derive(check_params(values))["evaluate_depth"]
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if name.startswith("dpt-")}


def test_paths_of_a_run_elsewhere(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path / "run", tmp_path / "project")
    assert layout.generated("guided", 3) == tmp_path / "run/data/generated/guided/3"
    assert layout.depth_model("dpt", "original", None) == tmp_path / "run/models/depth/dpt/original/all"
    assert layout.relative(layout.data("train")) == "data/train"
    assert layout.named("datasets/kitti") == tmp_path / "project/datasets/kitti"
    assert layout.named("/data/kitti") == Path("/data/kitti")
    assert layout.named("~/kitti") == Path.home() / "kitti"
    assert layout.pretrained("dpt") == tmp_path / "project/pretrained/dpt"
    assert instance_name("dpt", "base", seed=1) == "dpt-base-1"
    assert instance_name("dpt", "original", seed=None) == "dpt-original"


def test_a_graph_of_other_values_is_refused(values: dict) -> None:
    check_graph(check_params(values))
    values["seeds"] = [0, 1]
    with pytest.raises(ConfigError, match=r"params.yaml: graph\.\S+ does not belong .*--complete"):
        check_graph(check_params(values), "params.yaml: ")
    check_graph(check_params(with_graph(values)))


def test_a_name_in_params_is_a_file_here_or_a_repository_of_the_hub(tmp_path: Path) -> None:
    layout = Layout(project=tmp_path)
    (tmp_path / "mine" / "dpt").mkdir(parents=True)
    assert layout.local("mine/dpt") == "mine/dpt"
    assert layout.local("./mine/dpt/") == "mine/dpt"
    assert layout.local("Intel/dpt-hybrid-midas") is None
    assert layout.local("gpt2") is None
    assert layout.local(None) is None
    assert layout.local("datasets/weights/absent.pth") == "datasets/weights/absent.pth"
    assert layout.local("../absent") == "../absent"
    assert layout.local("~/absent") == (Path.home() / "absent").as_posix()
    assert layout.local("/data/absent") == "/data/absent"
