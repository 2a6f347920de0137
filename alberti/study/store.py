"""Raters and answers in SQLite: appended, never changed, on the disk before they are acknowledged.

Triggers refuse every update and deletion of an answer, and every answer that is not the rater's next one, whoever opens the
database. Tokens are kept as hashes: reading the file does not let anyone answer as somebody else.
"""

import contextlib
import hashlib
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alberti.errors import DataError
from alberti.study.answers import Answer, answer_of
from alberti.study.design import Side, Study
from alberti.study.schedule import Schedule, Trial

DATABASE = "answers.sqlite"
_ABANDONED_S = 3600.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS raters (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    token_hash TEXT NOT NULL UNIQUE,
    code TEXT NOT NULL,
    slot INTEGER NOT NULL,
    platform TEXT,
    external_id TEXT,
    parameters TEXT NOT NULL,
    created_at REAL NOT NULL,
    finished_at REAL,
    withdrawn_at REAL
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS one_per_person ON raters (platform, external_id) WHERE external_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_slot ON raters (slot);
CREATE TABLE IF NOT EXISTS answers (
    rater INTEGER NOT NULL REFERENCES raters (number),
    trial INTEGER NOT NULL,
    left_picture TEXT NOT NULL,
    right_picture TEXT NOT NULL,
    chosen TEXT NOT NULL CHECK (chosen IN ('left', 'right')),
    ms REAL NOT NULL CHECK (ms >= 0),
    received_at REAL NOT NULL,
    details TEXT NOT NULL,
    PRIMARY KEY (rater, trial)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS answers_stay BEFORE UPDATE ON answers
    BEGIN SELECT RAISE(ABORT, 'answers cannot be changed'); END;
CREATE TRIGGER IF NOT EXISTS answers_are_kept BEFORE DELETE ON answers
    BEGIN SELECT RAISE(ABORT, 'answers cannot be deleted'); END;
CREATE TRIGGER IF NOT EXISTS answers_in_order BEFORE INSERT ON answers
    WHEN NEW.trial <> (SELECT COUNT(*) FROM answers WHERE rater = NEW.rater)
    BEGIN SELECT RAISE(ABORT, 'not the next trial of this rater'); END;
"""
_ABANDONED_SLOT = """
SELECT MIN(slot) FROM (
    SELECT slot, MAX(finished_at IS NOT NULL OR (withdrawn_at IS NULL AND
        MAX(created_at, COALESCE((SELECT MAX(received_at) FROM answers WHERE rater = number), 0)) > ?)) AS taken
    FROM raters GROUP BY slot
) WHERE taken = 0
"""


@dataclass(frozen=True)
class Rater:
    """One row of ``raters``, with how many trials are answered."""

    number: int
    slot: int
    code: str
    platform: str | None
    external_id: str | None
    created_at: float
    finished_at: float | None
    withdrawn_at: float | None
    answered: int
    last_seen: float


class AlreadyHere(Exception):
    """A person of this platform has begun already, in another browser."""


class NotNext(Exception):
    """An answer to another trial than the rater's next one."""


class Store:
    """The database of one study folder; safe to use from many threads, and from several processes."""

    def __init__(self, folder: Path, study: Study):
        self._path, self.study = folder / DATABASE, study
        self._local, self._writing = threading.local(), threading.Lock()
        try:
            connection = self._connection()
            connection.executescript(_SCHEMA)
            self._claim(connection)
        except sqlite3.OperationalError as error:
            raise DataError(
                f"{self._path}: cannot be used now ({error}); may it be written, and does another program hold it?"
            ) from error
        except sqlite3.DatabaseError as error:
            raise DataError(f"{self._path}: not a usable database ({error}); move it away to start a new one") from error

    def _claim(self, connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('design', ?)", (self.study.digest,))
        found = connection.execute("SELECT value FROM meta WHERE key = 'design'").fetchone()[0]
        if found == self.study.digest:
            return
        if connection.execute("SELECT COUNT(*) FROM raters").fetchone()[0]:
            raise DataError(
                f"{self._path}: its answers belong to another design ({found[:12]}, now {self.study.digest[:12]}): study.json "
                "or pictures.jsonl was changed after raters began; put it back, or create a new study"
            )
        connection.execute("UPDATE meta SET value = ? WHERE key = 'design'", (self.study.digest,))

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=20, isolation_level=None, check_same_thread=False)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            self._local.connection = connection
        return connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One writer at a time; committed, and so on the disk, when the block ends without an error."""
        with self._writing:
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def begin(
        self, *, platform: str | None = None, external_id: str | None = None, parameters: Any = None
    ) -> tuple[str, Rater]:
        """A new rater and the token that is theirs alone.

        A platform's person who has one and has not answered yet gets another token in its place: the first may never have
        arrived. Once there are answers, nobody can come to them with the platform's number alone: AlreadyHere.
        """
        token, now = secrets.token_urlsafe(32), time.time()
        code = secrets.token_hex(4).upper()
        row = (_hash(token), code, platform, external_id, json.dumps(parameters or {}), now)
        try:
            with self._transaction() as connection:
                connection.execute(
                    "INSERT INTO raters (token_hash, code, slot, platform, external_id, parameters, created_at)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (*row[:2], self._free_slot(connection, now), *row[2:]),
                )
        except sqlite3.IntegrityError:
            self._renew(token, platform, external_id)
        rater = self.rater(token)
        assert rater is not None
        return token, rater

    def _renew(self, token: str, platform: str | None, external_id: str | None) -> None:
        with self._transaction() as connection:
            renewed = connection.execute(
                "UPDATE raters SET token_hash = ? WHERE platform = ? AND external_id = ? AND withdrawn_at IS NULL"
                " AND NOT EXISTS (SELECT 1 FROM answers WHERE rater = number)",
                (_hash(token), platform, external_id),
            )
            if renewed.rowcount != 1:
                raise AlreadyHere

    @staticmethod
    def _free_slot(connection: sqlite3.Connection, now: float) -> int:
        """The first slot whose rater withdrew or left without finishing; else a new one."""
        abandoned = connection.execute(_ABANDONED_SLOT, (now - _ABANDONED_S,)).fetchone()[0]
        if abandoned is not None:
            return int(abandoned)
        return int(connection.execute("SELECT COALESCE(MAX(slot) + 1, 0) FROM raters").fetchone()[0])

    def rater(self, token: str) -> Rater | None:
        """Whose token it is; None if nobody's."""
        return self._rater(self._connection(), token)

    @staticmethod
    def _rater(connection: sqlite3.Connection, token: str) -> Rater | None:
        row = connection.execute(
            "SELECT raters.*, COUNT(trial) AS answered, MAX(created_at, COALESCE(MAX(received_at), 0)) AS last_seen"
            " FROM raters LEFT JOIN answers ON rater = number WHERE token_hash = ? GROUP BY number",
            (_hash(token),),
        ).fetchone()
        return None if row is None else Rater(**{name: row[name] for name in Rater.__dataclass_fields__})

    def answer(self, token: str, trial: Trial, chosen: Side, ms: float, details: dict[str, Any], *, last: bool) -> None:
        """Append an answer; it is on the disk when this returns.

        Raises:
            NotNext: the trial is not the rater's next one, or the rater has withdrawn.
        """
        now = time.time()
        left, right = (picture.id for picture in trial.pictures)
        try:
            with self._transaction() as connection:
                rater = self._rater(connection, token)
                if rater is None or rater.withdrawn_at is not None or rater.answered != trial.index:
                    raise NotNext
                row = (rater.number, trial.index, left, right, chosen, ms, now, json.dumps(details))
                connection.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
                if last:
                    connection.execute("UPDATE raters SET finished_at = ? WHERE number = ?", (now, rater.number))
        except sqlite3.IntegrityError:
            raise NotNext from None

    def given(self, rater: Rater, trial: int) -> tuple[str, str, str] | None:
        """(left picture, right picture, chosen) of an answer that is stored."""
        row = self._connection().execute(
            "SELECT left_picture, right_picture, chosen FROM answers WHERE rater = ? AND trial = ?", (rater.number, trial)
        )
        found = row.fetchone()
        return None if found is None else (found[0], found[1], found[2])

    def withdraw(self, token: str) -> None:
        """Take back the consent: the rater's answers are left out of everything from now on."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE raters SET withdrawn_at = ? WHERE token_hash = ? AND withdrawn_at IS NULL", (time.time(), _hash(token))
            )

    def counts(self) -> dict[str, int]:
        """How many have begun, finished and withdrawn, and how many answers there are."""
        row = self._connection().execute(
            "SELECT COUNT(*) AS begun, COUNT(finished_at) AS finished, COUNT(withdrawn_at) AS withdrawn,"
            " (SELECT COUNT(*) FROM answers) AS answers FROM raters"
        )
        return dict(row.fetchone())

    def people(self) -> list[dict[str, Any]]:
        """Who took part, for paying them: platform, id there, code, whether finished. Holds personal data."""
        rows = self._connection().execute(
            "SELECT number, platform, external_id, code, parameters, finished_at IS NOT NULL AS finished,"
            " withdrawn_at IS NOT NULL AS withdrawn FROM raters ORDER BY number"
        )
        return [dict(row) for row in rows]

    def answers(self) -> Iterator[Answer]:
        """Every answer of those who have not withdrawn; DataError if one does not fit the study's schedule."""
        schedule = Schedule(self.study)
        rows = self._connection().execute(
            "SELECT answers.*, slot, finished_at FROM answers JOIN raters ON number = rater"
            " WHERE withdrawn_at IS NULL ORDER BY rater, trial"
        )
        for row in rows:
            trial = schedule.trials(row["slot"], row["rater"])[row["trial"]]
            if tuple(picture.id for picture in trial.pictures) != (row["left_picture"], row["right_picture"]):
                raise DataError(
                    f"{self._path}: rater {row['rater']}, trial {row['trial']}: the pictures are not those of the schedule; "
                    "study.json or pictures.jsonl was changed, or the answers were given under another version"
                )
            yield answer_of(
                self.study,
                trial,
                row["chosen"],
                source="server",
                rater=f"r{row['rater']}",
                ms=row["ms"],
                received_at=datetime.fromtimestamp(row["received_at"], UTC).isoformat(timespec="milliseconds"),
                finished=row["finished_at"] is not None,
                **json.loads(row["details"]),
            )


def read_store(folder: Path, study: Study) -> list[Answer]:
    """The answers in a study folder's database."""
    return list(Store(folder, study).answers())


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
