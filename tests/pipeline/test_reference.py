"""docs/params.md says what the schema says, and docs/commands.md what the commands do."""

from pathlib import Path

from pipeline.command_reference import command_reference
from pipeline.reference import reference


def test_the_page_is_in_step_with_the_schema(project: Path) -> None:
    """If this fails: `python -m pipeline.reference`."""
    assert (project / "docs" / "params.md").read_text(encoding="utf-8") == reference()


def test_a_key_shows_default_values_and_meaning() -> None:
    lines = reference().splitlines()
    weight = "| `weight` | `0.01` | number | Weight of the constraint in the loss. 0.01 is the paper's configuration. |"
    assert weight in lines  # of ConstraintSettings
    assert "| `seeds` | needed | list: integer |" in "\n".join(lines)
    assert "| `seed` | `null` | integer | null: each of `seeds` in turn. |" in lines  # an arm's own, not the trainer's


def test_every_kind_of_section_has_one_table() -> None:
    titles = [line for line in reference().splitlines() if line.startswith("## ")]
    assert len(titles) == len(set(titles))
    assert {f"## `{place}`" for place in ("prepare", "finetune", "generate.vanishing_guidance", "variants.NAME")} <= set(titles)


def test_every_param_is_described() -> None:
    """If this fails: write a string behind the field, with its unit."""
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 200
    assert not [row for row in rows if not row.removesuffix(" |").rsplit("|", 1)[-1].strip()]


def test_the_commands_are_in_step(project: Path) -> None:
    """If this fails: `python -m pipeline.reference`."""
    assert (project / "docs" / "commands.md").read_text(encoding="utf-8") == command_reference()


def test_every_option_is_described() -> None:
    rows = [line for line in command_reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert not [row for row in rows if not row.removesuffix(" |").rsplit("|", 1)[-1].strip()]


def test_a_switch_that_has_no_opposite_names_none() -> None:
    rows = command_reference().splitlines()
    assert any(row.startswith("| `--only-common` |") for row in rows)
    assert any(row.startswith("| `--compare / --no-compare` |") for row in rows)


def test_what_stands_in_angle_brackets_is_no_tag() -> None:
    assert "DIODE: &lt;image name>.npy" in command_reference()
    assert "`<date>/<drive> <frame> l`" in command_reference()  # code is shown as it is
