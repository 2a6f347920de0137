"""Automatic stand-ins for people: image-text and preference models of transformers, and whether they notice bent pictures.

A model scores each picture: against its caption (CLIP and its kin, PickScore among them), or by whether it answers "yes" when
asked about it. A "preference" of an arm is the share of pictures that score higher than the other arm's. Beside it stands what
the model says of renders against the same renders bent: one that cannot tell these apart says nothing of perspective,
whatever it prefers.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from PIL import Image

from alberti.device import choose_device
from alberti.errors import DataError
from alberti.extras import extra
from alberti.files import atomic_file, write_json
from alberti.images import read_image
from alberti.progress import track
from alberti.seeding import numpy_generator
from alberti.study.bend import bend, resampled
from alberti.study.create import read_source
from alberti.study.statistics import clustered_share

BENDS_PX = (0.5, 1.0, 2.0, 4.0)
"""Root mean square displacements that the check tries, in pixels."""
QUESTION = (
    'The caption of this picture is "{caption}". Is it a realistic picture, in which all straight lines of the scene are '
    "straight and fit together in perspective? Answer yes or no."
)
"""What models that answer questions are asked."""
_MOST_CHECKED = 200


class Judge(Protocol):
    """Whatever gives a picture a score."""

    def score(self, image: np.ndarray, caption: str) -> float:
        """How good (H, W, 3) uint8 is, given its caption; higher is better."""
        ...


def open_judge(name: str, *, processor: str | None = None, device: str | None = None) -> Judge:
    """A model by folder or hub id: one that scores pictures against texts, or one that answers questions about pictures.

    Raises:
        DataError: nothing that transformers loads, or a model of another kind.
    """
    with extra("diffusion", "judging pictures by a model"):
        from transformers import AutoConfig, AutoProcessor
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    place = str(choose_device(device))
    try:
        config = AutoConfig.from_pretrained(name)
        prepared = AutoProcessor.from_pretrained(processor or name)
        answers = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and getattr(prepared, "chat_template", None)
        return (QuestionModel if answers else ImageTextModel)(name, prepared, place)
    except DataError:
        raise
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{name}: not a model that transformers loads ({reason}); expected a folder or hub id with config, weights and "
            "processor (--processor names another place for the last)"
        ) from None


class ImageTextModel:
    """Scores by a model with ``logits_per_image``: CLIP, SigLIP, PickScore and others on them."""

    def __init__(self, name: str, processor: Any, device: str):
        with extra("diffusion", "judging pictures by a model"):
            from transformers import AutoModel

        from alberti.weights import own_weights

        model = AutoModel.from_pretrained(name)
        own_weights(model)
        if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
            raise DataError(
                f"{name}: a {type(model).__name__} scores no picture against a text; expected a model like CLIP, SigLIP or "
                "PickScore, or one that answers questions about pictures and has a chat template"
            )
        self._processor, self._device, self._model = processor, device, model.to(device).eval()

    def score(self, image: np.ndarray, caption: str) -> float:
        """How well (H, W, 3) uint8 goes with its caption."""
        import torch

        inputs = self._processor(
            text=[caption], images=[Image.fromarray(image)], return_tensors="pt", padding="max_length", truncation=True
        )
        with torch.inference_mode():
            output = self._model(**inputs.to(self._device))
        return float(output.logits_per_image[0, 0])


class QuestionModel:
    """Scores by a model that answers questions about pictures: log odds of "yes" to :data:`QUESTION`, before it says a word."""

    def __init__(self, name: str, processor: Any, device: str):
        with extra("diffusion", "judging pictures by a model"):
            from transformers import AutoModelForImageTextToText

        from alberti.weights import own_weights

        model: Any = AutoModelForImageTextToText.from_pretrained(name)
        own_weights(model)
        self._processor, self._device, self._model = processor, device, model.to(device).eval()
        self._yes, self._no = (self._first_tokens(word) for word in ("yes", "no"))
        if not self._yes or not self._no or set(self._yes) & set(self._no):
            raise DataError(f"{name}: its tokenizer does not tell yes from no by the first token; it cannot be asked this way")

    def _first_tokens(self, word: str) -> list[int]:
        tokenizer = self._processor.tokenizer
        spelt = [form(word) for form in (str.lower, str.capitalize, str.upper)]
        spelt += [f" {text}" for text in spelt]
        found = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in spelt]
        return sorted({tokens[0] for tokens in found if len(tokens) == 1})

    def score(self, image: np.ndarray, caption: str) -> float:
        """Log odds of "yes" for (H, W, 3) uint8."""
        import torch

        content = [
            {"type": "image", "image": Image.fromarray(image)},
            {"type": "text", "text": QUESTION.format(caption=caption)},
        ]
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            logits = self._model(**inputs.to(self._device)).logits[0, -1].float()
        return float(logits[self._yes].logsumexp(0) - logits[self._no].logsumexp(0))


def score_proxies(
    arms: Mapping[str, Path],
    straight: Path,
    models: Sequence[str],
    out: Path,
    *,
    prompt: str,
    processor: str | None = None,
    device: str | None = None,
) -> list[str]:
    """Let each model compare every two arms and the bent renders; write ``out`` (JSON) and a CSV, return lines to print.

    Raises:
        DataError: arms without common pictures, or a model that cannot be used.
    """
    captions = {name: text for folder in arms.values() for name, text in _captions(folder)}
    results: list[dict[str, Any]] = []
    lines: list[str] = []
    for name in models:
        model = open_judge(name, processor=processor, device=device)
        bends = check_bends(model, straight, prompt)
        comparisons = _compare_arms(model, arms, captions, prompt)
        found = {"notices_px": notices(bends), "verdict": verdict(bends)}
        results.append({"model": name, "bends": bends, "comparisons": comparisons, **found})
        lines += [f"{name}: {verdict(bends)}"]
        lines += [
            f"  {_named(row):<40} {row['share']:.1%} ({row['low']:.1%} to {row['high']:.1%})" for row in comparisons + bends
        ]
    write_json(out, {"kind": "automatic proxies, not people", "prompt": prompt, "models": results})
    rows = [{"model": result["model"], **row} for result in results for row in (*result["comparisons"], *result["bends"])]
    with atomic_file(out.with_suffix(".csv")) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    return lines


def check_bends(model: Judge, straight: Path, prompt: str, *, bends: Sequence[float] = BENDS_PX) -> list[dict[str, Any]]:
    """A row a bend: the share of straight pictures that ``model.score`` puts above the same picture bent.

    Both are resampled alike, so that softness does not give the bent one away.
    """
    sources, captions = read_source(straight)[:_MOST_CHECKED], dict(_captions(straight))
    wins: dict[float, list[float]] = {rms: [] for rms in bends}
    for source in track(sources, "bent pictures"):
        image, caption = read_image(source.path), captions.get(source.name, prompt)
        reference = model.score(resampled(image), caption)
        for rms in bends:
            bent = bend(image, rms, numpy_generator(0, "proxy", source.name, str(rms)))
            wins[rms].append(_win(reference, model.score(bent, caption)))
    scenes = [source.scene for source in sources]
    return [{"arm": "straight", "other": "bent", "rms_px": rms, **_share(wins[rms], scenes)} for rms in bends]


def notices(bends: Sequence[Mapping[str, Any]]) -> float | None:
    """The smallest bend, in pixels, from which on the model clearly prefers straight pictures; None: none that was tried."""
    smallest = None
    for row in sorted(bends, key=lambda row: -row["rms_px"]):
        if row["low"] <= 0.5:
            break
        smallest = row["rms_px"]
    return smallest


def verdict(bends: Sequence[Mapping[str, Any]]) -> str:
    """What the check says of the model, in a sentence."""
    smallest, most = notices(bends), max(row["rms_px"] for row in bends)
    if smallest is None:
        return f"Does not notice bent pictures, up to {most:g} px rms: its preferences say nothing about perspective."
    if smallest == min(row["rms_px"] for row in bends):
        return f"Notices bent pictures from {smallest:g} px rms on, the smallest bend tried."
    return f"Notices bent pictures only from {smallest:g} px rms on: of smaller faults its preferences say nothing."


def _compare_arms(model: Judge, arms: Mapping[str, Path], captions: Mapping[str, str], prompt: str) -> list[dict[str, Any]]:
    sources = {arm: {source.name: source for source in read_source(folder)} for arm, folder in arms.items()}
    common = sorted(set.intersection(*(set(found) for found in sources.values())))
    if not common:
        raise DataError(f"{', '.join(map(str, arms.values()))}: no picture's name in common")
    scores = {
        arm: [model.score(read_image(found[name].path), captions.get(name, prompt)) for name in track(common, f"scoring {arm}")]
        for arm, found in sources.items()
    }
    scenes = [sources[next(iter(arms))][name].scene for name in common]
    names = list(arms)
    return [
        {"arm": a, "other": b, **_share([_win(x, y) for x, y in zip(scores[a], scores[b], strict=True)], scenes)}
        for place, a in enumerate(names)
        for b in names[:place]
    ]


def _win(first: float, second: float) -> float:
    return 0.5 if first == second else float(first > second)


def _share(wins: Sequence[float], scenes: Sequence[str]) -> dict[str, Any]:
    """Pictures are the only clusters: a model is one judge, and its opinions do not vary."""
    found = clustered_share(wins, scenes, scenes)
    assert found is not None
    return {"share": found.share, "low": found.low, "high": found.high, "n": found.n}


def _named(row: Mapping[str, Any]) -> str:
    return f"straight over bent by {row['rms_px']:g} px" if "rms_px" in row else f"{row['arm']} over {row['other']}"


def _captions(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, caption) of the pictures of a data set, or of a folder of data sets, that have one."""
    from alberti.data.manifest import Dataset

    if (folder / "dataset.json").is_file():
        folders = [(folder, "")]
    else:
        folders = [(path.parent, f"{path.parent.name}/") for path in sorted(folder.glob("*/dataset.json"))]
    for path, prefix in folders:
        yield from ((prefix + sample.id, sample.caption) for sample in Dataset.open(path) if sample.caption)
