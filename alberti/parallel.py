"""Independent jobs on all cores, in order, in constant memory: a job that kills its process fails alone."""

import contextlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from alberti.errors import AlbertiError, ConfigError, DataError

Job = TypeVar("Job")
Result = TypeVar("Result")
_AHEAD = 4
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(workers: int | None) -> int:
    """The number of processes: ``workers``, or one per core where None; ConfigError below 1."""
    if workers is None:
        return core_count()
    if workers < 1:
        raise ConfigError(f"workers: expected at least 1, got {workers}")
    return workers


def ordered_map(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int
) -> Iterator[tuple[Job, Result | AlbertiError]]:
    """Yield every job with its result, in the order of ``jobs``; an AlbertiError is a result as well.

    Args:
        function: a module-level function; with more than one worker it runs in fresh ("spawn") processes of one thread
            each, so that a script which calls this needs the usual ``if __name__ == "__main__":``.
        jobs: read only a few ahead of what was yielded.
        workers: 1 runs everything in this process.
    """
    if workers == 1:
        for job in jobs:
            yield job, _attempt(function, job)
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(_one_thread_each())
        pool = _Pool(workers)
        stack.callback(lambda: pool.close())
        waiting: deque[tuple[Job, Future[Result | AlbertiError]]] = deque()
        for job in jobs:
            waiting.append((job, pool.submit(function, job)))
            if len(waiting) >= _AHEAD * workers:
                yield _finish(function, *waiting.popleft())
        while waiting:
            yield _finish(function, *waiting.popleft())


def ordered_results(function: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    """Results alone, in the order of ``jobs``, as :func:`ordered_map`; the first job that fails ends it with its error."""
    for _, result in ordered_map(function, jobs, workers):
        if isinstance(result, AlbertiError):
            raise result
        yield result


def _attempt(function: Callable[[Job], Result], job: Job) -> Result | AlbertiError:
    try:
        return function(job)
    except AlbertiError as error:
        return error
    except MemoryError:
        return DataError(f"{job}: not enough memory")


class _Pool:
    """A process pool that starts anew after one of its processes died."""

    def __init__(self, workers: int):
        self._workers = workers
        self._executor = self._start()

    def _start(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._workers, mp_context=context, initializer=_ignore_interrupts)

    def submit(self, function: Callable[[Job], Result], job: Job) -> Future[Result | AlbertiError]:
        try:
            return self._executor.submit(_attempt, function, job)
        except BrokenProcessPool:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = self._start()
            return self._executor.submit(_attempt, function, job)

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


def _finish(
    function: Callable[[Job], Result], job: Job, future: Future[Result | AlbertiError]
) -> tuple[Job, Result | AlbertiError]:
    """The job's result. A dead process takes all jobs in flight with it: each is tried again, alone."""
    try:
        return job, future.result()
    except BrokenProcessPool:
        alone = _Pool(1)
        try:
            return job, alone.submit(function, job).result()
        except BrokenProcessPool:
            return job, DataError(f"{job}: its process was killed (out of memory?)")
        finally:
            alone.close()


def _ignore_interrupts() -> None:
    # Ctrl-C reaches the whole group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started meanwhile inherit one BLAS thread: N processes of N threads would only get in each other's way."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
