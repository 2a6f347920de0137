"""Jobs over processes: order, errors as results, a process that dies."""

import os
import signal
from collections.abc import Iterator

import pytest

from alberti.errors import AlbertiError, ConfigError, DataError
from alberti.parallel import check_workers, ordered_map


def work(job: int) -> int:
    if job == 3:
        raise DataError("job 3 is bad")
    if job == 5 and os.environ.get("ALBERTI_TEST_PARENT") != str(os.getpid()):
        os.kill(os.getpid(), signal.SIGKILL)
    return job * job


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_a_bad_job_is_one_of_them(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALBERTI_TEST_PARENT", str(os.getpid()))
    threads = os.environ.get("OMP_NUM_THREADS")
    results = list(ordered_map(work, [1, 2, 3, 4, 6, 7, 8, 9, 10, 11], workers))
    assert [job for job, _ in results] == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert isinstance(results[2][1], DataError)
    assert [result for job, result in results if job != 3] == [1, 4, 16, 36, 49, 64, 81, 100, 121]
    assert os.environ.get("OMP_NUM_THREADS") == threads


def test_a_job_that_kills_its_process_fails_alone() -> None:
    results = dict(ordered_map(work, [4, 5, 6, 7, 8, 9, 10, 11, 12], 2))
    assert isinstance(results.pop(5), AlbertiError)
    assert results == {job: job * job for job in (4, 6, 7, 8, 9, 10, 11, 12)}


def test_jobs_are_read_only_a_few_ahead() -> None:
    taken: list[int] = []

    def jobs() -> Iterator[int]:
        for job in range(100, 200):
            taken.append(job)
            yield job

    results = ordered_map(work, jobs(), 2)
    assert next(results) == (100, 10000)
    assert len(taken) <= 8
    results.close()


def test_workers() -> None:
    assert check_workers(None) >= 1
    assert check_workers(3) == 3
    with pytest.raises(ConfigError, match="workers"):
        check_workers(0)
