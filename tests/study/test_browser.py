"""The page in a real browser: a mouse, a keyboard, a touch screen, a reload, a small window."""

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from chromium import CHROMIUM, Chromium

from alberti.study.collect import collect
from alberti.study.design import Study
from alberti.study.importing import import_files
from alberti.study.static_export import export_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium installed (Debian: apt-get install chromium)")

READY = "!document.querySelector('#left').disabled"
INTRO = "!document.querySelector('#intro').hidden"
FEEDBACK = "!document.querySelector('#feedback').hidden"
END = "!document.querySelector('#end').hidden"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def page(browser: Chromium) -> Chromium:
    """The browser's page, with nothing remembered."""
    browser.send("Network.clearBrowserCookies")
    browser.send("Emulation.clearDeviceMetricsOverride")
    browser.errors.clear()
    browser.size(1280, 800)
    return browser


def answer_all(page: Chromium, choose: Callable[[], None], go_on: Callable[[str], None], stop_at: int | None = None) -> None:
    """Go through introductions, pairs and feedback until the end, or the pair ``stop_at``."""
    while True:
        page.wait(f"{READY} || {INTRO} || {FEEDBACK} || {END}")
        if page.evaluate(END):
            return
        if page.evaluate(INTRO):
            go_on("#start")
        elif page.evaluate(FEEDBACK):
            go_on("#next")
        else:
            done = page.evaluate("document.querySelector('#progress').value")
            if done == stop_at:
                return
            choose()
        page.wait(f"{FEEDBACK} || {INTRO} || {END} || {READY}")


