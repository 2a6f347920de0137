"""Scores whole sets of predictions: one row per image, means, confidence intervals, and what they were computed under."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

import numpy as np

from alberti.data.kitti.frames import KNOWN_SPLITS, split_hash
from alberti.errors import AlbertiError, DataError
from alberti.extras import extra
from alberti.files import atomic_file, write_json
from alberti.images import of_one_size
from alberti.metrics.bootstrap import bootstrap_interval, paired_bootstrap
from alberti.metrics.depth import (
    AFFINE,
    DISPARITY,
    METRICS,
    GroundTruth,
    Protocol,
    as_array,
    aspect_change,
    check_alignment,
    get_protocol,
    score_image,
)
from alberti.metrics.predictions import (
    check_kind,
    check_resize,
    find_predictions,
    missing_text,
    names_missing,
    read_prediction,
    resize_prediction,
)
from alberti.parallel import core_count, ordered_results
from alberti.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

    from alberti.metrics.pictures import Painter

Row = dict[str, Any]
_UNIT_RATIO = 30.0
_FACTOR_FROM = 0.1
"""Logarithm of the factor from which one common to all images is told of."""
_STRETCHED = 1.05
"""Change of aspect from which a resized prediction is told of."""
_FALLS = -0.1
"""Correlation with the ground truth below which a prediction runs against it."""
_WORTH_PROCESSES = 50
_LABELS = ("protocol", "ground_truth", "alignment")


class Named(Interface):
    """What a reader calls a frame."""

    @property
    def id(self) -> str: ...


class Reader(Interface):
    """What evaluation asks of a data set: :class:`alberti.data.kitti.KittiReader`, :class:`alberti.data.diode.DiodeReader`."""

    def read_image(self, frame: Any) -> np.ndarray: ...

    def depth(self, frame: Any, kind: str) -> np.ndarray: ...

    def check(self, frames: Sequence[Any], *, image: bool = False, kind: str | None = None) -> None: ...


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation."""

    rows: "pd.DataFrame"
    """One row per image: ``id``, the metrics, the further columns of :func:`alberti.metrics.depth.score_image`, and
    protocol, ground truth and alignment, so that the table says by itself what it is."""
    summary: dict[str, Any]
    """Means over images under the metrics' names; ``n``, ``protocol``, ``ground_truth``, ``alignment``, ``split``,
    ``split_hash``, ``intervals`` (metric -> [low, high]), ``interval_level``, ``notes``."""

    def write(self, path: str | Path) -> Path:
        """Write the summary as JSON to ``path`` and the rows as CSV beside it; returns the CSV's path."""
        path = Path(path)
        table = path.with_suffix(".csv")
        with atomic_file(table) as temporary:
            self.rows.to_csv(temporary, index=False, errors="backslashreplace")
        write_json(path, self.summary)
        return table


def evaluate(
    predictions: Mapping[str, np.ndarray],
    ground_truth: Mapping[str, GroundTruth],
    protocol: str | Protocol,
    alignment: str = "none",
    *,
    seed: int = 0,
) -> Evaluation:
    """Score predictions in memory against ground truth with the same ids. The mappings may be lazy.

    Raises:
        DataError: a prediction is missing, or anything that :func:`alberti.metrics.depth.score_image` refuses.
    """
    protocol = get_protocol(protocol)
    check_alignment(alignment)
    missing = [name for name in ground_truth if name not in predictions]
    if missing:
        raise DataError(names_missing(missing, len(ground_truth), "the predictions"))
    rows = (_score(name, predictions[name], ground_truth[name], protocol, alignment)[0] for name in ground_truth)
    return summarise(list(rows), protocol, alignment, seed=seed)


def evaluate_frames(
    frames: Sequence[Named],
    predict: Callable[[np.ndarray], np.ndarray],
    reader: Reader,
    protocol: str | Protocol,
    alignment: str = "none",
    *,
    workers: int = 1,
    resize: str | None = None,
    description: str = "evaluating",
    seed: int = 0,
) -> Evaluation:
    """Predict and score every frame; images, ground truth and metrics are handled in ``workers`` threads meanwhile.

    Args:
        predict: (H, W, 3) uint8 RGB -> (H, W) metres, or inverse relative depth for "affine_disparity"; an array or a
            tensor. Called in this thread, in the order of ``frames``.
        resize: "bilinear" or "nearest" where predictions of another size may be resized.
    """

    def predict_all(images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [predict(image) for image in images]

    return evaluate_batches(
        frames, predict_all, reader, protocol, alignment,
        batch_size=1, workers=workers, resize=resize, description=description, seed=seed,
    )  # fmt: skip


def evaluate_batches(
    frames: Sequence[Named],
    predict: Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]],
    reader: Reader,
    protocol: str | Protocol,
    alignment: str = "none",
    *,
    batch_size: int,
    workers: int = 1,
    resize: str | None = None,
    description: str = "evaluating",
    seed: int = 0,
) -> Evaluation:
    """As :func:`evaluate_frames`, with ``predict`` called on up to ``batch_size`` consecutive images of one size."""
    return evaluate_alignments(
        frames, predict, reader, protocol, [alignment],
        batch_size=batch_size, workers=workers, resize=resize, description=description, seed=seed,
    )[alignment]  # fmt: skip


