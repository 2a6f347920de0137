"""What a unit made on a machine that does not share the folder: packed, sent through a remote, opened."""

import subprocess
import sys
from pathlib import Path

from project_tools import environment

from pipeline.graph import changed_units, read_units
from pipeline.parcels import Parcel, bring, fetch, open_parcel, remote_of, revision_of, send

DAG = """
stages:
  a: {cmd: "git rev-parse HEAD > a", params: [rate], outs: [a]}
  b: {cmd: "mkdir -p b && cp a b/new", deps: [a], outs: [{b: {cache: false}}]}
"""


def machine(folder: Path, remote: Path) -> Path:
    """A copy of the code, with what DVC needs."""
    (folder / ".dvc").mkdir(parents=True)
    config = f"[core]\n    analytics = false\n    no_scm = true\n    remote = r\n['remote \"r\"']\n    url = {remote}\n"
    (folder / ".dvc" / "config").write_text(config)
    (folder / "dvc.yaml").write_text(DAG)
    (folder / "params.yaml").write_text("rate: 1e-05\n")
    return folder


def run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True)


def test_parcels_arrive_whole(tmp_path: Path) -> None:
    here, there = machine(tmp_path / "here", tmp_path / "remote"), machine(tmp_path / "there", tmp_path / "remote")
    run(here, "git", "init", "-q")
    run(here, "git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-q", "--allow-empty", "-m", "all")
    (here / "b").mkdir()
    (here / "b" / "stale").write_text("of an earlier run")
    dvc = (sys.executable, "-m", "dvc")
    parcels: list[Parcel] = []
    for name in ("a", "b"):
        fetch(there, remote_of(here), parcels, revision_of(here))
        run(there, *dvc, "repro", "--single-item", name)
        parcels.append(send(there, name))
        open_parcel(here, parcels[-1])
    assert sorted(path.name for path in (here / "b").iterdir()) == ["new"]
    units = read_units(here)
    assert changed_units(here, units) == {"a", "b"}, "a is in the remote alone"
    assert changed_units(here, units, allow_missing=True) == set()
    bring(here, ["a"])
    assert (here / "a").read_text().strip() == revision_of(here)
    assert changed_units(here, units) == set()
    (here / "params.yaml").write_text("rate: 2e-05\n")
    assert changed_units(here, units, allow_missing=True) == {"a", "b"}
