"""A real server, over HTTP: the whole way of a rater, and everything that must not work."""

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alberti.errors import DataError
from alberti.files import write_json
from alberti.study.client import Client, Reply
from alberti.study.collect import collect
from alberti.study.design import Study
from alberti.study.guard import Buckets, Limits
from alberti.study.schedule import Schedule
from alberti.study.server import create_app
from alberti.study.store import DATABASE, NotNext, Store

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def url(folder: Path, serving: Callable[..., str]) -> str:
    return serving(folder)


def begun(url: str, **parameters: str) -> Client:
    client = Client(url)
    assert client.begin(**parameters).status == 303
    return client


def test_a_rater_s_whole_way(url: str, folder: Path, study: Study) -> None:
    client = begun(url, PROLIFIC_PID="5f00", STUDY_ID="s", SESSION_ID="t")
    assert client.request("GET", "/").headers["location"] == "/study"
    page = client.request("GET", "/study")
    assert page.status == 200
    assert b'id="stage"' in page.body
    end = client.finish(lambda trial: "left" if trial["index"] % 2 else "right", pictures=True)
    assert end["phase"] == "done"
    answers = collect(folder)
    assert [answer.trial for answer in answers] == list(range(study.trials))
    trials = Schedule(study).trials(0, 1)
    for answer, trial in zip(answers, trials, strict=True):
        assert (answer.left, answer.right, answer.picture) == (trial.left.arm, trial.right.arm, trial.left.name)
        assert answer.chosen == ("left" if answer.trial % 2 else "right")
        assert (answer.kind, answer.rater, answer.finished, answer.window) == (trial.kind, "r1", True, (1280, 800))
    person = Store(folder, study).people()[0]
    assert (person["platform"], person["external_id"], person["code"]) == ("prolific", "5f00", end["code"])


def test_nothing_tells_a_rater_what_a_picture_is(url: str, study: Study) -> None:
    client = begun(url)
    texts = [client.request("GET", path).body.decode() for path in ("/study", "/api/state", "/static/study.js")]
    reply = client.request("GET", "/picture/0/left")
    texts += [str(reply.headers)]
    state = client.state()
    while state["phase"] == "trial":
        reply = client.answer(state["trial"], "left")
        state = reply.json()
        texts.append(reply.body.decode())
    secrets = ["constrained", '"base"', "bent", "catch", "repeat_of", study.digest]
    allowed = {"bent"}  # in the labels of the practice's feedback
    for text in texts[1:2] + texts[3:]:
        assert not [secret for secret in secrets if secret in text]
    assert not [secret for secret in secrets if secret in texts[0] and secret not in allowed]


def test_reloading_goes_on_where_one_was_and_an_answer_sent_twice_is_stored_once(url: str, folder: Path) -> None:
    client = begun(url)
    trial = client.state()["trial"]
    first, again = client.answer(trial, "left"), client.answer(trial, "left")
    assert first.status == again.status == 200
    assert first.json() == again.json()
    assert client.state()["trial"]["index"] == 1
    later = Client(url)
    later.cookie = client.cookie
    assert later.state()["trial"]["index"] == 1
    assert len(collect(folder)) == 1


def test_practice_says_what_was_right_and_nothing_else_does(url: str, study: Study) -> None:
    client, feedback = begun(url), {}
    state = client.state()
    while state["phase"] == "trial":
        index = state["trial"]["index"]
        state = client.answer(state["trial"], "left").json()
        feedback[index] = state["feedback"]
    for trial in Schedule(study).trials(0, 1):
        wanted = trial.correct == "left" if trial.kind == "practice" and trial.block.practice_feedback else None
        assert feedback[trial.index] is wanted


def test_two_raters_see_their_own_pairs_and_count_apart(url: str, folder: Path) -> None:
    one, two = begun(url), begun(url)
    ids = [client.state()["trial"]["ids"] for client in (one, two)]
    assert ids[0] != ids[1]
    one.finish(lambda trial: "left")
    assert two.state()["trial"]["index"] == 0
    assert {answer.rater for answer in collect(folder)} == {"r1"}


