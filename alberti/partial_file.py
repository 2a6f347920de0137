"""A JSON-lines file that grows row by row and survives being interrupted."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

_SYNC_EVERY_S = 1.0


class NamedJob(Protocol):
    """A job that makes one row, whose ``image`` is the job's name."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path: ...


Job = TypeVar("Job", bound=NamedJob)


class PartialFile:
    """``<out>.partial``: a line that says what run it belongs to, then a row a picture, bad ones as errors."""

    def __init__(self, out: Path, run: str):
        self._out, self._run = out, run
        self.path = out.with_name(out.name + ".partial")
        self._synced = time.monotonic()

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
                        if row is None or row["image"] != job.name or _changed_since(job.path, written):
                            first = job
                            break
                        kept = file.tell()
                        count(row)
        if kept:
            os.truncate(self.path, kept)
        else:
            self.path.write_text(json.dumps({"run": self._run}) + "\n", encoding="utf-8")
        return jobs if first is None else _chain(first, jobs)

    def __enter__(self) -> Self:
        self._file = open(self.path, "a", encoding="utf-8")
        return self

    def __exit__(self, *exc: object) -> None:
        self._sync()
        self._file.close()

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; on the disk within a second."""
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        if time.monotonic() - self._synced > _SYNC_EVERY_S:
            self._sync()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def finish(self) -> None:
        """Turn the partial file into the finished one, without its first line and the errors."""
        complete = self._out.with_name(f".{self._out.name}.tmp")
        with open(self.path, encoding="utf-8") as source, open(complete, "w", encoding="utf-8") as target:
            next(source)
            for line in source:
                if "error" not in json.loads(line):
                    target.write(line)
            target.flush()
            os.fsync(target.fileno())
        os.replace(complete, self._out)
        self.discard()

    def discard(self) -> None:
        """Remove the partial file."""
        self.path.unlink(missing_ok=True)


def _header(line: bytes) -> str | None:
    try:
        run = json.loads(line)["run"]
    except (ValueError, KeyError, TypeError):
        return None
    return run if line.endswith(b"\n") and isinstance(run, str) else None


def _whole_row(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "image" in row else None


def _changed_since(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime > moment
    except OSError:
        return True


def _chain(first: Job, rest: Iterator[Job]) -> Iterator[Job]:
    yield first
    yield from rest
