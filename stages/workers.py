"""Several processes that work through one experiment of `stages.run`: each takes the next unit that is ready.

Cores are shared out evenly and GPUs dealt out in turn, so that small models fill a large machine. A unit is claimed by a
lock that ends with its process: nothing is left to clean up after a kill.
"""

import fcntl
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from alberti.errors import AlbertiError, ConfigError
from alberti.parallel import core_count
from alberti.processes import visible_gpus
from stages.experiment import Experiment, Options, link_shared, run_job, say
from stages.plan import PROJECT, Job, Plan

_PAUSE = 0.5
"""Seconds until a worker looks again whether something is ready."""


class WorkerError(AlbertiError):
    """A worker ended with an error."""


def run_workers(
    values: Mapping[str, Any], options: Options, command: Sequence[str], count: int, project: Path = PROJECT
) -> bool:
    """Run what is not done yet with ``count`` processes; True once everything is, False where ``stop_after`` came first.

    Args:
        command: starts this program with the same arguments; `--worker I/N` is added. What a worker prints besides the units
            that it did is in ``out/logs/worker<I>.log``.

    Raises:
        ConfigError: fewer than one worker, or roles to watch: these are looked at in every run, by one process.
        WorkerError: one failed; the others finished what they were at.
    """
    if count < 1:
        raise ConfigError(f"--workers: expected at least 1, got {count}")
    start, experiment = time.monotonic(), Experiment(values, options, project)
    if watched := [unit.id for plan in experiment.plans for unit in plan.units if unit.always]:
        raise ConfigError(f"--workers: {watched[0]} runs every time; run the experiment without --workers, or with `watch: []`")
    experiment.set_up()
    out = experiment.out
    for folder in ("logs", "claims"):
        (out / folder).mkdir(exist_ok=True)
    _stop_file(out).unlink(missing_ok=True)
    workers = [_start(command, index, count, out) for index in range(count)]
    try:
        _wait(workers, out)
    except BaseException:
        for worker in workers:
            worker.terminate()
        raise
    if experiment.left():
        return False
    for plan, job in experiment.jobs():  # also where the last worker's time was up before it came to it
        link_shared(plan, job)
    experiment.say_done(time.monotonic() - start)
    return True


def work(values: Mapping[str, Any], options: Options, place: str, project: Path = PROJECT) -> None:
    """What worker ``place``, "I/N", does: take the next unit that is ready until none is left, or none may start any more."""
    index, count = map(int, place.split("/"))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share_of_cores(sorted(os.sched_getaffinity(0)), index, count))
    experiment, start = Experiment(values, options, project), time.monotonic()
    while not _stop_file(experiment.out).exists():
        if options.stop_after is not None and time.monotonic() - start > 60 * options.stop_after:
            return
        waiting, found = _next(experiment)
        if found is not None:
            plan, job, lock = found
            try:
                seconds = run_job(plan, job)
            finally:
                os.close(lock)
            done = experiment.total - experiment.left()
            say(f"[{done}/{experiment.total}] {job.workspace} {job.unit.id} {seconds:.1f} s")
        elif waiting:
            time.sleep(_PAUSE)
        else:
            return


def share_of_cores(cores: Sequence[int], index: int, count: int) -> list[int]:
    """The cores of worker ``index``: neighbours, every core somebody's, one at least."""
    size = len(cores)
    share = list(cores[index * size // count : (index + 1) * size // count])
    return share or [cores[index % size]]


def _start(command: Sequence[str], index: int, count: int, out: Path) -> subprocess.Popen[bytes]:
    environment = {"OMP_NUM_THREADS": str(max(1, core_count() // count)), **os.environ}
    if gpus := visible_gpus():
        environment["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    with (out / "logs" / f"worker{index}.log").open("wb") as log:
        return subprocess.Popen([*command, "--worker", f"{index}/{count}"], env=environment, stderr=log)


def _wait(workers: Sequence[subprocess.Popen[bytes]], out: Path) -> None:
    """Until all have ended; once one fails, the others only finish what they are at."""
    failed: int | None = None
    while any(worker.poll() is None for worker in workers):
        time.sleep(_PAUSE)
        for index, worker in enumerate(workers):
            if worker.poll() and failed is None:
                failed = index
                _stop_file(out).touch()
    failed = next((index for index, worker in enumerate(workers) if worker.returncode), failed)
    if failed is not None:
        log = out / "logs" / f"worker{failed}.log"
        last = re.split(r"[\r\n]+", log.read_text(errors="replace").strip())[-1]
        raise WorkerError(f"worker {failed} stopped ({last}); the whole of it is in {log}. The same command goes on")


def _next(experiment: Experiment) -> tuple[bool, tuple[Plan, Job, int] | None]:
    """(whether something is still to come, a unit that this process has claimed)."""
    waiting = False
    for plan, targets in zip(experiment.plans, experiment.targets, strict=True):
        undone = set[str]()
        for job in plan.jobs(targets):
            if plan.stamp(job) is not None:
                link_shared(plan, job)
                continue
            undone.add(job.unit.id)
            waiting = True
            if any(upstream.id in undone for upstream in plan.upstream[job.unit.id]):
                continue
            lock = _claim(experiment.out, job)
            if lock is None:
                continue
            if plan.stamp(job) is None:
                return True, (plan, job, lock)
            os.close(lock)  # done since it was looked at
    return waiting, None


def _claim(out: Path, job: Job) -> int | None:
    """A file descriptor that holds the unit's lock; None if another process does."""
    lock = os.open(out / "claims" / f"{job.workspace}-{job.unit.id}", os.O_CREAT | os.O_RDWR, 0o644)
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock
    os.close(lock)
    return None


def _stop_file(out: Path) -> Path:
    return out / "claims" / "stop"
