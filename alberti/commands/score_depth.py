"""``alberti score-depth``: score a depth model on a folder of frames with ground truth."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from alberti.commands.options import at_home, check_device
from alberti.errors import ConfigError, DataError
from alberti.extras import require_extra

_BATCH = 16
_DEFAULTS = {"kitti": "eigen_garg", "kitti_objects": "eigen_garg", "diode": "diode_outdoor", "folder": "metric_80"}
_ALIGNMENTS = {"metric": "median", "inverse_relative": "affine_disparity"}


def score_depth(
    model: Annotated[Path, typer.Argument(help="Folder of a depth model, for example pretrained/dpt.")],
    root: Annotated[Path, typer.Argument(help="Folder of the frames.")],
    out: Annotated[Path, typer.Option(help="JSON file to write. A CSV with one row per frame goes beside it.")],
    layout: Annotated[str, typer.Option(help="kitti (raw), kitti_objects, diode, or folder (pictures and depth/).")] = "kitti",
    split: Annotated[
        Path | None, typer.Option(help="List of frames: `<date>/<drive> <frame> l` for KITTI raw, which needs one.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="Default: eigen_garg, diode_outdoor or metric_80.")] = None,
    align: Annotated[
        list[str] | None,
        typer.Option(
            help="none, median, affine_disparity, weighted_disparity or affine_depth; may be repeated. "
            "Default: median; for relative models affine_disparity."
        ),
    ] = None,
    size: Annotated[str | None, typer.Option(help="Resize pictures to WIDTHxHEIGHT first, such as 320x96.")] = None,
    depth_root: Annotated[Path | None, typer.Option(help="For KITTI raw: folder of the annotated depth, if elsewhere.")] = None,
    scenes: Annotated[
        str, typer.Option(help="Scenes: auto (the data set's), frame (each its own), or a CSV with id, scene.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")] = "auto",
) -> None:
    """Run a depth model on frames with ground truth: mean errors with 95 % intervals.

    Where frames share a scene, the intervals resample whole scenes. With several alignments, all after the first are
    written to <out>.<alignment>.json.
    """
    if layout not in _DEFAULTS:
        raise ConfigError(f"--layout: expected one of {', '.join(_DEFAULTS)}, got {layout!r}")
    if out.suffix != ".json":
        raise ConfigError(f"--out: expected a name that ends in .json (the CSV goes beside it), got {out}")
    width, height = _size(size)

    from alberti.metrics.depth import check_alignment
    from alberti.metrics.test_frames import evaluate_test_set, open_test_set
    from alberti.metrics.test_sets import TestSet
    from alberti.outputs import check_beside, check_output_file
    from alberti.parallel import core_count

    model, root, out = at_home(model), at_home(root), at_home(out)
    for alignment in align or ():
        check_alignment(alignment)
    if not model.exists():
        raise DataError(f"{model}: no such folder of a depth model")
    check_output_file(out, [model, root])
    check_beside(out.with_suffix(".csv"), "id,abs_rel,")
    test = TestSet(
        layout=layout,  # type: ignore[arg-type]
        root=str(root),
        depth_root=None if depth_root is None else str(at_home(depth_root)),
        split=None if split is None else str(at_home(split)),
        protocol=protocol or _DEFAULTS[layout],
        alignments={model.name: tuple(align or _ALIGNMENTS.values())},
        height=height,
        width=width,
        scenes=scenes,
    )
    open_test_set(test)  # what is wrong with the frames is said before anything slow
    require_extra("depth", "alberti score-depth")

    from alberti.depth.models import DepthModel
    from alberti.depth.predict import predict_batch
    from alberti.metrics.predictions import check_kind_fits

    where = check_device(device)
    network = DepthModel.load(model).to(where)
    for alignment in align or ():
        check_kind_fits(network.kind, alignment, str(model))
    test = test.model_copy(update={"alignments": {network.name: tuple(align or [_ALIGNMENTS[network.kind]])}})
    batch = _BATCH if where.startswith("cuda") else 1
    evaluations = evaluate_test_set(
        test, partial(predict_batch, network), network.name, batch_size=batch, workers=core_count(), description=model.name
    )
    for place, (alignment, evaluation) in enumerate(evaluations.items()):
        path = out if place == 0 else out.with_suffix(f".{alignment}.json")
        evaluation.write(path)
        summary = evaluation.summary
        print(f"{summary['protocol']}, {alignment}, n = {summary['n']} of {summary['scenes']} scenes: {path}")
        for name in ("abs_rel", "sq_rel", "rmse", "d1"):
            low, high = summary["intervals"][name]
            print(f"  {name:8s} {summary[name]:.4f}  ({low:.4f} to {high:.4f})")
        for note in summary["notes"]:
            print(f"  note: {note}")


def _size(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) > 0 and int(height) > 0):
        raise ConfigError(f"--size: expected WIDTHxHEIGHT in pixels, say 320x96, got {text!r}")
    return int(width), int(height)
