"""Every command with its options, from the functions and parsers that define them: docs/commands.md."""

import argparse
import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from typer.models import ArgumentInfo, OptionInfo

from alberti.cli import COMMANDS, load_command
from pipeline.profiles import PROJECT
from stages.shared.running import stage_parser

_INTRO = """# Command line

Written by `python -m pipeline.reference` from the commands themselves. `alberti COMMAND --help` shows the same.

"""
_WORDS: dict[Any, str] = {Path: "PATH", str: "TEXT", int: "INTEGER", float: "NUMBER"}
_HEAD = "| option | default | meaning |\n|---|---|---|\n"
_MODULES = ("export", "summary", "results", "workspace", "profiles", "reference", "plots_page", "rehearsal.__main__")


class _Parsed(Exception):
    """Carries a module's parser out of its main."""

    def __init__(self, parser: argparse.ArgumentParser):
        self.parser = parser


def command_reference() -> str:
    """The page in Markdown."""
    parts = [_INTRO, *(_command(f"alberti {name}", load_command(name)) for name in COMMANDS)]
    parts.append(
        "## Stages\n\n`python -m stages.STAGE` runs one stage by hand. All other ways to run a stage call the same module.\n\n"
    )
    parts.append(_HEAD + "\n".join(_action_rows(stage_parser(None, named=True))) + "\n\n| stage | what it makes |\n|---|---|\n")
    parts.append("\n".join(_stage_rows()) + "\n\n")
    parts.extend(_module(name) for name in _MODULES)
    return re.sub(r"\n{3,}", "\n\n", "".join(parts)).rstrip() + "\n"


def _command(name: str, defined: Callable[..., Any] | typer.Typer) -> str:
    if isinstance(defined, typer.Typer):
        about = f"## {name}\n\n{_plain(str(defined.info.help))}\n\n"
        inner = [(command.name or _function(command).__name__, _function(command)) for command in defined.registered_commands]
        return about + "".join(_command(f"{name} {word}", function) for word, function in inner)
    level = "###" if name.count(" ") > 1 else "##"
    rows = list(_parameters(defined))
    usage = " ".join([name, *(row[0] for row in rows if not row[0].startswith("-")), "[OPTIONS]"])
    table = _HEAD + "\n".join(_row(*row) for row in rows)
    return f"{level} {name}\n\n```\n{usage}\n```\n\n{_plain(inspect.getdoc(defined) or '')}\n\n{table}\n\n"


def _function(command: Any) -> Callable[..., Any]:
    assert command.callback is not None
    function: Callable[..., Any] = command.callback
    return function


def _parameters(function: Callable[..., Any]) -> Iterator[tuple[str, str, str]]:
    """(name with what stands behind it, default, meaning) of each parameter."""
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        assert get_origin(parameter.annotation) is Annotated, f"{function.__name__}: {name}"
        kind, info = get_args(parameter.annotation)[:2]
        required = parameter.default is inspect.Parameter.empty
        word = info.metavar or _word(kind)
        if isinstance(info, ArgumentInfo):
            shown = info.metavar or name.upper() + (" ..." if "list" in str(kind) else "")
        else:
            assert isinstance(info, OptionInfo)
            shown = _option(name, info, word)
        yield shown, "needed" if required else _default(parameter.default), info.help or ""


def _option(name: str, info: OptionInfo, word: str) -> str:
    long = "--" + name.replace("_", "-")
    # of Option("--name") in an Annotated typer takes the name for the default until it makes the command
    named = info.param_decls or ([str(info.default)] if str(info.default).startswith("-") else [])
    names = ", ".join(sorted(named or (long,), key=len))
    if word:
        return f"{names} {word}"
    return names if named else f"{names} / --no-{long[2:]}"


def _word(kind: Any) -> str:
    """What stands behind an option of this type; nothing for a switch."""
    if kind is bool:
        return ""
    found = [
        _WORDS[part]
        for part in (kind, *get_args(kind), *(inner for part in get_args(kind) for inner in get_args(part)))
        if part in _WORDS
    ]
    return found[0]


def _default(value: Any) -> str:
    if value is None or value == "":
        return ""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"`{value}`"


def _module(name: str) -> str:
    module = importlib.import_module(f"pipeline.{name}")
    parser = _parser_of(module.main)
    title = f"python -m pipeline.{name.removesuffix('.__main__')}"
    about = inspect.getdoc(module) if parser.description == module.__doc__ else parser.description
    rows = "\n".join(_action_rows(parser))
    return f"## {title}\n\n{_blocks(about or '')}\n\n" + (f"{_HEAD}{rows}\n\n" if rows else "")


def _parser_of(main: Callable[..., Any]) -> argparse.ArgumentParser:
    """The parser that a module's main makes; main goes no further."""

    def caught(self: argparse.ArgumentParser, *_: Any, **__: Any) -> Any:
        raise _Parsed(self)

    original = argparse.ArgumentParser.parse_args
    argparse.ArgumentParser.parse_args = caught  # type: ignore[method-assign]
    try:
        main()
    except _Parsed as found:
        return found.parser
    finally:
        argparse.ArgumentParser.parse_args = original  # type: ignore[method-assign]
    raise AssertionError(f"{main.__module__}: parses no arguments")


def _action_rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if action.dest == "help" or action.help in (None, argparse.SUPPRESS):
            continue
        word = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
        names = " ".join([", ".join(action.option_strings), word + (" ..." if action.nargs in ("+", "*") else "")])
        meaning = re.sub(r" \(default: .*\)$", "", str(action.help))
        yield _row(names.strip(), "needed" if action.required and action.nargs != "*" else _shown(action.default), meaning)


def _shown(value: Any) -> str:
    return "" if isinstance(value, bool) or value in (None, []) else f"`{value}`"


def _stage_rows() -> Iterator[str]:
    for path in sorted((PROJECT / "stages").glob("[a-z]*.py")):
        about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        title, _, text = " ".join(about.split()).partition(": ")
        yield f"| `{title.removeprefix('Stage ')}` | {text[:1].upper()}{text[1:]} |"


def _row(*cells: str) -> str:
    first, *rest = cells
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (f"`{first}`", *map(_escaped, rest))) + " |"


def _plain(text: str) -> str:
    """A docstring with paragraphs kept and lines joined. What Markdown would take for a tag or link is escaped."""
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    return "\n\n".join(map(_escaped, paragraphs))


def _escaped(text: str) -> str:
    """Text in which Markdown takes nothing for a tag or a link; what stands between backticks is code as it is."""
    parts = text.split("`")
    return "`".join(part if place % 2 else part.replace("<", "&lt;").replace("[", "\\[") for place, part in enumerate(parts))


def _blocks(text: str) -> str:
    """A module's docstring: indented lines are commands, the rest is prose."""
    parts = []
    for part in textwrap.dedent(text).strip().split("\n\n"):
        indented = all(line.startswith("    ") for line in part.splitlines())
        parts.append(f"```console\n{textwrap.dedent(part)}\n```" if indented else " ".join(part.split()))
    return "\n\n".join(parts)
