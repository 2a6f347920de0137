"""The Prefect flow: the graph of DVC, on the threads of one machine or on a Ray cluster.

Independent units run side by side, each with what it needs, those of the longest path first; a unit that fails stops only what
depends on it; what a unit prints goes to the run's logs. Each task is `dvc repro` of one stage, so that caching, the lock file
and resuming are DVC's own. A unit becomes a task when it has what it needs: one that waits is not shown as running.
"""

import contextlib
import heapq
import os
import queue
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Self

from prefect import flow, get_run_logger, runtime
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.states import Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from alberti.errors import AlbertiError
from alberti.files import read_json
from alberti.parallel import core_count
from alberti.processes import visible_gpus
from pipeline import prefork
from pipeline.graph import changed_units, read_units
from pipeline.plan import Plan
from pipeline.profiles import compose
from pipeline.tasks import allow_units, run_unit, stop_units
from pipeline.workspace import open_workspace

_MOST_THREADS = 1024


def _run_name() -> str:
    """Profile, seeds and overrides of the run that starts."""
    given = runtime.flow_run.parameters
    profile, overrides = given.get("profile", "default"), _overrides(given.get("overrides"), given.get("seeds"))
    with contextlib.suppress(AlbertiError):  # the flow itself will say what is wrong
        seeds = compose(Path.cwd(), profile, overrides).get("seeds", [])
        named = f"{profile}, seeds {' '.join(map(str, seeds))}" if len(seeds) != 1 else f"{profile}, seed {seeds[0]}"
        own = given.get("overrides") or []
        return f"{named}, {', '.join(own)}"[:120] if own else named
    return str(profile)


def _overrides(overrides: Sequence[str] | None, seeds: Sequence[int] | None) -> list[str]:
    return [*(overrides or ()), *([f"seeds=[{','.join(map(str, seeds))}]"] if seeds else [])]


@flow(name="alberti", flow_run_name=_run_name)
def alberti(
    profile: str = "default",
    seeds: list[int] | None = None,
    overrides: list[str] | None = None,
    parallel: int = 2,
    force: bool = False,
    runner: Literal["threads", "ray"] = "threads",
    needs: list[str] | None = None,
    per_gpu: int = 1,
    shared_files: bool = True,
    warm: bool = True,
) -> State:
    """Run the pipeline of one profile.

    Args:
        profile: a name in `conf/profile/`. If params.yaml holds just this profile, the project itself is reproduced, else
            a copy in `.alberti/runs/<profile>/`; params.yaml is never changed.
        seeds: those of the experiment, instead of the profile's.
        overrides: Hydra overrides on top, such as `generate.steps=20`.
        parallel: on threads, how many units run side by side; with several GPUs they are dealt out over them.
        force: run every unit, unchanged or not.
        runner: "ray" deals the units out over a Ray cluster: the one at RAY_ADDRESS, else one of this machine's own.
        needs: what units need, `STAGE.KEY=VALUE`, where it differs from `pipeline/resources.py`.
        per_gpu: on Ray, how many units share a GPU.
        shared_files: on Ray, whether all machines see this project's folder under the same path; if not, outs travel through
            the DVC remote of the project.
        warm: stages run in forks of a process that has their imports done.
    """
    logger = get_run_logger()
    with _output_that_cannot_break(), open_workspace(Path.cwd(), profile, _overrides(overrides, seeds)) as workspace:
        units = read_units(workspace)
        todo = set(units) if force else changed_units(workspace, units, allow_missing=runner == "ray" and not shared_files)
        logger.info("profile %s runs in %s: %d of %d units changed", profile, workspace, len(todo), len(units))
        plan = Plan({name: units[name] for name in units if name in todo}, tuple(needs or ()))
        if runner == "ray":
            from pipeline.on_ray import RayMachines

            machines: Any = RayMachines(workspace, plan, force, warm, per_gpu, shared_files)
        else:
            machines = ThreadMachines(workspace, plan, force, warm, max(parallel, 1))
        with _interrupts_end_units(), machines:
            outcome = run_plan(plan, machines)
        if not outcome.failed:
            _show_results(workspace, profile)
        return outcome.state(workspace)


