"""From pictures to a study folder, and what is refused on the way."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from alberti.data.manifest import Sample, write_dataset
from alberti.errors import ConfigError, DataError
from alberti.images import read_image, write_image
from alberti.study.bend import bend, displacement, resampled
from alberti.study.create import Options, create_study, read_source, run_sources
from alberti.study.design import BENT, STRAIGHT, Study
from alberti.study.texts import is_unedited, read_texts

SMALL = Options(per_comparison=2, catch=1, repeats=1, practice=1)


def write_generated(folder: Path, pictures: dict[str, np.ndarray], caption: str | None = None) -> Path:
    """A data set as stage `generate` leaves it."""
    (folder / "images").mkdir(parents=True)
    samples = []
    for name, image in pictures.items():
        write_image(folder / "images" / f"{name}.png", image)
        height, width = image.shape[:2]
        samples.append(Sample(id=name, image=f"images/{name}.png", width=width, height=height, caption=caption))
    write_dataset(folder, samples, name=folder.name, role="generated", depth_kind=None)
    return folder


def flat(value: int, size: int = 64) -> np.ndarray:
    image = np.full((size, size, 3), value, np.uint8)
    cv2.line(image, (5, 9), (size - 5, size - 9), (0, 0, 0), 2)
    return image


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run: two arms with two seeds, one that no seed changes, and renders."""
    root = tmp_path / "run"
    for arm, value in (("constrained", 90), ("unconstrained", 120)):
        for seed in (0, 1):
            pictures = {f"s{index}": flat(value + seed + 10 * index) for index in range(3)}
            write_generated(root / "data" / "generated" / arm / str(seed), pictures)
    write_generated(root / "data" / "generated" / "base" / "all", {f"s{index}": flat(200 + index) for index in range(3)})
    write_generated(root / "data" / "condition", {f"s{index}": flat(30 + index) for index in range(3)})
    return root


def test_a_study_holds_every_arm_s_pictures_under_names_that_tell_nothing(arms: dict[str, Path], tmp_path: Path) -> None:
    two = {"base": arms["base"], "constrained": arms["constrained"]}
    made = create_study(tmp_path / "study", two, arms["renders"], SMALL)
    study = Study.open(tmp_path / "study")
    assert study == made
    assert study.digest == made.digest
    assert study.names == [f"{index:03d}" for index in range(8)]
    for arm, folder in two.items():
        for name in study.names:
            shown = read_image(tmp_path / "study" / study.by_place[arm, name].file)
            assert np.array_equal(shown, read_image(folder / f"{name}.png"))
    files = {path.name for path in (tmp_path / "study" / "pictures").iterdir()}
    assert files == {f"{picture.id}.png" for picture in study.pictures}
    order = [picture.arm for picture in study.pictures]
    assert order != sorted(order)  # neither does the table's order
    assert {"straight", "bent"} <= set(order)
    text = (tmp_path / "study" / "texts" / "consent.md").read_text()
    assert "minutes" in text
    assert is_unedited(tmp_path / "study")
    assert "<h1>" in read_texts(tmp_path / "study")["consent"]


def test_a_finished_run_gives_arms_seeds_and_renders(run: Path, tmp_path: Path) -> None:
    arms, renders = run_sources(run)
    assert list(arms) == ["base", "constrained", "unconstrained"]
    assert renders == run / "data" / "condition"
    study = create_study(tmp_path / "study", arms, renders, SMALL)
    assert study.names == [f"{seed}/s{index}" for seed in (0, 1) for index in range(3)]
    assert {picture.scene for picture in study.pictures} == {"s0", "s1", "s2"}
    assert study.comparisons == (("constrained", "base"), ("unconstrained", "base"), ("unconstrained", "constrained"))
    base = [read_image(tmp_path / "study" / study.by_place["base", f"{seed}/s1"].file) for seed in (0, 1)]
    assert np.array_equal(*base)  # what no seed changes stands beside each
    straight = read_image(tmp_path / "study" / study.by_place[STRAIGHT, "s1"].file)
    assert np.array_equal(straight, flat(31))


def test_a_run_without_pictures_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least two arms"):
        run_sources(tmp_path)


