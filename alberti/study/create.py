"""From folders of pictures to a study folder."""

import contextlib
import math
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
from pydantic import ValidationError

from alberti.errors import ConfigError, DataError, first_problem
from alberti.files import atomic_folder, sha256_file
from alberti.image_folder import find_images
from alberti.images import read_image, write_image
from alberti.progress import track
from alberti.seeding import numpy_generator
from alberti.study.answers import ANSWERS
from alberti.study.bend import bend
from alberti.study.design import BENT, STRAIGHT, Arm, Block, Picture, Rules, Study, check_pictures
from alberti.study.texts import write_texts

QUESTIONS = {
    "realism": ("Which picture looks more realistic?", ""),
    "lines": ("In which picture do the lines of the street fit together?", "Look at the edges of houses, windows and road."),
}
CATCH_BEND = 0.025
"""Root mean square displacement of a catch pair's bent side, as a share of the picture's size: seen at a glance."""
_MAIN_PAIRS = 24


@dataclass(frozen=True)
class Source:
    """A picture that may be shown: its name within the arm, the scene it shows, its file."""

    name: str
    scene: str
    path: Path


@dataclass(frozen=True)
class Options:
    """How a study is to be made; what is left out is chosen to fit."""

    title: str = "Which picture?"
    seed: int = 0
    comparisons: tuple[tuple[str, str], ...] = ()
    """None: each arm against each."""
    pictures: int | None = None
    """How many of the names are used, drawn by the seed; None: all."""
    only_common: bool = False
    size: tuple[int, int] | None = None
    """Width and height to bring all pictures to."""
    blocks: tuple[str, ...] = ("realism", "lines")
    per_comparison: int | None = None
    catch: int = 5
    repeats: int = 4
    practice: int = 2
    catch_bend: float = CATCH_BEND
    rules: Rules = field(default_factory=Rules)
    completion_code: str | None = None
    completion_url: str | None = None


def read_source(folder: Path) -> list[Source]:
    """Pictures of a data set, of a folder of data sets (one a seed), or of a plain folder, sorted by name.

    With seeds, a name is ``<seed>/<id>`` and the scene is the id.
    """
    if (folder / "dataset.json").is_file():
        return _dataset(folder, "")
    seeds = sorted(path.parent for path in folder.glob("*/dataset.json"))
    if seeds:
        return [source for seed in seeds for source in _dataset(seed, f"{seed.name}/")]
    unreadable: list[str] = []
    names = list(find_images(folder, on_error=lambda name, error: unreadable.append(f"{name} ({error})")))
    if unreadable:
        raise DataError(f"{folder}: cannot read {unreadable[0]}")
    if not names:
        raise DataError(f"{folder}: no pictures there, and no data set")
    sources = [Source(str(Path(name).with_suffix("")), str(Path(name).with_suffix("")), folder / name) for name in names]
    return _distinct(sources, folder)


def _dataset(folder: Path, prefix: str) -> list[Source]:
    from alberti.data.manifest import Dataset

    dataset = Dataset.open(folder)
    samples = [sample for sample in dataset if sample.image is not None]
    if not samples:
        raise DataError(f"{folder}: none of the data set's {len(dataset)} rows has a picture")
    sources = [Source(prefix + sample.id, sample.id, dataset.image_path(sample)) for sample in samples]
    return _distinct(sources, folder)


def _distinct(sources: list[Source], folder: Path) -> list[Source]:
    names = [source.name for source in sources]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise DataError(f"{folder}: two pictures are named {twice!r}; names without their suffixes must differ")
    return sorted(sources, key=lambda source: source.name)


def run_sources(run: Path) -> tuple[dict[str, Path], Path | None]:
    """Arm -> folder of a finished run's pictures, and its renders."""
    generated = run / "data" / "generated"
    arms = {
        path.name: path
        for path in (sorted(generated.iterdir()) if generated.is_dir() else [])
        if (path / "dataset.json").is_file() or any(path.glob("*/dataset.json"))
    }
    if len(arms) < 2:
        raise DataError(
            f"{generated}: expected the pictures of at least two arms, as stage `generate` writes them; found "
            f"{', '.join(arms) or 'none'}: finish the run first, or name folders of pictures instead"
        )
    renders = run / "data" / "condition"
    return arms, renders if (renders / "dataset.json").is_file() else None


