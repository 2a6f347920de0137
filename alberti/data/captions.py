"""Captions for pictures that have none: from BLIP, or from a template."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from alberti.data.config import CaptionConfig
from alberti.data.manifest import Sample
from alberti.errors import CheckpointError, DataError
from alberti.extras import extra
from alberti.reading import first_line

Captioner = Callable[[list[np.ndarray]], list[str]]
"""Maps (H, W, 3) uint8 RGB pictures, of any sizes, to a caption each."""


def caption_samples(
    samples: Iterable[Sample],
    read_image: Callable[[Sample], np.ndarray],
    config: CaptionConfig,
    *,
    captioner: Captioner | None = None,
    device: str = "cpu",
) -> Iterator[Sample]:
    """Yield the samples in their order, each with a caption. One batch of pictures is in memory.

    Args:
        read_image: gives a sample's (H, W, 3) uint8 picture; called only for those that BLIP describes.
        captioner: instead of the BLIP model that ``config`` names.

    Raises:
        DataError: a sample is left without a caption; CheckpointError: the BLIP model cannot be loaded.
    """
    describe = captioner
    iterator = iter(samples)
    while batch := list(islice(iterator, config.batch_size)):
        open_ones = [index for index, sample in enumerate(batch) if not (config.keep and sample.caption)]
        if open_ones and describe is None and config.model is not None:
            # Loaded at the first need: a data set with captions of its own needs no model.
            describe = BlipCaptioner(config, device=device)
        if open_ones and describe is not None:
            texts = describe([read_image(batch[index]) for index in open_ones])
        else:
            texts = [_template(batch[index], config) for index in open_ones]
        for index, text in zip(open_ones, texts, strict=True):
            batch[index] = batch[index].model_copy(update={"caption": text})
        yield from batch


def _template(sample: Sample, config: CaptionConfig) -> str:
    if config.template is None:
        raise DataError(f"sample {sample.id!r}: no caption in the data set, and neither a BLIP model nor a template is set")
    return config.template


class BlipCaptioner:
    """Captions by BLIP (Li et al. 2022), greedy, so that equal pictures get equal captions in any batch."""

    def __init__(self, config: CaptionConfig, *, device: str = "cpu"):
        if config.model is None:
            raise DataError("BLIP captions: no model is named (a local folder or a hub id)")
        self._prompt, self._max_new_tokens, self._device = config.prompt, config.max_new_tokens, device
        self._model, self._processor = _load_blip(config.model, config.revision)
        self._model.to(device)

    def __call__(self, images: list[np.ndarray]) -> list[str]:
        import torch

        text = None if self._prompt is None else [self._prompt] * len(images)
        inputs = self._processor(images=images, text=text, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            tokens = self._model.generate(**inputs, max_new_tokens=self._max_new_tokens, do_sample=False, num_beams=1)
        captions = [caption.strip() for caption in self._processor.batch_decode(tokens, skip_special_tokens=True)]
        if not all(captions):
            raise DataError("BLIP gave an empty caption; is this a captioning model?")
        return captions


def _load_blip(name: str, revision: str | None) -> tuple[Any, Any]:
    with extra("diffusion", "captions by BLIP"):
        from transformers import BlipForConditionalGeneration, BlipProcessor

    from alberti.weights import own_weights

    branch = revision or "main"
    try:
        # Safetensors only: no weights file of another kind is ever unpickled.
        model = BlipForConditionalGeneration.from_pretrained(name, use_safetensors=True, revision=branch)
        own_weights(model)
        return model.eval(), BlipProcessor.from_pretrained(name, revision=branch)
    except Exception as error:  # transformers, safetensors and the hub client raise types of their own
        where = "a local folder" if Path(name).is_dir() else "neither a local folder nor a hub model within reach"
        raise CheckpointError(f"BLIP model {name!r} ({where}): cannot be loaded: {first_line(error)}") from error