def test_the_folder_of_a_run_keeps_what_may_wait_there(arms: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "study"
    out.mkdir()
    (out / ".gitignore").write_text("*\n")
    (out / "answers.jsonl").touch()
    create_study(out, {"a": arms["base"], "b": arms["constrained"]}, None, SMALL)
    assert (out / ".gitignore").read_text() == "*\n"
    assert (out / "answers.jsonl").is_file()
    with pytest.raises(DataError, match="a study already"):
        create_study(out, {"a": arms["base"], "b": arms["constrained"]}, None, SMALL)
    other = tmp_path / "other"
    other.mkdir()
    (other / "answers.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"answers\.jsonl"):
        create_study(other, {"a": arms["base"], "b": arms["constrained"]}, None, SMALL)
    assert (other / "answers.jsonl").read_text() == "{}\n"


def test_pictures_without_counterparts_are_named(arms: dict[str, Path], tmp_path: Path) -> None:
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for index in range(5):
        write_image(fewer / f"{index:03d}.png", read_image(arms["base"] / f"{index:03d}.png"))
    both = {"base": arms["base"], "fewer": fewer}
    with pytest.raises(DataError, match=r"fewer: no picture '005'.*3 of 8.*--only-common"):
        create_study(tmp_path / "study", both, None, SMALL)
    assert not (tmp_path / "study").exists()
    study = create_study(tmp_path / "study", both, None, Options(only_common=True, pictures=4, catch=1, practice=1))
    assert len(study.names) == 4
    assert set(study.names) <= {f"{index:03d}" for index in range(5)}


def test_names_that_have_nothing_in_common(arms: dict[str, Path], tmp_path: Path) -> None:
    write_generated(tmp_path / "other", {"x": flat(3)})
    with pytest.raises(DataError, match="no picture's name in common"):
        create_study(tmp_path / "study", {"base": arms["base"], "other": tmp_path / "other"}, None, SMALL)


def test_sizes_that_would_tell_arms_apart(arms: dict[str, Path], tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.mkdir()
    for index in range(8):
        write_image(large / f"{index:03d}.png", flat(9, 128))
    both = {"base": arms["base"], "large": large}
    with pytest.raises(DataError, match=r"several sizes.*--size"):
        create_study(tmp_path / "study", both, None, SMALL)
    study = create_study(tmp_path / "study", both, None, Options(size=(80, 80), per_comparison=2, catch=1))
    assert {(picture.width, picture.height) for picture in study.pictures} == {(80, 80)}


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        (Options(catch=9, per_comparison=2), DataError, "catch"),
        (Options(per_comparison=9), DataError, "9 pairs of each comparison"),
        (Options(pictures=20), ConfigError, "--pictures 20"),
        (Options(blocks=("beauty",)), ConfigError, "beauty"),
        (Options(comparisons=(("base", "nobody"),)), ValueError, "nobody"),
        (Options(comparisons=(("base", "constrained"), ("constrained", "base"))), ValueError, "distinct pairs"),
    ],
)
def test_designs_that_cannot_be(arms: dict[str, Path], tmp_path: Path, options: Options, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        create_study(tmp_path / "study", {"base": arms["base"], "constrained": arms["constrained"]}, arms["renders"], options)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"schema_version": 2}, "schema version 2"),
        ({"rules": {"min_catch_share": 3}}, "min_catch_share"),
        ({"arms": [{"name": "base"}]}, "arms"),
        ({"colour": "red"}, "colour"),
        ({"completion_url": "javascript:alert(1)"}, "completion_url"),
    ],
)
def test_a_damaged_study_is_said(folder: Path, change: dict[str, object], match: str) -> None:
    values = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(values | change))
    with pytest.raises(DataError, match=match):
        Study.open(folder)


def test_texts_can_be_translated_and_bring_no_html(folder: Path) -> None:
    (folder / "texts" / "interface.json").write_text(json.dumps({"begin": "Anfangen"}))
    (folder / "texts" / "consent.md").write_text("# Einwilligung\n\n<script>alert(1)</script> **wichtig**")
    assert not is_unedited(folder)
    texts = read_texts(folder)
    assert texts["interface"]["begin"] == "Anfangen"
    assert texts["interface"]["agree"].startswith("I have read")
    assert "<script>" not in texts["consent"]
    assert "<strong>wichtig</strong>" in texts["consent"]
    (folder / "texts" / "interface.json").write_text(json.dumps({"begn": "x"}))
    with pytest.raises(DataError, match="begn"):
        read_texts(folder)


@pytest.mark.parametrize("shape", [(64, 64), (60, 200), (120, 90)])
def test_a_displacement_has_the_strength_asked_for_and_is_smooth(shape: tuple[int, int]) -> None:
    x, y = displacement(*shape, 3.0, np.random.default_rng(0))
    assert x.shape == y.shape == shape
    assert np.sqrt((x**2 + y**2).mean()) == pytest.approx(3.0, rel=1e-4)
    steps = np.abs(np.diff(x, axis=1)).max(), np.abs(np.diff(y, axis=0)).max()
    assert max(steps) < 1.0  # no fold: neighbours stay in order


def test_bending_bends_lines_and_half_a_pixel_does_not() -> None:
    image = np.full((128, 128, 3), 255, np.uint8)
    image[:, 63:65] = 0

    def crookedness(picture: np.ndarray) -> float:
        dark = 255.0 - picture[4:-4, :, 0]
        centres = (dark * np.arange(128)).sum(axis=1) / dark.sum(axis=1)
        return float(centres.std())

    assert crookedness(resampled(image)) < 0.01
    weak, strong = (crookedness(bend(image, rms, np.random.default_rng(1))) for rms in (1.0, 3.0))
    assert 0.2 < weak < strong < 6
    assert np.array_equal(bend(image, 2.0, np.random.default_rng(5)), bend(image, 2.0, np.random.default_rng(5)))


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", flat(1))
    write_image(tmp_path / "a.jpg", flat(1))
    with pytest.raises(DataError, match="two pictures are named 'a'"):
        read_source(tmp_path)


def test_catch_pairs_of_arms_where_there_are_no_renders(arms: dict[str, Path], tmp_path: Path) -> None:
    study = create_study(tmp_path / "study", {"a": arms["base"], "b": arms["constrained"]}, None, SMALL)
    name = study.catch_names[0]
    straight, bent = (read_image(tmp_path / "study" / study.by_place[arm, name].file) for arm in (STRAIGHT, BENT))
    assert np.array_equal(straight, read_image(arms["base"] / f"{name}.png"))
    assert np.abs(straight.astype(int) - bent).mean() > 1
