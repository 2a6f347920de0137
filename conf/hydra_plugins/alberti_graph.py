"""Read by Hydra, and so by `dvc exp run`, before it composes: what `graph: ${graph:}` in config.yaml means."""

from pathlib import Path

from pipeline.profiles import register_graph

register_graph(Path(__file__).resolve().parents[2])
