"""Write the results of a finished run as JSON, Markdown tables and figures, as docs/results/ holds them.

python -m pipeline.results --out docs/results/first.json --markdown docs/results/first.md --figures docs/images/first
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from alberti.data.manifest import Dataset
from alberti.errors import AlbertiError
from alberti.files import read_json, write_json, write_text
from alberti.report.markdown import markdown
from stages.shared.layout import Layout


def picture_sets(layout: Layout, arms: Sequence[str], seed: int) -> dict[str, Dataset]:
    """Column of a strip -> data set: depth, render, reconstruction, and the arms' pictures for one seed."""
    condition = Dataset.open(layout.data("condition"))
    sets = {"depth": condition}
    if condition[0].image is not None:
        sets["render"] = condition
    if (layout.references / "dataset.json").is_file():
        sets["reconstruction"] = Dataset.open(layout.references)
    for arm in arms:
        seeded = layout.generated(arm, seed)
        sets[arm] = Dataset.open(seeded if seeded.is_dir() else layout.generated(arm, None))
    return sets


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the summary and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path, nargs="?", default=Path(), help="folder of the run (default: here)")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--markdown", type=Path, help="Markdown file to write")
    parser.add_argument("--figures", type=Path, help="folder for figures")
    parser.add_argument("--scenes", type=int, default=4, help="depth maps in the picture strip (default: 4)")
    parser.add_argument("--arms", nargs="+", help="arms in the picture strip and the profiles (default: the first six)")
    options = parser.parse_args(arguments)
    try:
        layout = Layout(options.workspace)
        summary = read_json(layout.metrics("summary.json"))
        write_json(options.out, {"name": options.out.stem, **summary})
        if options.markdown is not None:
            write_text(options.markdown, markdown(summary))
        if options.figures is not None:
            from alberti.report.figures import arms_to_draw, write_figures

            arms = arms_to_draw(summary, options.arms)
            sets = picture_sets(layout, arms, summary["seeds"][0])
            write_figures(summary, sets, options.figures, scenes=options.scenes)
    except AlbertiError as error:
        sys.exit(f"error: {error}")
    print(options.out)


if __name__ == "__main__":
    main()
