"""What the numbers say, in words: every sentence is computed, none is a claim made in advance."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from alberti.report.comparison import Change, gap_closed, paired_change
from alberti.report.inputs import ReportInputs, Result

IMAGE_HEADLINES = ("consistency_2", "consistency_5", "line_length", "vp_auc_10", "frechet_distance", "kernel_distance")
DEPTH_HEADLINES = ("abs_rel", "sq_rel", "rmse", "d1")
_ONE_SEED = (
    "All this is one seed and one training a model: the intervals say what other depth maps and test frames would change, not "
    "what another seed would."
)


def headline_metrics(inputs: ReportInputs) -> dict[str, Any]:
    """The few numbers of a run that are worth a row in ``dvc metrics show``; the keys are the same in every run.

    ``images.<arm>.<metric>``, ``images.<arm>.consistency_2_gain`` (of constrained arms against the arm without a constraint,
    of variants against the arm whose weights they have) and ``depth.<model>.<arm>.<metric>``.
    """
    images = {arm: {key: result.summary.get(key) for key in IMAGE_HEADLINES} for arm, result in inputs.images.items()}
    for arm, gain in gains(inputs).items():
        images[arm]["consistency_2_gain"] = None if gain is None else gain.value
    depth = {
        model: {arm: {key: result.summary.get(key) for key in DEPTH_HEADLINES} for arm, result in arms.items()}
        for model, arms in inputs.depth.items()
    }
    return {"images": images, "depth": depth}


def counterparts(inputs: ReportInputs) -> dict[str, str]:
    """Arm -> the arm from which it differs in one thing: the constraint, or for variants the sampling."""
    return dict.fromkeys(inputs.constrained_arms, inputs.control_arm or "") | dict(inputs.variants)


def gains(inputs: ReportInputs) -> dict[str, Change | None]:
    """Constrained arm or variant -> change of ``consistency_2`` against its counterpart."""
    found: dict[str, Change | None] = {}
    for arm, other in counterparts(inputs).items():
        result, control = inputs.images.get(arm), inputs.images.get(other)
        if result is not None:
            found[arm] = None if control is None else paired_change(result.rows, control.rows, "consistency_2", True)
    return found


@dataclass(frozen=True)
class KeyFigure:
    """A number at the head of the page."""

    value: str
    label: str
    interval: str
    verdict: str

    def __str__(self) -> str:
        return f"{self.label}: {self.value} ({self.interval})"


def key_figures(inputs: ReportInputs) -> list[KeyFigure]:
    """What constraint and guidance changed, arm by arm: straightness of the pictures, and each depth model's AbsRel."""
    figures = []
    others = counterparts(inputs)
    for arm, change in gains(inputs).items():
        if change is not None:
            value, low, high = (_signed(100 * number) for number in (change.value, change.low, change.high))
            label = f"line within 2° of a vanishing point, {arm} against {others[arm]}"
            figures.append(KeyFigure(f"{value} points", label, f"95 % interval {low} to {high}", change.verdict))
    for model, arms in inputs.depth.items():
        for arm, other in others.items():
            ratio = _relative(arms.get(arm), arms.get(other))
            if ratio is not None:
                value, low, high = (_percent(number, signed=True) for number in (ratio.value, ratio.low, ratio.high))
                label = f"AbsRel of {model}, {arm} against {other}"
                figures.append(KeyFigure(value, label, f"95 % interval {low} to {high}", ratio.verdict))
    return figures


def sentences(inputs: ReportInputs) -> list[str]:
    """The summary as sentences; empty parts of a run leave theirs out."""
    return [*_pictures(inputs), *_depth(inputs), _ONE_SEED]


def _pictures(inputs: ReportInputs) -> Iterator[str]:
    for arm, change in gains(inputs).items():
        other = counterparts(inputs)[arm]
        control, variant = inputs.images.get(other), arm in inputs.variants
        if change is None or control is None:
            lack = f"that “{other}” has too" if variant else "that have a counterpart without the constraint"
            yield f"Too few pictures of “{arm}” {lack} to say what it did."
            continue
        yield (
            f"In “{arm}” {_what_differs(inputs, arm)} {_straightness(change)}: "
            f"{_percent(inputs.images[arm].summary['consistency_2'])} of the detected line length points within 2° at "
            f"a true vanishing point, against {_percent(control.summary['consistency_2'])} in “{other}”, which "
            f"{'has the same weights' if variant else 'was trained alike but without it'} ({_points(change)})."
        )
        yield from _gap(inputs, arm, other)
        yield from _line_length(inputs.images[arm], control, arm, other)
        yield from _receding(inputs, arm, other)
        yield from _distance(inputs.images[arm], control, arm, other)
        if arm in inputs.guided_arms:
            yield (
                f"What guides “{arm}” is which way edges point, close kin to the share of line length that it is judged by: "
                "read the gain with line length, distances and depth beside it."
            )
    yield from _control_against_base(inputs)
    yield from _reference(inputs)


def _what_differs(inputs: ReportInputs, arm: str) -> str:
    if arm in inputs.guided_arms:
        return "guidance while sampling"
    return "another way of sampling" if arm in inputs.variants else "the constraint"


def _distance(result: Result, control: Result, arm: str, other: str) -> Iterator[str]:
    after, before = (one.summary.get("frechet_distance") for one in (result, control))
    if after is not None and before is not None:
        yield (
            f"Squared Fréchet distance to the reference pictures, one number a set and without an interval: {after:.0f} for "
            f"“{arm}”, {before:.0f} for “{other}”."
        )


