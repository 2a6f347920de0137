"""Procedural streets: pictures with exact depth, cameras, true vanishing points and captions.

Rendered stand-ins for street photographs, by ray casting in torch on the CPU or a GPU, a batch of scenes at a time.
"""

from alberti.data.scenes.config import SceneConfig
from alberti.data.scenes.generate import RenderedScene, render_dataset, render_scenes
from alberti.data.scenes.junctions import render_junctions
from alberti.data.scenes.lidar import VELO_TO_CAMERA, lidar_scan
from alberti.data.scenes.render import render_batch
from alberti.data.scenes.styles import STYLES, TRAINING_STYLES

__all__ = [
    "STYLES",
    "TRAINING_STYLES",
    "VELO_TO_CAMERA",
    "RenderedScene",
    "SceneConfig",
    "lidar_scan",
    "render_batch",
    "render_dataset",
    "render_junctions",
    "render_scenes",
]
