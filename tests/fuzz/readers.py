"""Every reader of a file, with sound files to damage: what the fuzz runs, and counts by name."""

import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from alberti.annotate import read_annotations
from alberti.commands.evaluate_depth import _read_table
from alberti.data.caption_files import read_captions
from alberti.data.depth_formats import read_depth_as
from alberti.data.diode import DiodeReader
from alberti.data.fingerprint import FileIndex, read_image_size
from alberti.data.holicity import open_holicity
from alberti.data.kitti import read_calibration, read_scan, read_split
from alberti.data.manifest import Dataset, Sample, write_dataset
from alberti.data.sources import open_source
from alberti.depth.models import DepthModel, build_depth_model
from alberti.diffusion.folders import check_tokenizer, check_weights, conditioning_of
from alberti.files import read_json
from alberti.images import read_depth, read_image
from alberti.metrics.predictions import check_kind, read_prediction
from alberti.partial_file import PartialFile
from alberti.score import GivenPoints
from alberti.weights import read_weights


@dataclass(frozen=True)
class Reader:
    """A file that is read: how a sound one is made below a folder, and what reads it."""

    name: str
    make: Callable[[Path], Path]
    """Writes sound files below a folder; returns the one to damage."""
    read: Callable[[Path], Any]
    """Reads the file of that path."""
    count: int = 150
    span: tuple[int, int] | None = None
    """The bytes that are damaged; None: all."""
    mend: Callable[[bytes], bytes] = bytes
    """What is done to a damaged file, so that the damage is not all that a check sum shows."""


def _picture() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))


