"""Captions in the forms that people's tools write, and that none is dropped without a word."""

import json
from pathlib import Path

import pytest

from alberti.data.caption_files import read_captions
from alberti.errors import DataError

PICTURES = ["images/a.png", "images/sub/b.jpg"]
BOTH = {"images/a.png": "CAP A", "images/sub/b.jpg": "CAP B"}
ROWS = [{"file_name": "a.png", "text": "CAP A"}, {"file_name": "sub/b.jpg", "text": "CAP B"}]


def captions(root: Path, files: dict[str, str], pictures: list[str] = PICTURES) -> dict[str, str]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode("utf-16" if name.startswith("utf16") else "utf-8"))
    return read_captions(root, [*files, *pictures], pictures)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("captions.json", json.dumps({"a": "CAP A", "b": "CAP B"})),
        ("captions.json", json.dumps({"/set/images/a.png": "CAP A", "C:\\set\\images\\sub\\b.jpg": "CAP B"})),
        ("captions.json", json.dumps({"./images/A.PNG": "CAP A", "images\\sub\\b.jpg": ["CAP B", "another"]})),
        ("captions.json", json.dumps({"a.jpg": {"caption": "CAP A"}, "b.webp": {"text": " CAP B "}})),
        ("captions.json", json.dumps(ROWS)),
        (
            "captions.json",
            json.dumps(
                {
                    "images": [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.jpg"}],
                    "annotations": [
                        {"image_id": 8, "caption": "CAP B"},
                        {"image_id": 7, "caption": "CAP A"},
                        {"image_id": 7, "caption": "later"},
                    ],
                }
            ),
        ),
        ("metadata.jsonl", "\ufeff" + "\r\n".join(map(json.dumps, ROWS))),
        ("captions.jsonl", "\n".join(json.dumps({"image": row["file_name"], "prompt": row["text"]}) for row in ROWS)),
        ("images/metadata.csv", 'file_name,text\na.png,CAP A\nsub/b.jpg,"CAP B"\n'),
        ("captions.tsv", "Image\tCaption\na.png\tCAP A\nb.jpg\tCAP B\n"),
    ],
)
def test_tables(tmp_path: Path, file: str, text: str) -> None:
    assert captions(tmp_path, {file: text}) == BOTH


def test_a_table_a_folder(tmp_path: Path) -> None:
    files = {
        "images/metadata.jsonl": json.dumps(ROWS[0]),
        "images/sub/metadata.jsonl": '{"file_name": "b.jpg", "text": "CAP B"}',
    }
    assert captions(tmp_path, files) == BOTH


def test_text_files_beside_and_in_a_folder_of_their_own(tmp_path: Path) -> None:
    assert captions(tmp_path / "1", {"images/a.txt": "\ufeffCAP A\n", "images/sub/b.caption": "CAP B"}) == BOTH
    assert captions(tmp_path / "2", {"captions/a.txt": "CAP A", "captions/sub/b.txt": "CAP B"}) == BOTH


def test_names_with_accents_put_together_otherwise(tmp_path: Path) -> None:
    found = captions(tmp_path, {"captions.json": json.dumps({"Stra\u0301ße.png": "CAP"})}, ["Str\u00e1ße.png"])
    assert found == {"Str\u00e1ße.png": "CAP"}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("captions.json", '{"x.png": "CAP", "y.png": "CAP"}', "its 2 captions are of 'x.png'.*'images/a.png'"),
        ("captions.json", "{}", "holds no caption"),
        ("captions.json", '{"a.png": 3}', "a caption is a text, got 3"),
        ("captions.json", '{"a.png": {"label": "street"}}', "expected one of text, caption.*got label"),
        ("metadata.jsonl", '{"pic": "a.png", "text": "CAP"}', "line 1: no picture's name.*got pic, text"),
        ("metadata.jsonl", "[1]", "line 1: expected an object"),
        ("images/a.txt", "0 0.5 0.5 0.2 0.1", "a caption without a word"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, file: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        captions(tmp_path, {file: text})


def test_text_files_of_no_picture_are_refused_and_a_note_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 text files, and not one is named as a picture"):
        captions(tmp_path, {"images/x.txt": "CAP", "images/y.txt": "CAP"})
    assert captions(tmp_path, {"README.txt": "about"}) == {}


def test_one_name_for_two_pictures_is_refused_unless_a_folder_decides(tmp_path: Path) -> None:
    pictures = ["x/a.png", "y/a.png"]
    with pytest.raises(DataError, match=r"'a\.png' may be x/a\.png or y/a\.png"):
        captions(tmp_path / "1", {"captions.json": '{"a.png": "CAP"}'}, pictures)
    assert captions(tmp_path / "2", {"captions.json": '{"data/y/a.png": "CAP"}'}, pictures) == {"y/a.png": "CAP"}
    assert captions(tmp_path / "3", {"x/captions.json": '{"a.png": "CAP"}'}, pictures) == {"x/a.png": "CAP"}


def test_partial_matches_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions(tmp_path, {"captions.json": '{"a.png": "CAP", "gone.png": "CAP"}'})
    said = capsys.readouterr().err
    assert "1 of its 2 captions match no picture: 'gone.png'" in said
    assert "1 of 2 pictures have a caption; images/sub/b.jpg has none" in said


def test_two_files_for_one_picture(tmp_path: Path) -> None:
    files = {"captions.json": '{"a.png": "CAP"}', "images/metadata.jsonl": json.dumps(ROWS[0])}
    with pytest.raises(DataError, match="keep one"):
        captions(tmp_path, files)
