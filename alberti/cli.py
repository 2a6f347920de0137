"""The ``alberti`` command line: registers the commands, each in a module of its own, and reports errors."""

import contextlib
import importlib
import io
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points, version
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from alberti.errors import AlbertiError, ConfigError

COMMANDS = {
    "annotate": "Find the lines and vanishing points of pictures.",
    "score": "Measure how well pictures obey perspective.",
    "draw": "Draw a depth map or photo with straight lines.",
    "predict-depth": "Predict the depth of pictures with a model.",
    "evaluate-depth": "Score depth predictions on KITTI or DIODE.",
    "score-depth": "Run a depth model on test frames and score it.",
    "study": "Ask people which of two pictures they prefer.",
    "distil-decoder": "Train a small decoder for cheaper constraints.",
    "doctor": "Check what this machine lacks for a profile.",
}

_OF_A_CLONE = ("doctor",)
"""Commands of the pipeline, which the library does not import: they come by entry point, in a clone of the repository."""


def _in_a_clone(name: str) -> EntryPoint | None:
    """The entry point of a command in :data:`_OF_A_CLONE`; None where its module is not there."""
    for point in entry_points(group="alberti.commands", name=name):
        with contextlib.suppress(ModuleNotFoundError):  # not even the package
            if find_spec(point.module) is not None:
                return point
    return None


def load_command(name: str) -> Callable[..., Any]:
    """The function behind a command, or its group: in ``alberti.commands``, or of an entry point."""
    if name in _OF_A_CLONE:
        point = _in_a_clone(name)
        if point is None:
            raise ConfigError(f"alberti {name}: belongs to the pipeline, which works in a clone of the repository only")
        function: Callable[..., Any] = point.load()
        return function
    module_name = name.replace("-", "_")
    loaded: Callable[..., Any] = getattr(importlib.import_module(f"alberti.commands.{module_name}"), module_name)
    return loaded


def _only_help() -> None:
    """Stands for a command that was not asked for, so that its module need not be imported."""


def _print_version(asked: bool) -> None:
    if asked:
        print(f"alberti {version('alberti')}")
        raise typer.Exit


def _about(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Diffusion models whose pictures obey linear perspective: measure, guide, fine-tune, and test depth models on them."""


def build_app(arguments: list[str]) -> typer.Typer:
    """The command line; only the modules of commands named in ``arguments`` are imported: ``--help`` stays instant."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_about)
    for name, summary in COMMANDS.items():
        if name in arguments:
            loaded = load_command(name)
            if isinstance(loaded, typer.Typer):
                app.add_typer(loaded, name=name)
            else:
                app.command(name)(loaded)
        elif name not in _OF_A_CLONE or _in_a_clone(name) is not None:
            app.command(name, help=summary)(_only_help)
    return app


def main() -> None:
    """Entry point. An error that the user's input caused becomes one paragraph and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names in another encoding can be told of
    try:
        build_app(sys.argv[1:])()
    except AlbertiError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(f"error: {error.filename or 'input/output'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; finished work is kept, run the same command again to go on", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
