"""What MkDocs does beyond mkdocs.yml: files outside of docs/ that pages link to become part of the site.

Pages say `../conf/profile/paper.yaml`, as a reader of the repository expects. Markdown files among them become pages, all
others are copied as they are. A link to a file that is not there stays as it is, and the strict build refuses it.
"""

import os
import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "pretrained/README.md": "pretrained.md",
    "README.md": "index.md",
}
"""Markdown files outside of docs/ -> their pages."""
_FOLDERS = {"pretrained": "pretrained/README.md", "docs/results": "docs/results/README.md"}
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
_ORIGIN = {page: origin for origin, page in PAGES.items() if page != "index.md"}


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the files outside of docs/ that pages link to."""
    project = Path(config.config_file_path).parent
    for origin, page in PAGES.items():
        if page != "index.md":
            files.append(File.generated(config, page, content=(project / origin).read_text(encoding="utf-8")))
    pages = [*(project / "docs").rglob("*.md"), *(project / origin for origin in _ORIGIN.values())]
    for path in pages:
        for _, target, _ in _LINK.findall(path.read_text(encoding="utf-8")):
            found = _in_project(path.relative_to(project), target)
            if found is not None and _is_copied(project, found) and files.get_file_from_path(f"files/{found}") is None:
                files.append(File.generated(config, f"files/{found}", abs_src_path=str(project / found)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Links that leave docs/, or come from a file outside of it, as links within the site."""
    project = Path(config.config_file_path).parent
    here = page.file.src_uri
    origin = PurePosixPath(_ORIGIN.get(here, f"docs/{here}"))

    def within(match: re.Match[str]) -> str:
        found = _in_project(origin, match[2])
        if found is None or not (project / found).exists():
            return match[0]
        found = _FOLDERS.get(found, found)
        target = PAGES.get(found) or (found.removeprefix("docs/") if found.startswith("docs/") else f"files/{found}")
        return match[1] + posixpath.relpath(target, posixpath.dirname(here) or ".") + match[3]

    return _LINK.sub(within, markdown)


def _in_project(page: Path | PurePosixPath, target: str) -> str | None:
    """A link's target from the project's folder; None for an address and what leads out of it."""
    if "://" in target or target.startswith(("/", "mailto:")):
        return None
    found = posixpath.normpath(posixpath.join(os.fspath(page.parent), target))
    return None if found.startswith("..") else found


def _is_copied(project: Path, found: str) -> bool:
    return not found.startswith("docs/") and found not in PAGES and (project / found).is_file()
