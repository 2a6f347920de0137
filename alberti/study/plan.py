"""How many raters and pairs give what width of interval: by simulating the very study and analysing it."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from alberti.progress import track
from alberti.study.analysis import rater_table
from alberti.study.create import Options, make_blocks
from alberti.study.design import BENT, STRAIGHT, Arm, Study
from alberti.study.schedule import Schedule
from alberti.study.simulate import Raters, imagined_pictures, simulate
from alberti.study.statistics import clustered_share

STUDIES = 100
"""How many studies `--plan` simulates of each design."""


def planned_study(study: Study, pictures: int, seed: int) -> Study:
    """``study`` with imagined pictures, in another drawing of its decks."""
    arms = tuple(arm.name for arm in study.arms)
    catches = max(block.catch + block.practice for block in study.blocks)
    drawn = imagined_pictures(arms, pictures) + tuple(
        picture.model_copy(update={"id": f"f{picture.id[1:]}"})
        for picture in imagined_pictures((STRAIGHT, BENT), max(catches, 1))
    )
    return study.model_copy(update={"pictures": drawn, "seed": seed})


def plan(
    study: Study, *, raters: Iterable[int], pictures: int, per_comparison: Iterable[int], simulated: Raters, studies: int
) -> list[dict[str, Any]]:
    """A row for each number of raters and of pairs: mean half width of the interval, how often it excludes one half, coverage.

    Only the first block and the first comparison are looked at: the others have the same numbers.
    """
    cases = [(count, pairs) for pairs in per_comparison for count in raters if pairs <= pictures]
    return [
        _case(study, count, pairs, pictures, simulated, studies) for count, pairs in track(cases, "simulating", unit="designs")
    ]


def plan_arms(
    arms: list[str],
    options: Options,
    pictures: int,
    raters: list[int],
    preference: float,
    careless: float,
) -> list[dict[str, Any]]:
    """:func:`plan` for a study as ``create`` would make it, with as many pairs as it would take, half and twice that."""
    comparisons = options.comparisons or tuple((a, b) for place, a in enumerate(arms) for b in arms[:place])
    blocks = make_blocks(options, len(comparisons), pictures)
    study = imagined_study(arms, comparisons=comparisons, blocks=blocks, rules=options.rules)
    usual = blocks[0].per_comparison
    pairs = sorted({max(1, usual // 2), usual, min(2 * usual, pictures)})
    simulated = Raters(preference, careless=careless)
    return plan(study, raters=raters, pictures=pictures, per_comparison=pairs, simulated=simulated, studies=STUDIES)


def _case(study: Study, count: int, pairs: int, pictures: int, simulated: Raters, studies: int) -> dict[str, Any]:
    block = study.blocks[0].model_copy(update={"per_comparison": pairs})
    small = study.model_copy(update={"blocks": (block, *study.blocks[1:])})
    widths, decided, covered = [], [], []
    for number in range(studies):
        low, high = _interval(planned_study(small, pictures, number), simulated, count, number)
        widths.append((high - low) / 2)
        decided.append(low > 0.5 or high < 0.5)
        covered.append(low <= simulated.preference <= high)
    seen = planned_study(small, pictures, 0)
    return {
        "raters": count,
        "pairs": pairs,
        "pairs_in_all": sum(b.trials(len(seen.comparisons)) for b in seen.blocks),
        "half_width": float(np.mean(widths)),
        "decided": float(np.mean(decided)),
        "coverage": float(np.mean(covered)),
    }


def _interval(study: Study, simulated: Raters, count: int, seed: int) -> tuple[float, float]:
    table = simulate(study, Schedule(study), simulated, count, seed)
    kept = rater_table(table, study.rules).query("excluded == ''").index
    arm, other = study.comparisons[0]
    main = table[(table["kind"] == "main") & (table["block"] == study.blocks[0].key) & table["rater"].isin(kept)]
    main = main[main["winner"].isin((arm, other)) & main["loser"].isin((arm, other))]
    share = clustered_share(main["winner"] == arm, main["rater"], main["scene"])
    return (0.0, 1.0) if share is None else (share.low, share.high)


def imagined_study(arms: list[str], **values: Any) -> Study:
    """A study of these arms without pictures, for planning before anything was generated."""
    comparisons = tuple((a, b) for place, a in enumerate(arms) for b in arms[:place])
    return Study(
        id="plan",
        title="plan",
        created="",
        seed=0,
        arms=tuple(Arm(name=arm) for arm in arms),
        comparisons=values.pop("comparisons", None) or comparisons,
        **values,
    )
