"""Rows into Feast's SQLite online store.

A load is written to a file beside the store, then copied over in one transaction: readers see the
rows of before until its commit, and a killed load is rolled back by SQLite. Pushes wait while the
copy runs (some 3 µs a value).
"""

import contextlib
import itertools
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from perso.features.encoding import Encoded
from perso.features.online_writer import table_name

_COLUMNS: Final = "entity_key, feature_name, value, value_text, event_ts, created_ts"
_WAIT_S: Final = 120.0
"""For another writer; Feast's own readers never wait in write-ahead logging."""
_NEWER_WINS: Final = (
    "ON CONFLICT (entity_key, feature_name) DO UPDATE SET value = excluded.value, "
    "value_text = excluded.value_text, event_ts = excluded.event_ts, "
    "created_ts = excluded.created_ts WHERE excluded.event_ts >= event_ts"
)


class SqliteWriter:
    """Feast's tables in one file."""

    with_texts = True

    def __init__(self, config: Any, feast_views: dict[str, Any]) -> None:
        from feast.infra.online_stores.sqlite import SqliteOnlineStore

        self._path = Path(SqliteOnlineStore._get_db_path(config))
        self._staging = self._path.with_name(f".{self._path.name}.staging")
        self._tables = {name: table_name(config, view) for name, view in feast_views.items()}

    def load(self, batches: Iterable[Encoded]) -> None:
        """Stage every batch, then switch in one transaction."""
        self._remove_staging()
        try:
            with self._connection() as connection:
                connection.execute("ATTACH ? AS staging", (str(self._staging),))
                # Rows in another order than the table's touch pages all over it: room for 256 MB of
                # them halves a first load.
                connection.execute("PRAGMA main.cache_size = -262144")
                # A staging file that a crash spoils is thrown away anyway.
                connection.execute("PRAGMA staging.journal_mode = OFF")
                connection.execute("PRAGMA staging.synchronous = OFF")
                staged: dict[str, None] = {}
                for batch in batches:
                    table = self._tables[batch.view.name]
                    if table not in staged:
                        staged[table] = None
                        connection.execute(
                            f'CREATE TABLE staging."{table}" (entity_key BLOB, feature_name TEXT, '
                            "value BLOB, value_text TEXT, event_ts INTEGER, created_ts INTEGER)"
                        )
                    connection.execute("BEGIN")
                    connection.executemany(
                        f'INSERT INTO staging."{table}" VALUES (?, ?, ?, ?, ?, ?)', _rows(batch)
                    )
                    connection.execute("COMMIT")
                connection.execute("BEGIN IMMEDIATE")
                for table in staged:
                    connection.execute(
                        f'INSERT INTO main."{table}" ({_COLUMNS}) '
                        f'SELECT {_COLUMNS} FROM staging."{table}" WHERE true {_NEWER_WINS}'
                    )
                connection.execute("COMMIT")
        finally:
            self._remove_staging()

    def push(self, rows: Encoded) -> None:
        """Upsert in one transaction, the newer row winning."""
        table = self._tables[rows.view.name]
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                f'INSERT INTO "{table}" ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?) {_NEWER_WINS}',
                _rows(rows),
            )
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        # A connection of its own: readers in this process must not see it uncommitted.
        connection = sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()  # rolls an open transaction back

    def _remove_staging(self) -> None:
        for suffix in ("", "-journal", "-wal", "-shm"):
            Path(f"{self._staging}{suffix}").unlink(missing_ok=True)


def _rows(batch: Encoded) -> Iterator[tuple[Any, ...]]:
    from feast.infra.online_stores.sqlite import adapt_datetime_epoch
    from feast.utils import to_naive_utc

    # As Feast does: epoch seconds of the naive UTC time, so local time has a part in it.
    seconds = {at: adapt_datetime_epoch(to_naive_utc(at)) for at in set(batch.event_times)}
    created = {at: adapt_datetime_epoch(to_naive_utc(at)) for at in set(batch.created)}
    event_ts = [seconds[at] for at in batch.event_times]
    created_ts = [created[at] for at in batch.created]
    for name, values in batch.values.items():
        yield from zip(
            batch.keys, itertools.repeat(name), values, batch.texts[name], event_ts, created_ts
        )