def create_study(out: Path, arms: Mapping[str, Path], straight: Path | None, options: Options) -> Study:
    """Make the study folder ``out`` and return the study.

    Without ``straight`` (renders or photographs), catch pairs are made of the first arm's own pictures.

    Raises:
        DataError: pictures without counterparts, of unequal sizes, too few for the design, or a study there already.
    """
    if (out / "study.json").exists():
        raise DataError(f"{out}: there is a study already, perhaps with answers; choose another folder or remove it")
    sources, names = pictures_to_show(arms, options)
    study = _design(arms, len(names), options)
    with _filled(out) as folder:
        (folder / "pictures").mkdir()
        pictures = [
            _copy(folder, read_image(sources[arm][name].path), arm, sources[arm][name], options)
            for name in track(names, "copying pictures")
            for arm in arms
        ]
        _check_sizes(pictures)
        pictures += _catch_pairs(folder, straight, list(sources[next(iter(arms))].values()), study.blocks, options)
        study = study.model_copy(update={"pictures": tuple(sorted(pictures, key=lambda picture: picture.id))})
        check_pictures(study, out)
        write_texts(folder, study.trials)
        study.save(folder)
    return study


def pictures_to_show(arms: Mapping[str, Path], options: Options) -> tuple[dict[str, dict[str, Source]], list[str]]:
    """Each arm's pictures by name, and the names to show; errors as those of :func:`create_study`."""
    sources = {arm: {source.name: source for source in _with_seeds(arms, arm)} for arm in arms}
    return sources, _common_names(sources, arms, options)


def _design(arms: Mapping[str, Path], names: int, options: Options) -> Study:
    """The study without its pictures."""
    comparisons = options.comparisons or tuple((a, b) for place, a in enumerate(arms) for b in list(arms)[:place])
    try:
        return Study(
            id=f"study-{secrets.token_hex(4)}",
            title=options.title,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seed=options.seed,
            arms=tuple(Arm(name=arm, source=str(folder)) for arm, folder in arms.items()),
            comparisons=comparisons,
            blocks=make_blocks(options, len(comparisons), names),
            rules=options.rules,
            completion_code=options.completion_code,
            completion_url=options.completion_url,
        )
    except ValidationError as error:
        raise ConfigError(f"the study cannot be like this: {first_problem(error, 'study')}") from None


@contextlib.contextmanager
def _filled(out: Path) -> Iterator[Path]:
    """``out`` as an atomic folder. Hidden files and an empty ``answers.jsonl`` stay; anything else is refused, not lost."""
    there = sorted(out.iterdir()) if out.is_dir() else []
    stay = [path for path in there if path.name.startswith(".") or (path.name == ANSWERS and not path.stat().st_size)]
    if found := [path.name for path in there if path not in stay]:
        raise DataError(f"{out}: expected a new or empty folder, found {', '.join(found[:5])}; choose another one")
    with atomic_folder(out) as folder:
        yield folder
        for path in stay:
            shutil.copyfile(path, folder / path.name)


def _with_seeds(arms: Mapping[str, Path], arm: str) -> list[Source]:
    """An arm's pictures; those of a seedless arm ("all") stand beside every seed of the others."""
    sources = read_source(arms[arm])
    if not all(source.name.startswith("all/") for source in sources):
        return sources
    seeds = {path.parent.name for other in arms.values() for path in other.glob("*/dataset.json")} - {"all"}
    if not seeds:
        return sources
    return [Source(f"{seed}/{source.scene}", source.scene, source.path) for seed in sorted(seeds) for source in sources]


