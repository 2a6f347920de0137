"""The scripts that `dvc plots show` draws with, on this machine: its page then needs no network.

`.dvc/plots.html` is that page's template. Without the file that this writes it loads the scripts from the network.
"""

import argparse
from pathlib import Path

from alberti.extras import extra
from alberti.files import write_text

SCRIPTS = Path(".dvc/tmp/vega.js")
_VEGA_LITE = "5.21"
"""DVC's charts are written for version 5."""


def write_scripts(project: Path) -> Path:
    """Vega, Vega-Lite and vega-embed in one file; its path."""
    with extra("pipeline", "the page of `dvc plots show` without a network"):
        import vl_convert

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_VEGA_LITE)
    write_text(project / SCRIPTS, f"(() => {{\n{bundle}\n}})();\n")
    return project / SCRIPTS


def main() -> None:
    """Write them into this project."""
    argparse.ArgumentParser(prog="python -m pipeline.plots_page", description=__doc__).parse_args()
    print(write_scripts(Path.cwd()))


if __name__ == "__main__":
    main()
