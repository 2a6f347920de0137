"""Data sets: a folder with ``dataset.json`` and ``manifest.jsonl``, one row per sample.

Paths in the rows are relative to ``root`` (images) and ``depth_root`` (depth maps), which may be the user's own copy of a
large data set: nothing of it is copied. ``pandas.read_json(path, lines=True)`` reads the manifest.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from alberti.errors import DataError, first_problem
from alberti.files import atomic_file, sha256_file, sha256_json, write_json
from alberti.geometry.camera import Camera
from alberti.images import read_depth, read_image
from alberti.reading import read_json, read_lines, reading

SCHEMA_VERSION = 1
_PNG16 = "png16"
DEPTH_NEEDED = (
    "; the diffusion model is trained on pictures with depth in metres. Of photographs without, predict it with a metric model "
    "(with them in ROOT/images, `alberti predict-depth MODEL ROOT/images --out ROOT/depth`), set options.depth_format to npy "
    "and prepare them again"
)
"""What to do about pictures without depth, behind a message."""


class Sample(BaseModel):
    """One row of ``manifest.jsonl``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    image: str | None = None
    depth: str | None = None
    width: int
    height: int
    intrinsics: tuple[float, float, float, float] | None = None
    """fx, fy, cx, cy in pixels."""
    vanishing_points: list[tuple[float, float, float]] | None = None
    """Homogeneous pixels (x, y, w), unit norm; None = unknown, [] = known to have none."""
    vanishing_points_source: str | None = None
    """"true" (from the geometry), "dataset" (labelled) or "detected"."""
    caption: str | None = None
    split: str | None = None
    sha256: dict[str, str] = {}
    """Hex digests of the files, by field name: "image", "depth"."""

    @field_validator("id")
    @classmethod
    def _id_is_a_file_name(cls, value: str) -> str:
        if not value or value.startswith(".") or "/" in value or "\\" in value or "\0" in value:
            raise ValueError("must be usable as a file name: not empty, no slash, no leading dot")
        return value

    @field_validator("id", "image", "depth", "caption")
    @classmethod
    def _is_unicode(cls, value: str | None) -> str | None:
        if value is not None and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("is no UTF-8: rename the file (convmv -f latin1 -t utf8 does a whole folder)")
        return value


def new_sample(where: Path, **fields: Any) -> Sample:
    """A row about the file ``where``; DataError that names it if one of its values cannot stand in a manifest."""
    try:
        return Sample(**fields)
    except ValidationError as error:
        raise DataError(f"{where}: {first_problem(error, 'row')}") from None


