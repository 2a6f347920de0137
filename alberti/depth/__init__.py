"""Depth models: DPT and PixelFormer behind one interface, their training and prediction.

Names are imported when first used: the networks need torch, and DPT transformers.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alberti.depth.config import Augmentation as Augmentation
    from alberti.depth.config import DepthTrainConfig as DepthTrainConfig
    from alberti.depth.config import published_recipe as published_recipe
    from alberti.depth.models import DepthModel as DepthModel
    from alberti.depth.models import build_depth_model as build_depth_model
    from alberti.depth.pixelformer import PixelFormer as PixelFormer
    from alberti.depth.predict import PredictOptions as PredictOptions
    from alberti.depth.predict import predict_array as predict_array
    from alberti.depth.predict import predict_batch as predict_batch
    from alberti.depth.predict import predict_folder as predict_folder
    from alberti.depth.train import train_depth as train_depth

_HOMES = {
    "Augmentation": "config",
    "DepthModel": "models",
    "build_depth_model": "models",
    "PixelFormer": "pixelformer",
    "PredictOptions": "predict",
    "predict_array": "predict",
    "predict_batch": "predict",
    "predict_folder": "predict",
    "DepthTrainConfig": "config",
    "published_recipe": "config",
    "train_depth": "train",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"alberti.depth.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
