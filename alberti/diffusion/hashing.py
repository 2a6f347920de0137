"""Hashes of networks: what a cache or a run depends on."""

import hashlib
from typing import Any

import torch
from torch import nn

from alberti.diffusion.model import DepthDiffusion
from alberti.files import sha256_json


def module_hash(module: nn.Module) -> str:
    """Hex SHA-256 over names, types, shapes and bytes of a module's state."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def model_hash(model: DepthDiffusion) -> str:
    """Hex SHA-256 over every network, the tokenizer and the scheduler's settings."""
    parts: dict[str, Any] = {name: module_hash(module) for name, module in model.modules().items()}
    parts["tokenizer"] = tokenizer_hash(model)
    parts["scheduler"] = [type(model.scheduler).__name__, dict(model.scheduler.config)]
    return sha256_json(parts)


def tokenizer_hash(model: DepthDiffusion) -> str:
    """Hex SHA-256 of the tokenizers' vocabularies, merges and settings."""
    states = [each._tokenizer.to_str() for each in model.tokenizers()]
    return sha256_json(states[0] if len(states) == 1 else states)
