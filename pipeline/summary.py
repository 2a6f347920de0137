"""Prints what a finished run found: main numbers, verdict, and where the report is. `make repro` ends with it."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alberti.errors import AlbertiError
from alberti.files import read_json
from alberti.report.comparison import EFFECT_WORDS
from alberti.report.tables import DEPTH_HEADS, PICTURE_HEADS, depth_table, picture_table, setting_text
from alberti.report.verdict import caveats
from stages.shared.layout import Layout

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from alberti.report.tables import Table

_PICTURES = tuple(key for key in PICTURE_HEADS if key != "vp_auc_10")  # what fits 120 columns
_STYLES = {"better": "green", "worse": "red", "up": "blue", "down": "blue"}


def print_summary(workspace: Path) -> None:
    """Print `metrics/summary.json` of a workspace: tables, then the verdict, what to keep in mind, and the report's path."""
    from rich.console import Console

    layout = Layout(workspace)
    summary = read_json(layout.metrics("summary.json"))
    console = Console()
    if summary["images"]:
        console.print(_rich(picture_table(summary, _PICTURES), "Generated pictures"))
    for test_set, section in summary["depth"].items():
        for model in section["models"]:
            title = f"{model} on {setting_text(test_set, section, model)}"
            console.print(_rich(depth_table(summary, test_set, model, DEPTH_HEADS), title))
    _print_words(console, summary)
    console.print(f"report: {(layout.report / 'index.html').resolve()}", soft_wrap=True)


def _print_words(console: Any, summary: Mapping[str, Any]) -> None:
    from rich.text import Text

    for line in summary["verdict"]:
        console.print(Text.assemble((line["question"], "bold"), " ", line["answer"]), highlight=False)
    for line in caveats(summary):
        console.print(f"- {line}", markup=False, highlight=False, style="dim")


def _rich(table: "Table", title: str) -> "RichTable":
    """An arm a row; beneath a value, where there is a control, what changed against it."""
    from rich.table import Table as RichTable

    against = f"; changes against “{table.control}”" if table.control else ""
    rich = RichTable(title=f"{title}{against}", title_justify="left")
    rich.add_column("")
    for metric in table.metrics:
        rich.add_column(f"{metric.label} {metric.arrow}", justify="right")
    for row in table.rows:
        cells = []
        for cell in row.cells:
            style = _STYLES.get(str(cell.effect))
            change = "" if cell.effect is None else f"\n{EFFECT_WORDS[cell.effect]} {cell.change}"
            cells.append(cell.text + (f"[{style}]{change}[/{style}]" if style and change else change))
        rich.add_row(row.arm, *cells)
    return rich


def main() -> None:
    """Print the summary of the folder given, or of this one."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.summary", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="folder of the run (default: here)")
    try:
        print_summary(parser.parse_args().folder)
    except AlbertiError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
