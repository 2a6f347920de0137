"""The ``alberti`` command line: registers the commands, each in a module of its own, and reports errors."""

import importlib
import sys
from importlib.metadata import entry_points

import click
import typer

from alberti.errors import AlbertiError

_COMMANDS = {
    "annotate": ("alberti.commands.annotate", "Line segments and vanishing points of a folder of pictures."),
    "score": ("alberti.commands.score", "How well a folder of pictures obeys linear perspective."),
    "predict-depth": ("alberti.commands.predict_depth", "Run a depth model over a folder of pictures or a KITTI split."),
    "evaluate-depth": ("alberti.commands.evaluate_depth", "Score depth predictions, anyone's, on KITTI or DIODE."),
}
_PLUGINS = "alberti.commands"


class _LazyGroup(click.Group):
    """Imports a command's module only when that command is asked for: ``alberti --help`` stays instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS, *(point.name for point in entry_points(group=_PLUGINS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS:
            module, _ = _COMMANDS[cmd_name]
            function = getattr(importlib.import_module(module), cmd_name.replace("-", "_"))
        else:
            points = entry_points(group=_PLUGINS, name=cmd_name)
            if not points:
                return None
            function = next(iter(points)).load()
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name=cmd_name)(function)
        command: click.Command = typer.main.get_command(app)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, text) for name, (_, text) in _COMMANDS.items()]
        rows += [(point.name, "What this machine and each profile have and lack.") for point in entry_points(group=_PLUGINS)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="alberti")
def app() -> None:
    """alberti: diffusion models that obey linear perspective, and what that buys."""


def main() -> None:
    """Entry point. An error that the user's input caused becomes one paragraph and exit code 1."""
    try:
        app(standalone_mode=True)
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
