"""A rater without a browser: plain HTTP, for load tests and for trying a server before people do."""

import http.client
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit


@dataclass
class Reply:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One visitor of a study's server, with a connection and a cookie of their own."""

    def __init__(self, url: str, *, timeout: float = 30):
        parts = urlsplit(url)
        self.origin, self._host = f"{parts.scheme}://{parts.netloc}", parts.netloc
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout)
        self.cookie = ""

    def close(self) -> None:
        self._connection.close()

    def request(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Send a request as a browser on the study's own page would; ``headers`` replace its own."""
        own = {"Host": self._host, "Cookie": self.cookie} | ({"Origin": self.origin} if method == "POST" else {})
        sent = {name: value for name, value in (own | dict(headers or {})).items() if value}
        try:
            self._connection.request(method, path, body, sent)
            response = self._connection.getresponse()
            reply = Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        except (http.client.HTTPException, OSError):
            self._connection.close()  # the next request opens a new one
            raise
        if response.will_close:
            self._connection.close()
        return reply

    def begin(self, **parameters: str) -> Reply:
        """Consent, and keep the cookie."""
        form = urlencode({"agree": "yes", **parameters}).encode()
        reply = self.request("POST", "/begin", form, {"Content-Type": "application/x-www-form-urlencoded"})
        if "set-cookie" in reply.headers:
            self.cookie = reply.headers["set-cookie"].split(";")[0]
        return reply

    def state(self) -> Any:
        """Where the rater is."""
        return self.request("GET", "/api/state").json()

    def answer(self, trial: Mapping[str, Any], chosen: str, ms: float = 0.0, **changes: Any) -> Reply:
        """Answer the trial of a state; ``changes`` replace fields of the body."""
        given = {"trial": trial["index"], "left": trial["ids"][0], "right": trial["ids"][1], "chosen": chosen, "ms": ms}
        body = {**given, "layout": "row", "device": "key", "window": [1280, 800], **changes}
        return self.request("POST", "/api/answer", json.dumps(body).encode(), {"Content-Type": "application/json"})

    def finish(self, choose: Callable[[Mapping[str, Any]], str], *, pictures: bool = False) -> Any:
        """Answer until the end, fetching the pictures of each pair if asked to; returns the last state."""
        state = self.state()
        while state["phase"] == "trial":
            trial = state["trial"]
            if pictures:
                for side in ("left", "right"):
                    self.request("GET", trial[side])
            reply = self.answer(trial, choose(trial))
            if reply.status != 200:
                raise RuntimeError(f"trial {trial['index']}: {reply.status} {reply.body.decode(errors='replace')}")
            state = reply.json()
        return state
