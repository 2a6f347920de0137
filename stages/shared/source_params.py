"""Section `prepare` of params.yaml: where each role's data come from.

What a reader's own options are is checked where the reader is at hand (`stages.prepare`, `alberti doctor`): the schema knows no
reader, so that no stage depends on all of them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, Field, model_validator

from alberti.data.config import CaptionConfig, DepthEstimateConfig, Fit
from stages.shared.layout import Layout
from stages.shared.section import Section

ROLES = ("train", "condition", "kitti", "test")
"""Roles that every run has; further ones are test sets."""
CONDITION_ROLE = "condition"
TRAINING_ROLES = ("train", CONDITION_ROLE)
"""Roles that are data-set folders. All others have KITTI's raw layout and split lists as well."""
KITTI_ROLE = "kitti"
"""KITTI's training and validation splits."""
TEST_SOURCES = ("kitti", "kitti_objects", "diode")
"""What only test sets, and the role `kitti`, are read from."""
_NamesModel = TypeVar("_NamesModel", CaptionConfig, DepthEstimateConfig)
FILES_OF_READERS = {"holicity": ("captions", "vanishing_points")}
"""Options of readers that name files."""


class SceneParams(Section):
    """Streets to render."""

    splits: dict[str, int]
    """Number of images per split; a role without splits has one, `all`."""
    width: int = Field(gt=0)
    """Width in pixels."""
    height: int = Field(gt=0)
    """Height in pixels."""
    style: str
    """One of `alberti.data.scenes.STYLES`, or `mixed`."""
    camera: str = "street"
    """One of `alberti.data.scenes.config.CAMERAS`."""
    supersample: int = Field(default=2, ge=1, le=4)
    """Samples per pixel along each axis; 2 means 4 samples per pixel."""
    seed: int
    """Each street follows from this seed, the role and the street's number."""

    @property
    def count(self) -> int:
        return sum(self.splits.values())


class NativeSource(Section):
    """One of several data sets of a role, read where it lies."""

    source: Literal["folder", "holicity", "vkitti2", "synthia_al"]
    """The reader: the data set of that name, or `folder` for any pictures."""
    root: str
    """Folder of the data; a relative one starts at the project's folder."""
    limit: int | None = Field(default=None, gt=0)
    """Number of frames at most, spread evenly; null: all."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The reader's own settings: see docs/data.md."""

    def located_options(self, layout: Layout) -> dict[str, Any]:
        """The options, with paths among them as :meth:`Layout.named` has them."""
        return {**self.options, **{name: str(path) for name, path in self.files(layout).items()}}

    def files(self, layout: Layout) -> dict[str, Path]:
        """Files that the options name, by option."""
        named = {name: self.options.get(name) for name in FILES_OF_READERS.get(self.source, ())}
        return {name: layout.named(value) for name, value in named.items() if value not in (None, "paper")}


