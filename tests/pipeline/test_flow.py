"""The Prefect flow for real: server, work pool, deployments, worker, watched runs, on a small DAG."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from project_tools import commit, environment

DAG = """
stages:
  a: {cmd: "echo a says ${value} && echo ${value} > a", params: [value], outs: [a]}
  b: {cmd: "test ${broken} = 0 && cp a b", params: [broken], deps: [a], outs: [b]}
  c: {cmd: "cp a c", deps: [a], outs: [c]}
  d: {cmd: "cat b c > d", deps: [b, c], outs: [d]}
"""


@pytest.fixture
def small_project(project: Path, tmp_path: Path) -> Path:
    """A project with four quick stages, whose deployments are those of the real one."""
    folder = tmp_path / "project"
    (folder / "conf" / "profile").mkdir(parents=True)
    (folder / ".dvc").mkdir()
    shutil.copytree(project / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(project / "prefect.yaml", folder)
    shutil.copy(project / "conf" / "config.yaml", folder / "conf")
    for name, value in (("default", 1), ("smoke", 2), ("gpu", 3), ("paper", 4)):
        text = f"# @package _global_\nvalue: {value}\nbroken: 0\n"
        (folder / "conf" / "profile" / f"{name}.yaml").write_text(text)
    (folder / "params.yaml").write_text("value: 1\nbroken: 0\n")
    (folder / "dvc.yaml").write_text(DAG)
    (folder / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (folder / ".gitignore").write_text(".alberti/\n__pycache__/\n/.dvc/cache\n/.dvc/tmp\n/a\n/b\n/c\n/d\n")
    commit(folder)
    return folder


@pytest.fixture
def prefect_environment(tmp_path: Path) -> dict[str, str]:
    """Settings for a Prefect that keeps to this test and this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    inherited = {name: value for name, value in environment().items() if not name.startswith("PREFECT_")}
    return {
        **inherited,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_CLI_COLORS": "false",
        "COLUMNS": "200",
    }


@contextlib.contextmanager
def running(*command: str, cwd: Path, env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A background process of this test; ended, with what it started, when the block ends."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait(20)


def wait_for_server(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=2):
            return
        time.sleep(0.5)
    raise AssertionError(f"no Prefect server: {log.read_text()}")


@pytest.mark.slow
def test_server_worker_and_deployment_run(small_project: Path, prefect_environment: dict[str, str], tmp_path: Path) -> None:
    env = prefect_environment

    def prefect(*arguments: str, check: bool = True) -> str:
        command = [sys.executable, "-m", "prefect", *arguments]
        done = subprocess.run(command, cwd=small_project, env=env, capture_output=True, text=True, timeout=170)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    log, worker_log = tmp_path / "server.log", tmp_path / "worker.log"
    serve = (sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1")
    with running(*serve, cwd=tmp_path, env=env, log=log) as server:
        wait_for_server(env["PREFECT_API_URL"], server, log)
        prefect("work-pool", "create", "alberti", "--type", "process")
        prefect("--no-prompt", "deploy", "--all")
        listed = prefect("deployment", "ls")
        for name in ("default", "smoke", "gpu", "paper"):
            assert f"alberti/{name}" in listed
        work = (sys.executable, "-m", "prefect", "worker", "start", "--pool", "alberti")
        with running(*work, cwd=tmp_path, env=env, log=worker_log):
            # a profile other than that of params.yaml runs in a copy, and params.yaml stays
            prefect("deployment", "run", "alberti/smoke", "--watch", "--watch-timeout", "120")
            workspace = small_project / ".alberti" / "runs" / "smoke"
            assert (workspace / "d").read_text() == "2\n2\n"
            assert (small_project / "params.yaml").read_text() == "value: 1\nbroken: 0\n"
            assert not (small_project / "d").exists()
            assert "a says 2" in prefect("flow-run", "logs", last_flow_run(prefect))

            # a failing stage stops what depends on it and nothing else
            overrides = 'overrides=["broken=1"]'
            run = ("deployment", "run", "alberti/smoke", "-p", overrides, "--watch", "--watch-timeout", "120")
            assert "Failed" in prefect(*run, check=False)
            logs = prefect("flow-run", "logs", last_flow_run(prefect))
            assert "failed: b; not run, as they depend on it: d" in logs, worker_log.read_text()
            broken = next(path for path in workspace.parent.glob("smoke-*") if path.is_dir())
            assert (broken / "c").read_text() == "2\n"
            assert not (broken / "d").exists()


def last_flow_run(prefect) -> str:  # type: ignore[no-untyped-def]
    import json

    runs = json.loads(prefect("flow-run", "ls", "--limit", "1", "-o", "json"))
    return runs[0]["id"]