def _gap(inputs: ReportInputs, arm: str, other: str) -> Iterator[str]:
    """How much of the way to what the autoencoder lets through; said only where there is a clear way to go."""
    ceiling = inputs.references.get("reconstructions")
    if ceiling is None:
        return
    share = gap_closed(inputs.images[arm], inputs.images[other], ceiling, "consistency_2")
    if share is not None and share.low > 0:
        value, low, high = (_percent(number, 0) for number in (share.value, share.low, share.high))
        yield (
            f"That is {value} of the way from “{other}” to the reference pictures as the autoencoder gives them back "
            f"({_percent(ceiling.summary['consistency_2'])}), 95 % interval {low} to {high}."
        )


def _line_length(result: Result, control: Result, arm: str, control_arm: str) -> Iterator[str]:
    change = paired_change(result.rows, control.rows, "line_length", None)
    before = control.summary.get("line_length")
    if change is not None and before and change.clear:
        word = "more" if change.value > 0 else "less"
        yield (
            f"“{arm}” has {_percent(abs(change.value) / before, 0)} {word} detected line in a picture than "
            f"“{control_arm}” (95 % interval {_percent(change.low / before, 0, signed=True)} to "
            f"{_percent(change.high / before, 0, signed=True)}), and its share has to be read with that."
        )


def _receding(inputs: ReportInputs, arm: str, other: str) -> Iterator[str]:
    """Upright lines are easy: how much line there is that shows perspective."""
    change = paired_change(inputs.images[arm].rows, inputs.images[other].rows, "level_line_length", True)
    if change is not None and change.clear:
        after, before = (inputs.images[name].summary["level_line_length"] for name in (arm, other))
        renders = inputs.references.get("renders")
        most = None if renders is None else renders.summary.get("level_line_length")
        yield (
            f"Receding lines, within 2° of a vanishing point that is not the upright one, have {after:.0f} px in a picture of "
            f"“{arm}”, {before:.0f} px in “{other}”{'' if most is None else f', {most:.0f} px in the reference pictures'}."
        )


def _control_against_base(inputs: ReportInputs) -> Iterator[str]:
    base, control = inputs.images.get(inputs.base_arm), inputs.images.get(inputs.control_arm or "")
    change = None if base is None or control is None else paired_change(control.rows, base.rows, "consistency_2", True)
    if change is not None:
        yield (
            f"Fine-tuning alone (“{inputs.control_arm}” against “{inputs.base_arm}”) "
            f"{_straightness(change)} ({_points(change)})."
        )


def _reference(inputs: ReportInputs) -> Iterator[str]:
    values = [result.summary.get("reference_consistency_2") for result in inputs.images.values()]
    known = [value for value in values if value is not None]
    if known:
        through = inputs.references.get("reconstructions")
        share = None if through is None else through.summary.get("consistency_2")
        more = "" if share is None else f", and {_percent(share)} once they have gone through the autoencoder"
        yield f"For comparison: the pictures that belong to the depth maps reach {_percent(known[0])}{more}."


def _depth(inputs: ReportInputs) -> Iterator[str]:
    for model, arms in inputs.depth.items():
        for arm, other in counterparts(inputs).items():
            against = [(other, f"the same trained on pictures of “{other}”"), (inputs.original_arm, "the original model")]
            for name, words in against:
                yield from _depth_change(model, arms.get(arm), arms.get(name), arm, words)


def _relative(result: Result | None, other: Result | None) -> Change | None:
    """Paired change of AbsRel as a share of the other's mean."""
    before = None if other is None else other.summary.get("abs_rel")
    if result is None or other is None or not before:
        return None
    change = paired_change(result.rows, other.rows, "abs_rel", False)
    if change is None:
        return None
    return replace(change, value=change.value / before, low=change.low / before, high=change.high / before)


def _depth_change(model: str, result: Result | None, other: Result | None, arm: str, words: str) -> Iterator[str]:
    change = _relative(result, other)
    if change is None or result is None or other is None:
        return
    effect = _verdict(change, "better than", "worse than") or f"no different, as far as {change.n} images show, from"
    low, high = (_percent(number, signed=True) for number in (change.low, change.high))
    yield (
        f"{model} trained on pictures of “{arm}” is {effect} {words}: AbsRel "
        f"{result.summary['abs_rel']:.3f} against {other.summary['abs_rel']:.3f} "
        f"({_percent(change.value, signed=True)}, 95 % interval {low} to {high})."
    )


def _straightness(change: Change) -> str:
    words = _verdict(change, "made the pictures straighter", "made the pictures less straight")
    return words or f"did nothing to straightness that {change.n} pictures can show"


def _points(change: Change) -> str:
    value, low, high = (_signed(100 * number) for number in (change.value, change.low, change.high))
    return f"{value} points, 95 % interval {low} to {high}, {change.n} pictures"


def _percent(value: float, digits: int = 1, signed: bool = False) -> str:
    return f"{100 * value:{'+' if signed else ''}.{digits}f} %".replace("-", "\N{MINUS SIGN}")


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def _verdict(change: Change, better: str, worse: str) -> str:
    """The words for a change that is clear of zero; "" for one that is not."""
    return {"better": better, "worse": worse}.get(change.verdict, "")