def test_a_slot_whose_rater_left_is_given_again(folder: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(folder, study)
    slots = [store.begin()[1].slot for _ in range(3)]
    assert slots == [0, 1, 2]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 4000)
    assert [store.begin()[1].slot for _ in range(4)] == [0, 1, 2, 3]


def test_withdrawing_takes_the_answers_out_of_everything(url: str, folder: Path) -> None:
    client = begun(url)
    client.answer(client.state()["trial"], "left")
    assert client.request("POST", "/api/withdraw", b"{}", JSON).json() == {"phase": "withdrawn"}
    assert client.state() == {"phase": "withdrawn"}
    assert collect(folder) == []
    assert client.request("GET", "/picture/1/left").status == 404


def test_a_person_of_a_platform_takes_part_once(url: str) -> None:
    lost = begun(url, workerId="A1", assignmentId="x", hitId="y")
    client = begun(url, workerId="A1", assignmentId="x", hitId="y")  # the first cookie never arrived: no answers yet
    assert lost.request("GET", "/api/state").status == 401
    assert client.answer(client.state()["trial"], "left").status == 200
    other = Client(url)
    reply = other.begin(workerId="A1", assignmentId="z", hitId="y")
    assert reply.status == 409
    assert not other.cookie
    assert client.state()["trial"]["index"] == 1
    preview = Client(url).begin(workerId="A2", assignmentId="ASSIGNMENT_ID_NOT_AVAILABLE")
    assert preview.status == 403


def test_the_code_of_all_and_the_way_back(folder: Path, serving: Callable[..., str]) -> None:
    values = json.loads((folder / "study.json").read_text())
    write_json(
        folder / "study.json", values | {"completion_code": "C1ABC", "completion_url": "https://example.org/done?cc=C1ABC"}
    )
    end = begun(serving(folder)).finish(lambda trial: "right")
    assert (end["code"], end["url"]) == ("C1ABC", "https://example.org/done?cc=C1ABC")


def test_what_strangers_wrote_in_the_address_stays_text(url: str) -> None:
    page = Client(url).request("GET", "/?PROLIFIC_PID=%22%3E%3Cscript%3Ealert(1)%3C/script%3E").body.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