class Machines:
    """Where units run: whether there is room for one now, and its start as a task."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def fits(self, name: str) -> bool:
        raise NotImplementedError

    def start(self, name: str, upstream: Sequence[Any]) -> Any:
        """Submit the unit; the future of its task."""
        raise NotImplementedError

    def done(self, name: str, future: Any) -> None:
        """Called once the future has ended."""


@contextlib.contextmanager
def _interrupts_end_units() -> Iterator[None]:
    """SIGINT ends the units before it interrupts anything.

    A worker that is told to stop sends it twice, and the second one could else interrupt what the first one began: the pool
    then waits for units that nobody ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupted(number: int, frame: FrameType | None) -> None:
        stop_units()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class ThreadMachines(Machines):
    """This machine: so many units at once, GPUs dealt out to those that use one, no more memory than there is."""

    def __init__(self, workspace: Path, plan: Plan, force: bool, warm: bool, parallel: int):
        import psutil

        self._workspace, self._plan, self._force, self._parallel = workspace, plan, force, parallel
        self._warm = warm
        self._gpus = visible_gpus()
        self._used: Counter[str] = Counter()
        self._gpu: dict[str, str | None] = {}
        self._memory = psutil.virtual_memory().total / 1e9
        self._threads = max(1, core_count() // parallel)
        self._tasks: Any = ThreadPoolTaskRunner(max_workers=min(parallel, _MOST_THREADS))

    def __enter__(self) -> Self:
        allow_units()
        self._tasks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            stop_units()
        self._tasks.__exit__(*error)
        prefork.stop(self._workspace)

    def fits(self, name: str) -> bool:
        if not self._gpu:
            return True
        memory = sum(self._plan.needs[other].memory for other in self._gpu) + self._plan.needs[name].memory
        return len(self._gpu) < self._parallel and memory <= self._memory

    def start(self, name: str, upstream: Sequence[Any]) -> Any:
        gpu = min(self._gpus, key=lambda one: self._used[one]) if self._gpus and self._plan.needs[name].gpu else None
        if gpu is not None:
            self._used[gpu] += 1
        self._gpu[name] = gpu
        values = {
            "name": name,
            "workspace": str(self._workspace),
            "force": self._force,
            "gpu": gpu,
            "threads": self._threads,
            "warm": self._warm,
        }
        return self._tasks.submit(run_unit, values, wait_for=upstream)

    def done(self, name: str, future: Any) -> None:
        gpu = self._gpu.pop(name)
        if gpu is not None:
            self._used[gpu] -= 1


@dataclass
class Outcome:
    """What became of a plan's units."""

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def state(self, workspace: Path) -> "State[None]":
        if self.failed:
            message = f"failed: {', '.join(self.failed)}"
            skipped = f"; not run, as they depend on it: {', '.join(self.skipped)}" if self.skipped else ""
            return Failed(message=message + skipped)
        return Completed(message=f"{len(self.done)} units ran; report: {workspace / 'report' / 'index.html'}")


def run_plan(plan: Plan, machines: Machines) -> Outcome:
    """Run every unit once what it waits for is done and there is room, those of the longest path first."""
    outcome, downstream = Outcome(), plan.downstream()
    waits = {name: len(upstream) for name, upstream in plan.upstream.items()}
    ready = [(-plan.length[name], name) for name, count in waits.items() if not count]
    heapq.heapify(ready)
    running: dict[str, Any] = {}
    futures: dict[str, Any] = {}
    ended: queue.Queue[str] = queue.Queue()
    while ready or running:
        for entry in sorted(ready):
            name = entry[1]
            if not machines.fits(name):
                continue
            ready.remove(entry)
            future = machines.start(name, [futures[up] for up in plan.upstream[name]])
            running[name] = futures[name] = future
            future.add_done_callback(lambda _, name=name: ended.put(name))
        name = ended.get()
        future = running.pop(name)
        future.wait()
        machines.done(name, future)
        if not future.state.is_completed():
            outcome.failed.append(name)
            continue
        outcome.done.append(name)
        for other in downstream[name]:
            waits[other] -= 1
            if not waits[other]:
                ready.append((-plan.length[other], other))
    outcome.skipped = [name for name in plan.units if name not in outcome.done and name not in outcome.failed]
    return outcome


def _show_results(workspace: Path, profile: str) -> None:
    """The table of headlines and the way to the report, as artifacts of the run."""
    files = sorted((workspace / "metrics" / "headlines").glob("*.json"))
    key = "".join(letter if letter.isalnum() else "-" for letter in profile.lower())
    if files:
        create_markdown_artifact(headline_table({path.stem: read_json(path) for path in files}), key=f"{key}-metrics")
    report = workspace / "report" / "index.html"
    if report.is_file():
        create_link_artifact(report.resolve().as_uri(), link_text=str(report), key=f"{key}-report")


def headline_table(arms: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table with a column an arm and a row a metric."""
    rows = {arm: dict(_flat(values)) for arm, values in arms.items()}
    metrics = dict.fromkeys(metric for values in rows.values() for metric in values)
    lines = [f"| | {' | '.join(rows)} |", "|---" * (len(rows) + 1) + "|"]
    for metric in metrics:
        lines.append(f"| {metric} | {' | '.join(_number(values.get(metric)) for values in rows.values())} |")
    return "\n".join(lines)


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key} ")
        else:
            yield f"{before}{key}", value


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def _output_that_cannot_break() -> Iterator[None]:
    """Standard output and error that outlive their reader.

    A Prefect worker reads a flow's output through a pipe. When the worker is killed, writing to that pipe would end the flow
    in the middle of whatever it does; here the writing goes on into nothing, and the run to its end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    originals = {number: os.dup(number) for number in (1, 2)}
    pumps = []
    for number, original in originals.items():
        reader, writer = os.pipe()
        os.dup2(writer, number)
        os.close(writer)
        pumps.append(threading.Thread(target=_pump, args=(reader, original), daemon=True))
        pumps[-1].start()
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, original in originals.items():
            os.dup2(original, number)
        for pump in pumps:
            pump.join(1)  # longer only if something that the flow started still writes


def _pump(reader: int, original: int) -> None:
    """Copy until nobody writes any more, and into nothing once nobody reads."""
    broken = False
    while chunk := os.read(reader, 1 << 16):
        while chunk and not broken:
            try:
                chunk = chunk[os.write(original, chunk) :]
            except OSError:
                broken = True
    os.close(reader)
    os.close(original)