def _common_names(sources: Mapping[str, Mapping[str, Source]], arms: Mapping[str, Path], options: Options) -> list[str]:
    every = set().union(*sources.values())
    common = set.intersection(*(set(found) for found in sources.values()))
    if not common:
        examples = ", ".join(f"{arm}: {min(found)}" for arm, found in sources.items())
        raise DataError(f"the arms have no picture's name in common ({examples}); pictures to compare must share their names")
    if common != every and not options.only_common:
        name = min(every - common)
        lacking = [str(arms[arm]) for arm, found in sources.items() if name not in found]
        raise DataError(
            f"{lacking[0]}: no picture {name!r}, which another arm has ({len(every - common)} of {len(every)} names are not in "
            "every arm); complete the folders, or take what all have (--only-common)"
        )
    names = sorted(common)
    if options.pictures is not None:
        if not 1 <= options.pictures <= len(names):
            raise ConfigError(f"--pictures {options.pictures}: expected 1 to {len(names)}, the pictures that all arms have")
        drawn = numpy_generator(options.seed, "pictures").permutation(len(names))[: options.pictures]
        names = [names[place] for place in sorted(drawn)]
    return names


def make_blocks(options: Options, comparisons: int, names: int) -> tuple[Block, ...]:
    """The blocks of a study with so many comparisons and pictures."""
    unknown = [key for key in options.blocks if key not in QUESTIONS]
    if unknown or not options.blocks:
        raise ConfigError(f"--blocks {','.join(options.blocks)}: expected some of {', '.join(QUESTIONS)}")
    pairs = options.per_comparison or max(2, round(_MAIN_PAIRS / comparisons))
    if options.per_comparison is None:
        pairs = min(pairs, names)
    return tuple(
        Block(
            key=key,
            question=QUESTIONS[key][0],
            hint=QUESTIONS[key][1],
            per_comparison=pairs,
            catch=options.catch,
            repeats=min(options.repeats, (pairs * comparisons + 1) // 2),
            practice=options.practice,
            practice_feedback=key == "lines",
        )
        for key in options.blocks
    )


def _copy(folder: Path, image: np.ndarray, arm: str, source: Source, options: Options) -> Picture:
    """Write a picture under a random name, as PNG whatever it was: nothing about the file tells its arm."""
    if options.size is not None and (image.shape[1], image.shape[0]) != options.size:
        smaller = options.size[0] < image.shape[1]
        image = cv2.resize(image, options.size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    identity = secrets.token_hex(8)
    path = folder / "pictures" / f"{identity}.png"
    write_image(path, image)
    height, width = image.shape[:2]
    return Picture(
        id=identity, arm=arm, name=source.name, scene=source.scene, width=width, height=height, sha256=sha256_file(path)
    )


def _check_sizes(pictures: Sequence[Picture]) -> None:
    sizes = {(picture.width, picture.height): picture for picture in pictures}
    if len(sizes) > 1:
        found = "; ".join(f"{width} x {height} ({p.arm}, {p.name})" for (width, height), p in list(sizes.items())[:3])
        raise DataError(
            f"pictures of several sizes: {found}. Raters could tell arms by that; bring all to one with --size WIDTHxHEIGHT"
        )


def _catch_pairs(
    folder: Path, straight: Path | None, own: list[Source], blocks: tuple[Block, ...], options: Options
) -> list[Picture]:
    """As many as one rater may need of each block, and a few more where there are, so that raters' pairs differ."""
    needed = max(block.catch + (block.practice if block.practice_feedback else 0) for block in blocks)
    if not needed:
        return []
    sources = own if straight is None else read_source(straight)
    if len(sources) < needed:
        raise DataError(
            f"{straight or 'the first arm'}: {len(sources)} pictures, but a rater sees {needed} catch and practice pairs a "
            "block; give more (--straight) or ask for fewer (--catch, --practice)"
        )
    order = numpy_generator(options.seed, "catch").permutation(len(sources))[: 3 * needed]
    pictures = []
    for source in (sources[place] for place in sorted(order)):
        image = read_image(source.path)
        bent = bend(
            image,
            options.catch_bend * math.sqrt(image.shape[0] * image.shape[1]),
            numpy_generator(options.seed, "bend", source.name),
        )
        pictures += [_copy(folder, shown, arm, source, options) for arm, shown in ((STRAIGHT, image), (BENT, bent))]
    return pictures
