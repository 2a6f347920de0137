"""``alberti score``: how well a folder of pictures obeys linear perspective."""

from pathlib import Path
from typing import Annotated, Any

import typer

from alberti.commands.options import at_home
from alberti.score import score_folder


def score(
    images: Annotated[Path, typer.Argument(help="A folder of pictures (subfolders included), or one picture.")],
    out: Annotated[Path, typer.Option(help="The JSON file to write. A .csv and an .html page go beside it.")],
    vanishing_points: Annotated[
        Path | None, typer.Option(help="Known points, as `alberti annotate` writes them; by default estimated.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Number of processes; by default one per core.")] = None,
) -> None:
    """Measure how much of each picture's line length points at one of its vanishing points, within 2 and 5 degrees.

    Compare the line length too: a picture with few lines scores easily.
    """
    out = at_home(out)
    points = None if vanishing_points is None else at_home(vanishing_points)
    summary = score_folder(at_home(images), out, vanishing_points=points, workers=workers)
    print(f"{summary['images']} pictures, vanishing points {summary['vanishing_points']}")
    for name in ("consistency_2", "consistency_5", "line_length_per_megapixel"):
        print(f"  {name:<26} {_text(summary[name])}")
    print(f"{out}, {out.with_suffix('.csv')}, {out.with_suffix('.html')}")
    for note in summary.get("notes", ()):
        print(f"note: {note}")
    if summary["failed"]:
        print(f"{summary['failed']} could not be scored, see above")
        raise typer.Exit(1)


def _text(figure: dict[str, Any]) -> str:
    if figure["mean"] is None:
        return "no picture has a value"
    return f"{figure['mean']:.4g}  (95 %: {figure['low']:.4g} to {figure['high']:.4g}, n = {figure['n']})"