class DatasetInfo(BaseModel):
    """``dataset.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int
    name: str
    role: str
    root: str = "."
    depth_root: str = "."
    count: int
    depth_kind: str | None = "z"
    """"z" (metres along the optical axis), "inverse" or "relative"; None where there is no depth."""
    depth_unit: str = "metre"
    depth_scale: float = 256.0
    """Stored units per metre."""
    depth_format: str = _PNG16
    """"png16", or a format of :mod:`alberti.data.depth_formats`."""
    fingerprint: str
    """SHA-256 over the rows: changes when any row, and so any hash of a file, does."""
    notes: str = ""


class Dataset:
    """A data set opened for reading. ``len``, indexing and iteration give :class:`Sample` rows."""

    def __init__(self, folder: Path, info: DatasetInfo, samples: list[Sample]):
        self.folder, self.info, self.samples = folder, info, samples
        self.root = (folder / info.root).resolve()
        self.depth_root = (folder / info.depth_root).resolve()
        self._index: dict[str, int] | None = None

    @classmethod
    def open(cls, folder: str | Path, *, check_files: bool = False) -> "Dataset":
        """Open and validate a data-set folder; with ``check_files`` also that every file exists with its hash.

        Raises:
            DataError: no data set there, another schema version, a malformed row, a path outside its root, duplicate ids,
                a count that does not match.
        """
        folder = Path(folder)
        if not (folder / "dataset.json").is_file():
            raise DataError(f"{folder}: not a data set: expected dataset.json and manifest.jsonl, {_listing(folder)}")
        info = _parse_info(folder / "dataset.json")
        dataset = cls(folder, info, list(_read_rows(folder / "manifest.jsonl")))
        dataset._validate()
        if check_files:
            dataset.check_files()
        return dataset

    def _validate(self) -> None:
        path = self.folder / "manifest.jsonl"
        if len(self.samples) != self.info.count:
            raise DataError(f"{path}: {len(self.samples)} rows, but dataset.json says {self.info.count}; prepare it again")
        if not self.samples:
            raise DataError(f"{path}: the data set is empty")
        first: dict[str, Sample] = {}
        for sample in self.samples:
            if (other := first.setdefault(sample.id, sample)) is not sample:
                files = " and ".join(str(each.image or each.depth) for each in (other, sample))
                raise DataError(f"{path}: sample ids are not unique: {sample.id!r} is that of {files}; rename one of them")
        for line, sample in enumerate(self.samples, 1):
            for field in ("image", "depth"):
                value = getattr(sample, field)
                if value is not None and _leaves_root(value):
                    raise DataError(f"{path}, line {line}: {field} {value!r} points outside the data set's root")

    def check_files(self) -> None:
        """Raise DataError unless every file of every row exists and has the row's SHA-256."""
        for sample in self.samples:
            for field in ("image", "depth"):
                if getattr(sample, field) is None:
                    continue
                path = self._path(sample, field)
                if not path.is_file():
                    raise DataError(f"{path}: missing; {field} of sample {sample.id!r} in {self.folder}")
                expected = sample.sha256.get(field)
                with reading(path, field):
                    changed = bool(expected) and sha256_file(path) != expected
                if changed:
                    raise DataError(f"{path}: changed since the data set was prepared (SHA-256 differs); prepare it again")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def by_id(self, sample_id: str) -> Sample:
        """The row with this id; DataError if there is none."""
        if self._index is None:
            self._index = {sample.id: index for index, sample in enumerate(self.samples)}
        if sample_id not in self._index:
            raise DataError(f"{self.folder}: no sample {sample_id!r}")
        return self.samples[self._index[sample_id]]

    def image_path(self, sample: Sample) -> Path:
        """Where the sample's image lies; DataError if the row has none."""
        return self._path(sample, "image")

    def depth_path(self, sample: Sample) -> Path:
        """Where the sample's depth map lies; DataError if the row has none."""
        return self._path(sample, "depth")

    def _path(self, sample: Sample, field: str) -> Path:
        value = getattr(sample, field)
        if value is None:
            raise DataError(f"{self.folder}: sample {sample.id!r} has no {field}")
        return (self.root if field == "image" else self.depth_root) / value

    def read_image(self, sample: Sample) -> np.ndarray:
        """The image as (H, W, 3) uint8 RGB; DataError if it is missing, damaged or of another size than the row says."""
        path = self.image_path(sample)
        return self._check_size(path, read_image(path), sample)

    def read_depth(self, sample: Sample) -> np.ndarray:
        """Depth as (H, W) float32 metres, 0 = no measurement; DataError as :meth:`read_image`, or if not finite."""
        path = self.depth_path(sample)
        if self.info.depth_format == _PNG16:
            depth = read_depth(path, self.info.depth_scale)
        else:
            from alberti.data.depth_formats import read_depth_as

            depth = read_depth_as(path, self.info.depth_format, self.info.depth_scale)
        if not np.isfinite(depth).all() or (depth < 0).any():
            raise DataError(f"{path}: depth has NaN, infinite or negative values; 0 stands for no measurement")
        return self._check_size(path, depth, sample)

    def read_condition(self, sample: Sample) -> np.ndarray:
        """A depth map to condition pictures on, (H, W) float32, 0 = no measurement: metres, or of relative depth (known up to a
        factor) and of inverse depth (up to a factor and an offset) what has the same inverse once that is scaled to its range.
        """
        depth = self.read_depth(sample)
        if self.info.depth_kind != "inverse":
            return depth
        return np.where(depth > 0, 1 / np.maximum(depth, 1e-6 * max(float(depth.max()), 1e-30)), 0).astype(np.float32)

    @property
    def metric_depth(self) -> bool:
        """Whether depth is in metres along the optical axis."""
        return self.info.depth_kind == "z"

    def require_depth(self) -> None:
        """Raise DataError unless there is depth of some kind to condition pictures on."""
        if self.info.depth_kind not in ("z", "relative", "inverse"):
            raise DataError(
                f"{self.folder}: depth of kind {self.info.depth_kind!r}; pictures are conditioned on metres ('z'), relative or "
                "inverse depth"
            )

    def require_metric_depth(self) -> None:
        """Raise DataError unless depth is in metres along the optical axis: another kind is never taken for it."""
        if self.info.depth_kind is None:
            raise DataError(f"{self.folder}: its pictures have no depth{DEPTH_NEEDED}")
        if self.info.depth_kind != "z":
            raise DataError(
                f"{self.folder}: depth of kind {self.info.depth_kind!r}; metres along the optical axis ('z') are needed here"
            )

    @staticmethod
    def _check_size(path: Path, array: np.ndarray, sample: Sample) -> np.ndarray:
        height, width = array.shape[:2]
        if (width, height) != (sample.width, sample.height):
            raise DataError(f"{path}: {width} x {height} pixels, but the manifest says {sample.width} x {sample.height}")
        return array

    def camera(self, sample: Sample) -> Camera | None:
        """The sample's camera, or None where intrinsics are unknown."""
        if sample.intrinsics is None:
            return None
        return Camera.from_intrinsics(sample.intrinsics, sample.width, sample.height)


