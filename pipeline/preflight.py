"""`alberti doctor`: what this machine has, what each profile needs, and what it lacks."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alberti.errors import AlbertiError, ConfigError
from pipeline.profiles import compose, profiles
from stages.shared.layout import Layout
from stages.shared.params import Params, check_params
from stages.shared.provenance import version_of

if TYPE_CHECKING:
    from rich.table import Table

PACKAGES = ("alberti", "torch", "torchvision", "diffusers", "transformers", "accelerate", "timm", "opencv-python-headless",
            "numpy", "pandas", "dvc", "hydra-core", "prefect")  # fmt: skip


@dataclass(frozen=True)
class Needs:
    """What a profile asks of the machine."""

    memory_gb: float
    disk_gb: float
    gpu_gb: float = 0.0
    """0: no GPU needed."""


NEEDS = {
    "smoke": Needs(memory_gb=4, disk_gb=1),
    "default": Needs(memory_gb=6, disk_gb=3),
    "gpu": Needs(memory_gb=16, disk_gb=20, gpu_gb=40),
    "photos": Needs(memory_gb=6, disk_gb=3),
    "paper": Needs(memory_gb=64, disk_gb=300, gpu_gb=40),
}


@dataclass(frozen=True)
class State:
    """Whether a profile can run."""

    lacks: tuple[str, ...]
    """What stands in the way, a sentence each."""
    fetches: tuple[str, ...] = ()
    """What the first run downloads."""


@dataclass(frozen=True)
class Machine:
    """What there is."""

    cores: int
    memory_gb: float
    disk_gb: float
    gpus: tuple[tuple[str, float], ...]
    """Name and memory in GB."""
    gpu_usable: bool
    """Whether the installed torch can use them."""


def look_at_machine(folder: Path) -> Machine:
    """Measure this machine; ``folder`` says which disk."""
    import psutil

    gpus = tuple(_gpus())
    return Machine(
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gb=psutil.virtual_memory().total / 2**30,
        disk_gb=shutil.disk_usage(folder).free / 2**30,
        gpus=gpus,
        gpu_usable=bool(gpus) and _torch_sees_gpu(),
    )


def _gpus() -> Iterator[tuple[str, float]]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return
    for line in done.stdout.splitlines():
        name, _, memory = line.rpartition(",")
        yield name.strip(), float(memory) / 1024


def _torch_sees_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def lacking(profile: str, project: Path, machine: Machine, overrides: Sequence[str] = ()) -> list[str]:
    """What stands in the way of ``profile``, a sentence each; empty if it can run."""
    return list(look_at_profile(profile, project, machine, overrides).lacks)


def look_at_profile(profile: str, project: Path, machine: Machine, overrides: Sequence[str] = ()) -> State:
    """What stands in the way of ``profile`` with Hydra ``overrides`` (`key=value`), and what its first run downloads."""
    try:
        params = check_params(compose(project, profile, overrides), f"profile {profile}: ")
    except (AlbertiError, ImportError) as error:
        return State((str(error),))
    fetches = tuple(_fetched(params, project))
    lacks = [
        *_project_lacks(project),
        *_machine_lacks(NEEDS.get(profile), machine),
        *_packages_lack(),
        *_data_lack(params, project),
        *_models_lack(params, project),
    ]
    if fetches and os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        return State((*lacks, *(f"{name}, and HF_HUB_OFFLINE forbids to fetch it" for name in fetches)))
    return State(tuple(lacks), fetches)


def _project_lacks(project: Path) -> Iterator[str]:
    """DVC works in Git clones only."""
    if shutil.which("git") is None:
        yield "Git: not installed; DVC, which runs the stages, needs it"
    elif not (project / ".git").exists():
        yield (
            "Git: this folder is no Git clone (was it downloaded as a ZIP file?), and DVC, which runs the stages, needs one: "
            "clone it with `git clone`, or make it one: `git init && git add -A && git commit -m start` (see README)"
        )


def _machine_lacks(needs: Needs | None, machine: Machine) -> Iterator[str]:
    if needs is None:
        return
    if machine.memory_gb < 0.95 * needs.memory_gb:  # firmware keeps a little of what is built in
        yield f"memory: {machine.memory_gb:.0f} GB, {needs.memory_gb:g} GB needed"
    if machine.disk_gb < needs.disk_gb:
        yield f"disk: {machine.disk_gb:.1f} GB free, {needs.disk_gb:g} GB needed"
    if needs.gpu_gb:
        largest = max((memory for _, memory in machine.gpus), default=0.0)
        if not machine.gpus:
            yield f"GPU: none found, one with {needs.gpu_gb:g} GB needed"
        elif largest < 0.95 * needs.gpu_gb:
            yield f"GPU: {largest:.0f} GB, {needs.gpu_gb:g} GB needed"
        elif not machine.gpu_usable:
            yield "GPU: found, but the installed torch cannot use it; install a torch build for its driver"


def _packages_lack() -> Iterator[str]:
    for package in PACKAGES:
        if version_of(package) is None:
            yield f"package {package}: not installed; pip install -e '.[dev]'"


def _data_lack(params: Params, project: Path) -> Iterator[str]:
    layout = Layout.of(project, project)
    for key, name, root in params.prepare.named_roots():
        if not layout.named(root).is_dir():
            yield f"data for {key.split('.')[1]}: {name} expected at {root}; set {key} to your copy"
    for role, source in params.prepare.roles().items():
        for option, path in source.files(layout).items():
            if not path.is_file():
                what = "split list" if source.source == "kitti" else "file"
                yield f"data for {role}: no {what} {path} (prepare.{role}.options.{option})"


def _models_lack(params: Params, project: Path) -> Iterator[str]:
    yield from _captions_lack(params, project)
    yield from _estimates_lack(params, project)
    base = params.base
    if base.source == "pretrained" and not (project / "pretrained/base/model_index.json").is_file():
        yield "base: pretrained/base holds no model; set base.source to train, path or hub"
    if base.source == "path" and not (_at(base.path or "", project) / "model_index.json").is_file():
        yield f"base: no model folder at {base.path} (base.path)"
    for name, start in params.base_depth:
        if (where := start.weights) is not None and not _is_hub_id(where, project) and not _at(where, project).exists():
            yield f"{name}: no weights at {where} (base_depth.{name}.weights)"


def _captions_lack(params: Params, project: Path) -> Iterator[str]:
    for role, source in params.prepare.roles().items():
        model = None if source.captions is None else source.captions.model
        if model is not None and not _at(model, project).is_dir() and not _is_hub_id(model, project):
            yield f"captions for {role}: {model} is neither a folder nor a hub id (prepare.{role}.captions.model)"


def _estimates_lack(params: Params, project: Path) -> Iterator[str]:
    for role, source in params.prepare.roles().items():
        model = None if source.estimate_depth is None else source.estimate_depth.model
        if model is not None and not _at(model, project).exists() and not _is_hub_id(model, project):
            yield f"depth for {role}: {model} is no folder, file or hub id (prepare.{role}.estimate_depth.model)"


def _fetched(params: Params, project: Path) -> Iterator[str]:
    """What is downloaded from the model hub on the first run."""
    wanted: dict[str, tuple[str, str, str | None]] = {}
    for role, source in params.prepare.roles().items():
        if source.captions is not None and source.captions.model is not None:
            wanted[f"captions for {role}"] = (source.captions.model, "config.json", source.captions.revision)
        if source.estimate_depth is not None:
            wanted[f"depth for {role}"] = (source.estimate_depth.model, "config.json", source.estimate_depth.revision)
    if params.base.source == "hub" and params.base.id:
        wanted["base"] = (params.base.id, "model_index.json", params.base.revision)
    for name, start in params.base_depth:
        if start.weights is not None:
            wanted[name] = (start.weights, "config.json", start.revision)
    for what, (model, file, revision) in wanted.items():
        if _is_hub_id(model, project) and not _in_hub_cache(model, file, revision):
            yield f"{what}: {model} from the model hub"


def _at(path: str, project: Path) -> Path:
    return Layout.of(project, project).named(path)


def _is_hub_id(name: str, project: Path) -> bool:
    """Whether a model's name means the hub: owner/name, and no folder or file here."""
    inside = _at(name, project).exists() or name.startswith(("pretrained/", "models/", "datasets/"))
    return not inside and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None