def await_file(folder: Path) -> Path:
    """The file that a download puts there."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found = list(folder.glob("*.json"))
        if found and found[0].stat().st_size:
            return found[0]
        time.sleep(0.05)
    raise TimeoutError(f"nothing was saved in {folder}")


def consent(page: Chromium, url: str) -> None:
    page.open(url)
    page.click("#agree")
    page.click("button.go")
    page.wait("document.querySelector('#intro')")


def test_by_keyboard_alone_with_a_reload_in_between(
    page: Chromium, folder: Path, study: Study, serving: Callable[..., str]
) -> None:
    url = serving(folder)
    page.open(f"{url}/?PROLIFIC_PID=p1&STUDY_ID=s&SESSION_ID=t")
    for key in ("Tab", " ", "Tab", "Enter"):
        page.press(key)
    page.wait("document.querySelector('#intro')")
    keys = iter(["f", "J", "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"] * 10)
    answer_all(page, lambda: page.press(next(keys)), lambda _: page.press("Enter"), stop_at=5)
    page.open(f"{url}/?PROLIFIC_PID=p1&STUDY_ID=s&SESSION_ID=t")
    page.wait(f"{READY} || {INTRO}")
    assert page.evaluate("document.querySelector('#progress').value") == 5
    answer_all(page, lambda: page.press(next(keys)), lambda _: page.press("Enter"))
    assert len(page.evaluate("document.querySelector('#code').textContent")) == 8
    assert page.errors == []
    answers = collect(folder)
    assert len(answers) == study.trials
    assert {answer.device for answer in answers} == {"key"}
    assert {answer.layout for answer in answers} == {"row"}
    assert {answer.window for answer in answers} == {(1280, 800)}
    assert all(answer.ms is not None and 0 < answer.ms < 20_000 for answer in answers)
    used = ["left", "right"] * 10
    assert [answer.chosen for answer in answers] == used[: study.trials]


def test_on_a_phone_by_touch(page: Chromium, folder: Path, study: Study, serving: Callable[..., str]) -> None:
    page.size(390, 844, phone=True)
    page.open(serving(folder))
    page.tap("#agree")
    page.tap("button.go")
    page.wait("document.querySelector('#intro')")
    answer_all(page, lambda: page.tap("#right"), page.tap, stop_at=1)
    boxes = page.evaluate("['left', 'right'].map((id) => document.getElementById(id).getBoundingClientRect().toJSON())")
    assert boxes[0]["bottom"] <= boxes[1]["top"]
    assert all(box["left"] >= 0 and box["right"] <= 390 and box["bottom"] <= 844 for box in boxes)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    answer_all(page, lambda: page.tap("#right"), page.tap)
    answers = collect(folder)
    assert [(answer.chosen, answer.layout, answer.device) for answer in answers] == [
        ("right", "column", "touch")
    ] * study.trials
    assert page.errors == []


def test_a_small_window_takes_no_answers_until_it_is_larger(page: Chromium, folder: Path, serving: Callable[..., str]) -> None:
    consent(page, serving(folder))
    answer_all(page, lambda: page.click("#left"), page.click, stop_at=1)
    page.size(320, 300)
    page.wait("document.querySelector('#message').textContent.includes('too small')")
    page.press("f")
    page.size(1280, 800)
    page.wait(READY)
    assert page.evaluate("document.querySelector('#message').textContent") == ""
    assert len(collect(folder)) == 1
    page.click("#right")
    page.wait("document.querySelector('#progress').value === 2 || !document.querySelector('#feedback').hidden")
    assert [(answer.chosen, answer.device) for answer in collect(folder)] == [("left", "mouse"), ("right", "mouse")]


def test_the_next_pair_is_loaded_before_it_is_needed(page: Chromium, folder: Path, serving: Callable[..., str]) -> None:
    consent(page, serving(folder))
    answer_all(page, lambda: page.click("#left"), page.click, stop_at=1)
    loaded = "performance.getEntriesByType('resource').map((entry) => new URL(entry.name).pathname)"
    page.wait(f"{loaded}.includes('/picture/2/right')")
    assert "/picture/3/left" not in page.evaluate(loaded)
    origins = page.evaluate("performance.getEntriesByType('resource').map((entry) => new URL(entry.name).origin)")
    assert set(origins) == {page.evaluate("location.origin")}  # nothing from anywhere else


def test_an_answer_survives_the_server_s_absence(page: Chromium, folder: Path, serving: Callable[..., str]) -> None:
    consent(page, serving(folder))
    answer_all(page, lambda: page.click("#left"), page.click, stop_at=1)
    page.send("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    page.click("#right")
    page.wait("document.querySelector('#message').textContent.includes('Trying again')")
    page.send("Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    page.wait(f"document.querySelector('#progress').value === 2 && {READY}", seconds=20)
    assert [answer.chosen for answer in collect(folder)] == ["left", "right"]


def test_two_tabs_do_not_answer_twice(page: Chromium, folder: Path, serving: Callable[..., str]) -> None:
    consent(page, serving(folder))
    answer_all(page, lambda: page.click("#left"), page.click, stop_at=1)
    page.evaluate("""(async () => {
        const { trial } = await (await fetch('/api/state')).json();
        const body = { trial: 1, left: trial.ids[0], right: trial.ids[1], chosen: 'left', ms: 0 };
        Object.assign(body, { layout: 'row', device: 'key', window: [9, 9] });
        const headers = { 'Content-Type': 'application/json' };
        await fetch('/api/answer', { method: 'POST', headers, body: JSON.stringify(body) });
    })()""")
    page.click("#right")
    page.wait(f"document.querySelector('#progress').value === 2 && {READY}")
    assert [answer.chosen for answer in collect(folder)] == ["left", "left"]


def test_the_exported_page_without_a_server_of_ours(page: Chromium, folder: Path, study: Study, tmp_path: Path) -> None:
    export_page(folder, tmp_path / "site", 3)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as host:
        handler.log_message = lambda *_: None  # type: ignore[attr-defined]
        threading.Thread(target=host.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{host.server_address[1]}/?slot=2"
        page.open(url)
        page.click("#begin")
        page.wait("!document.querySelector('#missed').hidden")
        page.click("#agree")
        page.click("#begin")
        answer_all(page, lambda: page.press("f"), page.click, stop_at=4)
        page.open(url)  # resumes
        page.wait(f"{READY} || {INTRO}")
        assert page.evaluate("document.querySelector('#progress').value") == 4
        answer_all(page, lambda: page.press("j"), page.click)
        page.wait("!document.querySelector('#download-line').hidden")
        page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
        page.click("#download")
        saved = await_file(tmp_path / "saved")
        host.shutdown()
    assert json.loads(saved.read_text())["slot"] == 2
    assert import_files(folder, [saved]) == {saved: study.trials}
    answers = collect(folder)
    assert [answer.chosen for answer in answers] == ["left"] * 4 + ["right"] * (study.trials - 4)
    assert all(answer.finished and answer.source == "static" for answer in answers)
