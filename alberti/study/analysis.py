"""From raw answers to what may be said: who is left out and why, shares, strengths, agreement, response times, side bias."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from alberti.study.answers import Answer
from alberti.study.design import PUBLISHED_SHARE, STRAIGHT, Rules, Study
from alberti.study.statistics import agreement, bradley_terry, clustered_share

REASONS = ("catch pairs", "repeated pairs", "response time", "unfinished")


@dataclass(frozen=True)
class Design:
    """What an analysis has to know of a study; guessed from the answers where there is no study folder."""

    id: str
    title: str
    arms: tuple[str, ...]
    comparisons: tuple[tuple[str, str], ...]
    blocks: dict[str, str]
    """Key -> question."""
    rules: Rules
    digest: str | None
    published_share: float = PUBLISHED_SHARE

    @classmethod
    def of(cls, study: Study) -> "Design":
        return cls(
            id=study.id,
            title=study.title,
            arms=tuple(arm.name for arm in study.arms),
            comparisons=study.comparisons,
            blocks={block.key: block.question for block in study.blocks},
            rules=study.rules,
            digest=study.digest,
            published_share=study.published_share,
        )

    @classmethod
    def guess(cls, answers: Sequence[Answer], rules: Rules | None = None) -> "Design":
        """The design that ``answers`` show, with the default rules."""
        main = [answer for answer in answers if answer.kind == "main"]
        pairs = dict.fromkeys(tuple(sorted((answer.left, answer.right))) for answer in main)
        return cls(
            id=answers[0].study if answers else "",
            title=answers[0].study if answers else "",
            arms=tuple(dict.fromkeys(name for pair in pairs for name in pair)),
            comparisons=tuple((first, second) for first, second in pairs),
            blocks={answer.block: answer.block for answer in main},
            rules=rules or Rules(),
            digest=None,
        )


def answer_table(answers: Iterable[Answer]) -> pd.DataFrame:
    """A row an answer: the fields of :class:`Answer`, ``winner`` and ``loser`` (arms) and ``correct`` (of catch pairs)."""
    return complete_table(pd.DataFrame([answer.model_dump() for answer in answers], columns=list(Answer.model_fields)))


def complete_table(table: pd.DataFrame) -> pd.DataFrame:
    """Add ``winner``, ``loser`` and ``correct``."""
    left = table["chosen"] == "left"
    table["winner"] = table["left"].where(left, table["right"])
    table["loser"] = table["right"].where(left, table["left"])
    table["correct"] = table["winner"] == STRAIGHT
    return table


def analyse(table: pd.DataFrame, design: Design) -> dict[str, Any]:
    """Everything that a report needs of :func:`answer_table`, as JSON-able values.

    Practice pairs count nowhere, catch pairs and repeats only for exclusions and consistency.
    """
    raters = rater_table(table, design.rules)
    kept = set(raters.index[raters["excluded"] == ""])
    main = table[table["kind"] == "main"]
    counted = main[main["rater"].isin(kept)]
    digests = sorted(set(table["design"])) if len(table) else []
    return {
        "study": design.id,
        "title": design.title,
        "design": design.digest,
        "designs_of_answers": digests,
        "answers": {"all": len(table), "main": len(main), "counted": len(counted)},
        "raters": _rater_counts(raters),
        "rules": design.rules.model_dump(mode="json"),
        "published_share": design.published_share,
        "blocks": {key: _block(key, question, counted, main, table, design) for key, question in design.blocks.items()},
        "response_ms": _times(counted),
        "side_bias": _side_bias(counted),
    }


def rater_table(table: pd.DataFrame, rules: Rules) -> pd.DataFrame:
    """One row per rater: what the rules look at, and ``excluded``: the first rule that leaves the rater out, or ""."""
    rows = [_rater_row(str(rater), answers, rules) for rater, answers in table.groupby("rater", sort=True)]
    columns = ["rater", "answers", "finished", "catch_right", "catch", "repeats_agreeing", "repeats", "median_ms", "left_share"]
    return pd.DataFrame(rows, columns=[*columns, "excluded"]).set_index("rater")


def _rater_row(rater: str, answers: pd.DataFrame, rules: Rules) -> dict[str, Any]:
    catch, repeats, main = (answers[answers["kind"] == kind] for kind in ("catch", "repeat", "main"))
    first = answers.set_index("trial")["winner"]
    agreeing = int((repeats["winner"].to_numpy() == first.reindex(repeats["repeat_of"]).to_numpy()).sum())
    row = {
        "rater": rater,
        "answers": len(answers),
        "finished": bool(answers["finished"].all()),
        "catch_right": int(catch["correct"].sum()),
        "catch": len(catch),
        "repeats_agreeing": agreeing,
        "repeats": len(repeats),
        "median_ms": float(main["ms"].median()) if main["ms"].notna().any() else None,
        "left_share": float((main["chosen"] == "left").mean()) if len(main) else None,
    }
    return {**row, "excluded": _exclusion(row, rules)}


def _exclusion(row: dict[str, Any], rules: Rules) -> str:
    broken = (
        row["catch"] > 0 and row["catch_right"] < rules.min_catch_share * row["catch"] - 1e-9,
        row["repeats"] > 0 and row["repeats_agreeing"] < rules.min_repeat_share * row["repeats"] - 1e-9,
        row["median_ms"] is not None and row["median_ms"] < rules.min_median_ms,
        rules.finished_only and not row["finished"],
    )
    return next((reason for reason, is_broken in zip(REASONS, broken, strict=True) if is_broken), "")


def _rater_counts(raters: pd.DataFrame) -> dict[str, Any]:
    excluded = {reason: int((raters["excluded"] == reason).sum()) for reason in REASONS}
    catch, repeats = int(raters["catch"].sum()), int(raters["repeats"].sum())
    return {
        "all": len(raters),
        "counted": int((raters["excluded"] == "").sum()),
        "finished": int(raters["finished"].sum()),
        "excluded": excluded,
        "catch_right_share": float(raters["catch_right"].sum() / catch) if catch else None,
        "repeat_agreement": float(raters["repeats_agreeing"].sum() / repeats) if repeats else None,
    }


def _block(
    key: str, question: str, counted: pd.DataFrame, main: pd.DataFrame, table: pd.DataFrame, design: Design
) -> dict[str, Any]:
    mine, everyone = counted[counted["block"] == key], main[main["block"] == key]
    comparisons = [_comparison(a, b, mine, everyone) for a, b in design.comparisons]
    strengths = bradley_terry(list(mine["winner"]), list(mine["loser"]), mine["rater"], mine["scene"], design.arms)
    return {
        "question": question,
        "comparisons": comparisons,
        "bradley_terry": None if strengths is None else [asdict(strength) for strength in strengths],
        "agreement": _agreement(mine),
        "response_ms": _times(mine),
        "side_bias": _side_bias(mine),
    }


def _comparison(a: str, b: str, counted: pd.DataFrame, everyone: pd.DataFrame) -> dict[str, Any]:
    """How often ``a`` was preferred to ``b``; the binomial figures take answers as independent, which they are not."""
    mine = _between(counted, a, b)
    share = clustered_share(mine["winner"] == a, mine["rater"], mine["scene"])
    before = _between(everyone, a, b)
    row: dict[str, Any] = {"arm": a, "other": b, "n": len(mine), "preferred": int((mine["winner"] == a).sum())}
    row["clustered"] = None if share is None else share.as_dict()
    row["share_before_exclusions"] = float((before["winner"] == a).mean()) if len(before) else None
    row["n_before_exclusions"] = len(before)
    row["binomial"] = None
    if share is not None:
        test = stats.binomtest(row["preferred"], row["n"], 0.5)
        low, high = test.proportion_ci(0.95, method="wilson")
        row["binomial"] = {"p": float(test.pvalue), "low": float(low), "high": float(high)}
    return row


def _between(table: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    return table[((table["left"] == a) & (table["right"] == b)) | ((table["left"] == b) & (table["right"] == a))]


def _agreement(main: pd.DataFrame) -> dict[str, Any]:
    return agreement(main["rater"], _items(main), main["winner"] == main[["winner", "loser"]].min(axis=1))


def _items(main: pd.DataFrame) -> pd.Series:
    """One name for each pair of pictures, whichever stood left."""
    arms = main[["left", "right"]]
    return arms.min(axis=1) + "\t" + arms.max(axis=1) + "\t" + main["picture"]


def _times(main: pd.DataFrame) -> dict[str, float] | None:
    times = main["ms"].dropna().astype(float)
    if times.empty:
        return None
    return {f"p{level}": float(np.percentile(times, level)) for level in (5, 25, 50, 75, 95)}


def _side_bias(main: pd.DataFrame) -> dict[str, Any] | None:
    share = clustered_share(main["chosen"] == "left", main["rater"], main["scene"])
    return None if share is None else {"left": share.as_dict()}


def pair_table(table: pd.DataFrame, kept: Iterable[str]) -> pd.DataFrame:
    """A row a pair of pictures and question: answers, how many chose the first arm, and how evenly raters split (0 to 1)."""
    main = table[(table["kind"] == "main") & table["rater"].isin(set(kept))]
    columns = ["block", "arm", "other", "picture", "scene", "answers", "preferred", "share", "split"]
    rows = []
    for (block, item), answers in main.groupby(["block", _items(main)], sort=True):
        arm, other, picture = str(item).split("\t")
        preferred, n = int((answers["winner"] == arm).sum()), len(answers)
        scene, share = answers["scene"].iloc[0], preferred / n
        rows.append([block, arm, other, picture, scene, n, preferred, share, 2 * min(preferred, n - preferred) / n])
    return pd.DataFrame(rows, columns=columns)


def most_split(pairs: pd.DataFrame, count: int) -> pd.DataFrame:
    """The pairs that divide raters most evenly, those with more answers first; only pairs that several have seen."""
    several = pairs[pairs["answers"] >= 2]
    return several.sort_values(["split", "answers", "picture"], ascending=[False, False, True], kind="stable").head(count)