def _in_hub_cache(repository: str, file: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(repository, file, revision=revision), str)
    except HFValidationError:
        return False


def doctor(
    profile: Annotated[str | None, typer.Option(help="Check this profile only; the exit code is 1 if it cannot run.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Hydra overrides, such as prepare.train.root=/data/holicity."),
    ] = None,
    set_param: Annotated[
        list[str] | None, typer.Option("--set-param", "-S", metavar="KEY=VALUE", help="An override, as `dvc exp run` takes it.")
    ] = None,
) -> None:
    """Say what this machine has, and what each profile lacks."""
    from rich.console import Console

    project = Path.cwd()
    values = [*(overrides or ()), *(set_param or ())]
    for value in values:
        if "=" not in value and not value.startswith("~"):
            raise ConfigError(f"{value}: expected an override, key=value")
        if value.startswith("profile="):
            profile = value.partition("=")[2]
    values = [value for value in values if not value.startswith("profile=")]
    if not (project / "conf" / "profile").is_dir():
        raise ConfigError(f"{project}: not the project's folder (no conf/profile in it); run alberti doctor from there")
    known = profiles(project)
    if profile is not None and profile not in known:
        raise ConfigError(f"--profile {profile}: unknown; there are {', '.join(known)}")
    machine = look_at_machine(project)
    found = {name: look_at_profile(name, project, machine, values) for name in ([profile] if profile else known)}
    console = Console()
    console.print(_machine_table(machine))
    console.print(_profile_table(found))
    if profile is not None and found[profile].lacks:
        raise typer.Exit(1)


def _machine_table(machine: Machine) -> "Table":
    gpus = ", ".join(f"{name} ({memory:.0f} GB)" for name, memory in machine.gpus)
    if gpus and not machine.gpu_usable:
        gpus += ", not usable by the installed torch"
    rows: dict[str, Any] = {
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "processor": f"{machine.cores} cores",
        "memory": f"{machine.memory_gb:.1f} GB",
        "disk": f"{machine.disk_gb:.1f} GB free here",
        "GPU": gpus or "none: stages run on the CPU",
        **{package: version_of(package) or "not installed" for package in PACKAGES},
    }
    table = _table("This machine", "what", "found")
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def _profile_table(found: dict[str, State]) -> "Table":
    table = _table("Profiles", "profile", "needs", "state")
    for name, state in found.items():
        needs = NEEDS.get(name)
        text = "" if needs is None else f"{needs.memory_gb:g} GB memory, {needs.disk_gb:g} GB disk"
        if needs is not None and needs.gpu_gb:
            text += f", a GPU with {needs.gpu_gb:g} GB"
        lines = [f"lacks {problem}" for problem in state.lacks] or ["ready"]
        table.add_row(name, text, "\n".join([*lines, *(f"fetches {what}" for what in state.fetches)]))
    return table


def _table(title: str, *columns: str) -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_lines=len(columns) > 2)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
