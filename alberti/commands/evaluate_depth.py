"""``alberti evaluate-depth``: score depth predictions, anyone's, on KITTI or DIODE."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alberti.errors import ConfigError, DataError

if TYPE_CHECKING:
    from alberti.metrics.depth import Protocol
    from alberti.metrics.evaluation import Evaluation


def evaluate_depth(
    predictions: Annotated[
        Path,
        typer.Option(
            help="Folder of <drive>_<frame>.npy (float32 metres) or .png (16 bits, 256 a metre); DIODE: <image name>.npy."
        ),
    ],
    out: Annotated[Path, typer.Option(help="JSON file to write; a CSV with a row per image goes beside it.")],
    kitti: Annotated[Path | None, typer.Option(help="KITTI raw: <date>/<drive>/..., or a folder with raw/.")] = None,
    split: Annotated[
        Path | None, typer.Option(help="List of frames: `<date>/<drive> <frame> l`, or BTS's three columns.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="eigen_garg, eigen_benchmark, ...; an unknown name lists all. DIODE: diode_outdoor."),
    ] = None,
    align: Annotated[
        str, typer.Option(help="none, median, or affine_disparity (predictions are inverse relative depth).")
    ] = "none",
    kitti_depth: Annotated[
        Path | None, typer.Option(help="Annotated depth, where it is not in or beside KITTI's root.")
    ] = None,
    diode: Annotated[Path | None, typer.Option(help="DIODE, instead of KITTI; --split may list image names.")] = None,
    annotated_only: Annotated[
        bool, typer.Option(help="Leave out listed frames without annotated depth: Eigen's 697 become 652.")
    ] = False,
    resize_predictions: Annotated[
        str | None, typer.Option(help="bilinear or nearest: resize predictions of another size.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="CSV of another run: adds the paired difference, this minus that.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for a picture per image: image, prediction, ground truth, error.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all CPUs if not given.")] = None,
) -> None:
    """Score depth predictions, anyone's, on KITTI or DIODE: means over images with 95 % bootstrap intervals."""
    from alberti.metrics.evaluation import evaluate_folder

    if out.suffix != ".json":
        raise ConfigError(f"--out: expected a name that ends in .json (the CSV goes beside it), got {out}")
    rules, reader, listed = _source(kitti, kitti_depth, diode, split, protocol)
    frames = _scored(listed, rules, reader, annotated_only)
    other = _read_table(compare) if compare else None
    evaluation = evaluate_folder(
        predictions, frames, reader, rules, align, workers=workers, resize=resize_predictions, pictures=pictures
    )
    if left_out := len(listed) - len(frames):
        evaluation.summary["notes"].append(f"{left_out} of {len(listed)} listed frames have no annotated depth: left out")
    if other is not None:
        evaluation = _compared(evaluation, other, compare)
    table = evaluation.write(out)
    _print(evaluation.summary)
    print(f"{out}, {table}" + (f", {pictures}/" if pictures else ""))


def _source(
    kitti: Path | None, kitti_depth: Path | None, diode: Path | None, split: Path | None, name: str | None
) -> "tuple[Protocol, Any, list[Any]]":
    from alberti.metrics.depth import get_protocol

    if (kitti is None) == (diode is None):
        raise ConfigError("name one data set: --kitti ROOT or --diode ROOT")
    rules = get_protocol(name or ("diode_outdoor" if kitti is None else "eigen_garg"))
    if (rules.ground_truth == "diode") != (kitti is None):
        data = "--diode" if rules.ground_truth == "diode" else "--kitti"
        raise ConfigError(f"--protocol {rules.name} scores {rules.ground_truth} ground truth: it goes with {data}")
    if diode is not None:
        from alberti.data.diode import DiodeReader

        scenes = DiodeReader(diode)
        return rules, scenes, scenes.frames(split)
    from alberti.data.kitti import KittiReader, read_split

    if split is None or kitti is None:
        raise ConfigError("--split: KITTI needs the list of frames to score")
    return rules, KittiReader(kitti, kitti_depth), read_split(split)


def _scored(listed: list[Any], rules: "Protocol", reader: Any, annotated_only: bool) -> list[Any]:
    """The listed frames that count. Of those without annotated depth BTS's lists say so, and then they never count."""
    if rules.ground_truth != "annotated":
        if annotated_only:
            raise ConfigError(f"--annotated-only: protocol {rules.name} scores {rules.ground_truth} ground truth")
        return listed
    if annotated_only:
        kept: list[Any] = reader.annotated(listed)
        return kept
    frames = [frame for frame in listed if frame.annotated is not False]
    if not frames:
        raise DataError("--split: no frame of the list has annotated depth, says the list")
    return frames


def _read_table(path: Path) -> Any:
    import pandas as pd

    try:
        return pd.read_csv(path, dtype={"id": str})
    except FileNotFoundError:
        raise DataError(f"{path}: no such file to compare with") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a CSV of evaluate-depth ({error})") from error


def _compared(evaluation: "Evaluation", other: Any, path: Path | None) -> "Evaluation":
    from alberti.metrics.evaluation import Evaluation, compare

    try:
        difference = compare(evaluation.rows, other)
    except DataError as error:
        raise DataError(f"--compare {path}: {error}") from None
    return Evaluation(evaluation.rows, {**evaluation.summary, "comparison": {"other": str(path), **difference}})


def _print(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from alberti.metrics.depth import HIGHER_IS_BETTER, METRICS

    comparison = summary.get("comparison")
    print(f"{summary['protocol']}, alignment {summary['alignment']}, n = {summary['n']}")
    print(f"ground truth {summary['ground_truth']}, split {summary['split']} {summary['split_hash'][:12]}")
    table = Table()
    headings = ["metric", "better", "mean", "95 % interval"] + ["difference", "95 % interval"] * (comparison is not None)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("metric", "better") else "right", no_wrap=True)
    for name in METRICS:
        low, high = summary["intervals"][name]
        better = "higher" if name in HIGHER_IS_BETTER else "lower"
        cells = [name, better, f"{summary[name]:.4f}", f"{low:.4f} .. {high:.4f}"]
        if comparison is not None:
            change = comparison["difference"][name]
            cells += [f"{change['mean']:+.4f}", f"{change['low']:+.4f} .. {change['high']:+.4f}"]
        table.add_row(*cells)
    console = Console()
    console.width = max(console.width, 100)  # a pipe has 80 columns, which would cut numbers off
    console.print(table)
    for note in summary["notes"]:
        print(f"note: {note}")
    if comparison is not None and comparison["other_alignment"] != summary["alignment"]:
        print(f"note: the other table is aligned by {comparison['other_alignment']}")
