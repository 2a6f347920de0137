"""Stage watch@<role>: what `prepare@<role>` would see of the data that the user has, in `fingerprints/<role>/files.json`.

It runs at every `dvc repro`, looks at names, sizes and times only, and writes the same bytes as long as these are the same:
then `prepare` is skipped. DVC itself would hash every file.
"""

from pathlib import Path

from alberti.data.fingerprint import folder_fingerprint
from alberti.data.kitti import KittiReader
from alberti.errors import ConfigError, DataError
from alberti.files import sha256_file, write_json
from stages.common import run_stage
from stages.params import Params
from stages.source_params import ROLES, SourceParams

OUT = Path("fingerprints")


def watch(params: Params, role: str) -> None:
    """Sum up the folders and lists that `prepare.<role>` reads. Where they lie is not part of it."""
    section: SourceParams = getattr(params.prepare, role)
    if not section.roots():
        raise ConfigError(f"watch: prepare.{role} has no data of yours to look at; take {role} off the list")
    lists = {}
    for name, path in section.files().items():
        if not path.is_file():
            raise DataError(f"prepare.{role}.options.{name}: no such file: {path}")
        lists[name] = sha256_file(path)
    folders = [folder_fingerprint(root) for root in _folders(section)]
    write_json(OUT / role / "files.json", {"folders": folders, "lists": lists})


def _folders(section: SourceParams) -> list[Path]:
    roots = section.roots()
    if section.source == "kitti":
        # annotated depth may lie beside KITTI's raw recordings
        depth = KittiReader(roots[0]).depth_root
        if not depth.resolve().is_relative_to(roots[0].resolve()):
            roots.append(depth)
    return roots


if __name__ == "__main__":
    run_stage(watch, lambda params: [role for role in ROLES if role in params.watch])
