"""``alberti evaluate-depth``: score depth predictions, anyone's, on KITTI or DIODE."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alberti.commands.options import at_home
from alberti.errors import ConfigError, DataError
from alberti.extras import require_extra

if TYPE_CHECKING:
    from alberti.metrics.depth import Protocol
    from alberti.metrics.evaluation import Evaluation


def evaluate_depth(
    predictions: Annotated[
        Path,
        typer.Option(
            help="Folder of <drive>_<frame>.npy (float32 metres) or .png (16 bits, 256 per metre); DIODE: <image name>.npy."
        ),
    ],
    out: Annotated[Path, typer.Option(help="JSON file to write; a CSV with a row per image goes beside it.")],
    kitti: Annotated[Path | None, typer.Option(help="KITTI raw: <date>/<drive>/..., or a folder with raw/.")] = None,
    split: Annotated[
        Path | None, typer.Option(help="List of frames: `<date>/<drive> <frame> l`, or BTS's three columns.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="eigen_garg, eigen_benchmark, ...; an unknown name lists all. DIODE: diode_outdoor, diode_indoor."),
    ] = None,
    align: Annotated[
        str,
        typer.Option(
            help="none, median, affine_disparity or weighted_disparity (predictions are inverse relative depth), or "
            "affine_depth (relative depth)."
        ),
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
        Path | None, typer.Option(help="CSV of another run: adds the paired difference, this run minus that one.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for one picture per image: image, prediction, ground truth, error.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of processes; by default one per core.")] = None,
) -> None:
    """Score depth predictions of any model on KITTI or DIODE: means over images with 95 % bootstrap intervals."""
    from alberti.metrics.evaluation import evaluate_folder

    predictions, out = at_home(predictions), at_home(out)
    kitti, split, kitti_depth, diode, compare, pictures = (
        None if path is None else at_home(path) for path in (kitti, split, kitti_depth, diode, compare, pictures)
    )
    if out.suffix != ".json":
        raise ConfigError(f"--out: expected a name that ends in .json (the CSV goes beside it), got {out}")
    rules, reader, listed = _source(kitti, kitti_depth, diode, split, protocol)
    _check_outputs(out, pictures, [predictions, kitti, kitti_depth, diode, split, compare])
    require_extra("depth", "alberti evaluate-depth")
    frames = _scored(listed, rules, reader, annotated_only)
    other = _read_table(compare) if compare else None
    evaluation = evaluate_folder(
        predictions, frames, reader, rules, align, workers=workers, resize=resize_predictions, pictures=pictures
    )
    if left_out := len(listed) - len(frames):
        why = "are of scenes that the protocol does not score" if diode else "have no annotated depth"
        evaluation.summary["notes"].append(f"{left_out} of {len(listed)} listed frames {why}: left out")
    if other is not None:
        evaluation = _compared(evaluation, other, compare)
    table = evaluation.write(out)
    _print(evaluation.summary)
    print(f"{out}, {table}" + (f", {pictures}/" if pictures else ""))


def _check_outputs(out: Path, pictures: Path | None, inputs: list[Path | None]) -> None:
    from alberti.outputs import check_beside, check_output_file, check_output_folder, check_two_outputs

    table = out.with_suffix(".csv")
    for path in (out, table):
        check_output_file(path, inputs)
    check_beside(table, "id,abs_rel,")
    if pictures is not None:
        check_output_folder(pictures, inputs, option="--pictures", around=False)
        for path in (out, table):
            check_two_outputs(path, pictures, "--pictures")


def _source(
    kitti: Path | None, kitti_depth: Path | None, diode: Path | None, split: Path | None, name: str | None
) -> "tuple[Protocol, Any, list[Any]]":
    from alberti.metrics.depth import get_protocol

    if (kitti is None) == (diode is None):
        raise ConfigError("name one data set: --kitti ROOT or --diode ROOT")
    if diode is not None and name is None:
        name = _diode_protocol(diode, split)
    rules = get_protocol(name or "eigen_garg")
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


DIODE_SCENES = {"diode_outdoor": "outdoor", "diode_indoor": "indoors"}
"""The scenes that a protocol scores, where not all."""


def _diode_protocol(root: Path, split: Path | None) -> str:
    """Indoors where that is all there is, else outdoors: numbers of the two do not mix."""
    from alberti.data.diode import DiodeReader

    kinds = {frame.scenes for frame in DiodeReader(root).frames(split)}
    return "diode_indoor" if kinds == {"indoors"} else "diode_outdoor"


def _scored(listed: list[Any], rules: "Protocol", reader: Any, annotated_only: bool) -> list[Any]:
    """The listed frames that count. Of those without annotated depth BTS's lists say so, and then they never count."""
    if rules.ground_truth == "diode":
        scenes = DIODE_SCENES.get(rules.name)
        wanted = [frame for frame in listed if scenes is None or frame.scenes == scenes]
        if not wanted:
            other = next(name for name, kind in DIODE_SCENES.items() if kind != scenes)
            raise DataError(
                f"--protocol {rules.name}: no frame here is of {scenes} scenes; --protocol {other} scores the others"
            )
        listed = wanted
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
    import io

    import pandas as pd

    from alberti.metrics.depth import METRICS
    from alberti.reading import read_text, reading

    with reading(path, "CSV of evaluate-depth to compare with"):
        table = pd.read_csv(io.StringIO(read_text(path, "file to compare with")), dtype={"id": str})
        wrong = [name for name in METRICS if name in table and table[name].dtype.kind not in "fi"]
        if wrong:
            raise DataError(f"{path}: not a CSV of evaluate-depth: column {wrong[0]} holds something else than numbers")
        return table


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
