"""What a report is made from: plain values, evaluations and data sets."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alberti.data.manifest import Dataset
from alberti.errors import DataError
from alberti.files import read_json

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Kind = Literal["base", "plain", "constraint", "guidance", "sampling", "reference"]
RENDERS, CEILING = "renders", "reconstructions"
"""The references: the pictures that belong to the depth maps, and the same through the base's autoencoder."""
_KITTI_DRIVE = re.compile(r"(\d{4}_\d\d_\d\d_drive_\d{4})_")


@dataclass(frozen=True)
class Result:
    """An evaluation: the summary as written to JSON, and its table with one row per picture (column ``id``)."""

    summary: Mapping[str, Any]
    rows: "pd.DataFrame"

    @classmethod
    def read(cls, path: str | Path) -> "Result":
        """Read ``<path>.json`` and the ``.csv`` beside it; DataError if either is missing or malformed."""
        path = Path(path)
        summary, table = read_json(path), read_table(path.with_suffix(".csv"))
        if not isinstance(summary, dict):
            raise DataError(f"{path}: expected an object, got {type(summary).__name__}")
        if "id" not in table.columns:
            raise DataError(f"{path.with_suffix('.csv')}: no column 'id'; it has {', '.join(map(str, table.columns))}")
        return cls(summary, table)

    def scenes(self, ids: "np.ndarray", *, real: bool) -> list[str]:
        """The scene of each id: column ``scene`` where the table has one, else, of real frames, the KITTI drive in the id.

        A frame without either is a scene of its own.
        """
        if "scene" in self.rows.columns:
            known = self.rows.set_index("id")["scene"].astype(str)
            return [str(known[name]) for name in ids]
        drives = [_KITTI_DRIVE.search(str(name)) if real else None for name in ids]
        return [str(name) if drive is None else drive[1] for name, drive in zip(ids, drives, strict=True)]


def read_table(path: str | Path) -> "pd.DataFrame":
    """Read a CSV with a header; DataError if it is missing, empty or malformed. Ids stay text."""
    import pandas as pd

    path = Path(path)
    try:
        return pd.read_csv(path, dtype={"id": str, "scene": str})
    except FileNotFoundError:
        raise DataError(f"{path}: no such table") from None
    except (ValueError, UnicodeDecodeError) as error:  # pandas' EmptyDataError and ParserError are ValueErrors
        raise DataError(f"{path}: not a table ({error})") from error


Seeds = Mapping[int | None, Result]
"""Seed -> evaluation; the key None stands alone, for what no seed changes."""


@dataclass(frozen=True)
class Arm:
    """What a reader has to know of an arm, a variant, or another thing that depth models are trained on."""

    kind: Kind
    """What sets it apart from its control: training ("plain": without a constraint), a constraint, guidance by vanishing
    points, another way of sampling; "base" is the base model, "reference" no generated pictures at all."""
    note: str = ""
    """What it is, in a few words."""
    control: str | None = None
    """The arm that it is compared with: the same but for one thing."""

    @property
    def treated(self) -> bool:
        """Whether the report's question is asked of it."""
        return self.kind in ("constraint", "guidance", "sampling")


@dataclass(frozen=True)
class ReportInputs:
    """Everything that the report says and shows. Arms, models and test sets appear in the order of the mappings."""

    seeds: tuple[int, ...]
    images: Mapping[str, Seeds] = field(default_factory=dict)
    """Arm -> seed -> evaluation of its pictures."""
    depth: Mapping[str, Mapping[str, Mapping[str, Seeds]]] = field(default_factory=dict)
    """Test set -> model -> arm (``original_arm``: the unmodified model) -> seed -> evaluation."""
    arms: Mapping[str, Arm] = field(default_factory=dict)
    """What each arm is, and which arm it is compared with; also of arms that only depth models know."""
    references: Mapping[str, Result] = field(default_factory=dict)
    """``renders`` and ``reconstructions``, see :data:`RENDERS`."""
    real_test_sets: tuple[str, ...] = ()
    """Test sets of photographs with measured depth. They come first; all others are called rendered."""
    generated: Mapping[str, Dataset] = field(default_factory=dict)
    """Arm -> its pictures for the first seed."""
    condition: Dataset | None = None
    """Depth maps that the pictures were made from; its images, where it has some, are the pictures' pairs."""
    reconstructions: Dataset | None = None
    """The same pictures through the base's autoencoder."""
    curves: Mapping[str, Mapping[str, "pd.DataFrame"]] = field(default_factory=dict)
    """Title -> run, ``<arm>`` or ``<arm>-<seed>`` -> training history: a column ``step`` and a column a quantity."""
    annotation: Mapping[str, Any] | None = None
    """``metrics/annotate.json``."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What ran, as label -> value: profile, git revision, versions, counts. None: not known, left out."""
    params: str = ""
    """The params as text."""
    stand_ins: tuple[str, ...] = ()
    """Roles whose data were rendered here instead of being real."""
    study: Mapping[str, Any] | None = None
    """Results of a human trial, as `alberti study analyse` writes them."""
    study_offer: str = ""
    """HTML that says how such a trial of this run is held; shown where there are no results."""
    minutes: Mapping[str, Any] | None = None
    """What it cost: ``total``, ``by_stage`` and ``devices``."""
    original_arm: str = "original"
    pictures: int = 6
    """Scenes to show."""
    resamples: int = 4000

    def __post_init__(self) -> None:
        if not self.seeds:
            raise DataError("report: no seed; name at least one")
        if not self.images and not self.depth:
            raise DataError("report: neither pictures nor depth models were evaluated; there is nothing to report")
        if unknown := [name for name in self.real_test_sets if name not in self.depth]:
            raise DataError(f"report: test set {unknown[0]!r} is called real, but there is no evaluation on it")
        if self.generated and self.condition is None:
            raise DataError("report: pictures were generated, but the data set of their depth maps is missing")

    def control_of(self, arm: str) -> str | None:
        """The arm that ``arm`` is compared with."""
        known = self.arms.get(arm)
        return None if known is None else known.control

    @property
    def treated(self) -> list[str]:
        """The arms of which the report's question is asked: those with a constraint, with guidance, or sampled differently."""
        return [name for name, arm in self.arms.items() if arm.treated]

    @property
    def base_arm(self) -> str | None:
        """The arm whose weights are the base model's."""
        return next((name for name, arm in self.arms.items() if arm.kind == "base"), None)

    @property
    def main_control(self) -> str | None:
        """The arm that most of the treated arms are compared with: the one that tables compare all arms with."""
        controls = [control for name in self.treated if (control := self.control_of(name)) is not None]
        return max(controls, key=controls.count, default=None)

    @property
    def test_sets(self) -> list[str]:
        """The names of the test sets, real ones first."""
        return [*self.real_test_sets, *(name for name in self.depth if name not in self.real_test_sets)]

    def over_seeds(self, name: str, found: Seeds) -> list[Result]:
        """An evaluation for each seed; the one that no seed changes stands for all of them.

        Raises:
            DataError: a seed is missing.
        """
        if None in found:
            return [found[None]] * len(self.seeds)
        if missing := [seed for seed in self.seeds if seed not in found]:
            raise DataError(f"report: {name} is not evaluated for seed {missing[0]}; every arm needs every seed")
        return [found[seed] for seed in self.seeds]
