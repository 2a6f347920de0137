"""Caption files beside a folder's pictures, in the forms that people's tools write.

- ``captions.json``: ``{picture: text}``, ``{picture: {"caption": text}}``, ``{picture: [text, ...]}`` (the first counts), a
  list of rows, or COCO's ``images`` and ``annotations``;
- ``captions.jsonl``, ``metadata.jsonl``: one row per picture; ``captions.csv``, ``metadata.csv``: the same with a heading; in
  any folder, whose pictures they then name;
- ``<picture>.txt`` or ``.caption`` beside a picture, or in a folder ``captions/`` that stands for ``images/``.

A row's picture stands under ``file_name``, ``image``, ... (:data:`PICTURE_KEYS`), its text under ``text``, ``caption``, ...
(:data:`TEXT_KEYS`). Pictures may be named with or without folders, by absolute paths, with backslashes, and without suffix or
with another one; where that leaves two pictures, the name with more folders in common counts.
"""

import csv
import io
import itertools
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from alberti.errors import DataError
from alberti.image_folder import is_picture
from alberti.images import unread_suffixes
from alberti.reading import read_json, read_json_lines, read_text

PICTURE_KEYS = ("file_name", "image", "file", "filename", "image_path", "filepath", "path", "img", "image_name", "name")
TEXT_KEYS = ("text", "caption", "captions", "prompt", "description", "txt", "sentence", "sentences")
_NAMES = ("captions", "caption", "metadata", "prompts")
_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")
_BESIDE = (".txt", ".caption")
_TEXT_FOLDERS = ("captions", "caption", "texts", "text", "prompts", "txt")

Pair = tuple[str, str | None]


@dataclass(frozen=True)
class _Table:
    """One caption file, read: which name got which text."""

    file: str
    pairs: list[Pair]


def read_captions(root: Path, files: Iterable[str], pictures: Sequence[str]) -> dict[str, str]:
    """Captions by picture (a path below ``root``), from whatever caption files are among ``files``.

    What matches no picture, and pictures that get no caption, are counted on stderr.

    Raises:
        DataError: a malformed file, one that names no picture of ``pictures``, two files with captions of one picture.
    """
    found = sorted(path for path in files if PurePosixPath(path).name.lower() in _TABLE_NAMES)
    for path, other in itertools.pairwise(found):
        if PurePosixPath(path).parent == PurePosixPath(other).parent:
            raise DataError(f"{root}: captions stand in {path} and in {other}; keep one of them")
    index = _Pictures(pictures)
    captions: dict[str, str] = {}
    source: dict[str, str] = {}
    for path in found:
        for picture, text in _of_table(root, _Table(path, _read_table(root / path)), index).items():
            if picture in captions:
                raise DataError(f"{root}: captions of {picture} stand in {source[picture]} and in {path}; keep one of them")
            captions[picture], source[picture] = text, path
    if not found:
        captions = _beside(root, files, index)
    if captions and len(captions) < len(pictures):
        first = next(path for path in pictures if path not in captions)
        _note(f"{root}: {len(captions)} of {len(pictures)} pictures have a caption; {first} has none")
    return captions


_TABLE_NAMES = frozenset(name + suffix for name in _NAMES for suffix in _SUFFIXES)


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


class _Pictures:
    """Finds the pictures that a name in a caption file means."""

    def __init__(self, pictures: Sequence[str]):
        self.all = list(pictures)
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for path in self.all:
            name = _folded(PurePosixPath(path).name)
            self._by_name.setdefault(name, []).append(path)
            self._by_stem.setdefault(_without_suffix(name), []).append(path)

    def meant(self, name: str, folder: str) -> tuple[list[str], int]:
        """Pictures that ``name``, written in ``folder``, means, and how well it fits; nothing fits: ([], 0).

        The fit is the number of folders in common, and then whether the suffix is right too.
        """
        parts = _folded(name.replace("\\", "/")).strip("/").split("/")
        parts = [part for part in parts if part not in ("", ".", "..")]
        if not parts:
            return [], 0
        last = parts[-1]
        exact = self._by_name.get(last)
        candidates = (
            exact or self._by_stem.get(last) or (self._by_stem.get(_without_suffix(last), []) if _is_media(last) else [])
        )
        local = [*_folded(folder).split("/"), *parts] if folder else parts
        best: list[str] = []
        score = 0
        for path in candidates:
            folders = _folded(path).split("/")[:-1]
            fit = 1 + 2 * max(_common(folders, parts[:-1]), _common(folders, local[:-1])) + (exact is not None)
            if fit > score:
                best, score = [path], fit
            elif fit == score:
                best.append(path)
        return best, score


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """How many parts at the end are the same."""
    count = 0
    while count < min(len(a), len(b)) and a[-1 - count] == b[-1 - count]:
        count += 1
    return count


def _folded(name: str) -> str:
    """Without what file systems and archives change in names: case, and how accents are put together."""
    return unicodedata.normalize("NFC", name).casefold()


def _without_suffix(name: str) -> str:
    return name.rpartition(".")[0] or name


def _is_media(name: str) -> bool:
    suffix = PurePosixPath(name).suffix
    return is_picture(name) or suffix in unread_suffixes() or suffix in _BESIDE


