"""Progress of long work: a live bar with rate and time left on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Self, TypeVar

from alberti.processes import is_main

T = TypeVar("T")
_LOG_EVERY_S = 10.0


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Counts finished units of work and reports rate and time left.

    >>> with Progress("rendering", total=100, unit="images") as progress:
    ...     progress.advance()

    ``initial`` units count as done before the start (a resumed run) and do not enter the rate.
    """

    def __init__(self, description: str, total: int | None = None, unit: str = "it", initial: int = 0):
        self.description, self.total, self.unit = description, total, unit
        self.done = self._initial = initial
        self._live = sys.stderr.isatty()
        self._start = self._last_report = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._report(final=True)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count ``count`` more units; ``note`` (say, the loss) is shown behind the rate."""
        self.done += count
        now = time.monotonic()
        if now - self._last_report >= (0.1 if self._live else _LOG_EVERY_S):
            self._last_report = now
            self._report(note=note)

    def _report(self, note: str = "", final: bool = False) -> None:
        if not is_main():
            return
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done - self._initial) / elapsed
        text = f"{self.description}: {self.done}"
        if self.total is not None:
            text += f"/{self.total}"
        text += f" {self.unit}, {rate:.1f}/s"
        if final:
            text += f", {_clock(elapsed)}"
        elif self.total is not None and rate > 0:
            text += f", {_clock((self.total - self.done) / rate)} left"
        if note:
            text += f"  {note}"
        end = "\n" if final or not self._live else ""
        print(f"\r\x1b[2K{text}" if self._live else text, end=end, file=sys.stderr, flush=True)


def track(items: Iterable[T], description: str, total: int | None = None, unit: str = "images") -> Iterator[T]:
    """Yield from ``items`` while reporting progress; ``total`` defaults to ``len(items)`` where there is one."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(description, total, unit) as progress:
        for item in items:
            yield item
            progress.advance()
