"""dvc.yaml read without DVC: the same stages with the same edges."""

from pathlib import Path

import pytest
import yaml

from alberti.errors import ConfigError
from pipeline.graph import stage_graph
from stages.units import producers, read_units


def test_units_and_edges_are_those_of_dvc(project_copy: Path) -> None:
    values = yaml.safe_load((project_copy / "params.yaml").read_text())
    values["variants"] = {"slow": {"arm": "constrained", "generate": {"steps": 20}}}
    (project_copy / "params.yaml").write_text(yaml.safe_dump(values))
    units = read_units(project_copy / "dvc.yaml", values)
    edges = {unit.id: sorted(up.id for up in producers(unit, units)) for unit in units}
    theirs = {name: sorted(ups) for name, ups in stage_graph(project_copy).items()}
    assert edges == theirs
    seen: set[str] = set()
    for unit in units:
        assert seen.issuperset(edges[unit.id])
        seen.add(unit.id)


def test_templates_of_every_kind(tmp_path: Path) -> None:
    stages = {
        "a": {"foreach": "${names}", "do": {"cmd": "python -m stages.a --name ${item}", "outs": ["a/${item}"]}},
        "b": {
            "matrix": {"x": "${names}", "y": [1, 2]},
            "cmd": "python -m stages.b --name ${item.x}-${item.y}",
            "params": ["top.${item.x}"],
            "deps": ["a/${item.x}"],
            "plots": [{"b/${item.x}-${item.y}.csv": {"x": "step"}}],
        },
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    units = read_units(tmp_path / "dvc.yaml", {"names": ["p", "q"]})
    assert [unit.id for unit in units] == ["a@p", "a@q", "b@p-1", "b@p-2", "b@q-1", "b@q-2"]
    assert (units[3].params, units[3].deps, units[3].outs) == (("top.p",), ("a/p",), ("b/p-2.csv",))


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"cmd": "python -m stages.a", "outs": ["${nothing.here}"]}, "no value 'nothing.here'"),
        ({"cmd": "make a"}, "expected `python -m stages.X`"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, stage: dict, message: str) -> None:
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"a": stage}}))
    with pytest.raises(ConfigError, match=message):
        read_units(tmp_path / "dvc.yaml", {})


def test_a_circle_is_refused(tmp_path: Path) -> None:
    command = "python -m stages.a"
    stages = {"a": {"cmd": command, "deps": ["x"], "outs": ["y"]}, "b": {"cmd": command, "deps": ["y"], "outs": ["x"]}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    with pytest.raises(ConfigError, match="circle"):
        read_units(tmp_path / "dvc.yaml", {})
