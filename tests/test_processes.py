"""What a process knows of the others from its environment."""

import pytest

from alberti import processes


@pytest.mark.parametrize(
    ("environment", "launched", "main"),
    [
        ({}, False, True),
        ({"RANK": "3", "WORLD_SIZE": "16"}, False, True),  # jobs that share a generation
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, False, True),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, True, True),
        ({"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1"}, True, False),
    ],
)
def test_the_main_process_is_the_first_of_those_launched(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], launched: bool, main: bool
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes.is_launched() == launched
    assert processes.is_main() == main


def test_gpus_that_the_environment_names_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert processes.visible_gpus() == ["2", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert processes.visible_gpus() == []
