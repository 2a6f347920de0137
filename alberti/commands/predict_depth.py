"""``alberti predict-depth``: depth of a folder of pictures, or of KITTI's frames, with a depth model."""

import os
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from alberti.commands.options import at_home, check_device
from alberti.extras import require_extra

if TYPE_CHECKING:
    from alberti.data.kitti.frames import Frame


def predict_depth(
    model: Annotated[Path, typer.Argument(help="Folder of a depth model, or a published PixelFormer checkpoint file.")],
    images: Annotated[Path, typer.Argument(help="Folder of pictures, one picture, or KITTI raw with --split.")],
    out: Annotated[Path, typer.Option(help="Folder for a float32 .npy per picture, and predictions.json.")],
    split: Annotated[Path | None, typer.Option(help="List of KITTI frames; files are then called <drive>_<frame>.npy.")] = None,
    flip: Annotated[bool, typer.Option(help="Average with the mirrored picture's prediction.")] = False,
    kb_crop: Annotated[bool, typer.Option(help="Predict KITTI's benchmark crop (352 x 1216) only.")] = False,
    input_height: Annotated[
        int | None,
        typer.Option(min=32, max=8192, help="Height in pixels to resize pictures to; by default the model's own."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures per batch.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")] = "auto",
) -> None:
    """Predict the depth of pictures. predictions.json says whether it is metres or inverse relative depth.

    An interrupted command goes on when it is run again. A picture that cannot be read is reported and left out; the exit
    code is then 1.
    """
    from alberti.outputs import check_output_folder

    model, images, out = at_home(model), at_home(images), at_home(out)
    split = None if split is None else at_home(split)
    check_output_folder(out, [images, model])
    problems: list[str] = []
    named = _kitti_images(images, split) if split is not None else _folder_images(images, problems)

    require_extra("depth", "alberti predict-depth")

    from alberti.depth.models import DepthModel
    from alberti.depth.predict import PredictOptions, predict_folder

    network = DepthModel.load(model).to(check_device(device))
    options = PredictOptions(flip=flip, kb_crop=kb_crop, input_height=input_height)
    made = predict_folder(network, named, out, options, batch_size=batch_size, model_name=model.name)
    unit = "metres" if network.kind == "metric" else "inverse relative depth"
    kept = f", {len(named) - made} were there" if made < len(named) else ""
    print(f"{out}: {made} predictions in {unit}{kept}")
    if problems:
        print(f"{len(problems)} folders could not be read, see above")
        raise typer.Exit(1)


def _folder_images(images: Path, problems: list[str]) -> list[tuple[str, Path]]:
    """(name, path) of every picture, sorted; folders that cannot be listed are reported and kept in ``problems``.

    A picture's name is its path below the folder without suffix; one that lies as in KITTI has the place that it has there
    (``<date>/<drive>/image_02/data/<frame>``), whichever folder of KITTI's was named: evaluate-depth finds it by that.
    """
    from alberti.image_folder import LeftOut, find_images, image_path, no_pictures

    def unreadable(folder: str, error: OSError) -> None:
        problems.append(f"{images / folder}: {error.strerror}")
        print(f"failed: {problems[-1]}", file=sys.stderr)

    left_out = LeftOut()
    paths = [(name, image_path(images, name)) for name in find_images(images, on_error=unreadable, left_out=left_out)]
    if not paths:
        raise no_pictures(images, left_out)
    if note := left_out.note():
        print(f"note: {note}", file=sys.stderr)
    named = [(_name(name, path), path) for name, path in paths]
    in_kitti = [pair for pair, (_, path) in zip(named, paths, strict=True) if _frame(path) is not None]
    # KITTI's gray cameras are no pictures that anything is measured on
    gray = {"image_00", "image_01"} if in_kitti else set()
    return [pair for pair in named if not gray & set(Path(os.path.abspath(pair[1])).parts)]


def _frame(path: Path) -> "Frame | None":
    from alberti.data.kitti.frames import frame_at

    return frame_at(os.path.abspath(path))


def _name(name: str, path: Path) -> str:
    frame = _frame(path)
    if frame is None:
        return PurePosixPath(name).with_suffix("").as_posix()
    return f"{frame.date}/{frame.drive}/image_0{frame.camera}/data/{frame.index:010d}"


def _kitti_images(root: Path, split: Path) -> list[tuple[str, Path]]:
    from alberti.data.kitti import KittiReader, read_split

    frames, reader = read_split(split), KittiReader(root)
    reader.check(frames, image=True)
    return [(frame.id, reader.image_path(frame)) for frame in frames]
