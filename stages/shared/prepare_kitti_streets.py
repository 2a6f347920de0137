"""Rendered streets in KITTI's layout, with simulated scans."""

from collections.abc import Iterator
from pathlib import Path

from alberti.data.kitti.reader import KittiReader
from alberti.data.kitti.writer import KittiRecord, write_kitti
from alberti.data.scenes.generate import render_scenes
from alberti.data.scenes.lidar import VELO_TO_CAMERA, lidar_scan
from alberti.parallel import ordered_results
from alberti.progress import track
from stages.shared.kitti_manifest import write_manifest
from stages.shared.layout import Layout
from stages.shared.prepare_streets import workers_for
from stages.shared.source_params import SceneParams, SourceParams
from stages.shared.streets import scene_config


def write(layout: Layout, out: Path, role: str, section: SourceParams) -> None:
    """Render ``section.scenes`` into ``out``, in KITTI's layout."""
    scenes = section.scenes
    assert scenes is not None
    write_kitti(out, track(_records(role, scenes), f"rendering {role}", scenes.count), velo_to_cam=VELO_TO_CAMERA)
    notes = "procedurally rendered streets in KITTI's layout"
    reader = KittiReader(out)
    write_manifest(out, reader, role, list(scenes.splits), "streets-kitti", ("raw", "depth"), cache=None, notes=notes)


def _records(role: str, scenes: SceneParams) -> Iterator[KittiRecord]:
    jobs = ((split, f"{role}-{split}-{index:06d}", scenes) for split, count in scenes.splits.items() for index in range(count))
    return ordered_results(_record, jobs, workers_for(scenes.count))


def _record(job: tuple[str, str, SceneParams]) -> KittiRecord:
    """One street with its scan, on the CPU: the scan is traced there anyway."""
    split, name, scenes = job
    (scene,) = render_scenes([name], scenes.seed, scene_config(scenes))
    points = lidar_scan(scene, seed=scenes.seed)
    return KittiRecord(scene.image, scene.camera, split, depth=scene.depth, points=points)