class SourceParams(Section):
    """Where one role's data come from: rendered here (`scenes`), read where they lie (`root`), or several such (`sources`)."""

    source: Literal["scenes", "kitti", "kitti_objects", "diode", "folder", "holicity", "vkitti2", "synthia_al", "several"]
    """The reader: `scenes` renders streets, `several` joins the data sets in `sources`, the others read the data set of that
    name. `kitti`, `kitti_objects` and `diode` are for test sets; `kitti` also for role `kitti`.
    """
    root: str | None = None
    """Folder of the data; a relative one starts at the project's folder. Needed by all sources but `scenes` and `several`."""
    limit: int | None = Field(default=None, gt=0)
    """Number of frames at most, spread evenly; null: all. Not for `scenes`, which have a count."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The reader's own settings: see docs/data.md. Of `kitti`: the list of frames of each split."""
    fit: Fit | None = None
    """The size that pictures and depth are brought to, and the rule; null: they are read as they lie, nothing is copied."""
    captions: CaptionConfig | None = None
    """Where pictures that the source has no caption of get one; null: they stay without."""
    estimate_depth: DepthEstimateConfig | None = None
    """Which model estimates the depth of pictures that come without; null: the source has depth maps."""
    scenes: SceneParams | None = None
    """What to render where the source is `scenes`."""
    sources: list[NativeSource] = Field(default_factory=list)
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
        if self.source in ("scenes", *TEST_SOURCES) and self.estimate_depth is not None:
            raise ValueError(f"estimate_depth: not for source {self.source!r}, whose depth is known; null")
        if self.source in TEST_SOURCES:
            _check_lists(self.options)
        if self.annotated_only and self.source != "kitti":
            raise ValueError(f"annotated_only: only for source 'kitti', not {self.source!r}")
        return self

    def natives(self) -> list[NativeSource]:
        """The data sets that make this one; empty for `scenes` and `kitti`."""
        if self.source == "several":
            return self.sources
        if self.source in ("scenes", *TEST_SOURCES):
            return []
        return [NativeSource.model_validate({name: getattr(self, name) for name in ("source", "root", "limit", "options")})]

    def files(self, layout: Layout) -> dict[str, Path]:
        """Files that the options name, by option: lists of frames, captions."""
        if self.source in TEST_SOURCES:
            return {split: layout.named(path) for split, path in self.options.items()}
        natives = self.natives()
        places = [f"{number}." if len(natives) > 1 else "" for number in range(len(natives))]
        return {
            place + name: path
            for place, native in zip(places, natives, strict=True)
            for name, path in native.files(layout).items()
        }

    def located_captions(self, layout: Layout) -> CaptionConfig | None:
        """How captions are made, with the path of a model's folder as :meth:`Layout.named` has it."""
        return None if self.captions is None else _located(layout, self.captions)

    def located_depth(self, layout: Layout) -> DepthEstimateConfig | None:
        """Which model estimates depth, with the path of its folder or file as :meth:`Layout.named` has it."""
        return None if self.estimate_depth is None else _located(layout, self.estimate_depth)

    def roots(self, layout: Layout) -> list[Path]:
        """Where the user's data lie; empty for `scenes`."""
        if self.source in TEST_SOURCES:
            return [layout.named(self.root or "")]
        return [layout.named(native.root) for native in self.natives()]


def _located(layout: Layout, config: _NamesModel) -> _NamesModel:
    """``config`` with the path of its model, where that is a file or folder here and no hub id."""
    path = None if config.model is None else layout.named(config.model)
    return config if path is None or not path.exists() else config.model_copy(update={"model": str(path)})


def _check_lists(options: dict[str, Any]) -> None:
    for split, path in options.items():
        if not isinstance(path, str):
            raise ValueError(f"options.{split}: expected the path of a list of frames, got {path!r:.80}")


class PrepareParams(Section):
    """Section `prepare`: one source per role. Any further name is one more test set, like `test`."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())
    __pydantic_extra__: dict[str, SourceParams] = Field(init=False)

    train: SourceParams
    """What the diffusion model is fine-tuned on."""
    condition: SourceParams
    """The depth maps that pictures are generated from."""
    kitti: SourceParams
    """KITTI's training and validation splits."""
    test: SourceParams
    """Tested on, and never trained on."""

    def roles(self) -> dict[str, SourceParams]:
        """Every role's source by name."""
        return {**{name: getattr(self, name) for name in ROLES}, **(self.__pydantic_extra__ or {})}

    def named_roots(self) -> Iterator[tuple[str, str, str]]:
        """(key in params.yaml, name of the source, root) of all data that the user has."""
        for role, source in self.roles().items():
            if source.source == "several":
                for number, native in enumerate(source.sources):
                    yield f"prepare.{role}.sources.{number}.root", native.source, native.root
            elif source.root is not None and source.source != "scenes":
                yield f"prepare.{role}.root", source.source, source.root
