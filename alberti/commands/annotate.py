"""``alberti annotate``: line segments and vanishing points of a folder of pictures."""

from pathlib import Path
from typing import Annotated

import typer

from alberti.annotate import annotate_folder
from alberti.commands.options import at_home
from alberti.errors import ConfigError


def annotate(
    images: Annotated[Path, typer.Argument(help="A folder of pictures (subfolders included), or one picture.")],
    out: Annotated[Path, typer.Option(help="The JSON-lines file to write: one row per picture.")],
    focal: Annotated[float | None, typer.Option(help="Focal length of all pictures in pixels; by default estimated.")] = None,
    principal_point: Annotated[
        str | None, typer.Option(metavar="CX,CY", help="Principal point in pixels; by default the middle.")
    ] = None,
    overlays: Annotated[Path | None, typer.Option(help="A folder for copies of the pictures with the lines drawn in.")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of processes; by default one per core.")] = None,
) -> None:
    """Find line segments and vanishing points in every picture of a folder.

    Each row has image, width, height, vanishing_points [x, y, w] (homogeneous pixels, best first), confidence and
    inlier_share of each, line_segments [x1, y1, x2, y2, index of the vanishing point or -1], horizon [a, b, c] (a x + b y +
    c = 0) or null, focal in pixels or null, roll and pitch in degrees or null, distortion of the lens, and warnings. Points
    and horizon are those of the picture with the distortion taken out.

    An interrupted command goes on when it is run again. A file that cannot be read is reported and left out; the exit code
    is then 1.
    """
    out = at_home(out)
    counts = annotate_folder(
        at_home(images),
        out,
        focal=focal,
        principal_point=None if principal_point is None else parse_point(principal_point),
        overlays=None if overlays is None else at_home(overlays),
        workers=workers,
    )
    kept = f" ({counts.resumed} kept from an interrupted run)" if counts.resumed else ""
    print(f"{out}: {counts.images} pictures{kept}, {counts.without_points} of them without vanishing points")
    if counts.left_out:
        print(f"note: {counts.left_out}")
    if counts.failures:
        print(f"{counts.failures} could not be read, see above")
        raise typer.Exit(1)


def parse_point(text: str) -> tuple[float, float]:
    """``"CX,CY"`` -> two floats; ConfigError otherwise."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--principal-point: expected CX,CY in pixels, say 319.5,239.5, got {text!r}") from None
    return x, y
