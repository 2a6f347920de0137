"""The web page that asks: FastAPI in front of a :class:`~alberti.study.store.Store`.

A rater is known by an unguessable token in a cookie that scripts cannot read. What may be fetched: the pages, three files of
this package, and the pictures of the rater's own next two pairs, by pair and side. No part of a request ever becomes a path.
"""

import json
import time
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field

from alberti.errors import DataError
from alberti.files import sha256_file
from alberti.study.design import Side, Study
from alberti.study.guard import Guard, Limits
from alberti.study.schedule import Schedule, Trial
from alberti.study.store import AlreadyHere, NotNext, Rater, Store
from alberti.study.texts import read_texts

COOKIE = "alberti_study"
STATIC = {"study.js": "text/javascript; charset=utf-8", "study.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"}
_CLOCK_SLACK_MS = 2000.0
_MONTH_S = 30 * 24 * 3600
_PROLIFIC = ("PROLIFIC_PID", "STUDY_ID", "SESSION_ID")
_MTURK = ("workerId", "assignmentId", "hitId")
_NO_ASSIGNMENT = "ASSIGNMENT_ID_NOT_AVAILABLE"
_FOREVER = {"cache-control": "private, max-age=86400, immutable"}


class GivenAnswer(BaseModel):
    """The body of ``POST /api/answer``."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    trial: int = Field(ge=0, le=100_000)
    left: str = Field(pattern=r"^[0-9a-f]{16}$")
    right: str = Field(pattern=r"^[0-9a-f]{16}$")
    chosen: Side
    ms: float = Field(ge=0, le=24 * 3600 * 1000)
    layout: str = Field(pattern=r"^(row|column)$")
    device: str = Field(pattern=r"^(key|mouse|touch|pen)$")
    window: list[Annotated[int, Field(ge=1, le=100_000)]] = Field(min_length=2, max_length=2)


class _Server:
    def __init__(self, folder: Path, study: Study):
        self.folder, self.study = folder, study
        self.store, self.schedule, self.texts = Store(folder, study), Schedule(study), read_texts(folder)
        self.paths = {picture.id: folder / picture.file for picture in study.pictures}
        static = files("alberti.study") / "static"
        self.static = {name: (static / name).read_bytes() for name in STATIC}
        self.pages = Environment(
            loader=PackageLoader("alberti.study"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def page(self, name: str, status: int = 200, **values: Any) -> HTMLResponse:
        common = {"study": self.study, "texts": self.texts, "labels": self.texts["interface"]}
        return HTMLResponse(self.pages.get_template(name).render(**common, **values), status)

    def rater(self, request: Request) -> Rater:
        rater = self.store.rater(request.cookies.get(COOKIE, ""))
        if rater is None:
            raise HTTPException(401, "no such rater")
        return rater

    def trials(self, rater: Rater) -> tuple[Trial, ...]:
        return self.schedule.trials(rater.slot, rater.number)

    def state(self, rater: Rater, feedback: bool | None = None) -> dict[str, Any]:
        """Where a rater is: the pair to show, the one after it for preloading, or the end."""
        if rater.withdrawn_at is not None:
            return {"phase": "withdrawn"}
        trials = self.trials(rater)
        if rater.answered >= len(trials):
            code = self.study.completion_code or rater.code
            return {"phase": "done", "code": code, "url": self.study.completion_url, "feedback": feedback}
        shown = describe(self.study, trials, rater.answered)
        shown |= {side: f"/picture/{rater.answered}/{side}" for side in ("left", "right")}
        following = trials[rater.answered + 1 : rater.answered + 2]
        preload = [f"/picture/{trial.index}/{side}" for trial in following for side in ("left", "right")]
        return {"phase": "trial", "trial": shown, "preload": preload, "feedback": feedback}


def describe(study: Study, trials: tuple[Trial, ...], index: int) -> dict[str, Any]:
    """What a rater's browser is told of a trial: nothing of arms, nor whether it is a catch pair or a repeat."""
    trial = trials[index]
    number = study.blocks.index(trial.block)
    return {
        "index": index,
        "total": len(trials),
        "block": number,
        "blocks": len(study.blocks),
        "first": index == 0 or trials[index - 1].block != trial.block,
        "question": trial.block.question,
        "hint": trial.block.hint,
        "practice": trial.kind == "practice",
        "ids": [trial.left.id, trial.right.id],
        "size": [trial.left.width, trial.left.height],
    }


