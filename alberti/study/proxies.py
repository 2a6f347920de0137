"""Automatic stand-ins for people: image-text and preference models of transformers, and whether they notice bent pictures.

A model scores each picture against its caption (CLIP and its kin, PickScore among them: cosine of image and text, scaled). A
"preference" of an arm is the share of pictures that score higher than the other arm's. Beside it stands what the model says of
renders against the same renders bent: one that cannot tell these apart says nothing of perspective, whatever it prefers.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from alberti.errors import DataError
from alberti.files import atomic_file, write_json
from alberti.images import read_image
from alberti.progress import track
from alberti.seeding import numpy_generator
from alberti.study.bend import bend, resampled
from alberti.study.create import read_source
from alberti.study.statistics import clustered_share

BENDS_PX = (0.5, 1.0, 2.0, 4.0)
"""Root mean square displacements that the check tries, in pixels."""
_MOST_CHECKED = 200


class ImageTextModel:
    """Scores of pictures against captions by any model of transformers with ``logits_per_image``."""

    def __init__(self, name: str, *, processor: str | None = None, device: str | None = None):
        import torch
        from transformers import AutoModel, AutoProcessor

        self.name = name
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self._processor = AutoProcessor.from_pretrained(processor or name)
            model = AutoModel.from_pretrained(name)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{name}: not a model that transformers loads ({reason}); expected a folder or hub id with config, weights and "
                "processor (--processor names another place for the last)"
            ) from None
        if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
            raise DataError(
                f"{name}: a {type(model).__name__} scores no picture against a text; expected one like CLIP or SigLIP "
                "(PickScore, HPSv2 and ImageReward's kin on a CLIP in transformers' format)"
            )
        self._model = model.to(self._device).eval()

    def score(self, image: np.ndarray, caption: str) -> float:
        """How well (H, W, 3) uint8 goes with its caption, higher is better."""
        import torch
        from PIL import Image

        inputs = self._processor(
            text=[caption], images=[Image.fromarray(image)], return_tensors="pt", padding="max_length", truncation=True
        )
        with torch.inference_mode():
            output = self._model(**{name: value.to(self._device) for name, value in inputs.items()})
        return float(output.logits_per_image[0, 0])


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
        model = ImageTextModel(name, processor=processor, device=device)
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


def check_bends(model: Any, straight: Path, prompt: str, *, bends: Sequence[float] = BENDS_PX) -> list[dict[str, Any]]:
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


def _compare_arms(
    model: ImageTextModel, arms: Mapping[str, Path], captions: Mapping[str, str], prompt: str
) -> list[dict[str, Any]]:
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
