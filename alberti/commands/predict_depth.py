"""``alberti predict-depth``: depth of a folder of pictures, or of KITTI's frames, with a depth model."""

from pathlib import Path
from typing import Annotated

import typer

from alberti.device import choose_device
from alberti.errors import DataError


def predict_depth(
    model: Annotated[Path, typer.Argument(help="Folder of a depth model, or a published PixelFormer checkpoint file.")],
    images: Annotated[Path, typer.Argument(help="Folder of pictures, one picture, or KITTI raw with --split.")],
    out: Annotated[Path, typer.Option(help="Folder for a float32 .npy per picture, and predictions.json.")],
    split: Annotated[
        Path | None, typer.Option(help="List of KITTI frames: writes <drive>_<frame>.npy, as evaluate-depth reads.")
    ] = None,
    flip: Annotated[bool, typer.Option(help="Average with the mirrored picture's prediction.")] = False,
    kb_crop: Annotated[bool, typer.Option(help="Run on KITTI's benchmark crop, 352x1216, only.")] = False,
    input_height: Annotated[
        int | None,
        typer.Option(min=32, help="Resize pictures to this height first; default: as the model was trained."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures of one size at a time.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")] = "auto",
) -> None:
    """Predict depth: metres, or inverse relative depth, as predictions.json says. An interrupted call resumes."""
    named = _kitti_images(images, split) if split is not None else _folder_images(images)

    from alberti.depth.models import DepthModel
    from alberti.depth.predict import PredictOptions, predict_folder

    network = DepthModel.load(model).to(choose_device(device))
    options = PredictOptions(flip=flip, kb_crop=kb_crop, input_height=input_height)
    made = predict_folder(network, named, out, options, batch_size=batch_size, model_name=model.name)
    unit = "metres" if network.kind == "metric" else "inverse relative depth"
    kept = f", {len(named) - made} were there" if made < len(named) else ""
    print(f"{out}: {made} predictions in {unit}{kept}")


def _folder_images(images: Path) -> list[tuple[str, Path]]:
    """(name below the folder without its suffix, path) of every picture, sorted."""
    from alberti.images import IMAGE_SUFFIXES

    if images.is_file():
        return [(images.stem, images)]
    if not images.is_dir():
        raise DataError(f"{images}: no such folder or picture")
    paths = sorted(path for path in images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not paths:
        raise DataError(f"{images}: no pictures ({', '.join(IMAGE_SUFFIXES)}) in this folder or below")
    return [(path.relative_to(images).with_suffix("").as_posix(), path) for path in paths]


def _kitti_images(root: Path, split: Path) -> list[tuple[str, Path]]:
    from alberti.data.kitti import KittiReader, read_split

    frames, reader = read_split(split), KittiReader(root)
    reader.check(frames, image=True)
    return [(frame.id, reader.image_path(frame)) for frame in frames]
