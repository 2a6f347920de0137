"""Where a flow run works: the project itself, or a copy of it with the params of another profile.

The project's params.yaml is never written. A profile whose composed params equal it runs in the project, as `dvc repro`
would; any other runs in `.alberti/runs/<name>/`, a copy of the project's files with a DVC set-up that shares the cache.
The copy stays, so that the next run of the profile finds its outs, lock file and checkpoints.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from alberti.errors import AlbertiError, ConfigError
from alberti.files import sha256_json, write_text
from pipeline import prefork
from pipeline.profiles import compose, dump
from pipeline.summary import print_summary

_CODE = ("alberti", "stages", "pipeline", "conf")


@contextlib.contextmanager
def open_workspace(project: str | Path, profile: str, overrides: Sequence[str] = ()) -> Iterator[Path]:
    """Yield the folder in which ``profile`` (with Hydra ``overrides``) runs, brought up to date and held for one run.

    Raises:
        ConfigError: an unknown profile or override, a project that is no Git working tree, or a folder that another
            flow run holds.
    """
    project = Path(project).resolve()
    values = compose(project, profile, overrides)
    current = project / "params.yaml"
    if current.is_file() and yaml.safe_load(current.read_text(encoding="utf-8")) == values:
        with _here(project):
            yield project
        return
    name = profile if not overrides else f"{profile}-{sha256_json(list(overrides))[:8]}"
    workspace = project / ".alberti" / "runs" / name
    with _exclusive(workspace.with_suffix(".lock")):
        _copy_project(project, workspace)
        _set_up_dvc(project, workspace)
        write_text(workspace / "params.yaml", dump(values))
        yield workspace


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(f"{path}: held by another flow run of this profile; wait for it or cancel it") from None
    try:
        yield
    finally:
        lock.release()


def _copy_project(project: Path, workspace: Path) -> None:
    for name in _CODE:  # whole, so that a module deleted in the project is gone in the copy
        shutil.rmtree(workspace / name, ignore_errors=True)
    for path in _project_files(project):
        if path.parts[0] not in (".dvc", "metrics") and path.name not in ("params.yaml", "dvc.lock"):  # the copy has its own
            target = workspace / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(project / path, target)


def _project_files(project: Path) -> list[Path]:
    """Every file that Git tracks or would track, relative to the project."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"{project}: not a Git working tree ({done.stderr.strip()}); clone the project with git")
    files = (Path(name) for name in done.stdout.split("\0") if name)
    return [path for path in files if (project / path).is_file()]


def _set_up_dvc(project: Path, workspace: Path) -> None:
    settings = "[core]\n    analytics = false\n    no_scm = true\n"
    settings += f"[cache]\n    dir = {_cache_of(project)}\n"
    write_text(workspace / ".dvc" / "config", settings)


def _cache_of(project: Path) -> Path:
    """The folder that holds the project's DVC cache, a shared one where the user configured it."""
    from dvc.repo import Repo

    with Repo(str(project)) as repo:
        return Path(repo.cache.local_cache_dir).resolve()


def main() -> None:
    """`dvc repro` of a profile where a flow would run it."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.workspace",
        description="Run `dvc repro` for a profile in a workspace of its own, .alberti/runs/, and say what came out.",
    )
    parser.add_argument("profile", nargs="?", default="default", help="a profile of conf/profile/ (default: default)")
    parser.add_argument("--here", action="store_true", help="run what params.yaml says, in this folder")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides")
    parser.add_argument(
        "--warm",
        action="store_true",
        help="stages run in forks of a process that has their imports done; their output is in logs/stages.log, too",
    )
    options = parser.parse_args()
    try:
        held = _here(Path.cwd()) if options.here else open_workspace(Path.cwd(), options.profile, options.overrides)
        with held as workspace:
            code = _reproduce(workspace, options.warm and os.name == "posix")
            if code == 0:
                print_summary(workspace)
    except AlbertiError as error:
        sys.exit(f"error: {error}")
    sys.exit(code)


@contextlib.contextmanager
def _here(project: Path) -> Iterator[Path]:
    """The project's own folder, held for one run."""
    with _exclusive(project / ".alberti" / "project.lock"):
        yield project


def _reproduce(workspace: Path, warm: bool) -> int:
    """`dvc repro` in ``workspace``; its exit code."""
    command = [sys.executable, "-m", "dvc", "repro"]
    if not warm:
        return subprocess.run(command, cwd=workspace).returncode
    log = workspace / "logs" / "stages.log"
    log.parent.mkdir(exist_ok=True)
    log.write_bytes(b"")
    ended = threading.Event()
    shown = threading.Thread(target=_show, args=(log, ended))
    shown.start()
    try:
        code = subprocess.run(command, cwd=workspace, env=prefork.warmed(os.environ, workspace, log.stem)).returncode
    finally:
        prefork.stop(workspace)
        ended.set()
        shown.join()
    if code:
        print(f"the stages' output: {log}", file=sys.stderr)
    return code


def _show(log: Path, ended: threading.Event) -> None:
    """What is written to ``log``, soon after, until ``ended``."""
    with open(log, encoding="utf-8", errors="replace") as written:
        last = False
        while not last:
            last = ended.wait(0.2)
            sys.stderr.write(written.read())
            sys.stderr.flush()


if __name__ == "__main__":
    main()
