"""Stage prepare@<role>: one role's data set in `data/<role>/`.

`train` and `condition` are data-set folders. `kitti` and `test` have KITTI's raw layout and split lists as well: rendered
streets are written in it, so that they go through the reader that KITTI itself goes through. Of data that the user has,
only manifests are written: nothing is copied.
"""

import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from alberti.data.fingerprint import FileIndex
from alberti.data.kitti import KittiReader, KittiRecord, kitti_samples, read_split, write_kitti
from alberti.data.manifest import Sample, write_dataset
from alberti.data.scenes import VELO_TO_CAMERA, SceneConfig, lidar_scan, render_dataset, render_scenes
from alberti.data.sources import evenly, open_source, write_source
from alberti.errors import ConfigError
from alberti.files import atomic_folder, write_text
from alberti.parallel import core_count, ordered_results
from alberti.progress import track
from stages.common import CHECKPOINTS, device, run_stage
from stages.params import ROLES, Params, SceneParams, SourceParams

KITTI_ROLES = ("kitti", "test")
_WORTH_PROCESSES = 48


def prepare(params: Params, role: str) -> None:
    """Render, or index what `prepare.<role>` names."""
    section: SourceParams = getattr(params.prepare, role)
    if (role in KITTI_ROLES) != (section.source == "kitti") and section.source != "scenes":
        raise ConfigError(f"prepare.{role}.source: {section.source} does not fit; kitti and test take kitti or scenes")
    with atomic_folder(Path("data") / role) as out:
        if section.source == "kitti":
            _index_kitti(out, role, section)
        elif section.source != "scenes":
            assert section.root is not None
            with FileIndex(section.root, CHECKPOINTS / "index" / f"{role}.jsonl") as index:
                source = open_source(section.source, section.root, index=index, **section.options)
                write_source(source, out, role=role, limit=section.limit, captions=section.captions, device=device())
        else:
            assert section.scenes is not None
            render = _render_kitti if role in KITTI_ROLES else _render
            render(out, role, section.scenes)


def _render(out: Path, role: str, scenes: SceneParams) -> None:
    count = sum(scenes.splits.values())
    where = device()
    render_dataset(
        out, name="streets", role=role, count=count, seed=scenes.seed, config=_config(scenes), device=where,
        workers=_workers(count) if where == "cpu" else 1,
    )  # fmt: skip


def _render_kitti(out: Path, role: str, scenes: SceneParams) -> None:
    total = sum(scenes.splits.values())
    write_kitti(out, track(_records(role, scenes), f"rendering {role}", total), velo_to_cam=VELO_TO_CAMERA)
    reader = KittiReader(out)
    _write_kitti_manifest(out, reader, role, list(scenes.splits), "streets-kitti", ("raw", "depth"))


def _workers(count: int) -> int:
    """Processes that pay for their start."""
    return core_count() if count >= _WORTH_PROCESSES else 1


def _records(role: str, scenes: SceneParams) -> Iterator[KittiRecord]:
    jobs = ((split, f"{role}-{split}-{index:06d}", scenes) for split, count in scenes.splits.items() for index in range(count))
    return ordered_results(_record, jobs, _workers(sum(scenes.splits.values())))


def _record(job: tuple[str, str, SceneParams]) -> KittiRecord:
    """One street with its scan, on the CPU: the scan is traced there anyway."""
    split, name, scenes = job
    (scene,) = render_scenes([name], scenes.seed, _config(scenes))
    points = lidar_scan(scene, seed=scenes.seed)
    return KittiRecord(scene.image, scene.camera, split, depth=scene.depth, points=points)


def _config(scenes: SceneParams) -> SceneConfig:
    return SceneConfig(**scenes.model_dump(exclude={"splits", "seed"}))


def _index_kitti(out: Path, role: str, section: SourceParams) -> None:
    assert section.root is not None
    reader = KittiReader(section.root)
    (out / "splits").mkdir()
    for split, file in section.options.items():
        frames = read_split(file)
        if section.limit is None:
            shutil.copy(file, out / "splits" / f"{split}.txt")
        else:  # evaluation reads this list as well, so it has to be the shorter one
            lines = [frame.line() for frame in evenly(frames, section.limit)]
            write_text(out / "splits" / f"{split}.txt", "\n".join(lines) + "\n")
    roots = (str(reader.raw.resolve()), str(reader.depth_root.resolve()))
    _write_kitti_manifest(out, reader, role, list(section.options), "kitti", roots)


def _write_kitti_manifest(
    out: Path, reader: KittiReader, role: str, splits: list[str], name: str, roots: tuple[str, str]
) -> None:
    """Rows of every split. Only frames that have annotated depth train; a test has all frames of its list, since protocols
    on raw scans need no annotation.
    """

    def rows() -> Iterator[Sample]:
        for split in splits:
            # in runs of one kind, not frame by frame: an error then lists all files that are missing
            for annotated, run in groupby(read_split(out / "splits" / f"{split}.txt"), reader.has_annotated):
                if annotated or role == "test":
                    yield from kitti_samples(reader, list(run), depth="annotated" if annotated else None, split=split)

    notes = "procedurally rendered streets in KITTI's layout" if name != "kitti" else ""
    write_dataset(out, rows(), name=name, role=role, root=roots[0], depth_root=roots[1], notes=notes)


if __name__ == "__main__":
    run_stage(prepare, lambda _: ROLES)
