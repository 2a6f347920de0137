"""The stages of a DVC workspace and what each one waits for."""

from pathlib import Path

from alberti.errors import ConfigError


def stage_graph(workspace: str | Path) -> dict[str, list[str]]:
    """Stage instance -> the instances whose outs it reads, every stage after what it waits for.

    Raises:
        ConfigError: dvc.yaml or params.yaml that DVC cannot read; the message is DVC's.
    """
    import networkx as nx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(workspace)) as repo:
            graph = repo.index.graph  # edges run from a stage to what it depends on
            order = list(nx.lexicographical_topological_sort(graph.reverse(copy=True), key=lambda stage: stage.name))
            return {stage.name: sorted(up.name for up in graph.successors(stage)) for stage in order}
    except DvcException as error:
        raise ConfigError(f"{workspace}: {error}") from error
