from pathlib import Path

import pytest
from report_workspace import report_inputs, write_workspace

from alberti.report.inputs import ReportInputs

SEEDS = (0, 1)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished workspace of two seeds; tests only read it."""
    root = tmp_path_factory.mktemp("workspace")
    write_workspace(root, seeds=SEEDS)
    return root


@pytest.fixture(scope="session")
def inputs(workspace: Path) -> ReportInputs:
    return report_inputs(workspace, SEEDS)
