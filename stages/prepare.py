"""Stage prepare@<role>: one role's data set in `data/<role>/`.

`train` and `condition` are data-set folders. `kitti` and `test` have KITTI's raw layout and split lists as well: rendered
streets are written in it, so that they go through the reader that KITTI itself goes through. Of data that the user has,
only manifests are written, nothing is copied; with `fit`, crops of the size that it names are.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

from alberti.data.fingerprint import FileIndex
from alberti.data.kitti import KittiHashes, KittiReader, KittiRecord, kitti_samples, read_split, write_kitti
from alberti.data.manifest import Sample, write_dataset
from alberti.data.scenes import VELO_TO_CAMERA, lidar_scan, render_dataset, render_scenes
from alberti.data.source import Source
from alberti.data.sources import evenly, limited, open_source, write_fitted, write_source
from alberti.device import choose_device
from alberti.errors import ConfigError
from alberti.files import atomic_folder, write_text
from alberti.parallel import core_count, ordered_results
from alberti.progress import track
from stages.common import CHECKPOINTS, run_stage
from stages.params import Params
from stages.source_params import KITTI_ROLES, ROLES, SceneParams, SourceParams

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
            _index(out, role, section)
        else:
            assert section.scenes is not None
            render = _render_kitti if role in KITTI_ROLES else _render
            render(out, role, section.scenes)


def _index(out: Path, role: str, section: SourceParams) -> None:
    """Index the role's sources where they lie, or write crops of them where the section has a size for them."""
    with ExitStack() as stack:
        sources: list[Source] = []
        for native, root in zip(section.natives(), section.roots(), strict=True):
            cache = CHECKPOINTS / "index" / f"{role}{len(sources) or ''}.jsonl"
            # of crops, their own bytes count: the originals would be hashed for nothing
            index = stack.enter_context(FileIndex(root, cache, hashes=section.fit is None))
            source = open_source(native.source, root, index=index, **native.located_options())
            sources.append(limited(source, native.limit, index))
        captions, where = section.located_captions(), str(choose_device())
        if section.fit is None:
            write_source(sources[0], out, role=role, captions=captions, device=where)
        else:
            fit, workers = section.fit, core_count()
            write_fitted(sources, out, role=role, fit=fit, captions=captions, device=where, workers=workers)


def _render(out: Path, role: str, scenes: SceneParams) -> None:
    count = scenes.count
    where = str(choose_device())
    render_dataset(
        out, name="streets", role=role, count=count, seed=scenes.seed, config=scenes.library_config(), device=where,
        workers=_workers(count) if where == "cpu" else 1,
    )  # fmt: skip


def _render_kitti(out: Path, role: str, scenes: SceneParams) -> None:
    write_kitti(out, track(_records(role, scenes), f"rendering {role}", scenes.count), velo_to_cam=VELO_TO_CAMERA)
    reader = KittiReader(out)
    _write_kitti_manifest(out, reader, role, list(scenes.splits), "streets-kitti", ("raw", "depth"))


def _workers(count: int) -> int:
    """Processes that pay for their start."""
    return core_count() if count >= _WORTH_PROCESSES else 1


def _records(role: str, scenes: SceneParams) -> Iterator[KittiRecord]:
    jobs = ((split, f"{role}-{split}-{index:06d}", scenes) for split, count in scenes.splits.items() for index in range(count))
    return ordered_results(_record, jobs, _workers(scenes.count))


def _record(job: tuple[str, str, SceneParams]) -> KittiRecord:
    """One street with its scan, on the CPU: the scan is traced there anyway."""
    split, name, scenes = job
    (scene,) = render_scenes([name], scenes.seed, scenes.library_config())
    points = lidar_scan(scene, seed=scenes.seed)
    return KittiRecord(scene.image, scene.camera, split, depth=scene.depth, points=points)


def _index_kitti(out: Path, role: str, section: SourceParams) -> None:
    if not section.options:
        raise ConfigError(
            f"prepare.{role}.options: KITTI needs the list of frames of each split, say {{test: eigen_test_files.txt}}"
        )
    reader = KittiReader(*section.roots())
    for split, file in section.files().items():
        frames = read_split(file)
        if section.annotated_only:
            frames = reader.annotated(frames)
        if section.limit is not None:
            frames = evenly(frames, section.limit)
        # evaluation reads this list as well, so it holds what the manifest holds
        write_text(out / "splits" / f"{split}.txt", "\n".join(frame.line() for frame in frames) + "\n")
    roots = (str(reader.raw.resolve()), str(reader.depth_root.resolve()))
    _write_kitti_manifest(out, reader, role, list(section.options), "kitti", roots)


def _write_kitti_manifest(
    out: Path, reader: KittiReader, role: str, splits: list[str], name: str, roots: tuple[str, str]
) -> None:
    """Rows of every split. Only frames that have annotated depth train; a test has all frames of its list, since protocols
    on raw scans need no annotation: their rows have the scans' digests, so that another scan makes another data set.
    """
    cache = CHECKPOINTS / "index" / f"{role}.jsonl" if name == "kitti" else None

    def rows(hashes: KittiHashes) -> Iterator[Sample]:
        for split in splits:
            frames = read_split(out / "splits" / f"{split}.txt")
            if role != "test":
                frames = reader.annotated(frames)
            reader.check(frames, image=True)  # all at once: an error then lists every image that is missing
            hashes.prefetch(frames)
            for annotated, run in groupby(frames, reader.has_annotated):
                depth = "annotated" if annotated else None
                yield from kitti_samples(reader, list(run), depth=depth, split=split, hashes=hashes)

    notes = "procedurally rendered streets in KITTI's layout" if name != "kitti" else ""
    with KittiHashes(reader, cache, scans=role == "test") as hashes:
        write_dataset(out, rows(hashes), name=name, role=role, root=roots[0], depth_root=roots[1], notes=notes)


if __name__ == "__main__":
    run_stage(prepare, lambda _: ROLES)
