"""What is said where an extra's packages are missing; tests/test_light_install.py sees it in every command."""

from importlib import import_module

import pytest

from alberti.errors import AlbertiError
from alberti.extras import EXTRAS, MissingExtra, extra, require_extra


@pytest.fixture(autouse=True)
def _absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "depth", ("numpy", "no_such_package", "nor_this"))


def test_all_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(MissingExtra) as caught:
        require_extra("depth", "it")
    assert str(caught.value) == "it needs no_such_package, nor_this; install with: pip install 'alberti[depth]'"


def test_nothing_is_said_where_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "depth", ("numpy",))
    require_extra("depth", "it")
    with extra("depth"):
        import numpy  # noqa: F401


def test_an_import_that_fails_says_what_to_install() -> None:
    with (
        pytest.raises(MissingExtra, match=r"^it needs nor_this; install with: pip install 'alberti\[depth\]'$"),
        extra("depth", "it"),
    ):
        import_module("nor_this.inner")


def test_another_package_s_absence_stays_what_it_is() -> None:
    """A package of an extra that is there, but lacks one of its own, is not mended by installing the extra."""
    with pytest.raises(ModuleNotFoundError, match="some_other") as caught, extra("depth"):
        import_module("some_other_package")
    assert not isinstance(caught.value, AlbertiError)


def test_it_is_an_import_error_and_one_that_commands_report() -> None:
    assert issubclass(MissingExtra, ImportError)
    assert issubclass(MissingExtra, AlbertiError)