def test_headers_keep_the_page_to_itself(url: str) -> None:
    client = begun(url)
    for path in ("/", "/study", "/api/state", "/static/study.js", "/picture/0/left", "/nowhere"):
        headers = client.request("GET", path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert client.request("GET", "/api/state").headers["cache-control"] == "no-store"
    cookie = Client(url).begin().headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


def raw(url: str, request: bytes) -> int:
    """Send bytes as they are; the status of the answer, 0 if the connection was closed."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=15) as connection:
        connection.sendall(request)
        answer = connection.recv(4096)
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


Attempt = Callable[[Client, Client, dict[str, Any]], "Reply | int"]


def _post(path: str, body: bytes, **headers: str) -> Attempt:
    return lambda me, other, trial: me.request(
        "POST", path, body, JSON | {name.replace("_", "-"): v for name, v in headers.items()}
    )


def _get(path: str) -> Attempt:
    return lambda me, other, trial: me.request("GET", path)


def _answer(chosen: Any = "left", ms: Any = 0.0, **changes: Any) -> Attempt:
    return lambda me, other, trial: me.answer(trial, chosen, ms, **changes)


def _as(cookie: str) -> Attempt:
    return lambda me, other, trial: me.request("GET", "/api/state", headers={"Cookie": cookie})


def _whole(trial: dict[str, Any], **changes: Any) -> bytes:
    body = {"trial": trial["index"], "left": trial["ids"][0], "right": trial["ids"][1], "chosen": "left", "ms": 1}
    return json.dumps({**body, "layout": "row", "device": "key", "window": [9, 9], **changes}).encode()


BAD_REQUESTS: dict[str, tuple[Attempt, int]] = {
    "an answer without a cookie": (
        lambda me, other, trial: me.request("POST", "/api/answer", _whole(trial), JSON | {"Cookie": ""}),
        401,
    ),
    "an answer with an invented cookie": (
        lambda me, other, trial: me.request("POST", "/api/answer", _whole(trial), JSON | {"Cookie": "alberti_study=abcdef"}),
        401,
    ),
    "a cookie of SQL": (_as("alberti_study=' OR 1=1 --"), 401),
    "a cookie of a rater's number": (_as("alberti_study=1"), 401),
    "an answer to another rater's trial": (lambda me, other, trial: me.answer(other.state()["trial"], "left"), 409),
    "sides exchanged": (lambda me, other, trial: me.answer({**trial, "ids": trial["ids"][::-1]}, "left"), 409),
    "pictures of no trial": (lambda me, other, trial: me.answer({**trial, "ids": ["0" * 16, "f" * 16]}, "left"), 409),
    "a trial ahead": (lambda me, other, trial: me.answer({**trial, "index": trial["index"] + 1}, "left"), 409),
    "a trial past the end": (lambda me, other, trial: me.answer({**trial, "index": 99}, "left"), 409),
    "a negative trial": (lambda me, other, trial: me.answer({**trial, "index": -1}, "left"), 422),
    "a trial as text": (lambda me, other, trial: me.answer({**trial, "index": "1"}, "left"), 422),
    "a trial of 2^63": (lambda me, other, trial: me.answer({**trial, "index": 2**63}, "left"), 422),
    "an answer changed afterwards": (lambda me, other, trial: me.answer({**trial, **me.first}, "right"), 409),  # type: ignore[attr-defined]
    "a choice that is none": (_answer("both"), 422),
    "no choice": (_answer(None), 422),
    "a negative time": (_answer(ms=-1), 422),
    "a time that is no number": (
        lambda me, other, trial: me.request("POST", "/api/answer", _whole(trial, ms=float("nan")), JSON),
        422,
    ),
    "an infinite time": (
        lambda me, other, trial: me.request("POST", "/api/answer", _whole(trial).replace(b'"ms": 1', b'"ms": 1e999'), JSON),
        422,
    ),
    "a time longer than there was": (_answer(ms=3_600_000), 422),
    "a field too many": (_answer(rater=2), 422),
    "a window without a size": (_answer(window=[0, 0]), 422),
    "text that is not JSON": (_post("/api/answer", b"{'trial': 0}"), 422),
    "bytes that are not UTF-8": (_post("/api/answer", b"\xff\xfe{}"), 422),
    "JSON nested a thousand deep": (_post("/api/answer", b"[" * 2000 + b"]" * 2000), 422),
    "a list for an object": (_post("/api/answer", b"[]"), 422),
    "an empty body": (_post("/api/answer", b""), 422),
    "a body too large": (_post("/api/answer", b" " * 5000), 413),
    "a form for JSON": (lambda me, other, trial: me.request("POST", "/api/answer", _whole(trial), FORM), 415),
    "JSON for a form": (_post("/begin", b'{"agree": "yes"}'), 415),
    "consent without the tick": (lambda me, other, trial: me.request("POST", "/begin", b"agree=no", FORM), 400),
    "a form of a hundred fields": (lambda me, other, trial: me.request("POST", "/begin", b"a=1&" * 100, FORM), 400),
    "another site's form": (_post("/begin", b"agree=yes", Origin="https://evil.example"), 403),
    "another site's answer": (_post("/api/answer", b"{}", Origin="https://evil.example"), 403),
    "an answer without an origin": (_post("/api/answer", b"{}", Origin=""), 403),
    "an origin of null": (_post("/api/answer", b"{}", Origin="null"), 403),
    "a cross-site fetch": (_post("/api/answer", b"{}", Sec_Fetch_Site="cross-site"), 403),
    "another host (DNS rebinding)": (lambda me, other, trial: me.request("GET", "/", headers={"Host": "evil.example"}), 421),
    "no host": (lambda me, other, trial: raw(me.origin, b"GET / HTTP/1.0\r\n\r\n"), 421),
    "two hosts": (lambda me, other, trial: raw(me.origin, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400),
    "two lengths": (
        lambda me, other, trial: raw(
            me.origin, b"POST /begin HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 9\r\n\r\nx"
        ),
        400,
    ),
    "no HTTP": (lambda me, other, trial: raw(me.origin, b"\x16\x03\x01\x02\x00\x01\r\n\r\n"), 400),
    "a header of a megabyte": (
        lambda me, other, trial: raw(me.origin, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 10**6),
        400,
    ),
    "a long address": (_get("/?x=" + "y" * 4000), 414),
    "the database": (_get("/answers.sqlite"), 404),
    "the design": (_get("/study.json"), 404),
    "the pictures' table": (_get("/pictures.jsonl"), 404),
    "a picture by its file name": (lambda me, other, trial: me.request("GET", f"/pictures/{trial['ids'][0]}.png"), 404),
    "dots above the root": (_get("/../../etc/passwd"), 404),
    "encoded dots": (_get("/static/..%2f..%2f..%2fetc%2fpasswd"), 404),
    "dots twice encoded": (_get("/static/%252e%252e%252fstudy.json"), 404),
    "a static file that is none": (_get("/static/study.json"), 404),
    "an absolute path": (_get("/static//etc/passwd"), 404),
    "a null byte": (_get("/static/study.js%00.png"), 404),
    "a picture two pairs ahead": (lambda me, other, trial: me.request("GET", f"/picture/{trial['index'] + 2}/left"), 404),
    "a picture of an answered pair": (_get("/picture/0/left"), 404),
    "a picture without a cookie": (lambda me, other, trial: me.request("GET", "/picture/1/left", headers={"Cookie": ""}), 401),
    "a side that is none": (_get("/picture/1/..%2f"), 404),
    "a side by another name": (_get("/picture/1/middle"), 422),
    "a trial that is a path": (_get("/picture/%2e%2e/left"), 422),
    "a trial that is no number": (_get("/picture/x/left"), 422),
    "the interface's description": (_get("/openapi.json"), 404),
    "its documentation": (_get("/docs"), 404),
    "PUT": (lambda me, other, trial: me.request("PUT", "/api/answer", b"{}", JSON), 405),
    "DELETE": (lambda me, other, trial: me.request("DELETE", "/api/answer"), 405),
    "TRACE": (lambda me, other, trial: me.request("TRACE", "/"), 405),
    "GET of an answer": (_get("/api/answer"), 405),
    "a WebSocket": (
        lambda me, other, trial: me.request(
            "GET",
            "/api/answer",
            headers={
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Key": "x" * 22 + "==",
                "Sec-WebSocket-Version": "13",
            },
        ),
        405,
    ),
}


def test_bad_requests_are_refused_and_change_nothing(url: str, folder: Path, study: Study) -> None:
    me, other = begun(url), begun(url)
    first = me.state()["trial"]
    assert me.answer(first, "left").status == 200
    me.first = first  # type: ignore[attr-defined]
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.name.startswith(DATABASE)}
    secrets = [path.read_bytes()[:200] for path in (folder / "study.json", folder / "pictures.jsonl")]
    got = {}
    for name, (attempt, expected) in BAD_REQUESTS.items():
        reply = attempt(me, other, me.state()["trial"])
        got[name] = reply if isinstance(reply, int) else reply.status
        assert got[name] == expected, name
        if not isinstance(reply, int):
            assert b"Traceback" not in reply.body
            assert not any(secret in reply.body for secret in secrets)
    assert len(got) >= 25
    store = Store(folder, study)
    assert store.counts() == {"begun": 2, "finished": 0, "withdrawn": 0, "answers": 1}
    assert [answer.chosen for answer in collect(folder)] == ["left"]
    assert me.state()["trial"]["index"] == 1
    assert all(path.read_bytes() == content for path, content in files.items())


def test_a_body_that_never_comes_is_not_waited_for(folder: Path, serving: Callable[..., str]) -> None:
    url = serving(folder, Limits(body_seconds=0.3))
    host = url.removeprefix("http://").encode()
    head = b"POST /begin HTTP/1.1\r\nHost: " + host + b"\r\nOrigin: http://" + host + b"\r\nContent-Length: 100\r\n\r\nagree"
    assert raw(url, head) == 408


def test_a_chunked_body_is_counted_too(url: str) -> None:
    host = url.removeprefix("http://").encode()
    head = b"POST /begin HTTP/1.1\r\nHost: " + host + b"\r\nOrigin: http://" + host + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert raw(url, head + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 3) == 413


def test_rates_are_limited_by_cookie_and_by_address(folder: Path, serving: Callable[..., str]) -> None:
    url = serving(
        folder, Limits(requests_per_second=0.01, burst=6, address_burst=20, address_requests_per_second=0.01, begins_burst=2)
    )
    one, two = begun(url), begun(url)
    assert Client(url).begin().status == 429  # a third rater of this address, in one minute
    statuses = [one.request("GET", "/api/state").status for _ in range(8)]
    assert statuses == [200] * 6 + [429] * 2
    assert two.request("GET", "/api/state").status == 200  # others are not slowed down
    invented = [two.request("GET", "/health", headers={"Cookie": f"alberti_study={n}"}) for n in range(20)]
    assert invented[0].status == 200
    assert invented[-1].status == 429  # inventing cookies does not help
    assert int(invented[-1].headers["retry-after"]) >= 1


def test_buckets_fill_up_again_and_forget_the_oldest() -> None:
    now = [0.0]
    buckets = Buckets(2.0, 2, most=3, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0.5]
    now[0] = 0.5
    assert buckets.take("a") == 0
    for key in "bcd":
        buckets.take(key)
    assert buckets.take("a") == 0  # forgotten, so full


def test_the_database_itself_refuses_changes(folder: Path, study: Study) -> None:
    store = Store(folder, study)
    token, rater = store.begin()
    trial = Schedule(study).trials(rater.slot, rater.number)[0]
    store.answer(token, trial, "left", 1.0, {}, last=False)
    with pytest.raises(NotNext):
        store.answer(token, trial, "right", 1.0, {}, last=False)
    connection = sqlite3.connect(folder / DATABASE, isolation_level=None)
    for statement in (
        "UPDATE answers SET chosen = 'right'",
        "DELETE FROM answers",
        "INSERT INTO answers VALUES (1, 7, 'a', 'b', 'left', 1, 1, '{}')",
        "INSERT OR REPLACE INTO answers VALUES (1, 0, 'a', 'b', 'right', 1, 1, '{}')",
    ):
        with pytest.raises(sqlite3.DatabaseError):
            connection.execute(statement)
    assert token not in (folder / DATABASE).read_bytes().decode("latin-1")
    assert [answer.chosen for answer in collect(folder)] == ["left"]


def test_many_threads_answering_for_one_rater_store_each_trial_once(folder: Path, study: Study) -> None:
    store = Store(folder, study)
    token, rater = store.begin()
    trials, taken, lock = Schedule(study).trials(rater.slot, rater.number), [], threading.Lock()

    def hammer(side: Any) -> None:
        for trial in trials:
            for _ in range(200):
                try:
                    store.answer(token, trial, side, 1.0, {}, last=False)
                    with lock:
                        taken.append((trial.index, side))
                    break
                except NotNext:
                    if store.rater(token).answered > trial.index:  # type: ignore[union-attr]
                        break

    threads = [threading.Thread(target=hammer, args=(side,)) for side in ("left", "right", "left")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(index for index, _ in taken) == list(range(len(trials)))
    assert [(answer.trial, answer.chosen) for answer in collect(folder)] == sorted(taken)


def test_a_study_changed_after_raters_began_is_not_served(folder: Path, study: Study) -> None:
    Store(folder, study)
    values = json.loads((folder / "study.json").read_text())
    write_json(folder / "study.json", values | {"seed": 5})
    create_app(folder, hosts=["x"])  # nobody had begun: a new design
    Store(folder, Study.open(folder)).begin()
    values["rules"]["min_catch_share"] = 0.1
    write_json(folder / "study.json", values | {"seed": 5})
    with pytest.raises(DataError, match="another design"):
        create_app(folder, hosts=["x"])


@pytest.mark.parametrize("what", ["missing", "changed", "link"])
def test_a_study_whose_pictures_are_not_its_own_is_not_served(folder: Path, study: Study, what: str) -> None:
    path = folder / study.pictures[0].file
    content = path.read_bytes()
    path.unlink()
    if what == "changed":
        path.write_bytes(content + b"x")
    elif what == "link":
        (folder.parent / "elsewhere.png").write_bytes(content)
        path.symlink_to(folder.parent / "elsewhere.png")
    with pytest.raises(DataError, match=path.name):
        create_app(folder, hosts=["x"])
