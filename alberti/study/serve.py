"""Running the server: one process, which a signal ends between two answers."""

import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

from alberti.errors import ConfigError
from alberti.study.guard import Limits
from alberti.study.server import create_app
from alberti.study.texts import FOLDER, is_unedited

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    folder: Path, host: str, port: int, *, public_url: str | None, behind_proxy: bool, rate: float, begins: float
) -> None:
    """Serve a study until interrupted; prints the address once requests are taken.

    Raises:
        DataError, ConfigError: the study is not whole, or the address cannot be used.
    """
    import uvicorn

    listening = _listen(host, port)
    bound = int(listening.getsockname()[1])
    hosts, shown = addresses(host, bound, public_url)
    limits = Limits(
        address_requests_per_second=rate,
        address_burst=int(5 * rate),
        begins_per_minute=begins,
        begins_burst=int(max(begins, 1)),
    )
    app = create_app(folder, hosts=hosts, limits=limits, secure=shown.startswith("https://"))
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=behind_proxy,
        forwarded_allow_ips="127.0.0.1" if behind_proxy else None,
        limit_concurrency=1000,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=16 * 1024,
        ws="none",
    )
    if is_unedited(folder):
        where = folder / FOLDER / "consent.md"
        print(f"note: {where} does not say yet who runs the study; edit it before people take part", file=sys.stderr)
    print(f"{shown}  ({folder}; Ctrl-C ends)", flush=True)
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigError(f"{host}:{port}: cannot listen there ({error}); choose another --port or --host") from None
    listening.listen(512)
    return listening


def addresses(host: str, port: int, public_url: str | None) -> tuple[list[str], str]:
    """The ``Host`` headers to answer, and the address to give to raters."""
    names = set(_LOOPBACK) if host in (*_LOOPBACK, "0.0.0.0", "::") else {host}
    if host in ("0.0.0.0", "::") and public_url is None:
        raise ConfigError(f"--host {host}: say under which address raters come, with --public-url http://NAME:{port}")
    hosts = [f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in names]
    if port == 80:
        hosts += [f"[{name}]" if ":" in name else name for name in names]
    if public_url is None:
        return hosts, f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    parts = urlsplit(public_url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
        raise ConfigError(
            f"--public-url {public_url}: expected http://NAME or https://NAME, with a port or not, without a path"
        )
    return [*hosts, parts.netloc.lower()], public_url.rstrip("/") + "/"