def _image(suffix: str, **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        exif = Image.Exif()
        exif[0x0112] = 6
        picture = _picture() if suffix != ".gif" else _picture().quantize(8)
        picture.save(folder / f"a{suffix}", **({"exif": exif} if suffix in (".jpg", ".png", ".webp") else {}), **options)
        return folder / f"a{suffix}"

    return make


def _rich_png(folder: Path) -> Path:
    """A PNG with text, a profile, transparency and a time."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("prompt", "a street " * 40, zip=True)
    info.add_itxt("title", "Straße", "de", "Titel")
    buffer = io.BytesIO()
    _picture().convert("RGBA").save(buffer, "PNG", pnginfo=info, icc_profile=b"\0" * 200, dpi=(72, 72))
    (folder / "a.png").write_bytes(buffer.getvalue())
    return folder / "a.png"


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the check sums of what they hold now."""
    parts, place = [data[:8]], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        body = data[place + 4 : place + 8 + length]
        parts += [data[place : place + 4], body, struct.pack(">I", zlib.crc32(body))]
        place += 12 + length
    return b"".join([*parts, data[place:]])


def _tagged_jpeg(folder: Path) -> Path:
    """A JPEG with EXIF of several kinds, its block first in the file."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A], exif[0x8827] = 6, "maker", 72.5, 100
    exif.get_ifd(0x8825).update({1: "N", 2: (50.0, 30.0, 1.5)})
    _picture().save(folder / "a.jpg", exif=exif)
    return folder / "a.jpg"


def _gray16(folder: Path) -> Path:
    Image.fromarray(np.arange(192, dtype=np.uint16).reshape(12, 16) * 300).save(folder / "a.png")
    return folder / "a.png"


def _float_tiff(folder: Path) -> Path:
    Image.fromarray(np.linspace(0, 1, 192, dtype=np.float32).reshape(12, 16)).save(folder / "a.tif")
    return folder / "a.tif"


def _npy(folder: Path) -> Path:
    np.save(folder / "a.npy", np.arange(192, dtype=np.float32).reshape(12, 16))
    return folder / "a.npy"


def _npz(folder: Path) -> Path:
    np.savez_compressed(folder / "a.npz", depth=np.arange(192, dtype=np.float32).reshape(12, 16))
    return folder / "a.npz"


def _text(name: str, text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        return folder / name

    return make


def _captions(path: Path) -> object:
    return read_captions(path.parent, [path.name], ["a.png", "b/c.png"])


_DATE, _DRIVE = "2011_09_26", "2011_09_26_drive_0002_sync"
_SPLIT = f"{_DATE}/{_DRIVE} 0000000069 l\n{_DATE}/{_DRIVE}/image_02/data/0000000070.png None 721.5377\n"
_CALIBRATION = (
    "S_rect_02: 1.242000e+03 3.750000e+02\nR_rect_00: 1 0 0 0 1 0 0 0 1\n"
    "P_rect_02: 721.5 0 609.5 44.8 0 721.5 172.8 0.2 0 0 1 0.002\nP_rect_03: 721.5 0 609.5 -339 0 721.5 172.8 2.2 0 0 1 0.002\n"
)


def _calibration(folder: Path) -> Path:
    (folder / "calib_velo_to_cam.txt").write_text("R: 0 -1 0 0 0 -1 1 0 0\nT: 0 -0.08 -0.27\n")
    return _text("calib_cam_to_cam.txt", _CALIBRATION)(folder)


def _scan(folder: Path) -> Path:
    np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32).tofile(folder / "0.bin")
    return folder / "0.bin"


def _vkitti2(folder: Path) -> Path:
    take = folder / "Scene01/clone"
    for kind in ("rgb", "depth"):
        (take / "frames" / kind / "Camera_0").mkdir(parents=True)
    _picture().save(take / "frames/rgb/Camera_0/rgb_00000.jpg")
    Image.fromarray(np.full((12, 16), 900, np.uint16)).save(take / "frames/depth/Camera_0/depth_00000.png")
    return _text("intrinsic.txt", "frame cameraID K K K K\n0 0 9.3 9.3 7.5 5.5\n")(take)


def _synthia(folder: Path) -> Path:
    take = folder / "train/one/day"
    for kind in ("RGB", "Depth"):
        (take / kind).mkdir(parents=True)
        _picture().save(take / kind / "000.png")
    return _text("calib_kitti/000.txt", "P0: 1\nP2: 20 0 8 0 0 20 6 0 0 0 1 0\n")(take)


def _holicity(file: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        view = folder / "2008-07/place_HD_060_20"
        view.parent.mkdir(parents=True)
        _picture().resize((16, 16)).save(f"{view}_imag.png")
        np.savez(f"{view}_dpth.npz", depth=np.full((16, 16), 9.0, np.float32))
        np.savez(f"{view}_camr.npz", fov=np.array(90.0))
        np.savez(f"{view}_vpts.npz", vpts=np.eye(3), confidence=np.full(3, 900.0))
        (folder / "train-middlesplit.txt").write_text("2008-07/place\n")
        (folder / "captions_depth.json").write_text(json.dumps({"2008-07/place_HD_060_20_imag": "a street"}))
        (folder / "vpts_depth.json").write_text(json.dumps({"2008-07/place_HD_060_20_imag": [[10.5, 3], [0, 0]]}))
        return folder / file if not file.startswith("_") else Path(f"{view}{file}")

    return make


def _read_holicity(path: Path) -> object:
    root = next(folder for folder in path.parents if (folder / "2008-07").is_dir())
    points = "paper" if path.name == "vpts_depth.json" else None
    split = "train" if path.name.endswith("split.txt") else None
    return list(open_holicity(root, FileIndex(root, hashes=False), split=split, vanishing_points=points).samples)


def _read_source(name: str, up: int) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        root = path.parents[up]
        return list(open_source(name, root, index=FileIndex(root, hashes=False)).samples)

    return read


def _dataset(file: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        _picture().save(folder / "a.png")
        points = [(0.6, 0.8, 0.0)]
        sample = Sample(id="a", image="a.png", width=16, height=12, vanishing_points=points, caption="a street")
        write_dataset(folder, [sample], name="one", role="train", depth_kind=None)
        return folder / file

    return make


_ROW = '{"image": "a.png", "width": 16, "height": 12, "vanishing_points": [[0.6, 0.8, 0.0]], "line_segments": []}\n'


class _Job:
    name, path = "a.png", Path(__file__)


def _resume(path: Path) -> object:
    return list(PartialFile(path.with_name("rows.jsonl"), "this").resume(iter([_Job()]), lambda row: None))


def _cache(folder: Path) -> Path:
    _picture().save(folder / "a.png")
    with FileIndex(folder, folder / "cache.jsonl") as index:
        index.image_size("a.png"), index.sha256("a.png")
    return folder / "cache.jsonl"


def _read_cache(path: Path) -> object:
    index = FileIndex(path.parent, path)
    return index.image_size("a.png"), index.sha256("a.png")


def _safetensors(folder: Path) -> Path:
    save_file({"a": torch.zeros(3, 4), "b": torch.ones(2)}, folder / "a.safetensors")
    return folder / "a.safetensors"


def _torch_file(folder: Path) -> Path:
    torch.save({"model": {"module.a": torch.zeros(3)}}, folder / "a.pth")
    return folder / "a.pth"


def _model_folder(file: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        build_depth_model("pixelformer", "tiny").save(folder)
        return folder / file

    return make


def _base(file: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for part in ("unet", "vae", "tokenizer"):
            (folder / part).mkdir()
        (folder / "unet/config.json").write_text('{"in_channels": 5}')
        (folder / "vae/config.json").write_text('{"latent_channels": 4}')
        save_file({"a": torch.zeros(3)}, folder / "unet/diffusion_pytorch_model.safetensors")
        index = {"metadata": {}, "weight_map": {"a": "diffusion_pytorch_model-00001-of-00001.safetensors"}}
        (folder / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
        (folder / "tokenizer/tokenizer.json").write_text("{}")
        return folder / file

    return make


def _read_base(path: Path) -> object:
    return conditioning_of(path.parents[1]), check_weights(path.parents[1], "unet"), check_tokenizer(path.parents[1])


def _tokenizer(folder: Path) -> Path:
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    vocabulary = {"a</w>": 0, "b</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=8).save_pretrained(folder / "tokenizer")
    return folder / "tokenizer/tokenizer.json"


def _read_tokenizer(path: Path) -> object:
    from alberti.diffusion.model import _read_tokenizer as read

    check_tokenizer(path.parents[1])
    return read(path.parents[1])


_TABLE = "id,abs_rel,sq_rel,rmse,rmse_log,silog,log10,d1,d2,d3\na,0.1,0.1,1,0.1,9,0.1,0.9,0.9,0.9\n"
_DIODE = "00022_00193_outdoor_010_000"


def _diode(file: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        np.save(folder / f"{_DIODE}_depth.npy", np.full((6, 8, 1), 9.0, np.float32))
        np.save(folder / f"{_DIODE}_depth_mask.npy", np.ones((6, 8)))
        (folder / "list.txt").write_text(f"outdoor/{_DIODE}.png outdoor/{_DIODE}_depth.npy\n")
        return folder / file

    return make


def _read_diode(path: Path) -> object:
    reader = DiodeReader(path.parent)
    return [reader.depth(frame) for frame in reader.frames(path if path.suffix == ".txt" else None)]


def _captions_file(name: str, text: str) -> Reader:
    return Reader(f"captions {name}", _text(name, text), _captions)


READERS = [
    *(
        Reader(f"{read.__name__} {suffix}", _image(suffix), read, count=count)
        for suffix in (".png", ".jpg", ".tif", ".bmp", ".webp", ".gif")
        for read, count in ((read_image, 200), (read_image_size, 80))
    ),
    Reader("read_image lzw.tif", _image(".tif", compression="tiff_lzw"), read_image),
    Reader("read_image .avif", _image(".avif"), read_image, count=60),
    Reader("read_image .jp2", _image(".jp2"), read_image, count=60),
    Reader("read_image rich.png", _rich_png, read_image, count=400, mend=_with_checksums),
    Reader("read_image_size rich.png", _rich_png, read_image_size, mend=_with_checksums),
    Reader("read_image EXIF", _tagged_jpeg, read_image, count=400, span=(2, 220)),
    Reader("read_image_size EXIF", _tagged_jpeg, read_image_size, count=400, span=(2, 220)),
    Reader("read_image float.tif", _float_tiff, read_image),
    Reader("read_depth png16", _gray16, read_depth),
    Reader("depth vkitti2", _gray16, lambda path: read_depth_as(path, "vkitti2", 100.0)),
    Reader("depth synthia_rgb", _image(".png"), lambda path: read_depth_as(path, "synthia_rgb")),
    Reader("depth npy", _npy, lambda path: read_depth_as(path, "npy")),
    Reader("depth npz", _npz, lambda path: read_depth_as(path, "npz:depth")),
    Reader("prediction npy", _npy, read_prediction),
    Reader("prediction png", _gray16, read_prediction),
    Reader("predictions.json", _text("predictions.json", '{"kind": "metric"}'), lambda path: check_kind(path.parent, "none")),
    Reader("evaluation table", _text("a.csv", _TABLE), _read_table),
    Reader("KITTI split", _text("a.txt", _SPLIT), read_split),
    Reader("KITTI calibration", _calibration, lambda path: read_calibration(path.parent)),
    Reader("KITTI scan", _scan, read_scan),
    Reader("DIODE list.txt", _diode("list.txt"), _read_diode),
    Reader("DIODE depth", _diode(f"{_DIODE}_depth.npy"), _read_diode),
    Reader("DIODE mask", _diode(f"{_DIODE}_depth_mask.npy"), _read_diode),
    Reader("vkitti2 intrinsic.txt", _vkitti2, _read_source("vkitti2", 2)),
    Reader("synthia_al calibration", _synthia, _read_source("synthia_al", 4)),
    *(
        Reader(f"holicity {file}", _holicity(file), _read_holicity, count=100)
        for file in ("_camr.npz", "_vpts.npz", "_imag.png", "train-middlesplit.txt", "captions_depth.json", "vpts_depth.json")
    ),
    _captions_file("captions.json", '{"a.png": "a street", "b/c.png": {"caption": "two"}}'),
    _captions_file("metadata.jsonl", '{"file_name": "a.png", "text": "a street"}\n{"file_name": "c.png", "text": "two"}\n'),
    _captions_file("captions.csv", "file_name,text\na.png,a street\nc.png,two\n"),
    Reader("captions COCO", _text("captions.json", json.dumps({"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "caption": "x"}]})), _captions),  # noqa: E501
    Reader("captions a.txt", _text("a.txt", "a street\n"), _captions),
    Reader("dataset.json", _dataset("dataset.json"), lambda path: Dataset.open(path.parent)),
    Reader("manifest.jsonl", _dataset("manifest.jsonl"), lambda path: Dataset.open(path.parent)),
    Reader("annotations", _text("a.jsonl", _ROW * 2), lambda path: list(read_annotations(path))),
    Reader("given points", _text("a.jsonl", _ROW), lambda path: GivenPoints(path).row("a.png")),
    Reader("partial file", _text("rows.jsonl.partial", '{"run": "this"}\n' + _ROW), _resume),
    Reader("file index", _cache, _read_cache),
    Reader("JSON", _text("a.json", '{"a": [1, 2, {"b": null}], "c": "text"}'), read_json),
    Reader("weights .safetensors", _safetensors, read_weights),
    Reader("weights .pth", _torch_file, read_weights),
    Reader("depth model config.json", _model_folder("config.json"), DepthModel.load, count=20),
    Reader("depth model depth_model.json", _model_folder("depth_model.json"), DepthModel.load, count=20),
    *(
        Reader(f"base {file}", _base(file), _read_base, count=80)
        for file in ("unet/config.json", "vae/config.json", "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.safetensors.index.json")  # noqa: E501
    ),
    Reader("tokenizer.json", _tokenizer, _read_tokenizer, count=15),
]  # fmt: skip


def fresh(folder: Path) -> Path:
    """The folder, emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
