"""Opens the test sets of :mod:`alberti.metrics.test_sets` and scores depth models on them."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alberti.errors import ConfigError, DataError
from alberti.metrics.depth import get_protocol
from alberti.metrics.evaluation import Evaluation, Named, Reader, evaluate_alignments
from alberti.metrics.test_sets import TestSet

Predict = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class OpenTestSet:
    """Frames, what reads them, and the scene of each by its id."""

    frames: Sequence[Named]
    reader: Reader
    scenes: Mapping[str, str]


def open_test_set(test: TestSet) -> OpenTestSet:
    """Open what ``test`` names.

    Raises:
        ConfigError: settings that do not go together.
        DataError: another layout, or frames without a scene in the file that lists them.
    """
    kind = get_protocol(test.protocol).ground_truth
    if (test.height is None) != (test.width is None):
        raise ConfigError("height, width: expected both or neither")
    opened = _OPENERS[test.layout](test, kind)
    if test.scenes == "frame":
        return OpenTestSet(opened.frames, opened.reader, {frame.id: frame.id for frame in opened.frames})
    if test.scenes != "auto":
        return OpenTestSet(opened.frames, opened.reader, _listed_scenes(Path(test.scenes), opened.frames))
    return opened


def evaluate_test_set(
    test: TestSet,
    predict: Predict,
    model: str,
    *,
    batch_size: int = 1,
    workers: int = 1,
    description: str = "evaluating",
) -> dict[str, Evaluation]:
    """Evaluations of a model by alignment, the headline first.

    Args:
        predict: pictures (H, W, 3) uint8 of one size -> depth maps, as :func:`alberti.depth.predict.predict_batch` makes them.
        model: a key of ``test.alignments``.

    Raises:
        ConfigError: no alignment for ``model``.
    """
    if model not in test.alignments:
        raise ConfigError(f"alignments: none for {model!r}; there are some for {', '.join(test.alignments)}")
    opened = open_test_set(test)
    return evaluate_alignments(
        opened.frames, at_size(predict, test.height, test.width), opened.reader, test.protocol, test.alignments[model],
        batch_size=batch_size, workers=workers, resize="bilinear" if test.height is not None else None,
        scenes=opened.scenes, description=description,
    )  # fmt: skip


def at_size(predict: Predict, height: int | None, width: int | None) -> Predict:
    """``predict`` on pictures brought to ``height`` x ``width`` pixels; predictions keep that size."""
    if height is None or width is None:
        return predict
    from alberti.data.transforms import resize_image

    size = (width, height)
    return lambda images: predict([resize_image(image, size) for image in images])


def _open_kitti(test: TestSet, kind: str) -> OpenTestSet:
    from alberti.data.kitti import KittiReader, read_split

    if test.split is None:
        raise ConfigError(
            "split (--split): KITTI raw needs the list of frames to score, a line each: `<date>/<drive> <frame> l`"
        )
    reader, listed = KittiReader(test.root, test.depth_root), read_split(test.split)
    frames = [frame for frame in listed if frame.annotated is not False] if kind == "annotated" else listed
    if not frames:
        raise DataError(f"{test.split}: no frame of the list has annotated depth, says the list")
    return OpenTestSet(frames, reader, {frame.id: frame.drive for frame in frames})


def _open_objects(test: TestSet, kind: str) -> OpenTestSet:
    from alberti.data.kitti_objects import KittiObjectReader

    reader = KittiObjectReader(test.root)
    frames = reader.frames(test.split)
    return OpenTestSet(frames, reader, {frame.id: frame.id for frame in frames})


def _open_diode(test: TestSet, kind: str) -> OpenTestSet:
    from alberti.data.diode import DiodeReader

    reader = DiodeReader(test.root)
    frames = reader.frames(test.split)
    return OpenTestSet(frames, reader, {frame.id: frame.id.split("_")[0] for frame in frames})


def _open_folder(test: TestSet, kind: str) -> OpenTestSet:
    reader = FolderReader(Path(test.root))
    frames = reader.frames(test.split)
    return OpenTestSet(frames, reader, {frame.id: frame.id for frame in frames})


_OPENERS: dict[str, Callable[[TestSet, str], OpenTestSet]] = {
    "kitti": _open_kitti,
    "kitti_objects": _open_objects,
    "diode": _open_diode,
    "folder": _open_folder,
}


class FolderReader:
    """A data set of ours, or a plain folder of pictures with depth maps in metres below ``depth/`` (16 bits, 256 per metre)."""

    def __init__(self, root: Path):
        from alberti.data.manifest import Dataset

        self.dataset = Dataset.open(root) if (root / "dataset.json").is_file() else _plain(root)
        self.dataset.require_metric_depth()

    def frames(self, split: str | None) -> list[Any]:
        """All samples, or those whose ids a file lists, one per line."""
        if split is None:
            return list(self.dataset)
        wanted = [line.strip() for line in Path(split).read_text(encoding="utf-8").splitlines() if line.strip()]
        return [self.dataset.by_id(name) for name in wanted]

    def read_image(self, frame: Any) -> np.ndarray:
        return self.dataset.read_image(frame)

    def depth(self, frame: Any, kind: str) -> np.ndarray:
        if kind != "metric":
            raise DataError(f"{self.dataset.folder}: ground truth of kind metric (protocol metric_80), not {kind}")
        return self.dataset.read_depth(frame)

    def check(self, frames: Sequence[Any], *, image: bool = False, kind: str | None = None) -> None:
        lacking = [frame.id for frame in frames if (image and frame.image is None) or (kind and frame.depth is None)]
        if lacking:
            raise DataError(f"{self.dataset.folder}: {len(lacking)} frames lack image or depth: {', '.join(lacking[:5])}")


def _plain(root: Path) -> Any:
    from alberti.data.crops import native_info
    from alberti.data.manifest import Dataset
    from alberti.data.sources import open_source

    source = open_source("folder", root, depth=True)
    return Dataset(source.root, native_info(source), list(source.samples))


def _listed_scenes(path: Path, frames: Sequence[Named]) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            known = {row["id"]: row["scene"] for row in csv.DictReader(file)}
    except FileNotFoundError:
        raise DataError(f"{path}: no such list of scenes") from None
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a CSV with columns id and scene ({error})") from None
    missing = [frame.id for frame in frames if frame.id not in known]
    if missing:
        raise DataError(f"{path}: no scene for {len(missing)} of {len(frames)} frames, such as {missing[0]}")
    return {frame.id: known[frame.id] for frame in frames}
