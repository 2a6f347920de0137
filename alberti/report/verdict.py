"""Three sentences that say what a run found, and what has to be kept in mind: all computed, none claimed in advance."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alberti.metrics.labels import METRICS, Metric, percent
from alberti.report.comparison import Effect, effect

_NAMED = 4
"""So many arms of a group are given with their numbers, further ones by name alone."""
_REALISM = "realism"
"""The question of a human trial that asks which picture looks more real."""
_NO_PAIR = "no arm with a constraint or guidance and its control"
_STRAIGHT, _REAL, _ERROR = METRICS["consistency_2"], METRICS["frechet_distance"], METRICS["abs_rel"]


@dataclass(frozen=True)
class Sentence:
    """A question and its answer, which begins with ``short``; ``tone`` is "better", "worse", "mixed" or "unclear"."""

    question: str
    short: str
    answer: str
    tone: str

    def __str__(self) -> str:
        return f"{self.question} {self.answer}"


@dataclass(frozen=True)
class _Finding:
    """The difference between ``name`` and ``control``."""

    name: str
    control: str
    effect: Effect
    change: str
    """With its unit: "+26.4 points"."""
    interval: str
    """"+10.8 to +37.7", or "" where there is none."""

    def text(self, shared_control: bool, first: bool) -> str:
        """The name and in brackets the numbers; the first in a sentence says what they are."""
        interval = f", {'95 % interval ' * first}{self.interval}" if self.interval else ""
        control = "" if shared_control else f" against “{self.control}”"
        return f"{self.name}{control} ({self.change}{interval})"


def verdict(summary: Mapping[str, Any]) -> list[Sentence]:
    """Are the pictures straighter, are they as real, and do they make better depth models?"""
    return [_straighter(summary), _as_real(summary), _better_depth(summary)]


def caveats(summary: Mapping[str, Any]) -> list[str]:
    """What a reader has to know before believing the verdict."""
    return [*_about_data(summary), *_about_seeds(summary), *_about_line(summary), *_about_measure(summary)]


def treated(summary: Mapping[str, Any]) -> dict[str, str]:
    """Arm -> its control, of the arms that the question is asked of."""
    kinds = ("constraint", "guidance", "sampling")
    return {name: arm["control"] for name, arm in summary["arms"].items() if arm["kind"] in kinds and arm["control"]}


def _straighter(summary: Mapping[str, Any]) -> Sentence:
    question = "Straighter?"
    findings = list(_findings(summary, "images", _STRAIGHT))
    if not findings:
        return Sentence(question, "Not asked", f"Not asked: {_NO_PAIR} has pictures.", "unclear")
    words: dict[Effect, str] = {
        "better": "{} {is} straighter",
        "worse": "{} {is} less straight",
        "unclear": "no clear change in {}",
        "unknown": "too few pictures to say of {}",
    }
    return _sentence(question, findings, words, "by the share of line within 2° of a vanishing point")


def _as_real(summary: Mapping[str, Any]) -> Sentence:
    question = "As real?"
    findings = list(_findings(summary, "distances", _REAL))
    people = list(_people(summary))
    if not findings and not people:
        return Sentence(question, "Not asked", f"Not asked: {_NO_PAIR} has a distance to reference pictures.", "unclear")
    words: dict[Effect, str] = {
        "better": "{} {is} nearer to the reference pictures by Fréchet distance",
        "worse": "{} {is} further from the reference pictures by Fréchet distance",
        "unclear": "no clear change of the Fréchet distance with {}",
        "unknown": "one seed gives the Fréchet distance no interval, for {}",
    }
    asked: dict[Effect, str] = {
        "better": "people found {} more real",
        "worse": "people found {} less real",
        "unclear": "people saw no clear difference in {}",
        "unknown": "too few answers to say of {}",
    }
    if not people:
        return _sentence(question, findings, words)
    return _sentence(question, people, asked, more=_clauses(findings, words, _controls([*people, *findings])))


def _people(summary: Mapping[str, Any]) -> Iterator[_Finding]:
    """How often people found an arm's picture more real than its control's."""
    block = (summary["study"] or {"blocks": {}})["blocks"].get(_REALISM, {"comparisons": []})
    pairs = treated(summary)
    for row in block["comparisons"]:
        for arm, other, turned in ((row["arm"], row["other"], False), (row["other"], row["arm"], True)):
            found = row["clustered"]
            if pairs.get(arm) != other or found is None:
                continue
            share, low, high = (1 - found[key] if turned else found[key] for key in ("share", "low", "high"))
            low, high = min(low, high), max(low, high)
            what: Effect = "better" if low > 0.5 else "worse" if high < 0.5 else "unclear"
            yield _Finding(f"“{arm}”", other, what, f"{percent(share)} of answers", f"{100 * low:.1f} to {100 * high:.1f}")


def _findings(summary: Mapping[str, Any], part: str, metric: Metric) -> Iterator[_Finding]:
    for arm, control in treated(summary).items():
        change = _difference(summary, part, arm, control, metric)
        if change is not None:
            known = change["low"] is not None
            interval = metric.interval(change["low"], change["high"], signed=True) if known else ""
            what = effect(change, metric.higher_is_better)
            yield _Finding(f"“{arm}”", control, what, metric.change(change["mean"]), interval)


def _better_depth(summary: Mapping[str, Any]) -> Sentence:
    question = "Better depth?"
    if not summary["depth"]:
        return Sentence(question, "Not asked", "Not asked: no depth model was tested.", "unclear")
    name, section = next(iter(summary["depth"].items()))
    findings = [finding for model in section["models"] for finding in _depth_findings(summary, section, model)]
    where = f"on {describe_set(name, section)}"
    if not findings:
        return Sentence(question, "Not asked", f"Not asked {where}: {_NO_PAIR} trained a depth model.", "unclear")
    words: dict[Effect, str] = {
        "better": "AbsRel falls for {}",
        "worse": "AbsRel rises for {}",
        "unclear": "no clear change for {}",
        "unknown": "too few frames to say of {}",
    }
    return _sentence(question, findings, words, where)


def _depth_findings(summary: Mapping[str, Any], section: Mapping[str, Any], model: str) -> Iterator[_Finding]:
    for arm, control in treated(summary).items():
        change = section["models"][model]["relative"].get(f"{arm} / {control}", {}).get(_ERROR.key)
        if change is not None:
            known = change["low"] is not None
            interval = f"{_signed(change['low'])} to {_signed(change['high'])}" if known else ""
            what = effect(change, _ERROR.higher_is_better)
            yield _Finding(f"{model} with “{arm}”", control, what, f"{_signed(change['mean'])} %", interval)


def _signed(share: float) -> str:
    return percent(share, signed=True).removesuffix(" %")


def describe_set(name: str, section: Mapping[str, Any]) -> str:
    """A test set with what it is and how much of it there is: "real frames (kitti: 28 frames of 19 scenes)"."""
    setting = next(iter(section["models"].values()))["setting"]
    n, scenes = setting["n"], setting["scenes"]
    frames = f"{n} frames" if scenes == n else f"{n} frames of {scenes} scene{'s' * (scenes > 1)}"
    return f"{'real' if section['real'] else 'rendered'} frames ({name}: {frames})"


def _sentence(
    question: str, findings: Sequence[_Finding], words: Mapping[Effect, str], where: str = "", more: Sequence[str] = ()
) -> Sentence:
    """One sentence: the short answer, then what was better, worse, and neither, and ``more`` clauses."""
    controls = _controls(findings)
    clauses = [*_clauses(findings, words, controls), *more]
    short, tone = _short_answer({finding.effect for finding in findings})
    against = f", against “{controls.pop()}”" if len(controls) == 1 else ""
    return Sentence(question, short, f"{short}{', ' * bool(where)}{where}{against}: {'; '.join(clauses)}.", tone)


def _controls(findings: Sequence[_Finding]) -> set[str]:
    return {finding.control for finding in findings}


def _clauses(findings: Sequence[_Finding], words: Mapping[Effect, str], controls: set[str]) -> list[str]:
    clauses: list[str] = []
    for kind in ("better", "worse", "unclear", "unknown"):
        group = [finding for finding in findings if finding.effect == kind]
        if group:
            texts = [
                finding.text(len(controls) == 1, first=not clauses and place == 0) if place < _NAMED else finding.name
                for place, finding in enumerate(group)
            ]
            clauses.append(words[kind].format(_joined(texts), **{"is": "are" if len(group) > 1 else "is"}))
    return clauses


def _short_answer(effects: set[Effect]) -> tuple[str, str]:
    better, worse, rest = "better" in effects, "worse" in effects, bool(effects & {"unclear", "unknown"})
    if better and worse:
        return "Both ways", "mixed"
    if better:
        return ("In part" if rest else "Yes"), "better"
    if worse:
        return ("No, in part worse" if rest else "No, worse"), "worse"
    return ("Not known" if "unclear" not in effects else "Not shown"), "unclear"


def _joined(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _difference(summary: Mapping[str, Any], part: str, arm: str, control: str, metric: Metric) -> Mapping[str, Any] | None:
    section = summary[part]
    return section["differences"].get(f"{arm} - {control}", {}).get(metric.key) if section else None


def _about_data(summary: Mapping[str, Any]) -> Iterator[str]:
    if summary["stand_ins"]:
        roles = _joined(summary["stand_ins"])
        yield f"The data of {roles} are streets rendered by alberti itself, not photographs."
    if summary["depth"] and not any(section["real"] for section in summary["depth"].values()):
        yield (
            "No real test set was given: what is said of depth holds on rendered frames, and real frames have been seen to "
            "order the arms differently."
        )
    for name, section in summary["depth"].items():
        setting = next(iter(section["models"].values()))["setting"]
        if setting["scenes"] == 1 and setting["n"] > 1:
            yield f"All frames of {name} show one scene: its intervals are over frames and too narrow for other scenes."


def _about_seeds(summary: Mapping[str, Any]) -> Iterator[str]:
    count = len(summary["seeds"])
    if count == 1:
        yield ("One seed: the intervals say what other pictures and test frames would change, not what another training would.")
    elif count < 5:
        yield f"{count} seeds: an interval over so few is rough; each seed's own mean is a tick in the charts."


def _about_line(summary: Mapping[str, Any]) -> Iterator[str]:
    metric = METRICS["line_length"]
    for arm, control in treated(summary).items():
        change = _difference(summary, "images", arm, control, metric)
        if change is None or effect(change, None) not in ("up", "down"):
            continue
        before = summary["images"]["arms"][control][metric.key]["mean"]
        yield (
            f"“{arm}” has {percent(abs(change['mean']) / before, 0)} {'more' if change['mean'] > 0 else 'less'} detected line "
            f"than “{control}”: read its share of straight line with that."
        )


def _about_measure(summary: Mapping[str, Any]) -> Iterator[str]:
    guided = [name for name in treated(summary) if summary["arms"][name]["kind"] == "guidance"]
    if guided and summary["images"]:
        names = ", ".join(f"“{name}”" for name in guided)
        yield (
            f"What guides {names} is which way edges point, close kin to the share that it is judged by: look at the pictures, "
            "the distances and the depth as well."
        )
