"""Progress of long work: rich's bar with rate and time left on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Self, TypeVar

from alberti.processes import is_main

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

T = TypeVar("T")
_LOG_EVERY_S = 10.0


class Progress:
    """Counts finished units of work and reports rate and time left, on stderr, by the main process alone.

    >>> with Progress("rendering", total=100, unit="images") as progress:
    ...     progress.advance()

    ``initial`` units count as done before the start (a resumed run) and do not enter the rate.
    """

    def __init__(self, description: str, total: int | None = None, unit: str = "it", initial: int = 0):
        self.description, self.total, self.unit = description, total, unit
        self.done = self._initial = initial
        self._start = self._last_line = time.monotonic()
        self._bars = _bars() if is_main() and sys.stderr.isatty() else None
        if self._bars is not None:
            self._task = self._bars.add_task(description, total=total, completed=initial, unit=unit, note="")

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bars is not None:
            self._bars.stop()
        else:
            self._write_line(final=True)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count ``count`` more units; ``note`` (say, the loss) is shown behind the rate."""
        self.done += count
        if self._bars is not None:
            self._bars.update(self._task, completed=self.done, note=note)
        elif time.monotonic() - self._last_line >= _LOG_EVERY_S:
            self._last_line = time.monotonic()
            self._write_line(note)

    def _write_line(self, note: str = "", final: bool = False) -> None:
        if not is_main():
            return
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done - self._initial) / elapsed
        total = "" if self.total is None else f"/{self.total}"
        text = f"{self.description}: {self.done}{total} {self.unit}, {rate:.1f}/s"
        if final:
            text += f", {_clock(elapsed)}"
        elif self.total is not None and rate > 0:
            text += f", {_clock((self.total - self.done) / rate)} left"
        print(f"{text}  {note}".rstrip(), file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _bars() -> "Bars":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Rate(ProgressColumn):
        """Units per second, or seconds per unit where they are slow."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            if not speed:
                return Text("")
            return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each", style="progress.data.speed")

    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        redirect_stdout=False,
    )


def track(items: Iterable[T], description: str, total: int | None = None, unit: str = "images") -> Iterator[T]:
    """Yield from ``items`` while reporting progress; ``total`` defaults to ``len(items)`` where there is one."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(description, total, unit) as progress:
        for item in items:
            yield item
            progress.advance()
