"""A test set of another layout than KITTI's raw one: where it lies, and what its files were."""

from pathlib import Path

from alberti.data.fingerprint import folder_fingerprint
from alberti.errors import DataError
from alberti.files import sha256_file, write_json
from stages.shared.layout import Layout
from stages.shared.source_params import SourceParams

FILE = "test_set.json"


def write(layout: Layout, out: Path, role: str, section: SourceParams) -> None:
    """Write `test_set.json`: layout, root and list of frames, with fingerprints: another file makes another test set."""
    (root,) = section.roots(layout)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; prepare.{role}.root names where the test set lies")
    split = section.files(layout).get("test")
    if split is not None and not split.is_file():
        raise DataError(f"{split}: no such file; prepare.{role}.options.test names the list of frames")
    write_json(
        out / FILE,
        {
            "layout": section.source,
            "root": str(root),
            "split": None if split is None else str(split),
            "fingerprint": folder_fingerprint(root),
            "split_hash": None if split is None else sha256_file(split),
        },
    )
