"""The data sets that the paper profile names, below `datasets/`, filled with rendered streets."""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

from alberti.data.kitti import KittiRecord, write_kitti
from alberti.data.scenes import VELO_TO_CAMERA, RenderedScene, SceneConfig, lidar_scan, render_scenes
from pipeline.rehearsal.layouts import write_holicity_lists, write_holicity_view, write_synthia_al, write_vkitti2
from pipeline.rehearsal.sizes import Size

_SEED = 0


def write_datasets(root: Path, size: Size, device: str) -> None:
    """Write ``root/{holicity,vkitti2,synthia_al,kitti}``, and ``splits/`` beside ``root``, in the native layouts."""
    write_holicity(root / "holicity", size, device)
    frames = list(_scenes("vkitti2", size.vkitti2, size, device, camera="kitti"))
    write_vkitti2(root / "vkitti2", "Scene01", "clone", frames)
    frames = list(_scenes("synthia", size.synthia, size, device, camera="street"))
    write_synthia_al(root / "synthia_al", "train", "test5_10segs_weather_2_spawn_1/12-11-2018_12-47-37", frames)
    write_kitti_with_lists(root / "kitti", root.parent / "splits", size)


def write_holicity(root: Path, size: Size, device: str) -> None:
    """HoliCity with its splits. One view has neither caption nor labelled vanishing points, as some of its own."""
    paths, captions = [], {}
    for index, scene in enumerate(_scenes("holicity", size.holicity, size, device, camera="street")):
        last = index == size.frames - 1
        name = f"{index:04d}heFyix0weuW7Kzd6A_BLg_LD_012_40"
        path = write_holicity_view(root, "2008-07", name, scene, with_label=not last)
        paths.append(path)
        if not last:
            captions[path] = scene.caption
    (other,) = _scenes("holicity-valid", size.holicity, size, device, camera="street", count=1)
    valid = write_holicity_view(root, "2009-01", "uU3o0nWEvcYBaZmAJ2XTtQ_HD_130_00", other)
    write_holicity_lists(root, {"train": paths, "valid": [valid]}, captions)


def write_kitti_with_lists(root: Path, splits: Path, size: Size) -> None:
    """KITTI raw with scans, calibration and annotated depth; the Eigen lists in ``splits``."""
    write_kitti(root, _kitti_records(size), velo_to_cam=VELO_TO_CAMERA)
    splits.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val", "test"):
        (root / "splits" / f"{split}.txt").rename(splits / f"eigen_{split}_files.txt")
    (root / "splits").rmdir()


def _kitti_records(size: Size) -> Iterator[KittiRecord]:
    for split in ("train", "val", "test"):
        for index, pixels in zip(range(size.frames), cycle(size.kitti)):
            (scene,) = _scenes(f"kitti-{split}-{index}", pixels, size, "cpu", camera="kitti", count=1)
            points = lidar_scan(scene, seed=_SEED)
            yield KittiRecord(scene.image, scene.camera, split, depth=scene.depth, points=points)


def _scenes(
    name: str, pixels: tuple[int, int], size: Size, device: str, *, camera: str, count: int | None = None
) -> Iterator[RenderedScene]:
    style = "kitti" if camera == "kitti" else "mixed"
    config = SceneConfig(style, pixels[0], pixels[1], size.supersample, camera)
    ids = [f"{name}-{index}" for index in range(count or size.frames)]
    return render_scenes(ids, _SEED, config, device=device)