def create_app(folder: str | Path, *, hosts: list[str], limits: Limits | None = None, secure: bool = False) -> FastAPI:
    """The application for a study folder. ``hosts``: the ``Host`` headers that are answered; ``secure``: cookies only by HTTPS.

    Raises:
        DataError: the folder is no whole study, a picture is missing or was changed, or the answers belong to another design.
    """
    folder = Path(folder).resolve()
    study = Study.open(folder)
    check_files(folder, study)
    server = _Server(folder, study)
    app = FastAPI(title=study.title, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.store = server.store
    app.add_middleware(Guard, hosts=hosts, limits=limits or Limits(), token_of=token_of)
    _add_pages(app, server, secure)
    _add_api(app, server)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        problem = error.errors()[0]
        return JSONResponse({"error": f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"}, 422)

    return app


def check_files(folder: Path, study: Study) -> None:
    """DataError unless every picture lies in the study folder, unchanged."""
    for picture in study.pictures:
        path = folder / picture.file
        if not path.is_file() or path.resolve() != path:
            raise DataError(f"{path}: missing, or a link; a study folder holds its own pictures: create it again")
        if sha256_file(path) != picture.sha256:
            raise DataError(f"{path}: changed since the study was created (SHA-256 differs); create it again")


def token_of(cookies: str) -> str | None:
    """The rater's token in a Cookie header."""
    for part in cookies.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE and value:
            return value
    return None


def _add_pages(app: FastAPI, server: _Server, secure: bool) -> None:
    @app.api_route("/", methods=["GET", "HEAD"])
    def landing(request: Request) -> Response:
        given = arrival(dict(request.query_params))
        rater = server.store.rater(request.cookies.get(COOKIE, ""))
        if rater is not None and given["external_id"] in (None, rater.external_id):
            return RedirectResponse("/study", 303)
        return server.page("consent.html", given=given, missed=False)

    @app.post("/begin")
    async def begin(request: Request) -> Response:
        form = await _form(request)
        given = arrival(form)
        if given["preview"]:
            return server.page("message.html", 403, message=server.texts["interface"]["preview"])
        if form.get("agree") != "yes":
            return server.page("consent.html", 400, given=given, missed=True)
        parameters = given["parameters"]
        try:
            token, _ = await run_in_threadpool(
                server.store.begin, platform=given["platform"], external_id=given["external_id"], parameters=parameters
            )
        except AlreadyHere:
            return server.page("message.html", 409, message=server.texts["interface"]["already"])
        response = RedirectResponse("/study", 303)
        response.set_cookie(COOKIE, token, max_age=_MONTH_S, path="/", httponly=True, samesite="lax", secure=secure)
        return response

    @app.api_route("/study", methods=["GET", "HEAD"])
    def study_page(request: Request) -> Response:
        if server.store.rater(request.cookies.get(COOKIE, "")) is None:
            return RedirectResponse("/", 303)
        return server.page("study.html", settings=client_settings(server.study, server.texts), static="/static/")

    @app.api_route("/static/{name}", methods=["GET", "HEAD"])
    async def static(name: str) -> Response:
        if name not in STATIC:
            raise HTTPException(404, "no such file")
        return Response(server.static[name], media_type=STATIC[name], headers={"cache-control": "no-cache"})

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}


def _add_api(app: FastAPI, server: _Server) -> None:
    @app.get("/api/state")
    def state(rater: Annotated[Rater, Depends(server.rater)]) -> dict[str, Any]:
        return server.state(rater)

    @app.post("/api/answer")
    async def answer(request: Request) -> JSONResponse:
        if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
            raise HTTPException(415, "expected application/json")
        given = _parse(await request.body())
        return JSONResponse(await run_in_threadpool(_take, server, request, given))

    @app.post("/api/withdraw")
    def withdraw(request: Request, rater: Annotated[Rater, Depends(server.rater)]) -> dict[str, str]:
        server.store.withdraw(request.cookies[COOKIE])
        return {"phase": "withdrawn"}

    @app.get("/picture/{trial}/{side}")
    def picture(trial: int, side: Side, rater: Annotated[Rater, Depends(server.rater)]) -> Response:
        """Only the pair that is next, and the one after it, so that it can be loaded beforehand."""
        trials = server.trials(rater)
        if rater.withdrawn_at is not None or not rater.answered <= trial < min(rater.answered + 2, len(trials)):
            raise HTTPException(404, "not a picture of your next pairs")
        shown = trials[trial].left if side == "left" else trials[trial].right
        return FileResponse(server.paths[shown.id], media_type="image/png", headers=_FOREVER)


def _parse(body: bytes) -> GivenAnswer:
    try:
        return GivenAnswer.model_validate(json.loads(body))
    except RecursionError:
        raise HTTPException(422, "nested too deeply") from None
    except ValueError as error:
        raise HTTPException(422, f"not an answer: {str(error).splitlines()[0]:.200}") from None


def _take(server: _Server, request: Request, given: GivenAnswer) -> dict[str, Any]:
    """Check an answer against the rater's own schedule and append it. Sent twice, it is stored once."""
    token = request.cookies.get(COOKIE, "")
    rater = server.rater(request)
    trials = server.trials(rater)
    if given.trial >= len(trials):
        raise HTTPException(409, "there is no such trial")
    trial = trials[given.trial]
    if (given.left, given.right) != (trial.left.id, trial.right.id):
        raise HTTPException(409, "not the pictures of that trial, or not on these sides")
    if given.trial < rater.answered:
        if server.store.given(rater, given.trial) == (given.left, given.right, given.chosen):
            return server.state(rater, _feedback(trial, given.chosen))
        raise HTTPException(409, "that trial is answered, and answers cannot be changed")
    _check_time(rater, given.ms)
    details = {"layout": given.layout, "device": given.device, "window": given.window}
    try:
        server.store.answer(token, trial, given.chosen, given.ms, details, last=given.trial == len(trials) - 1)
    except NotNext:
        raise HTTPException(409, "not your next trial") from None
    return server.state(server.rater(request), _feedback(trial, given.chosen))


def _check_time(rater: Rater, ms: float) -> None:
    if ms > (time.time() - rater.last_seen) * 1000 + _CLOCK_SLACK_MS:
        raise HTTPException(422, "ms: longer than the time since the answer before")


def _feedback(trial: Trial, chosen: Side) -> bool | None:
    return chosen == trial.correct if trial.kind == "practice" and trial.block.practice_feedback else None


def arrival(values: dict[str, str]) -> dict[str, Any]:
    """What a recruiting platform said of a visitor, cut to what is needed and to sane lengths."""
    known = {name: values[name][:128] for name in (*_PROLIFIC, *_MTURK) if values.get(name)}
    if "PROLIFIC_PID" in known:
        platform, external = "prolific", known["PROLIFIC_PID"]
    elif "workerId" in known:
        platform, external = "mturk", known["workerId"]
    else:
        platform, external = None, None
    preview = known.get("assignmentId") == _NO_ASSIGNMENT
    return {"platform": platform, "external_id": external, "parameters": known, "preview": preview}


async def _form(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/x-www-form-urlencoded":
        raise HTTPException(415, "expected a form")
    try:
        fields = parse_qs((await request.body()).decode("utf-8"), max_num_fields=20, strict_parsing=False)
    except ValueError:
        raise HTTPException(400, "malformed form") from None
    return {name: found[0] for name, found in fields.items()}


def client_settings(study: Study, texts: dict[str, Any]) -> dict[str, Any]:
    """What the page's script has to know, beside the state."""
    return {
        "labels": texts["interface"],
        "minimum": study.minimum_picture_px,
        "instructions": texts["instructions"],
        "thanks": texts["thanks"],
    }
