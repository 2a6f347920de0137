"""Rendered streets as params describe them."""

from alberti.data.scenes.config import SceneConfig
from stages.shared.source_params import SceneParams


def scene_config(scenes: SceneParams) -> SceneConfig:
    """What the renderer takes; ConfigError for a style or camera that it does not have."""
    return SceneConfig(**scenes.model_dump(exclude={"splits", "seed"}))
