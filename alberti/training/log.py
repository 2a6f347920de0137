"""Who hears what trainings log: apart from the loop, so that a stage which trains nothing needs no torch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

LogFunction = Callable[[str, Sequence[dict[str, float]]], None]
_LOG: ContextVar[LogFunction | None] = ContextVar("log", default=None)


@contextmanager
def logged_to(log: LogFunction) -> Iterator[None]:
    """Call ``log(description, rows)`` on the main process for what the trainings inside log, as soon as they do.

    A resumed training first gives all rows up to its checkpoint at once, so that ``log`` sees every step once.
    """
    token = _LOG.set(log)
    try:
        yield
    finally:
        _LOG.reset(token)


def current_log() -> LogFunction | None:
    """What trainings that start here log to."""
    return _LOG.get()
