"""Pictures that the user has, without depth: indexed or cropped, and their depth estimated by a model that the user names."""

import sys
from pathlib import Path

from alberti.data.manifest import Dataset
from alberti.depth.estimate import estimate_depth, load_estimator
from alberti.device import choose_device
from alberti.errors import ConfigError
from stages.shared import prepare_native
from stages.shared.layout import Layout
from stages.shared.source_params import CONDITION_ROLE, SourceParams


def write(layout: Layout, out: Path, role: str, section: SourceParams) -> None:
    """As ``prepare_native`` does, then a depth map for each picture in `data/<role>/depth/`."""
    config = section.located_depth(layout)
    if config is None:
        raise ConfigError(f"prepare.{role}.estimate_depth: needed to estimate depth")
    try:
        estimator = load_estimator(config, choose_device())
    except ConfigError as error:
        raise ConfigError(f"prepare.{role}.{error}") from None
    if role == CONDITION_ROLE and estimator.kind != "z":
        print(
            f"note: prepare.{role}: {config.model} gives inverse depth, which pictures can be generated from; depth models "
            f"learn metres from them, and need a metric one (prepare.{role}.estimate_depth.model; kind=z if it is metric and "
            "does not say so)",
            file=sys.stderr,
        )
    prepare_native.write(layout, out, role, section)
    estimate_depth(Dataset.open(out), estimator, config.batch_size, layout.checkpoints("estimated", role))
