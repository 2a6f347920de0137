"""The command line, called in this process."""

import sys
from collections.abc import Callable

import pytest

from alberti import cli


@pytest.fixture
def alberti(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run ``alberti ARGUMENTS``; returns the exit code."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["alberti", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0)

    return run
