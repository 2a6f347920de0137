"""Links of README and docs: which lead nowhere within the project, and which lead out of it (docs/links.md)."""

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.profiles import PROJECT

_INTRO = """# Links

Addresses outside of this project that its pages name, written by `python -m pipeline.reference`. Links within the project
are checked by the tests; these are not, because tests need no network.

| address | pages |
|---|---|
"""
_LINK = re.compile(r"\]\(([^)\s]+)\)|<(https?://[^>\s]+)>")
_GENERATED = "links.md"


def pages(project: Path = PROJECT) -> list[Path]:
    """Markdown files that people read."""
    found = [*project.glob("*.md"), *(project / "docs").rglob("*.md"), project / "pretrained" / "README.md"]
    return sorted(path for path in found if path.name != _GENERATED)


def links(page: Path) -> Iterator[str]:
    """Targets of a page's links, code left out."""
    for match in _LINK.finditer(_without_code(page.read_text(encoding="utf-8"))):
        yield match[1] or match[2]


def broken_links(project: Path = PROJECT) -> list[str]:
    """Links whose file or anchor is not there, as `page: link`."""
    return [
        f"{page.relative_to(project)}: {link}"
        for page in pages(project)
        for link in links(page)
        if "://" not in link and not _leads_somewhere(page, link)
    ]


def link_page(project: Path = PROJECT) -> str:
    """docs/links.md."""
    found: dict[str, list[str]] = {}
    for page in pages(project):
        for link in links(page):
            if "://" in link:
                name = page.relative_to(project).as_posix()
                found.setdefault(link, [])
                found[link] += [] if name in found[link] else [name]
    return _INTRO + "".join(f"| <{link}> | {', '.join(names)} |\n" for link, names in sorted(found.items()))


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub and the site make them."""
    titles = re.findall(r"^#{1,6} +(.+?) *$", _without_code(text, inline=False), re.MULTILINE)
    return {_slug(title) for title in titles}


def _leads_somewhere(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    if not target.exists():
        return False
    return not anchor or anchor in anchors(target.read_text(encoding="utf-8"))


def _slug(title: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def _without_code(text: str, *, inline: bool = True) -> str:
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text) if inline else text
