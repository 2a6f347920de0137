"""The pages' templates: one look and one set of components for the report, `alberti score` and others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alberti.files import write_text
from alberti.overlays import COLOURS
from alberti.report.comparison import EFFECT_WORDS


def render(template: str, context: Mapping[str, Any], *, package: str = "alberti.report") -> str:
    """A page as text: self-contained HTML, for the template includes styles and scripts.

    Args:
        template: a file in ``templates/`` of ``package``. It may extend ``base.html`` and import ``components.html``, which are
            this package's.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape

    places = dict.fromkeys([package, "alberti.report"])
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(place) for place in places]),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["effect_words"] = EFFECT_WORDS
    environment.globals["point_colours"] = [f"rgb({red} {green} {blue})" for red, green, blue in COLOURS]
    return environment.get_template(template).render(**context)


def page_begins() -> str:
    """What every page of these begins with: by it a file is known as one of ours."""
    template = Path(__file__).with_name("templates") / "base.html"
    return template.read_text(encoding="utf-8").split("<title>")[0]


def write_page(out: str | Path, template: str, context: Mapping[str, Any], *, package: str = "alberti.report") -> Path:
    """Render a page into a file, which appears whole or not at all; returns its path."""
    out = Path(out)
    write_text(out, render(template, context, package=package))
    return out