def _of_table(root: Path, table: _Table, index: _Pictures) -> dict[str, str]:
    """Captions by picture of one file: the name that fits best counts, and of equal ones the first."""
    folder = str(PurePosixPath(table.file).parent)
    folder = "" if folder == "." else folder
    captions: dict[str, str] = {}
    scores: dict[str, int] = {}
    unmatched: list[str] = []
    for name, text in table.pairs:
        pictures, score = index.meant(name, folder)
        if not pictures:
            unmatched.append(name)
        elif len({str(PurePosixPath(path).with_suffix("")) for path in pictures}) > 1:
            raise DataError(
                f"{root / table.file}: {name!r} may be {' or '.join(pictures[:3])}; name it with its folder, relative to {root}"
            )
        for path in pictures if text else ():
            if score > scores.get(path, 0):
                captions[path], scores[path] = str(text), score
    if not table.pairs:
        raise DataError(f"{root / table.file}: holds no caption; move it away, and {root} is read without")
    if len(unmatched) == len(table.pairs):
        raise DataError(
            f"{root / table.file}: its {len(unmatched)} captions are of {unmatched[0]!r} ..., and not one names a picture of "
            f"this folder, such as {index.all[0]!r}; name pictures as there, or move the file away"
        )
    if unmatched:
        _note(
            f"{root / table.file}: {len(unmatched)} of its {len(table.pairs)} captions match no picture: {unmatched[0]!r} ..."
        )
    return captions


def _beside(root: Path, files: Iterable[str], index: _Pictures) -> dict[str, str]:
    """Captions from a text file a picture."""
    captions: dict[str, str] = {}
    unmatched: list[str] = []
    total = 0
    for path in sorted(path for path in files if PurePosixPath(path).suffix.lower() in _BESIDE):
        place = PurePosixPath(path)
        pictures, _ = index.meant(str(place), "")
        pictures = [picture for picture in pictures if _belongs(place, PurePosixPath(picture))]
        total += 1
        if not pictures:
            unmatched.append(path)
            continue
        text = read_text(root / path, "caption").strip()
        if text and not any(letter.isalpha() for letter in text):
            raise DataError(f"{root / path}: a caption without a word ({text[:40]!r}); move labels that are no captions away")
        for picture in pictures if text else ():
            captions.setdefault(picture, text)
    if unmatched and total >= len(index.all) and not captions:
        raise DataError(
            f"{root}: {total} text files, and not one is named as a picture: {unmatched[0]} stands there, and {index.all[0]}; "
            "a caption has its picture's name and the suffix .txt; move files that are no captions away"
        )
    if unmatched and captions:
        _note(f"{root}: {len(unmatched)} text files are of no picture, {unmatched[0]} for one")
    return captions


def _belongs(text: PurePosixPath, picture: PurePosixPath) -> bool:
    """In the picture's folder, or in a folder of texts that stands for the pictures' own."""
    if text.parent == picture.parent:
        return True
    kept = [part for part in text.parent.parts if part.lower() not in _TEXT_FOLDERS]
    return len(kept) < len(text.parent.parts) and list(picture.parent.parts)[-len(kept) or len(picture.parent.parts) :] == kept


def _read_table(path: Path) -> list[Pair]:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return list(_json_pairs(path, read_json(path, "caption file")))
    if suffix == ".jsonl":
        return [_row_pair(row, f"{path}, line {number}") for number, row in read_json_lines(path, "caption file")]
    text = read_text(path, "caption file")
    try:
        reader = csv.DictReader(io.StringIO(text), delimiter="\t" if suffix == ".tsv" else ",", strict=True)
        return [_row_pair(row, f"{path}, line {reader.line_num}") for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}: not a table of comma-separated values ({error})") from None


def _json_pairs(path: Path, values: Any) -> Iterator[Pair]:
    if isinstance(values, dict) and isinstance(values.get("images"), list) and isinstance(values.get("annotations"), list):
        yield from _coco_pairs(path, values)
        return
    if isinstance(values, list):
        for number, row in enumerate(values, 1):
            yield _row_pair(row, f"{path}, entry {number}")
        return
    if not isinstance(values, dict):
        raise DataError(f"{path}: expected an object of picture: caption, or a list of rows, got {type(values).__name__}")
    for name, value in values.items():
        yield name, _text_of(value, f"{path}, {name!r}")


def _coco_pairs(path: Path, values: dict[str, Any]) -> Iterator[Pair]:
    try:
        names = {row["id"]: str(row["file_name"]) for row in values["images"]}
        for row in values["annotations"]:
            yield names[row["image_id"]], _text_of(row, f"{path}, annotation of {names[row['image_id']]}")
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not COCO's captions: images with id and file_name, annotations with image_id ({error!r})"
        ) from None


def _row_pair(row: Any, where: str) -> Pair:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with file_name and text, got {row!r:.80}")
    low = {str(key).strip().lower(): value for key, value in row.items()}
    name = next((low[key] for key in PICTURE_KEYS if isinstance(low.get(key), str)), None)
    if name is None:
        shown = ", ".join(map(str, row)) or "no key"
        raise DataError(f"{where}: no picture's name; expected one of {', '.join(PICTURE_KEYS[:6])}, ..., got {shown:.120}")
    return name, _text_of(low, where)


def _text_of(value: Any, where: str) -> str | None:
    """The text of an entry: itself, the first of a list, or what stands under one of the keys; None of an empty one."""
    if value is None or isinstance(value, str):
        return (value or "").strip() or None
    if isinstance(value, list):
        return _text_of(value[0], where) if value else None
    if isinstance(value, dict):
        low = {str(key).strip().lower(): item for key, item in value.items()}
        for key in TEXT_KEYS:
            if key in low:
                return _text_of(low[key], where)
        shown = ", ".join(map(str, value)) or "no key"
        raise DataError(f"{where}: no caption; expected one of {', '.join(TEXT_KEYS[:5])}, ..., got {shown:.120}")
    raise DataError(f"{where}: a caption is a text, got {value!r:.80}")
