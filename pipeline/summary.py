"""The last words of `make repro`: the metrics, what changed and where the report is. `python -m pipeline.summary [FOLDER]`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alberti.errors import AlbertiError
from alberti.files import read_json

if TYPE_CHECKING:
    from rich.table import Table


def print_summary(workspace: Path) -> None:
    """Print `metrics/summary.json` of a workspace as tables, what changed, and the path of its report."""
    from rich.console import Console

    summary = read_json(workspace / "metrics" / "summary.json")
    console = Console()
    if summary.get("images"):
        console.print(_table("Generated pictures", summary["images"]))
    for model, arms in summary.get("depth", {}).items():
        console.print(_table(f"Depth on the test set, {model}, by what it was trained on", arms))
    for change in summary.get("changes", []):
        console.print(change, markup=False, highlight=False, soft_wrap=True)
    console.print(f"report: {(workspace / 'report' / 'index.html').resolve()}", soft_wrap=True)


def _table(title: str, arms: dict[str, dict[str, Any]]) -> "Table":
    """A column an arm, a row a metric: names of metrics are long, and there are few arms."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("")
    for arm in arms:
        table.add_column(arm, justify="right")
    for metric in dict.fromkeys(name for values in arms.values() for name in values):
        table.add_row(metric, *(_number(values.get(metric)) for values in arms.values()))
    return table


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Print the summary of the folder given, or of this one."""
    try:
        print_summary(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    except AlbertiError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