def evaluate_alignments(
    frames: Sequence[Named],
    predict: Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]],
    reader: Reader,
    protocol: str | Protocol,
    alignments: Sequence[str],
    *,
    batch_size: int,
    workers: int = 1,
    resize: str | None = None,
    scenes: Mapping[str, str] | None = None,
    description: str = "evaluating",
    seed: int = 0,
) -> dict[str, Evaluation]:
    """As :func:`evaluate_batches`, each prediction scored under every one of ``alignments``: an evaluation each.

    Args:
        scenes: id -> scene, for frames of which several show one scene, see :func:`summarise`.
    """
    protocol = get_protocol(protocol)
    for alignment in alignments:
        check_alignment(alignment)
    check_resize(resize)
    reader.check(frames, image=True, kind=protocol.ground_truth)

    def score(frame: Named, prediction: np.ndarray) -> list[Row]:
        truth = GroundTruth(reader.depth(frame, protocol.ground_truth), protocol.ground_truth)
        made = as_array(prediction, frame.id)
        return [_score(frame.id, made, truth, protocol, alignment, resize)[0] for alignment in alignments]

    rows: list[list[Row]] = []
    with Progress(description, len(frames), "images") as progress, ThreadPoolExecutor(max(1, workers)) as pool:
        images = _ahead(pool, reader.read_image, frames, max(1, workers, batch_size))
        pending: deque[Future[list[Row]]] = deque()
        for group in of_one_size(zip(frames, images, strict=True), batch_size):
            predictions = predict([image for _, image in group])
            pending.extend(pool.submit(score, frame, made) for (frame, _), made in zip(group, predictions, strict=True))
            while len(pending) > 2 * max(1, workers):  # bounds the predictions held in memory
                rows.append(pending.popleft().result())
                progress.advance()
        for future in pending:
            rows.append(future.result())
            progress.advance()
    return {
        alignment: summarise([row[place] for row in rows], protocol, alignment, scenes=scenes, seed=seed)
        for place, alignment in enumerate(alignments)
    }


def evaluate_folder(
    folder: str | Path,
    frames: Sequence[Named],
    reader: Reader,
    protocol: str | Protocol,
    alignment: str = "none",
    *,
    workers: int | None = 1,
    resize: str | None = None,
    pictures: str | Path | None = None,
    seed: int = 0,
) -> Evaluation:
    """Score prediction files, ``<id>.npy`` or ``<id>.png`` in or below ``folder``, in ``workers`` processes.

    Args:
        workers: None for all CPUs. Above 1, a script that calls this needs its ``if __name__ == "__main__":``.
        resize: "bilinear" or "nearest" where predictions of another size may be resized.
        pictures: a folder for a picture an image: image, prediction, ground truth, error.

    Raises:
        DataError: missing predictions (listed) or ground truth, and what :func:`alberti.metrics.depth.score_image` refuses.
    """
    protocol = get_protocol(protocol)
    check_alignment(alignment)
    check_resize(resize)
    check_kind(folder, alignment)
    paths, missing = find_predictions(folder, frames)
    if missing:
        raise DataError(missing_text(folder, missing, frames))
    reader.check(frames, image=pictures is not None, kind=protocol.ground_truth)
    painter = None
    if pictures is not None:
        from alberti.metrics.pictures import Painter

        painter = Painter(Path(pictures), protocol, alignment)
    job = partial(_score_file, reader, protocol, alignment, resize, painter)
    rows: list[Row] = []
    with Progress("evaluating", len(frames), "images") as progress:
        for row in _in_processes(job, list(zip(frames, paths, strict=True)), workers):
            rows.append(row)
            progress.advance()
    return summarise(rows, protocol, alignment, seed=seed)


