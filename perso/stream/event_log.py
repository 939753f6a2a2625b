"""The embedded event log: one SQLite file that many processes write.

Decides how an event is made durable and found again. Every replica opens the file itself;
SQLite's write-ahead log lets them read while one of them writes, and ``synchronous=FULL`` puts
the commit on the disk before :meth:`EventLog.append` returns. One machine only: SQLite's locks do
not hold on network file systems.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from perso.errors import EventLogError
from perso.stream.event import Event, LoggedEvent
from perso.stream.protocol import AppendResult

FORMAT_VERSION: Final = 1

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS: Final = ("event_id", "event_type", "user_id", "session_id", "item_id")  # of an Event
_ROW: Final = f"{', '.join(_COLUMNS)}, timestamp_us, payload"

# A row's rowid ends every index, so "newest first" needs no sort. Impressions stay out of the
# look-ups: one answer shown makes as many of them as it has items. A session's look-up holds
# nobody's events but the anonymous ones: who shares a device must not see the others'.
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS events (
    "offset" INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    event_type TEXT NOT NULL,
    user_id TEXT,
    session_id TEXT,
    item_id TEXT,
    timestamp_us INTEGER NOT NULL,
    received_us INTEGER NOT NULL,
    payload TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_of_user ON events (user_id, timestamp_us)
    WHERE user_id IS NOT NULL AND event_type <> 'impression';
CREATE INDEX IF NOT EXISTS events_of_session ON events (session_id, timestamp_us)
    WHERE session_id IS NOT NULL AND user_id IS NULL AND event_type <> 'impression';
PRAGMA user_version = {FORMAT_VERSION};
"""

_INSERT: Final = f"""
INSERT INTO events ({_ROW}, received_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (event_id) DO NOTHING
"""


def _newest_offsets(whose: str) -> str:
    return f"""SELECT "offset" FROM (SELECT "offset" FROM events
        WHERE {whose} AND event_type <> 'impression'
        ORDER BY timestamp_us DESC, "offset" DESC LIMIT ?)"""


_RECENT: Final = f"""
SELECT {_ROW} FROM events
WHERE "offset" IN ({_newest_offsets("user_id = ?")}
    UNION {_newest_offsets("session_id = ? AND user_id IS NULL")})
ORDER BY timestamp_us DESC, "offset" DESC LIMIT ?
"""

_READ: Final = f"""
SELECT "offset", received_us, {_ROW} FROM events WHERE "offset" >= ? ORDER BY "offset" LIMIT ?
"""


class EventLog:
    """The log in one file; safe to share between threads, open one per process.

    Nothing is opened before the first call, and a call after a failure tries again, so a service
    starts without its log and recovers with it. See
    :class:`perso.stream.protocol.EventStream` for the promises of the methods.

    Example:
        >>> import tempfile
        >>> from datetime import UTC, datetime
        >>> log = EventLog(Path(tempfile.mkdtemp()) / "log.sqlite")
        >>> click = Event(event_id="e1", event_type="view_item", session_id="s", item_id="mug",
        ...               timestamp=datetime.now(UTC))
        >>> log.append([click, click])
        AppendResult(accepted=1, duplicates=1)
        >>> log.recent(session_id="s") == [click]
        True
    """

    def __init__(self, path: Path | str, *, busy_timeout_s: float = 10.0) -> None:
        """Name the file.

        Args:
            path: The SQLite file; it and its folder are created at the first append or read.
            busy_timeout_s: How long to wait for another writer before failing.
        """
        self.path = Path(path)
        self._busy_timeout_s = busy_timeout_s
        self._local = threading.local()

    def append(self, events: Sequence[Event]) -> AppendResult:
        """Store all events in one transaction; on the disk before this returns.

        Raises:
            EventLogError: If the log cannot be written; then none of the events was stored.
            ValueError: If a timestamp has no time zone.
        """
        received_us = _to_us(datetime.now(UTC))
        rows = [(*_to_row(event), received_us) for event in events]
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                before = connection.total_changes
                connection.executemany(_INSERT, rows)
                accepted = connection.total_changes - before
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        return AppendResult(accepted=accepted, duplicates=len(rows) - accepted)

    def recent(
        self, *, user_id: str | None = None, session_id: str | None = None, limit: int = 100
    ) -> list[Event]:
        """The newest events of the user and the anonymous ones of the session, newest first.

        Raises:
            EventLogError: If the log cannot be read.
        """
        with self._connection() as connection:
            rows = connection.execute(_RECENT, (user_id, limit, session_id, limit, limit))
            return [_to_event(row) for row in rows]

    def read_from(self, offset: int = 0, limit: int = 10_000) -> list[LoggedEvent]:
        """Events at ``offset`` and after, in order of their offsets.

        Raises:
            EventLogError: If the log cannot be read.
        """
        with self._connection() as connection:
            rows = connection.execute(_READ, (offset, limit))
            return [
                LoggedEvent(offset=row[0], received_at=_from_us(row[1]), event=_to_event(row[2:]))
                for row in rows
            ]

    def close(self) -> None:
        """Close this thread's connection; the next call opens it again."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            del self._local.connection
            connection.close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            if not hasattr(self._local, "connection"):
                self._local.connection = self._open()
            yield self._local.connection
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise EventLogError(
                f"event log {self.path}: {error}; nothing was acknowledged, try again"
            ) from error

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self.path, timeout=self._busy_timeout_s, isolation_level=None, cached_statements=16
        )
        try:
            _enter_wal_mode(connection, time.monotonic() + self._busy_timeout_s)
            connection.execute("PRAGMA synchronous = FULL")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in {0, FORMAT_VERSION}:
                raise EventLogError(
                    f"event log {self.path} has format version {version}, this perso reads "
                    f"{FORMAT_VERSION}; give --root a folder of this version"
                )
            if version == 0:
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        except BaseException:
            connection.close()
            raise
        return connection


def _enter_wal_mode(connection: sqlite3.Connection, deadline: float) -> None:
    """Switching a fresh file needs it alone, and SQLite does not wait its busy timeout for that."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)


def _to_row(event: Event) -> tuple[Any, ...]:
    fields = {name: value for name, value in asdict(event).items() if value is not None}
    timestamp_us = _to_us(fields.pop("timestamp"))
    columns = [fields.pop(name, None) for name in _COLUMNS]
    payload = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return (*columns, timestamp_us, payload)


def _to_event(row: tuple[Any, ...]) -> Event:
    *columns, timestamp_us, payload = row
    fields = dict(zip(_COLUMNS, columns, strict=True))
    return Event(timestamp=_from_us(timestamp_us), **fields, **json.loads(payload))


def _to_us(instant: datetime) -> int:
    if instant.tzinfo is None:
        raise ValueError(f"timestamp {instant!r} has no time zone; make it UTC")
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _from_us(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
