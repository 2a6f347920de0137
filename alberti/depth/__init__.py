"""Depth models: DPT and PixelFormer behind one interface, their training and prediction.

Names are imported when first used: the networks need torch, and DPT transformers.
"""

from typing import TYPE_CHECKING

from alberti.lazy import lazy_names

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
    "config": ("Augmentation", "DepthTrainConfig", "published_recipe"),
    "models": ("DepthModel", "build_depth_model"),
    "pixelformer": ("PixelFormer",),
    "predict": ("PredictOptions", "predict_array", "predict_batch", "predict_folder"),
    "train": ("train_depth",),
}
__getattr__, __all__ = lazy_names(__name__, _HOMES)
