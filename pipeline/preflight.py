"""`alberti doctor`: what this machine has, what each profile needs, and what it lacks."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alberti.errors import AlbertiError, ConfigError
from pipeline.profiles import compose, profiles
from stages.shared.layout import Layout
from stages.shared.params import DepthStartParams, Params, check_params
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
    "paper": Needs(memory_gb=64, disk_gb=300, gpu_gb=40),
}


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


def lacking(profile: str, project: Path, machine: Machine) -> list[str]:
    """What stands in the way of ``profile``, a sentence each; empty if it can run."""
    try:
        params = check_params(compose(project, profile), f"profile {profile}: ")
    except (AlbertiError, ImportError) as error:
        return [str(error)]
    machine_lacks = _machine_lacks(NEEDS.get(profile), machine)
    return [*machine_lacks, *_packages_lack(), *_data_lack(params, project), *_models_lack(params, project)]


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
    base = params.base
    if base.source == "pretrained" and not (project / "pretrained/base/model_index.json").is_file():
        yield "base: pretrained/base holds no model; set base.source to train, path or hub"
    if base.source == "path" and not (Layout.of(project, project).named(base.path or "") / "model_index.json").is_file():
        yield f"base: no model folder at {base.path} (base.path)"
    if base.source == "hub" and not _in_hub_cache(base.id or "", "model_index.json", base.revision):
        yield (
            f"base: {base.id} is not in the Hugging Face cache; it is downloaded on the first run if there is a network and "
            "the repository still exists; else name a mirror in base.id, or a folder in base.path with base.source: path"
        )
    for name, start in params.base_depth:
        yield from _depth_lacks(name, start, project)


def _captions_lack(params: Params, project: Path) -> Iterator[str]:
    for role, source in params.prepare.roles().items():
        captions = source.captions
        if captions is None or captions.model is None or Layout.of(project, project).named(captions.model).is_dir():
            continue
        if not _in_hub_cache(captions.model, "config.json", captions.revision):
            yield f"captions for {role}: {captions.model} is neither a folder nor in the Hugging Face cache"


def _depth_lacks(name: str, start: DepthStartParams, project: Path) -> Iterator[str]:
    where = start.weights
    if where is None or Layout.of(project, project).named(where).exists():
        return
    if name == "dpt" and where.count("/") == 1 and not where.startswith((".", "pretrained/")):
        if not _in_hub_cache(where, "config.json", start.revision):
            yield f"{name}: {where} is not in the Hugging Face cache; downloaded on the first run if there is a network"
    else:
        yield f"{name}: no weights at {where} (base_depth.{name}.weights)"


def _in_hub_cache(repository: str, file: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(repository, file, revision=revision), str)
    except HFValidationError:
        return False


def doctor(
    profile: Annotated[str | None, typer.Option(help="Check this profile; exit code 1 if it cannot run.")] = None,
) -> None:
    """What this machine and each profile have and lack."""
    from rich.console import Console

    project = Path.cwd()
    if not (project / "conf" / "profile").is_dir():
        raise ConfigError(f"{project}: not the project's folder (no conf/profile in it); run alberti doctor from there")
    known = profiles(project)
    if profile is not None and profile not in known:
        raise ConfigError(f"--profile {profile}: unknown; there are {', '.join(known)}")
    machine = look_at_machine(project)
    found = {name: lacking(name, project, machine) for name in ([profile] if profile else known)}
    console = Console()
    console.print(_machine_table(machine))
    console.print(_profile_table(found))
    if profile is not None and found[profile]:
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


def _profile_table(found: dict[str, list[str]]) -> "Table":
    table = _table("Profiles", "profile", "needs", "state")
    for name, problems in found.items():
        needs = NEEDS.get(name)
        text = "" if needs is None else f"{needs.memory_gb:g} GB memory, {needs.disk_gb:g} GB disk"
        if needs is not None and needs.gpu_gb:
            text += f", a GPU with {needs.gpu_gb:g} GB"
        table.add_row(name, text, "\n".join(f"lacks {problem}" for problem in problems) or "ready")
    return table


def _table(title: str, *columns: str) -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_lines=len(columns) > 2)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