def _score_file(
    reader: Reader,
    protocol: Protocol,
    alignment: str,
    resize: str | None,
    painter: "Painter | None",
    item: tuple[Named, Path],
) -> Row:
    frame, path = item
    truth = GroundTruth(reader.depth(frame, protocol.ground_truth), protocol.ground_truth)
    row, prediction = _score(str(path), read_prediction(path), truth, protocol, alignment, resize)
    row["id"] = frame.id
    if painter is not None:
        painter.paint(frame.id, reader.read_image(frame), prediction, truth, row)
    return row


def _score(
    name: str, prediction: np.ndarray, truth: GroundTruth, protocol: Protocol, alignment: str, resize: str | None = None
) -> tuple[Row, np.ndarray]:
    """The row of a prediction, and the prediction as it was scored."""
    try:
        resized = resize_prediction(prediction, truth.depth.shape, resize, protocol)
        change = 1.0 if resized is prediction else aspect_change(prediction.shape, resized.shape)
        return {"id": name, **score_image(resized, truth, protocol, alignment), "aspect_change": change}, resized
    except AlbertiError as error:
        raise type(error)(f"{name}: {error}") from None


def summarise(
    rows: Sequence[Row],
    protocol: Protocol,
    alignment: str,
    *,
    scenes: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Means and intervals over the rows that :func:`score_image` gave.

    Args:
        scenes: id -> scene. It becomes a column of the table, and where some scenes have several images, and there are several
            scenes, the intervals resample whole scenes: images of one scene are no independent draws.

    Raises:
        DataError: no row, or metric predictions that are off by the factor of another unit.
    """
    with extra("depth", "a table of an evaluation"):
        import pandas as pd

    if not rows:
        raise DataError("nothing to evaluate: the split is empty")
    table = pd.DataFrame(rows)
    table["protocol"], table["ground_truth"], table["alignment"] = protocol.name, protocol.ground_truth, alignment
    notes = _check_units(table, protocol) if alignment == "none" else []
    notes += _notes(table, protocol, alignment)
    digest = split_hash(table["id"])
    values = table[list(METRICS)].to_numpy()
    groups = None
    if scenes is not None:
        table["scene"] = [scenes[name] for name in table["id"]]
        groups = list(table["scene"]) if 1 < table["scene"].nunique() < len(table) else None
    low, high = bootstrap_interval(values, groups=groups, seed=seed)
    summary: dict[str, Any] = {name: float(mean) for name, mean in zip(METRICS, values.mean(axis=0), strict=True)}
    summary |= {
        "n": len(table),
        "protocol": protocol.name,
        "ground_truth": protocol.ground_truth,
        "alignment": alignment,
        "split": KNOWN_SPLITS.get(digest, "custom"),
        "split_hash": digest,
        "interval_level": 0.95,
        "intervals": {name: [float(a), float(b)] for name, a, b in zip(METRICS, low, high, strict=True)},
        "notes": notes,
    }
    if scenes is not None:
        summary["scenes"] = int(table["scene"].nunique())
    return Evaluation(table, summary)


def _check_units(table: "pd.DataFrame", protocol: Protocol) -> list[str]:
    """Refuse predictions in millimetres or centimetres; other large factors are only noted: a model may be that bad."""
    ratio = float((table["pred_median"] / table["target_median"]).median())
    units = {"centimetres": 100.0, "KITTI's 16-bit values": 256.0, "millimetres": 1000.0}
    unit = min(units, key=lambda name: abs(np.log(max(ratio, 1e-12) / units[name])))
    # A model that clips to the protocol's range, however bad, stays below the second bound, so only units are refused.
    beyond = float(table["pred_median"].median()) > 2 * protocol.max_depth
    if ratio > _UNIT_RATIO and beyond:
        raise DataError(
            f"predictions are {ratio:.0f} times the ground truth (median over {len(table)} images): they look like "
            f"{unit}, and metres are expected; divide them by {units[unit]:.0f}, or use --align median if they have no unit"
        )
    notes = _one_factor(table)
    if not notes and not 1 / 3 < ratio < 3:
        return [f"predictions are {ratio:.3g} times the ground truth in the median: check their unit, or --align median"]
    return notes


def _one_factor(table: "pd.DataFrame") -> list[str]:
    """A note where all images are off by the same factor: what a model does wrong differs from image to image."""
    factors = (table["pred_median"] / table["target_median"]).to_numpy(np.float64)
    if len(factors) < 2 or not (np.isfinite(factors) & (factors > 0)).all():
        return []
    logs = np.log(factors)
    off, spread = float(np.median(logs)), float(np.quantile(logs, 0.9) - np.quantile(logs, 0.1))
    if abs(off) < _FACTOR_FROM or spread > abs(off) / 4:
        return []
    factor = float(np.exp(off))
    return [
        f"predictions are {factor:.3g} times the ground truth in every image (within {100 * np.expm1(spread):.1f} %), as with "
        f"another unit: 16-bit PNGs are read as 256 per metre, and {256 * factor:.0f} per metre would look so. If it is the "
        f"unit, divide them by {factor:.3g}"
    ]


def _notes(table: "pd.DataFrame", protocol: Protocol, alignment: str) -> list[str]:
    notes = []
    if protocol.images is not None and len(table) != protocol.images:
        notes.append(f"{len(table)} images; published numbers of {protocol.name} have {protocol.images}")
    if alignment not in AFFINE and (count := int((table["zeros"] > 0).sum())):
        notes.append(f"{count} predictions are 0 somewhere in the scored area; 0 became {protocol.min_depth:g} m")
    if alignment in DISPARITY and (count := int((table["scale"] < 0).sum())):
        notes.append(f"{count} predictions were fitted with a negative scale: they grow with depth, not with its inverse")
    if alignment not in DISPARITY and (count := int((table["correlation"] < _FALLS).sum())):
        notes.append(
            f"{count} of {len(table)} predictions fall where depth grows, as disparity and inverse depth do: score those with "
            "--align affine_disparity"
        )
    if "aspect_change" in table and (largest := float(table["aspect_change"].max())) > _STRETCHED:
        notes.append(
            f"resizing changed the aspect of predictions by a factor of up to {largest:.2f}: are they of the whole image?"
        )
    return notes


def compare(table: "pd.DataFrame", other: "pd.DataFrame", *, seed: int = 0) -> dict[str, Any]:
    """Paired difference ``table - other`` of two evaluations' rows: metric -> mean, low, high (95 % bootstrap).

    Raises:
        DataError: another protocol or kind of ground truth, or not the same images.
    """
    for label in (*_LABELS, "id", *METRICS):
        for rows in (table, other):
            if label not in rows.columns:
                raise DataError(f"not a table of evaluate-depth: it has no column {label!r}")
    for label in ("protocol", "ground_truth"):
        mine, theirs = sorted(set(table[label])), sorted(set(other[label]))
        if mine != theirs or len(mine) != 1:
            raise DataError(f"cannot compare: {label} is {', '.join(mine)} here and {', '.join(theirs)} there")
    if (different := set(table["id"]) ^ set(other["id"])) or other["id"].duplicated().any():
        shown = ", ".join(sorted(different)[:5])
        raise DataError(f"cannot compare: the tables hold other images ({len(different)} stand in one only: {shown})")
    columns = list(METRICS)
    a = table.set_index("id")[columns]
    b = other.set_index("id").loc[a.index, columns]
    mean, low, high = paired_bootstrap(a.to_numpy(dtype=float), b.to_numpy(dtype=float), seed=seed)
    difference = {
        name: {"mean": float(mean[k]), "low": float(low[k]), "high": float(high[k])} for k, name in enumerate(columns)
    }
    return {"n": len(a), "other_alignment": str(other["alignment"].iloc[0]), "difference": difference}


def check_one_table(summaries: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to put results of different protocols, ground truths or images into one table.

    Args:
        summaries: :attr:`Evaluation.summary` by the name of the row.

    Raises:
        DataError: two rows differ; the message names them and what they differ in.
    """
    rows = list(summaries.items())
    for name, summary in rows[1:]:
        for label in ("ground_truth", "protocol", "split_hash"):
            if summary[label] != rows[0][1][label]:
                raise DataError(
                    f"{rows[0][0]} and {name} do not belong in one table: {label} is {rows[0][1][label]} and {summary[label]}"
                )


def _ahead(
    pool: ThreadPoolExecutor, read: Callable[[Any], np.ndarray], frames: Sequence[Any], count: int
) -> Iterator[np.ndarray]:
    """Read images in order, ``count`` of them ahead of use."""
    queue: deque[Future[np.ndarray]] = deque()
    for frame in frames:
        queue.append(pool.submit(read, frame))
        if len(queue) > count:
            yield queue.popleft().result()
    while queue:
        yield queue.popleft().result()


def _in_processes(job: Callable[[Any], Row], items: Sequence[Any], workers: int | None) -> Iterable[Row]:
    """``map(job, items)`` in order; in this process where starting others would take longer than the work."""
    count = max(1, min(core_count() if workers is None else workers, len(items)))
    return ordered_results(job, items, 1 if workers is None and len(items) < _WORTH_PROCESSES else count)
