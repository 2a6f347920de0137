"""What a command may write: checked against what it reads, before the first picture.

The bytes of an input never change, and no output lies among the inputs, where the next run would take it for one.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from alberti.errors import ConfigError
from alberti.files import atomic_file
from alberti.images import picture_suffixes, unread_suffixes


def check_output_file(out: Path, inputs: Iterable[Path | None], *, option: str = "--out", example: str = "result.json") -> None:
    """Refuse a file to write that is a folder, looks like a picture, or names or lies inside one of ``inputs``.

    Args:
        example: a name to suggest in the place of a folder.

    Raises:
        ConfigError: naming ``option``, what it names and why that is no place for the result.
    """
    if out.is_dir():
        raise ConfigError(f"{option} {out}: a folder; name the file to write, say {out / example}")
    if out.suffix.lower() in (*picture_suffixes(), *unread_suffixes()):
        raise ConfigError(f"{option} {out}: named like a picture; the result is a text file: give it another suffix")
    _check_apart(out, inputs, option)
    _check_writable(out, option)


def check_output_picture(out: Path, inputs: Iterable[Path | None], *, option: str = "--out") -> None:
    """Refuse a picture to write that names or lies inside one of ``inputs``, or whose place takes no file."""
    _check_apart(out, inputs, option)
    _check_writable(out, option)


def check_output_folder(out: Path, inputs: Iterable[Path | None], *, option: str = "--out", around: bool = True) -> None:
    """Refuse a folder to write that is a file, or names or lies inside one of ``inputs``.

    Args:
        around: whether an input may lie inside of ``out``.

    Raises:
        ConfigError: as :func:`check_output_file`.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{option} {out}: a file; name the folder to write into")
    given = [path for path in inputs if path is not None]
    _check_apart(out, given, option)
    if not around:
        for path in given:
            if any(_same(out, folder) for folder in _with_parents(path)):
                raise ConfigError(f"{option} {out}: the input {path} lies in it; name a folder of its own for what is written")
    _check_writable(out / "x", option)


def check_two_outputs(out: Path, folder: Path, option: str) -> None:
    """Refuse a folder to write, that ``option`` names, in the place of the file ``out``."""
    if any(os.path.abspath(place) == os.path.abspath(out) for place in (folder, *Path(os.path.abspath(folder)).parents)):
        raise ConfigError(f"{option} {folder}: --out {out} is to be a file there; name two places")


def check_beside(path: Path, begins: str, option: str = "--out") -> None:
    """Refuse to overwrite ``path``, a file that is written beside the one that was named, unless it begins as ours do."""
    if not path.exists():
        return
    try:
        ours = path.read_bytes()[: len(begins)] == begins.encode()
    except OSError:
        ours = False
    if not ours:
        raise ConfigError(
            f"{option}: {path} would be written as well, and holds something else; choose another name, or move it"
        )


def _check_apart(out: Path, inputs: Iterable[Path | None], option: str) -> None:
    for path in inputs:
        if path is None or not path.exists():
            continue
        if _same(out, path):
            raise ConfigError(f"{option} {out}: names an input, which would be overwritten; name another place")
        if path.is_dir() and any(_same(folder, path) for folder in _with_parents(out)[1:]):
            raise ConfigError(f"{option} {out}: lies inside the input {path}; name a place outside of it")


def _with_parents(path: Path) -> list[Path]:
    """The path and the folders above it, as written and with links followed."""
    here = Path(os.path.abspath(path))
    real = Path(os.path.realpath(path))
    return [here, *here.parents, real, *real.parents]


def _same(a: Path, b: Path) -> bool:
    """One file or folder, by whatever names: links, mounts and file systems without case included."""
    try:
        return os.path.samefile(a, b)
    except OSError:
        return os.path.realpath(a) == os.path.realpath(b)


def _check_writable(path: Path, option: str) -> None:
    """Refuse a place that no file can be made in; a folder that the trial had to make goes again."""
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        with contextlib.suppress(_Tried), atomic_file(path) as temporary:
            temporary.touch()
            raise _Tried
    except OSError as error:
        raise ConfigError(f"{option} {path.parent}: cannot be written to ({error.strerror or error})") from None
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()


class _Tried(Exception):
    """Ends the trial before the file gets its name."""
