"""Section `prepare` of params.yaml: where each role's data come from."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from alberti.data.captions import CaptionConfig
from alberti.data.fit import Fit

if TYPE_CHECKING:
    from alberti.data.scenes import SceneConfig

ROLES = ("train", "condition", "kitti", "test")
KITTI_ROLES = ("kitti", "test")
"""Roles in KITTI's raw layout."""
_FILES = {"holicity": ("captions", "vanishing_points")}
_COPIES = ((".alberti", "runs"), (".dvc", "tmp", "exps"))


class Section(BaseModel):
    """A part of params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class SceneParams(Section):
    """Streets to render."""

    splits: dict[str, int]
    """How many images each split gets; a role without splits has one, `all`."""
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    style: str
    camera: Literal["street", "kitti", "mixed"] = "street"
    supersample: int = Field(default=2, ge=1, le=4)
    seed: int

    @property
    def count(self) -> int:
        return sum(self.splits.values())

    def library_config(self) -> "SceneConfig":
        """What the renderer takes; ConfigError for a style that it does not have."""
        from alberti.data.scenes import SceneConfig

        return SceneConfig(**self.model_dump(exclude={"splits", "seed"}))


class NativeSource(Section):
    """One of several data sets of a role, read where it lies."""

    source: Literal["folder", "holicity", "vkitti2", "synthia_al"]
    root: str
    limit: int | None = Field(default=None, gt=0)
    """At most so many frames, spread evenly; null: all."""
    options: dict[str, Any] = {}
    """The reader's own settings: see docs/data.md."""

    @model_validator(mode="after")
    def _knows_its_options(self) -> "NativeSource":
        _check_options(self.source, self.options)
        return self

    def located_options(self) -> dict[str, Any]:
        """The options, with paths among them as :func:`in_project` has them."""
        return {**self.options, **{name: str(path) for name, path in self.files().items()}}

    def files(self, here: Path | None = None) -> dict[str, Path]:
        """Files that the options name, by option, as :func:`in_project` has them for ``here``."""
        named = {name: self.options.get(name) for name in _FILES.get(self.source, ())}
        return {name: in_project(value, here) for name, value in named.items() if value not in (None, "paper")}


class SourceParams(Section):
    """Where one role's data come from: rendered here (`scenes`), read where they lie (`root`), or several such (`sources`)."""

    source: Literal["scenes", "kitti", "folder", "holicity", "vkitti2", "synthia_al", "several"]
    root: str | None = None
    limit: int | None = Field(default=None, gt=0)
    """At most so many frames, spread evenly; null: all. Not for `scenes`, which have a count."""
    options: dict[str, Any] = {}
    """The reader's own settings: see docs/data.md. Of `kitti`: the list of frames of each split."""
    fit: Fit | None = None
    """The size that pictures and depth are brought to, and the rule; null: they are read as they lie, nothing is copied."""
    captions: CaptionConfig | None = None
    """Where pictures that the source has no caption of get one; null: they stay without."""
    scenes: SceneParams | None = None
    """What to render where the source is `scenes`."""
    sources: list[NativeSource] = []
    """The data sets that make one where the source is `several`."""
    annotated_only: bool = False
    """Of `kitti`: leave out listed frames that have no annotated depth. Eigen's 697 test frames have 45 of them."""

    @model_validator(mode="after")
    def _has_what_the_source_needs(self) -> "SourceParams":
        needed = {"scenes": "scenes", "several": "sources"}.get(self.source, "root")
        if not getattr(self, needed):
            raise ValueError(f"{needed}: needed with source {self.source!r}")
        if self.source == "several" and self.fit is None:
            raise ValueError("fit: needed with several sources: one data set of theirs has one size and one depth format")
        if self.source in ("scenes", "kitti") and self.fit is not None:
            raise ValueError(f"fit: not for source {self.source!r}; scenes have width and height, KITTI is read as it is")
        if self.source == "kitti":
            _check_lists(self.options)
        elif self.annotated_only:
            raise ValueError(f"annotated_only: only for source 'kitti', not {self.source!r}")
        elif self.root is not None and self.source not in ("scenes", "several"):
            _check_options(self.source, self.options)
        return self

    def natives(self) -> list[NativeSource]:
        """The data sets that make this one; empty for `scenes` and `kitti`."""
        if self.source == "several":
            return self.sources
        if self.source in ("scenes", "kitti"):
            return []
        return [NativeSource.model_validate({name: getattr(self, name) for name in ("source", "root", "limit", "options")})]

    def files(self, here: Path | None = None) -> dict[str, Path]:
        """Files that the options name, by option: lists of frames, captions. ``here``: as in :func:`in_project`."""
        if self.source == "kitti":
            return {split: in_project(path, here) for split, path in self.options.items()}
        natives = self.natives()
        places = [f"{number}." if len(natives) > 1 else "" for number in range(len(natives))]
        return {
            place + name: path
            for place, native in zip(places, natives, strict=True)
            for name, path in native.files(here).items()
        }

    def located_captions(self) -> CaptionConfig | None:
        """How captions are made, with the path of a model's folder as :func:`in_project` has it."""
        if self.captions is None or self.captions.model is None:
            return self.captions
        folder = in_project(self.captions.model)
        return self.captions.model_copy(update={"model": str(folder)}) if folder.is_dir() else self.captions

    def roots(self) -> list[Path]:
        """Where the user's data lie; empty for `scenes`."""
        if self.source == "kitti":
            return [in_project(self.root or "")]
        return [in_project(native.root) for native in self.natives()]


def _check_options(source: str, options: dict[str, Any]) -> None:
    from alberti.data.sources import check_options  # here: stages that read no such source do without its modules

    check_options(source, options)


def _check_lists(options: dict[str, Any]) -> None:
    for split, path in options.items():
        if not isinstance(path, str):
            raise ValueError(f"options.{split}: expected the path of a list of frames, got {path!r:.80}")


class PrepareParams(Section):
    """Section `prepare`: a source a role."""

    train: SourceParams
    condition: SourceParams
    kitti: SourceParams
    test: SourceParams


def in_project(path: str | Path, here: Path | None = None) -> Path:
    """A path of params.yaml: absolute as it is, relative from the project's folder.

    Prefect runs of another profile and experiments of DVC's queue work in copies of the project, below `.alberti/` and
    `.dvc/tmp/exps/`; the user's data lie beside the project itself, which `alberti doctor` looks at too.
    """
    path = Path(path).expanduser()
    here = (here or Path.cwd()).resolve()
    for folder, names in itertools.product(here.parents, _COPIES):
        if folder.parts[-len(names) :] == names:
            return folder.parents[len(names) - 1] / path
    return here / path
