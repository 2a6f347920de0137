"""What a report is made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alberti.data.manifest import Dataset
from alberti.errors import DataError
from alberti.files import read_json
from alberti.metrics.evaluation import check_one_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Result:
    """An evaluation: the summary as written to JSON, and its table with a row a picture (column ``id``)."""

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

    def interval(self, key: str) -> tuple[float | None, float | None]:
        """From ``<key>_low`` / ``_high``, or ``intervals[key]``: the two forms that evaluations write."""
        if f"{key}_low" in self.summary:
            return self.summary[f"{key}_low"], self.summary[f"{key}_high"]
        low, high = (self.summary.get("intervals") or {}).get(key, (None, None))
        return low, high


def read_table(path: str | Path) -> "pd.DataFrame":
    """Read a CSV with a header; DataError if it is missing, empty or malformed. Ids stay text."""
    import pandas as pd

    path = Path(path)
    try:
        return pd.read_csv(path, dtype={"id": str})
    except FileNotFoundError:
        raise DataError(f"{path}: no such table") from None
    except (ValueError, UnicodeDecodeError) as error:  # pandas' EmptyDataError and ParserError are ValueErrors
        raise DataError(f"{path}: not a table ({error})") from error


@dataclass(frozen=True)
class ReportInputs:
    """Everything that the report shows. Arms and models appear in the order of the mappings."""

    images: Mapping[str, Result]
    """Arm -> evaluation of its pictures."""
    depth: Mapping[str, Mapping[str, Result]]
    """Model -> arm (``original`` the unmodified model) -> evaluation on the test set."""
    generated: Mapping[str, Dataset]
    """Arm -> its pictures."""
    condition: Dataset
    """Depth maps that the pictures were made from; its images, where it has some, are the pictures' pairs."""
    base_arm: str = "base"
    control_arm: str | None = None
    """The arm fine-tuned without a constraint: what the constrained ones are judged against."""
    constrained_arms: tuple[str, ...] = ()
    variants: Mapping[str, str] = field(default_factory=dict)
    """Variant -> the arm whose weights it draws with, and which it is judged against."""
    guided_arms: tuple[str, ...] = ()
    """Those variants that vanishing points guide while they are sampled."""
    original_arm: str = "original"
    references: Mapping[str, Result] = field(default_factory=dict)
    """``renders``, the pictures that belong to the depth maps, and ``reconstructions``, the same through the autoencoder."""
    curves: Mapping[str, Mapping[str, "pd.DataFrame"]] = field(default_factory=dict)
    """Title -> line's name -> training history: a column ``step`` and a column a quantity."""
    annotation: Mapping[str, Any] | None = None
    """``metrics/annotate.json``."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What ran, as label -> value: profile, seeds, git revision, versions, counts."""
    params: str = ""
    """The params as text."""
    stand_ins: tuple[str, ...] = ()
    """Roles whose data were rendered here instead of being real."""
    arm_notes: Mapping[str, str] = field(default_factory=dict)
    """Arm -> what it is, in a few words."""
    pictures: int = 6
    over_seeds: Mapping[str, Any] | None = None
    """Results over several seeds, as `python -m pipeline.results` writes them; the run itself is one seed."""
    over_seeds_figures: tuple[Path, ...] = ()
    """The figures of the same results."""

    def __post_init__(self) -> None:
        missing = [arm for arm in self.images if arm not in self.generated]
        if missing:
            raise DataError(f"report: no generated pictures of the evaluated arm {missing[0]!r}")
        if not self.images and not self.depth:
            raise DataError("report: neither pictures nor depth models were evaluated; there is nothing to report")
        for model, arms in self.depth.items():
            check_one_table({f"{model}-{arm}": result.summary for arm, result in arms.items()})
