"""What each rater sees, in which order and on which side: a pure function of the study and two numbers.

``slot`` says which pictures: slots in a row deal whole decks, so that after any number of them every picture of every
comparison has been asked about equally often, give or take one. ``number`` is the rater's own and shuffles order and sides;
a slot whose rater left can so be given to another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Literal

import numpy as np

from alberti.seeding import numpy_generator
from alberti.study.design import BENT, STRAIGHT, Block, Picture, Side, Study

Kind = Literal["practice", "main", "catch", "repeat"]


@dataclass(frozen=True)
class Trial:
    """One pair as one rater sees it; ``left`` comes first where pictures stand one above the other."""

    index: int
    block: Block
    kind: Kind
    left: Picture
    right: Picture
    repeat_of: int | None = None

    @property
    def correct(self) -> Side | None:
        """The straight one's side in a catch pair; None where there is no right answer."""
        if STRAIGHT not in (self.left.arm, self.right.arm):
            return None
        return "left" if self.left.arm == STRAIGHT else "right"

    @property
    def pictures(self) -> tuple[Picture, Picture]:
        return self.left, self.right


class _Decks:
    """An endless row of shuffled decks of ``names``, cut into hands of ``take``; no hand holds a name twice."""

    def __init__(self, names: Sequence[str], take: int, seed: int, *keys: str):
        self._names, self._take, self._seed, self._keys = names, take, seed, keys
        self._row: list[str] = []
        self._lock = Lock()

    def hand(self, slot: int) -> list[str]:
        with self._lock:
            while len(self._row) < (slot + 1) * self._take:
                self._append_deck()
            return self._row[slot * self._take : (slot + 1) * self._take]

    def _append_deck(self) -> None:
        start = len(self._row)
        generator = numpy_generator(self._seed, *self._keys, start // len(self._names))
        deck = [self._names[place] for place in generator.permutation(len(self._names))]
        begun = set(self._row[start - start % self._take :])
        if begun:
            first = [name for name in deck if name not in begun][: self._take - len(begun)]
            deck = first + [name for name in deck if name not in first]
        self._row += deck


class Schedule:
    """The trials of every rater of a study. Safe to share between threads."""

    def __init__(self, study: Study):
        self.study = study
        self._mains: dict[tuple[str, int], _Decks] = {}
        self._straight: dict[str, _Decks] = {}
        for block in study.blocks:
            for place, pair in enumerate(study.comparisons):
                self._mains[block.key, place] = _Decks(study.names, block.per_comparison, study.seed, block.key, *pair)
            if take := block.catch + (block.practice if block.practice_feedback else 0):
                self._straight[block.key] = _Decks(study.catch_names, take, study.seed, block.key, STRAIGHT)
        self.trials = lru_cache(maxsize=512)(self._trials)

    def _trials(self, slot: int, number: int) -> tuple[Trial, ...]:
        trials: list[Trial] = []
        for block in self.study.blocks:
            trials += self._block(block, slot, number, len(trials))
        return tuple(trials)

    def _block(self, block: Block, slot: int, number: int, start: int) -> list[Trial]:
        generator = numpy_generator(self.study.seed, "rater", block.key, slot, number)
        straight = self._straight[block.key].hand(slot) if block.key in self._straight else []
        catches = self._sided([(STRAIGHT, BENT, name) for name in straight], generator)
        main = self._main(block, slot, generator)
        if block.practice_feedback:
            practice, catches = catches[: block.practice], catches[block.practice :]
        else:
            practice = self._practice(block, generator)
        order = _arrange(len(main), len(catches), block.repeats, generator)
        return self._number(block, start, practice, main, catches, order)

    def _main(self, block: Block, slot: int, generator: np.random.Generator) -> list[tuple[Picture, Picture]]:
        pairs = []
        for place, (a, b) in enumerate(self.study.comparisons):
            hand = self._mains[block.key, place].hand(slot)
            pairs += self._sided([(a, b, name) for name in hand], generator)
        return [pairs[place] for place in generator.permutation(len(pairs))]

    def _practice(self, block: Block, generator: np.random.Generator) -> list[tuple[Picture, Picture]]:
        comparisons, names = self.study.comparisons, self.study.names
        picks = [(*comparisons[i % len(comparisons)], names[generator.integers(len(names))]) for i in range(block.practice)]
        return self._sided(picks, generator)

    def _sided(self, pairs: list[tuple[str, str, str]], generator: np.random.Generator) -> list[tuple[Picture, Picture]]:
        """Pictures of (arm, arm, name), each arm left in half of them; of an odd number, the odd one by lot."""
        swap = (np.arange(len(pairs)) + generator.integers(2)) % 2 == 1
        generator.shuffle(swap)
        found = self.study.by_place
        both = [(found[a, name], found[b, name]) for a, b, name in pairs]
        return [(second, first) if swapped else (first, second) for (first, second), swapped in zip(both, swap, strict=True)]

    @staticmethod
    def _number(
        block: Block,
        start: int,
        practice: list[tuple[Picture, Picture]],
        main: list[tuple[Picture, Picture]],
        catches: list[tuple[Picture, Picture]],
        order: list[tuple[Kind, int]],
    ) -> list[Trial]:
        trials = [Trial(start + place, block, "practice", *pair) for place, pair in enumerate(practice)]
        seen_at: dict[int, int] = {}
        for kind, which in order:
            index = start + len(trials)
            if kind == "main":
                seen_at[which] = index
                trials.append(Trial(index, block, kind, *main[which]))
            elif kind == "catch":
                trials.append(Trial(index, block, kind, *catches[which]))
            else:
                left, right = main[which]
                trials.append(Trial(index, block, kind, right, left, repeat_of=seen_at[which]))
        return trials


def _arrange(main: int, catches: int, repeats: int, generator: np.random.Generator) -> list[tuple[Kind, int]]:
    """Main pairs in order; repeats, of pairs of the first half, in the last third; catch pairs spread over all."""
    repeats = min(repeats, (main + 1) // 2)
    again = sorted(generator.choice((main + 1) // 2, repeats, replace=False))
    keyed: list[tuple[float, Kind, int]] = [(float(place), "main", place) for place in range(main)]
    late = np.sort(generator.uniform(2 * main / 3, main, repeats))
    keyed += [(when, "repeat", int(which)) for when, which in zip(late, again, strict=True)]
    if catches:
        width = main / catches
        keyed += [(width * (place + generator.uniform(0.2, 0.95)), "catch", place) for place in range(catches)]
    return [(kind, which) for _, kind, which in sorted(keyed)]
