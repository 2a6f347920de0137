"""A CLIP tokenizer trained on a data set's captions."""

import json
from collections.abc import Iterable
from typing import Any

from alberti.errors import DataError
from alberti.extras import extra

with extra("diffusion", "alberti's diffusion code"):
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(captions: Iterable[str], vocabulary: int, max_tokens: int) -> CLIPTokenizer:
    """Byte-level BPE over ``captions`` with CLIP's own normalisation, at most ``vocabulary`` tokens (at least 514).

    Deterministic: captions are deduplicated and sorted first. Every byte has a token, so any text can be encoded.
    ``CLIPTokenizer.from_pretrained`` reads what its ``save_pretrained`` writes.
    """
    from tokenizers import pre_tokenizers
    from tokenizers.trainers import BpeTrainer

    texts = sorted(set(captions))
    if not texts:
        raise DataError("captions: a tokenizer needs at least one caption")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    # A byte inside a word and the same byte at its end are two tokens in CLIP's BPE.
    base = [*letters, *(f"{letter}</w>" for letter in letters)]
    backend: Any = CLIPTokenizer()._tokenizer
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[],
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    learned = sorted(set(model["vocab"]) - set(base) - {START, END}, key=model["vocab"].__getitem__)
    tokens = [*base, *learned][: max(vocabulary - 2, len(base))]
    vocab = {token: index for index, token in enumerate([*tokens, START, END])}
    merges: Any = [(left, right) for left, right in model["merges"] if {left, right, left + right} <= vocab.keys()]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_tokens)
