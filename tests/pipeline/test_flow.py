"""The Prefect flow for real on a small DAG: server, worker and deployment; failures, kills and cancellation."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from project_tools import commit, copy_project, environment

DAG = """
stages:
  a: {cmd: "echo a says ${generate.steps} && echo ${generate.steps} > a", params: [generate.steps], outs: [a]}
  b: {cmd: "test ${report.pictures} != 9 && cp a b", params: [report.pictures], deps: [a], outs: [b]}
  c:
    cmd: "case ${report.pictures} in 7) sleep 600;; 8) mkdir began && sleep 600;; esac; cp a c"
    params: [report.pictures]
    deps: [a]
    outs: [c]
  d: {cmd: "cat b c > d", deps: [b, c], outs: [d]}
"""
"""`report.pictures` of 9 makes b fail, of 7 makes c sleep, of 8 the first time; profile smoke has 3, and 4 generation steps."""
RUN = """
import json, sys
from pipeline.flow import alberti
if __name__ == "__main__":
    print(alberti(**json.loads(sys.argv[1]), return_state=True))
"""


@pytest.fixture
def small_project(tmp_path: Path) -> Path:
    """The project with four quick stages in the place of its own."""
    folder = copy_project(tmp_path / "project")
    (folder / "dvc.yaml").write_text(DAG)
    (folder / ".gitignore").write_text(".alberti/\n__pycache__/\n/.dvc/cache\n/.dvc/tmp\n/a\n/b\n/c\n/d\n/logs/\n")
    shutil.rmtree(folder / ".git")
    commit(folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server for the tests of this file: the settings to reach it."""
    folder = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        **{name: value for name, value in environment().items() if not name.startswith("PREFECT_")},
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_CLI_COLORS": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "COLUMNS": "200",
    }
    log = folder / "server.log"
    command = (sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1")
    with running(*command, cwd=folder, env=settings, log=log):
        wait_until(lambda: answers(settings["PREFECT_API_URL"]), 120, log.read_text)
        yield settings


@pytest.fixture
def prefect_environment(small_project: Path, server: dict[str, str]) -> dict[str, str]:
    return {**server, "PYTHONPATH": str(small_project)}


@contextlib.contextmanager
def running(*command: str, cwd: Path, env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A background process of this test; ended, with what it started, when the block ends."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


def wait_until(true: Callable[[], object], seconds: float, what: Callable[[], str] = lambda: "") -> float:
    """Seconds that it took."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, what()
        time.sleep(0.1)
    return time.monotonic() - start


def sleepers(folder: Path) -> list[str]:
    """Processes of unit c that sleep, in ``folder`` or below."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if words[:2] == [b"sleep", b"600"] and (entry / "cwd").resolve().is_relative_to(folder):
                found.append(entry.name)
    return found


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=2):
        return True
    return False


def ask(env: dict[str, str], path: str, values: dict[str, Any] | None = None) -> Any:
    """An answer of Prefect's API; POST where there are values."""
    data = None if values is None else json.dumps(values).encode()
    request = urllib.request.Request(env["PREFECT_API_URL"] + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


class Deployed:
    """The deployment `alberti/smoke` of a project."""

    def __init__(self, project: Path, env: dict[str, str]):
        self.env = env
        for arguments in (["work-pool", "create", "alberti", "--type", "process", "--overwrite"],
                          ["--no-prompt", "deploy", "--name", "smoke"]):  # fmt: skip
            command = [sys.executable, "-m", "prefect", *arguments]
            done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stdout + done.stderr
        self._id = ask(env, "/deployments/name/alberti/smoke")["id"]

    def run(self, **parameters: Any) -> str:
        found: str = ask(self.env, f"/deployments/{self._id}/create_flow_run", {"parameters": parameters})["id"]
        return found

    def state(self, run: str) -> str:
        found: str = ask(self.env, f"/flow_runs/{run}")["state_type"]
        return found

    def said(self, run: str) -> str:
        logs = ask(self.env, "/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200})
        return "\n".join(entry["message"] for entry in logs)


@pytest.mark.slow
def test_deployment_from_server_to_cancel(small_project: Path, prefect_environment: dict[str, str], tmp_path: Path) -> None:
    env, log = prefect_environment, tmp_path / "worker.log"
    deployed = Deployed(small_project, env)
    work = (sys.executable, "-m", "prefect", "worker", "start", "--pool", "alberti")
    workspace = small_project / ".alberti" / "runs" / "smoke"
    with running(*work, cwd=tmp_path, env=env, log=log) as worker:
        # a profile other than that of params.yaml runs in a copy, and params.yaml stays
        before = (small_project / "params.yaml").read_text()
        run = deployed.run()
        wait_until(lambda: deployed.state(run) not in ("SCHEDULED", "PENDING", "RUNNING"), 100, log.read_text)
        assert deployed.state(run) == "COMPLETED", log.read_text()
        assert (workspace / "d").read_text() == "4\n4\n"
        assert (small_project / "params.yaml").read_text() == before
        assert not (small_project / "d").exists()
        assert ask(env, f"/flow_runs/{run}")["name"] == "smoke, seed 0"
        wait_until(lambda: "a says 4" in deployed.said(run), 10, lambda: deployed.said(run))

        # cancelled, stage processes end within ten seconds
        run = deployed.run(overrides=["report.pictures=7"])
        wait_until(lambda: sleepers(small_project), 90, log.read_text)
        ask(env, f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
        took = wait_until(lambda: not sleepers(small_project), 10, log.read_text)
        print(f"cancelled: stages ended after {took:.1f} s")
        wait_until(lambda: deployed.state(run) == "CANCELLED", 40, log.read_text)

        # a worker that is told to stop leaves neither stages nor a run that blocks the next one
        run = deployed.run(overrides=["report.pictures=7"])
        wait_until(lambda: sleepers(small_project), 90, log.read_text)
        os.kill(worker.pid, signal.SIGTERM)
        took = wait_until(lambda: not sleepers(small_project), 30, log.read_text)
        print(f"worker stopped: stages ended after {took:.1f} s")
        worker.wait(60)
    with running(*work, cwd=tmp_path, env=env, log=log):  # Prefect may still call the first one running
        deployed.run(overrides=["report.pictures=7"])
        wait_until(lambda: sleepers(small_project), 90, log.read_text)


def start_flow(folder: Path, env: dict[str, str], log: Path, **arguments: object) -> "subprocess.Popen[bytes]":
    """The flow in a process of its own."""
    with open(log, "wb") as output:
        command = [sys.executable, "-c", RUN, json.dumps({"profile": "smoke", **arguments})]
        return subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=output, start_new_session=True)


@pytest.mark.slow
def test_a_failed_unit_stops_only_what_depends_on_it(
    small_project: Path, prefect_environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "flow.log"
    failing = start_flow(small_project, prefect_environment, log, overrides=["report.pictures=9"])
    assert failing.wait(120) == 0
    assert "failed: b; not run, as they depend on it: d" in log.read_text(), log.read_text()
    assert "Retr" not in log.read_text(), "what a person must mend is not tried again"
    (broken,) = (path for path in (small_project / ".alberti" / "runs").glob("smoke-*") if path.is_dir())
    assert (broken / "c").read_text() == "4\n"
    assert not (broken / "d").exists()


@pytest.mark.slow
def test_kills_and_what_follows(small_project: Path, prefect_environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "flow.log"
    # a flow that is killed takes its stages with it, and the next one runs
    sleeping = start_flow(small_project, prefect_environment, log, overrides=["report.pictures=7"])
    wait_until(lambda: sleepers(small_project), 90, log.read_text)
    os.kill(sleeping.pid, signal.SIGKILL)
    sleeping.wait(10)
    assert wait_until(lambda: not sleepers(small_project), 10) < 10
    with contextlib.suppress(ProcessLookupError):
        os.killpg(sleeping.pid, signal.SIGKILL)

    # a stage that is killed is tried again
    sleeping = start_flow(small_project, prefect_environment, log, overrides=["report.pictures=7"])
    wait_until(lambda: sleepers(small_project), 90, log.read_text)
    first = sleepers(small_project)
    shell = (Path("/proc") / first[0] / "stat").read_text().rpartition(")")[2].split()[1]
    os.kill(int(shell), signal.SIGKILL)
    os.kill(int(first[0]), signal.SIGKILL)
    wait_until(lambda: set(sleepers(small_project)) - set(first), 60, log.read_text)
    # a flow that is told to stop ends its stages at once
    os.kill(sleeping.pid, signal.SIGTERM)
    assert wait_until(lambda: not sleepers(small_project), 15) < 10
    sleeping.wait(60)


INTERRUPTED = """
import os, sys, threading
from pathlib import Path
from pipeline import flow, tasks
here = Path(sys.argv[1])
unit = threading.Thread(target=tasks.run_supervised, args=(["sleep", "600"], here, dict(os.environ), here / "log", print))
with flow._interrupts_end_units():
    unit.start()
    print("on", flush=True)
    try:
        unit.join()
    finally:
        unit.join()
"""


def test_a_second_interrupt_does_not_keep_a_unit_alive(tmp_path: Path, project: Path) -> None:
    """A Prefect worker that is told to stop interrupts the flow twice at once."""
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    with subprocess.Popen(command, cwd=project, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        wait_until(lambda: sleepers(tmp_path), 10)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
        wait_until(lambda: not sleepers(tmp_path), 10)
        assert process.wait(timeout=10) != 0


@pytest.mark.slow
def test_units_of_a_lost_ray_node_run_on_another(
    small_project: Path, prefect_environment: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("prefect_ray")
    import psutil
    from ray.cluster_utils import Cluster

    log = tmp_path / "flow.log"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        env = {**prefect_environment, "RAY_ADDRESS": cluster.address}
        flow = start_flow(small_project, env, log, runner="ray", overrides=["report.pictures=8"])
        wait_until(lambda: sleepers(small_project), 90, log.read_text)
        (workspace,) = (path for path in (small_project / ".alberti" / "runs").glob("smoke-*") if path.is_dir())
        wait_until(lambda: (workspace / "b").exists(), 30, log.read_text)
        (sleeper,) = sleepers(small_project)
        node = next(parent for parent in psutil.Process(int(sleeper)).parents() if parent.name() == "raylet")
        for process in (node, *node.children()):  # a machine that is lost; what its workers had started ends by itself
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert wait_until(lambda: not sleepers(small_project), 10) < 10
        took = wait_until(lambda: (workspace / "d").exists(), 60, log.read_text)
        print(f"node lost: its unit, and what waited for it, were done after {took:.1f} s")
        assert flow.wait(30) == 0, log.read_text()
        assert "Completed" in log.read_text(), log.read_text()
        assert (workspace / "d").read_text() == "4\n4\n"
    finally:
        cluster.shutdown()