def write_dataset(
    folder: str | Path,
    samples: Iterable[Sample],
    *,
    name: str,
    role: str,
    root: str = ".",
    depth_root: str = ".",
    depth_kind: str | None = "z",
    depth_scale: float = 256.0,
    depth_format: str = _PNG16,
    notes: str = "",
) -> Dataset:
    """Write ``manifest.jsonl`` and ``dataset.json`` into an existing folder and return the data set, validated.

    ``samples`` may be a generator: rows are written as they come. The images are the caller's to write.
    """
    folder = Path(folder)
    count, digest = 0, ""
    with atomic_file(folder / "manifest.jsonl") as temporary, open(temporary, "w", encoding="utf-8") as file:
        for sample in samples:
            row = sample.model_dump(mode="json", exclude_none=True)
            digest = sha256_json([digest, row])
            file.write(json.dumps(row) + "\n")
            count += 1
    info = DatasetInfo(
        schema_version=SCHEMA_VERSION,
        name=name,
        role=role,
        root=root,
        depth_root=depth_root,
        count=count,
        depth_kind=depth_kind,
        depth_scale=depth_scale,
        depth_format=depth_format,
        fingerprint=digest,
        notes=notes,
    )
    write_json(folder / "dataset.json", info.model_dump(mode="json"))
    return Dataset.open(folder)


def _parse_info(path: Path) -> DatasetInfo:
    values: Any = read_json(path)
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError(f"{path}: schema version {version!r}, but this alberti reads {SCHEMA_VERSION}; prepare it again")
    try:
        return DatasetInfo.model_validate(values)
    except ValidationError as error:
        raise DataError(f"{path}: {first_problem(error, 'row')}") from None


def _read_rows(path: Path) -> Iterator[Sample]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; dataset.json stands without its manifest: prepare it again")
    for line, text in read_lines(path, "manifest"):
        try:
            yield Sample.model_validate_json(text)
        except ValidationError as error:
            raise DataError(f"{path}, line {line}: {first_problem(error, 'row')}") from None


def _leaves_root(value: str) -> bool:
    path = PurePosixPath(value)
    return path.is_absolute() or ".." in path.parts


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return "but there is no such folder"
    names = sorted(entry.name for entry in folder.iterdir())[:8]
    return f"found {', '.join(names)}" if names else "but the folder is empty"
