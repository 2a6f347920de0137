"""Data that the user has, read where they lie: indexed, or cropped to one size."""

from contextlib import ExitStack
from pathlib import Path

from alberti.data.fingerprint import FileIndex
from alberti.data.source import Source
from alberti.data.sources import limited, open_source, write_fitted, write_source
from alberti.device import choose_device
from alberti.parallel import core_count
from stages.shared.layout import Layout
from stages.shared.source_params import SourceParams


def write(layout: Layout, out: Path, role: str, section: SourceParams) -> None:
    """Index the role's sources where they lie, or write crops of them where the section has a size for them."""
    with ExitStack() as stack:
        sources: list[Source] = []
        for native, root in zip(section.natives(), section.roots(layout), strict=True):
            cache = layout.checkpoints("index", f"{role}{len(sources) or ''}.jsonl")
            # of crops, their own bytes count: the originals would be hashed for nothing
            index = stack.enter_context(FileIndex(root, cache, hashes=section.fit is None))
            source = open_source(native.source, root, index=index, **native.located_options(layout))
            sources.append(limited(source, native.limit, index))
        captions, where = section.located_captions(layout), str(choose_device())
        if section.fit is None:
            write_source(sources[0], out, role=role, captions=captions, device=where)
        else:
            fit, workers = section.fit, core_count()
            write_fitted(sources, out, role=role, fit=fit, captions=captions, device=where, workers=workers)
