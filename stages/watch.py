"""Stage watch@<role>: a digest of the names, sizes and times of a role's own files, in `fingerprints/<role>/files.json`.

It runs at every `dvc repro`. While the digest is the same, `prepare@<role>` is skipped. DVC itself would hash every file.
"""

from pathlib import Path

from alberti.data.fingerprint import folder_fingerprint
from alberti.errors import ConfigError, DataError
from alberti.files import sha256_file, write_json
from stages.shared.graph import Instance
from stages.shared.layout import Layout
from stages.shared.params import Params
from stages.shared.running import run_stage
from stages.shared.source_params import SourceParams


def watch(layout: Layout, params: Params, instance: Instance) -> None:
    """Sum up the folders and lists that `prepare.<role>` reads. Where they lie is not part of it."""
    role = instance["name"]
    section = params.prepare.roles()[role]
    if not section.roots(layout):
        raise ConfigError(f"watch: prepare.{role} has no data of yours to look at; take {role} off the list")
    lists = {}
    for name, path in section.files(layout).items():
        if not path.is_file():
            raise DataError(f"prepare.{role}.options.{name}: no such file: {path}")
        lists[name] = sha256_file(path)
    folders = [folder_fingerprint(root) for root in _folders(section, layout)]
    write_json(layout.fingerprint(role) / "files.json", {"folders": folders, "lists": lists})


def _folders(section: SourceParams, layout: Layout) -> list[Path]:
    roots = section.roots(layout)
    if section.source == "kitti":
        from alberti.data.kitti.reader import KittiReader

        # annotated depth may lie beside KITTI's raw recordings
        depth = KittiReader(roots[0]).depth_root
        if not depth.resolve().is_relative_to(roots[0].resolve()):
            roots.append(depth)
    return roots


if __name__ == "__main__":
    run_stage(watch)
