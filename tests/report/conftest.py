from pathlib import Path

import pytest
from report_workspace import write_workspace


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished workspace; tests read it and write only below ``report``, ``metrics/summary.json`` and ``plots``."""
    root = tmp_path_factory.mktemp("workspace")
    write_workspace(root)
    return root
