"""The packages of the extra `study`, which an installation may lack."""

from importlib.util import find_spec

from alberti.errors import ConfigError

PACKAGES = ("fastapi", "uvicorn", "markdown_it", "scipy", "choix")


def require_extra(what: str) -> None:
    """ConfigError that says what to install, unless all packages are there. Imports none of them."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(f"{what} needs {', '.join(missing)}; install them with: pip install 'alberti[study]'")
