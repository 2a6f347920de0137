"""A JSON-lines file that grows row by row and survives being interrupted."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol, Self, TypeVar

import filelock

from alberti.errors import DataError
from alberti.files import atomic_file, changed_since

_SYNC_EVERY_S = 1.0


class NamedJob(Protocol):
    """A job that makes one row, whose ``image`` is the job's name."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path: ...


Job = TypeVar("Job", bound=NamedJob)


class PartialFile:
    """``<out>.partial``: a line that says what run it belongs to, then one row per picture, bad ones as errors.

    Use as a context manager: one run at a time holds it.

    Raises:
        DataError: on entering, while another run writes the same ``out``.
    """

    def __init__(self, out: Path, run: str):
        self._out, self._run = out, run
        self.path = out.with_name(out.name + ".partial")
        self._lock = filelock.FileLock(out.with_name(f".{out.name}.lock"), timeout=0)
        self._file: IO[str] | None = None
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise DataError(f"{self._out}: another run is writing it; wait for that one, or name another file") from None
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()
        with contextlib.suppress(OSError):
            os.unlink(self._lock.lock_file)
        self._lock.release()

    def resume(self, jobs: Iterator[Job], count: Callable[[dict[str, Any]], None]) -> Iterator[Job]:
        """Keep the rows that begin ``jobs``, calling ``count`` on each; return the jobs that are left.

        Rows and jobs have one order: the first row that is not the next job's, is cut short, or is older than its
        picture ends what is kept.
        """
        kept = 0
        first: Job | None = None
        if self.path.is_file():
            written = self.path.stat().st_mtime
            with open(self.path, "rb") as file:
                if _header(file.readline()) == self._run:
                    kept = file.tell()
                    for job in jobs:
                        row = _whole_row(file.readline())
                        if row is None or row["image"] != job.name or changed_since(job.path, written):
                            first = job
                            break
                        kept = file.tell()
                        count(row)
        if kept:
            os.truncate(self.path, kept)
        else:
            self.path.write_text(json.dumps({"run": self._run}) + "\n", encoding="utf-8")
        return jobs if first is None else _chain(first, jobs)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; on the disk within a second."""
        if self._file is None:
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 closed by finish, discard or __exit__
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        if time.monotonic() - self._synced > _SYNC_EVERY_S:
            self._sync(self._file)

    def _sync(self, file: IO[str]) -> None:
        file.flush()
        os.fsync(file.fileno())
        self._synced = time.monotonic()

    def _close(self) -> None:
        if self._file is not None:
            self._sync(self._file)
            self._file.close()
            self._file = None

    def finish(self) -> None:
        """Turn the partial file into the finished one, without its first line and the errors."""
        self._close()
        with (
            atomic_file(self._out) as complete,
            open(self.path, encoding="utf-8") as source,
            open(complete, "w", encoding="utf-8") as target,
        ):
            next(source)
            for line in source:
                if "error" not in json.loads(line):
                    target.write(line)
            target.flush()
            os.fsync(target.fileno())
        self.discard()

    def discard(self) -> None:
        """Remove the partial file."""
        self._close()
        self.path.unlink(missing_ok=True)


def _header(line: bytes) -> str | None:
    try:
        run = json.loads(line)["run"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return run if line.endswith(b"\n") and isinstance(run, str) else None


def _whole_row(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("image"), str) and _complete(row) else None


def _complete(row: dict[str, Any]) -> bool:
    """Whether a row has what is counted of it."""
    return isinstance(row.get("error"), str) or isinstance(row.get("vanishing_points"), list)


def _chain(first: Job, rest: Iterator[Job]) -> Iterator[Job]:
    yield first
    yield from rest
