"""What stands between the network and the study: hosts, origins, sizes and rates are checked, and headers are added."""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTENT_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Nothing to other sites; `no-referrer` would also blank the Origin of our own forms, which is checked.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), interest-cohort=()",
    "x-robots-tag": "noindex, nofollow",
    "cache-control": "no-store",
}
_METHODS = ("GET", "HEAD", "POST")


@dataclass(frozen=True)
class Limits:
    """How much one visitor may do."""

    body_bytes: int = 4096
    body_seconds: float = 10.0
    path_bytes: int = 2048
    requests_per_second: float = 20.0
    """Per cookie, so that raters of one address do not slow each other down."""
    burst: int = 80
    address_requests_per_second: float = 200.0
    """Per address, whatever cookies it invents."""
    address_burst: int = 1000
    begins_per_minute: float = 60.0
    """New raters per address: a class in one room shares one."""
    begins_burst: int = 60


class Buckets:
    """Token buckets by key; the least recently used are forgotten, so that strangers cannot fill the memory."""

    def __init__(self, rate: float, burst: float, *, most: int = 20_000, clock: Callable[[], float] = time.monotonic):
        self._rate, self._burst, self._most, self._clock = rate, burst, most, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Take one; returns 0, or how many seconds to wait."""
        now = self._clock()
        left, when = self._left.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - when) * self._rate)
        allowed = left >= 1
        self._left[key] = (left - 1 if allowed else left, now)
        while len(self._left) > self._most:
            self._left.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self._rate


class Refused(Exception):
    """A request that the guard does not let through."""

    def __init__(self, status: int, message: str, **headers: str):
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


class Guard:
    """ASGI middleware around the study's application."""

    def __init__(self, app: App, *, hosts: Iterable[str], limits: Limits, token_of: Callable[[str], str | None]):
        self._app, self._hosts, self._limits, self._token_of = app, {host.lower() for host in hosts}, limits, token_of
        self._requests = Buckets(limits.requests_per_second, limits.burst)
        self._addresses = Buckets(limits.address_requests_per_second, limits.address_burst)
        self._begins = Buckets(limits.begins_per_minute / 60, limits.begins_burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        send = _with_headers(send)
        try:
            headers = _headers(scope)
            self._check(scope, headers)
            receive = await self._body(scope, headers, receive)
        except Refused as refused:
            await _refuse(send, refused)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        method, path = scope["method"], scope["path"]
        if method not in _METHODS:
            raise Refused(405, "method not allowed", allow=", ".join(_METHODS))
        if len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"") > self._limits.path_bytes:
            raise Refused(414, "address too long")
        host = headers.get("host", "").lower()
        if host not in self._hosts:
            raise Refused(421, "this server does not answer for that host")
        if method == "POST":
            _check_origin(scope, headers, host)
        address = (scope.get("client") or ("unknown", 0))[0]
        self._limit(self._addresses, address)
        if token := self._token_of(headers.get("cookie", "")):
            self._limit(self._requests, token)
        if method == "POST" and path == "/begin":
            self._limit(self._begins, address)

    @staticmethod
    def _limit(buckets: Buckets, key: str) -> None:
        if wait := buckets.take(key):
            raise Refused(429, "too many requests", **{"retry-after": str(max(1, round(wait)))})

    async def _body(self, scope: Scope, headers: dict[str, str], receive: Receive) -> Receive:
        """Read the body, at most ``body_bytes`` of it within ``body_seconds``, and hand it on as one message."""
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise Refused(400, "malformed content-length")
        if int(length) > self._limits.body_bytes:
            raise Refused(413, f"body larger than {self._limits.body_bytes} bytes", connection="close")
        try:
            body = await asyncio.wait_for(self._read(receive), self._limits.body_seconds)
        except TimeoutError:
            raise Refused(408, "the body did not come in time", connection="close") from None
        sent = False

        async def whole() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        return whole

    async def _read(self, receive: Receive) -> bytes:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "disconnected")
            body += message.get("body", b"")
            if len(body) > self._limits.body_bytes:
                raise Refused(413, f"body larger than {self._limits.body_bytes} bytes", connection="close")
            more = message.get("more_body", False)
        return body


def _headers(scope: Scope) -> dict[str, str]:
    """Lower-case name -> value; a name that matters and comes twice is refused."""
    found: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1").lower()
        if name in found and name in ("host", "origin", "content-length", "content-type"):
            raise Refused(400, f"header {name} given twice")
        found[name] = f"{found[name]}; {value.decode('latin-1')}" if name in found else value.decode("latin-1")
    return found


def _check_origin(scope: Scope, headers: dict[str, str], host: str) -> None:
    """Only our own pages may post: the Origin that every browser sends with a POST must be this very server."""
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise Refused(403, "only from the study's own page")
    if headers.get("origin", "").lower() not in (f"http://{host}", f"https://{host}"):
        raise Refused(403, "only from the study's own page")


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name.lower() for name, _ in message.get("headers", [])}
            added = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in given]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return sending


async def _refuse(send: Send, refused: Refused) -> None:
    body = json.dumps({"error": refused.message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in refused.headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
