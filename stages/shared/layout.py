"""Where everything of a run lies: the one place that knows a path.

Paths below ``root`` are what stages write. Paths below ``project`` are what comes with the project, and what relative paths
of params.yaml refer to. Under DVC both are the project's folder; a run elsewhere has a root of its own.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

ALL_SEEDS = "all"
"""Stands where a path has a seed, for what no seed changes."""


@dataclass(frozen=True)
class Layout:
    """Paths of one run."""

    root: Path = field(default_factory=Path)
    project: Path = field(default_factory=Path)

    @classmethod
    def of(cls, root: str | Path = ".", project: str | Path = ".") -> "Layout":
        """A layout with absolute paths."""
        return cls(Path(root).resolve(), Path(project).resolve())

    def named(self, path: str | Path) -> Path:
        """A path of params.yaml: absolute as it is, ``~`` as the home folder, relative from the project's folder."""
        return self.project / Path(path).expanduser()

    def local(self, name: str | None) -> str | None:
        """A param that may name a file or folder here, as dvc.yaml has it; None where it is a repository of the model hub.

        `organisation/name` is one of the hub unless it exists here. Whatever else looks like a path is one.
        """
        if name is None:
            return None
        path = os.path.normpath(os.path.expanduser(name))
        like_a_path = os.path.isabs(path) or name.startswith((".", "pretrained/")) or name.count("/") > 1
        return Path(path).as_posix() if like_a_path or (self.project / path).exists() else None

    def relative(self, path: Path) -> str:
        """A path below the root as dvc.yaml has it."""
        return Path(os.path.relpath(path, self.root)).as_posix()

    # inputs that come with the project
    def pretrained(self, name: str) -> Path:
        return self.project / "pretrained" / name

    # what stages write
    def data(self, role: str) -> Path:
        """The data set of a role of `prepare`."""
        return self.root / "data" / role

    def annotations(self, role: str) -> Path:
        """Folder with the `annotations.jsonl` of a role's pictures."""
        return self.root / "data" / "annotations" / role

    def fingerprint(self, role: str) -> Path:
        """Folder with what stage `watch` saw of a role's data."""
        return self.root / "fingerprints" / role

    @property
    def base(self) -> Path:
        return self.root / "models" / "base"

    def finetuned(self, arm: str, seed: int | None) -> Path:
        return self.root / "models" / "finetuned" / arm / seed_name(seed)

    def generated(self, arm: str, seed: int | None) -> Path:
        """The data set of an arm's or variant's pictures."""
        return self.root / "data" / "generated" / arm / seed_name(seed)

    @property
    def references(self) -> Path:
        """The renders through the base's autoencoder, as a data set."""
        return self.root / "data" / "references"

    def depth_model(self, model: str, arm: str, seed: int | None) -> Path:
        return self.root / "models" / "depth" / model / arm / seed_name(seed)

    def metrics(self, *names: str) -> Path:
        return self.root.joinpath("metrics", *names)

    def plots(self, *names: str) -> Path:
        """Curves of trainings, and tables that DVC plots."""
        return self.root.joinpath("plots", *names)

    @property
    def report(self) -> Path:
        return self.root / "report"

    def checkpoints(self, *names: str) -> Path:
        """Unfinished work, outside of DVC's outs, so that what was interrupted goes on."""
        return self.root.joinpath("checkpoints", *names)


def seed_name(seed: int | None) -> str:
    """A seed as a part of a path; None for what no seed changes."""
    return ALL_SEEDS if seed is None else str(seed)


def instance_name(*parts: str, seed: int | None) -> str:
    """The name behind the @ in dvc.yaml: the parts, then the seed if there is one."""
    return "-".join([*parts, *(() if seed is None else (str(seed),))])
