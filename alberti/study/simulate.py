"""Raters who do not exist: for planning a study, and for checking that the analysis finds what was put in."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize

from alberti.seeding import numpy_generator
from alberti.study.answers import Answer, answer_of
from alberti.study.design import Picture, Side, Study
from alberti.study.schedule import Schedule, Trial

CARELESS = "careless"
"""What the names of raters begin with who answer by lot."""


@dataclass(frozen=True)
class Raters:
    """What simulated raters are like. Each comparison's first arm is preferred in ``preference`` of all trials on average."""

    preference: float
    careless: float = 0.0
    """The share of raters who answer by lot."""
    rater_spread: float = 0.5
    """Standard deviation of a rater's log odds about the average."""
    scene_spread: float = 0.5
    lapse: float = 0.03
    """How often an attentive rater gets a catch pair wrong."""


def mean_log_odds(preference: float, spread: float) -> float:
    """The mean of normal log odds with this spread whose average probability is ``preference`` (Gauss-Hermite)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)

    def average(mean: float) -> float:
        return float((weights / (1 + np.exp(-(mean + spread * nodes)))).sum() / math.sqrt(2 * math.pi)) - preference

    return float(optimize.brentq(average, -20, 20))


def simulate(study: Study, schedule: Schedule, raters: Raters, count: int, seed: int) -> pd.DataFrame:
    """Answers of ``count`` raters to the study's own schedule, as the columns of an answer table."""
    from alberti.study.analysis import complete_table

    rows = []
    for name, trial, chosen, ms in _choices(study, schedule, raters, count, seed):
        rows.append(
            [
                *(name, trial.index, trial.block.key, trial.kind, trial.left.name, trial.left.scene),
                *(trial.left.arm, trial.right.arm, chosen, trial.repeat_of, ms, True, study.digest),
            ]
        )
    columns = ["rater", "trial", "block", "kind", "picture", "scene", "left", "right", "chosen", "repeat_of", "ms", "finished"]
    return complete_table(pd.DataFrame(rows, columns=[*columns, "design"]))


def simulated_answers(study: Study, raters: Raters, count: int, seed: int) -> Iterator[Answer]:
    """The same as rows of ``answers.jsonl``."""
    for name, trial, chosen, ms in _choices(study, Schedule(study), raters, count, seed):
        yield answer_of(study, trial, chosen, source="simulation", rater=name, ms=ms)


def _choices(
    study: Study, schedule: Schedule, raters: Raters, count: int, seed: int
) -> Iterator[tuple[str, Trial, Side, float]]:
    generator = numpy_generator(seed, "simulated raters")
    mean = mean_log_odds(raters.preference, math.hypot(raters.rater_spread, raters.scene_spread))
    firsts = {frozenset(pair): pair[0] for pair in study.comparisons}
    scenes = {scene: generator.normal(0, raters.scene_spread) for scene in sorted({p.scene for p in study.pictures})}
    careless = set(generator.permutation(count)[: round(raters.careless * count)].tolist())
    for rater in range(count):
        name = f"{CARELESS if rater in careless else 'attentive'}-{rater}"
        own = generator.normal(0, raters.rater_spread)
        for trial in schedule.trials(rater, rater):
            if rater in careless:
                left = 0.5
            elif trial.correct is not None:
                left = 1 - raters.lapse if trial.correct == "left" else raters.lapse
            else:
                odds = mean + own + scenes[trial.left.scene]
                first = 1 / (1 + math.exp(-odds))
                left = first if trial.left.arm == firsts[frozenset((trial.left.arm, trial.right.arm))] else 1 - first
            chosen: Side = "left" if generator.random() < left else "right"
            yield name, trial, chosen, float(np.exp(generator.normal(7.3, 0.4)))


def imagined_pictures(arms: tuple[str, ...], names: int) -> tuple[Picture, ...]:
    """Pictures without files, for a study that is only planned."""
    return tuple(
        Picture(
            id=f"{place * names + index:016x}", arm=arm, name=f"{index:05d}", scene=f"{index:05d}", width=1, height=1, sha256=""
        )
        for place, arm in enumerate(arms)
        for index in range(names)
    )
