"""Hashes of a diffusion model and its parts: what a cache or a run depends on."""

from typing import Any

from alberti.diffusion.model import DepthDiffusion
from alberti.files import sha256_json
from alberti.weights import weights_hash


def model_hash(model: DepthDiffusion) -> str:
    """Hex SHA-256 over every network, the tokenizer and the scheduler's settings."""
    parts: dict[str, Any] = {name: weights_hash(module) for name, module in model.modules().items()}
    parts["tokenizer"] = tokenizer_hash(model)
    parts["scheduler"] = [type(model.scheduler).__name__, dict(model.scheduler.config)]
    return sha256_json(parts)


def tokenizer_hash(model: DepthDiffusion) -> str:
    """Hex SHA-256 of the tokenizers' vocabularies, merges and settings."""
    states = [each._tokenizer.to_str() for each in model.tokenizers()]
    return sha256_json(states[0] if len(states) == 1 else states)
