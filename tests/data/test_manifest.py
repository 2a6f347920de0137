"""Data-set folders: what is accepted, and how each kind of damage is reported."""

import json

import numpy as np
import pandas as pd
import pytest

from alberti.data.manifest import Dataset, Sample, write_dataset
from alberti.errors import DataError
from alberti.files import sha256_file
from alberti.images import write_depth, write_image


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    samples = []
    for name in ("a", "b"):
        write_image(tmp_path / f"images/{name}.png", rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        write_depth(tmp_path / f"depth/{name}.png", rng.uniform(1, 50, (6, 8)).astype(np.float32))
        samples.append(
            Sample(
                id=name,
                image=f"images/{name}.png",
                depth=f"depth/{name}.png",
                width=8,
                height=6,
                intrinsics=(9.0, 9.0, 3.5, 2.5),
                vanishing_points=[(0.6, 0.0, 0.8), (1.0, 0.0, 0.0)],
                caption="a street",
                sha256={"image": sha256_file(tmp_path / f"images/{name}.png")},
            )
        )
    write_dataset(tmp_path, samples, name="tiny", role="train")
    return tmp_path


def _edit(folder, **changes):
    info = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**info, **changes}))


def _edit_row(folder, **changes):
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), **changes})
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")


def test_what_was_written_is_read_back(folder):
    dataset = Dataset.open(folder, check_files=True)
    sample = dataset.by_id("b")
    assert len(dataset) == 2
    assert sample.vanishing_points == [(0.6, 0.0, 0.8), (1.0, 0.0, 0.0)]
    assert dataset.read_image(sample).shape == (6, 8, 3)
    assert dataset.read_depth(sample).dtype == np.float32
    camera = dataset.camera(sample)
    assert (camera.fx, camera.width) == (9.0, 8)


def test_pandas_reads_the_manifest(folder):
    table = pd.read_json(folder / "manifest.jsonl", lines=True)
    assert list(table["id"]) == ["a", "b"]


def test_the_fingerprint_follows_the_rows(folder):
    before = Dataset.open(folder)
    again = write_dataset(folder, before.samples, name="tiny", role="train").info.fingerprint
    changed = [before[0], before[1].model_copy(update={"caption": "another"})]
    assert again == before.info.fingerprint
    assert write_dataset(folder, changed, name="tiny", role="train").info.fingerprint != again


@pytest.mark.parametrize("path", ["../outside.png", "/etc/passwd", "images/../../x.png"])
def test_a_row_that_points_outside_its_root_is_refused(folder, path):
    _edit_row(folder, image=path)
    with pytest.raises(DataError, match=r"line 2: image .* outside"):
        Dataset.open(folder)


def test_another_schema_version_is_refused(folder):
    _edit(folder, schema_version=99)
    with pytest.raises(DataError, match="schema version 99"):
        Dataset.open(folder)


def test_an_unknown_column_is_named(folder):
    _edit_row(folder, captoin="x")
    with pytest.raises(DataError, match=r"line 2: captoin"):
        Dataset.open(folder)


@pytest.mark.parametrize("identifier", ["a/b", "", ".hidden"])
def test_an_id_that_is_no_file_name_is_refused(folder, identifier):
    _edit_row(folder, id=identifier)
    with pytest.raises(DataError, match="file name"):
        Dataset.open(folder)


def test_duplicate_ids_are_refused(folder):
    _edit_row(folder, id="a")
    with pytest.raises(DataError, match="not unique"):
        Dataset.open(folder)


def test_a_cut_manifest_is_noticed(folder):
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    (folder / "manifest.jsonl").write_text(lines[0] + "\n")
    with pytest.raises(DataError, match=r"1 rows, but dataset.json says 2"):
        Dataset.open(folder)


def test_an_empty_data_set_is_refused(tmp_path):
    with pytest.raises(DataError, match="empty"):
        write_dataset(tmp_path, [], name="none", role="train")


def test_a_folder_that_is_no_data_set_says_what_stands_there(tmp_path):
    (tmp_path / "photo.png").touch()
    with pytest.raises(DataError, match=r"expected dataset\.json.*photo\.png"):
        Dataset.open(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        Dataset.open(tmp_path / "nowhere")


def test_missing_and_changed_files_are_found(folder):
    write_image(folder / "images/b.png", np.zeros((6, 8, 3), dtype=np.uint8))
    with pytest.raises(DataError, match=r"b\.png: changed"):
        Dataset.open(folder, check_files=True)
    (folder / "images/b.png").unlink()
    with pytest.raises(DataError, match=r"b\.png: missing"):
        Dataset.open(folder, check_files=True)


def test_depth_of_another_size_is_refused(folder):
    write_depth(folder / "depth/a.png", np.ones((3, 4), dtype=np.float32))
    dataset = Dataset.open(folder)
    with pytest.raises(DataError, match="4 x 3 pixels, but the manifest says 8 x 6"):
        dataset.read_depth(dataset[0])


def test_inverse_depth_is_never_taken_for_metres(folder):
    Dataset.open(folder).require_metric_depth()
    _edit(folder, depth_kind="inverse")
    with pytest.raises(DataError, match="depth of kind 'inverse'"):
        Dataset.open(folder).require_metric_depth()
