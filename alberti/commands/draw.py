"""``alberti draw``: a picture of a depth map, or of a photo's, by any base, with its lines straightened."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from alberti.commands.options import at_home, check_device, check_finite, check_positive
from alberti.errors import ConfigError, DataError
from alberti.extras import require_extra
from alberti.outputs import check_output_picture

if TYPE_CHECKING:
    from alberti.geometry.camera import Camera


def draw(
    source: Annotated[Path, typer.Argument(help="A depth map (16-bit PNG, or .npy in metres), or a photo.")],
    base: Annotated[str, typer.Option(help="Diffusers folder or hub id that takes depth, such as pretrained/base.")],
    out: Annotated[Path, typer.Option(help="The picture to write, .png or .jpg.")],
    prompt: Annotated[str, typer.Option(help="What the picture shows.")] = "",
    controlnet: Annotated[str | None, typer.Option(help="Folder or hub id of a depth ControlNet for the base.")] = None,
    depth_model: Annotated[Path | None, typer.Option(help="For a photo: folder of the model that predicts its depth.")] = None,
    depth_scale: Annotated[float, typer.Option(help="A 16-bit PNG's units per metre: 100 for centimetres.")] = 256.0,
    focal: Annotated[float | None, typer.Option(help="Focal length in pixels of the source; by default estimated.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Size of the picture; by default that of the source.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 30,
    guidance_scale: Annotated[float | None, typer.Option(help="Weight of the prompt; by default the pipeline's own.")] = None,
    strength: Annotated[float, typer.Option(min=0, help="How strongly lines are straightened; 0: not at all.")] = 1.6,
    compare: Annotated[bool, typer.Option(help="Also write OUT.compare.png: the picture without and with guidance.")] = True,
    lines: Annotated[bool, typer.Option(help="Colour the lines that lead to the vanishing points in the comparison.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")] = "auto",
) -> None:
    """Draw a depth map with a base of Stable Diffusion 1 to 3.5, XL, FLUX, Qwen-Image or Z-Image, guided by vanishing points.

    The vanishing points come from the planes of the depth map. For a photo they come from its line segments.
    """
    source, out = at_home(source), at_home(out)
    depth_model = None if depth_model is None else at_home(depth_model)
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg") or out.is_dir():
        raise ConfigError(f"--out: expected the name of a picture, .png or .jpg, got {out}")
    for path in (out, out.with_suffix(".compare.png")) if compare else (out,):
        check_output_picture(path, [source, depth_model, Path(base)])
    check_positive("--depth-scale", depth_scale)
    check_positive("--focal", focal)
    check_finite("--guidance-scale", guidance_scale)
    check_finite("--strength", strength)
    wanted = None if size is None else parse_size(size)
    scene_on = _scene_of(source, depth_scale, focal, depth_model)
    require_extra("diffusion", "alberti draw")

    import torch

    from alberti.families.adapters import family_of
    from alberti.families.drawing import draw as draw_picture
    from alberti.families.drawing import load_pipeline
    from alberti.guidance import VanishingGuidance
    from alberti.images import write_image

    where = check_device(device)
    scene = scene_on(where)
    pipe = load_pipeline(base, controlnet, dtype=torch.float32 if where == "cpu" else torch.bfloat16).to(where)
    scene = scene.resized(*_fitting(wanted or scene.size, family_of(pipe).size_multiple(pipe)))
    options: dict[str, Any] = {} if guidance_scale is None else {"guidance_scale": guidance_scale}
    options |= {"steps": steps, "seed": seed}
    points = scene.vanishing_points()
    if len(points) and strength > 0:
        guide = VanishingGuidance(
            points,
            depth=scene.depth if scene.metric else None,
            camera=scene.camera,
            surfaces=scene.metric,
            strength=strength,
        )
        with guide.attached(pipe):
            guided = draw_picture(pipe, scene.depth, prompt, **options)
    else:
        guided = draw_picture(pipe, scene.depth, prompt, **options)
    write_image(out, guided)
    told = scene.told(len(points)) if strength > 0 else "strength 0, so it is not guided"
    print(f"{out}: {guided.shape[1]} x {guided.shape[0]}, {told}")
    if compare:
        beside = out.with_suffix(".compare.png")
        plain = draw_picture(pipe, scene.depth, prompt, **options)
        write_image(beside, _side_by_side([plain, guided], points if lines else None))
        print(f"{beside}: without and with guidance")


@dataclass(frozen=True)
class _Scene:
    """A depth map to draw: metres, or with ``metric`` False only something like them; of a photo, that photo as well."""

    depth: np.ndarray
    metric: bool
    camera: "Camera | None"
    camera_source: str
    photo: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.depth.shape[1], self.depth.shape[0]

    def resized(self, width: int, height: int) -> "_Scene":
        from alberti.data.transforms import resize_depth, resize_image

        if (width, height) == self.size:
            return self
        camera = None if self.camera is None else self.camera.resize(width, height)
        photo = None if self.photo is None else resize_image(self.photo, (width, height))
        return _Scene(resize_depth(self.depth, (width, height)), self.metric, camera, self.camera_source, photo)

    def vanishing_points(self) -> np.ndarray:
        """(K, 3) homogeneous pixels; (0, 3) also where no surface runs along any of them."""
        from alberti.annotate import annotate_image
        from alberti.geometry.depth_points import vanishing_points_from_depth
        from alberti.geometry.surfaces import points_on_surfaces

        if self.photo is not None:
            points = np.array(annotate_image(self.photo, camera=self.camera)["vanishing_points"]).reshape(-1, 3)
        else:
            points = vanishing_points_from_depth(self.depth, self.camera)
        idle = self.metric and self.camera is not None and not points_on_surfaces(self.depth, points, self.camera).any()
        return points[:0] if idle else points

    def told(self, count: int) -> str:
        where = "the photo's line segments" if self.photo is not None else "the depth map's planes"
        if not count:
            return f"no vanishing points in {where} that a surface runs along, so it is not guided"
        focal = "" if self.camera is None else f", focal length {self.camera.fx:.0f} pixels ({self.camera_source})"
        return f"guided by {count} vanishing points of {where}{focal}"


def _scene_of(source: Path, scale: float, focal: float | None, depth_model: Path | None) -> Callable[[str], _Scene]:
    """What makes the scene on a device. What can be wrong with the arguments is said before that."""
    depth = _depth_map(source, scale)
    if depth is not None:
        return lambda device: _mapped(depth, focal)
    if depth_model is None:
        raise ConfigError(
            f"{source}: has 8 bits, so it is no depth map (16-bit PNG, or .npy in metres); if it is a photo, name a model "
            "with --depth-model FOLDER to see its depth"
        )
    if not depth_model.exists():
        raise DataError(f"--depth-model {depth_model}: no such folder of a depth model")
    require_extra("depth", "alberti draw with --depth-model")
    return partial(_photo, source, focal, depth_model)


def _mapped(depth: np.ndarray, focal: float | None) -> _Scene:
    from alberti.geometry.depth_points import points_of_depth

    camera, told = _camera(focal, depth.shape), "given"
    if camera is None:
        found = points_of_depth(depth)
        camera, told = found.camera, found.camera_source
    return _Scene(depth, True, camera, told)


def _depth_map(source: Path, scale: float) -> np.ndarray | None:
    """(H, W) metres; None for a photo."""
    depth = _read_depth(source, scale)
    if depth is not None and not (depth > 0).any():
        raise DataError(f"{source}: no pixel of this depth map has a measurement (a value above 0)")
    if depth is not None:
        from alberti.geometry.depth_units import refuse_too_deep

        refuse_too_deep(depth, str(source))
    return depth


def _read_depth(source: Path, scale: float) -> np.ndarray | None:
    from PIL import Image

    from alberti.images import read_depth
    from alberti.reading import read_array

    if source.is_dir():
        raise DataError(f"{source}: a folder; name one depth map or photo")
    if not source.is_file():
        raise DataError(f"{source}: no such depth map or photo")
    if source.suffix.lower() == ".npy":
        values = read_array(source, what="depth map")
        if values.ndim != 2 or not np.isfinite(values).all() or (values < 0).any():
            raise DataError(f"{source}: expected (H, W) finite metres, 0 = no measurement, got {values.dtype} {values.shape}")
        return values.astype(np.float32)
    try:
        with Image.open(source) as opened:
            deep = opened.mode.startswith("I")
    except OSError as error:
        raise DataError(f"{source}: neither a depth map nor a photo that can be read ({error})") from error
    return read_depth(source, scale) if deep else None


def _photo(source: Path, focal: float | None, depth_model: Path, device: str) -> _Scene:
    from alberti.annotate import annotate_image
    from alberti.depth.models import DepthModel
    from alberti.depth.predict import predict_array
    from alberti.images import read_image

    photo = read_image(source)
    network = DepthModel.load(depth_model).to(device)
    seen = predict_array(network, photo)
    metric = network.kind == "metric"
    depth = seen if metric else 1 / np.maximum(seen - seen.min(), 1e-3 * np.ptp(seen) + 1e-9)
    camera, told = _camera(focal, depth.shape), "given"
    if camera is None:
        camera, told = _camera(annotate_image(photo)["focal"], depth.shape), "estimated"
    return _Scene(depth.astype(np.float32), metric and camera is not None, camera, told, photo)


def _camera(focal: float | None, shape: tuple[int, ...]) -> "Camera | None":
    from alberti.geometry.camera import Camera

    height, width = shape
    return None if focal is None else Camera(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)


def _fitting(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """The nearest size that the model can make."""
    width, height = (max(multiple, round(side / multiple) * multiple) for side in size)
    return width, height


def _side_by_side(pictures: list[np.ndarray], points: np.ndarray | None) -> np.ndarray:
    from alberti.overlays import draw_vanishing_lines

    rows = [np.concatenate(pictures, axis=1)]
    if points is not None:
        rows.append(np.concatenate([draw_vanishing_lines(each, points) for each in pictures], axis=1))
    return np.concatenate(rows)


def parse_size(text: str) -> tuple[int, int]:
    """``"WxH"`` -> (width, height); ConfigError otherwise."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        width = height = 0
    if width < 1 or height < 1:
        raise ConfigError(f"--size: expected WIDTHxHEIGHT in pixels, say 768x512, got {text!r}")
    return width, height
