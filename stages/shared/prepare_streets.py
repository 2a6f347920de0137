"""Rendered streets as a data-set folder."""

from pathlib import Path

from alberti.data.scenes.generate import render_dataset
from alberti.device import choose_device
from alberti.parallel import core_count
from stages.shared.layout import Layout
from stages.shared.source_params import SourceParams
from stages.shared.streets import scene_config

_WORTH_PROCESSES = 48


def write(layout: Layout, out: Path, role: str, section: SourceParams) -> None:
    """Render ``section.scenes`` into ``out``."""
    scenes = section.scenes
    assert scenes is not None
    where = str(choose_device())
    workers = workers_for(scenes.count) if where == "cpu" else 1
    config = scene_config(scenes)
    render_dataset(
        out, name="streets", role=role, count=scenes.count, seed=scenes.seed, config=config, device=where, workers=workers
    )


def workers_for(count: int) -> int:
    """Processes that pay for their start."""
    return core_count() if count >= _WORTH_PROCESSES else 1
