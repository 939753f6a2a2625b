"""Rows into Feast's Postgres online store.

A load is copied into temporary tables, then upserted, all in one transaction: readers see the rows
of before until its commit, and with a lost connection the temporary tables go by themselves. Rows
that are pushed meanwhile wait at most for the upserts.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Final

from perso.features.encoding import Encoded
from perso.features.online_writer import table_name

_COLUMNS: Final = "entity_key, feature_name, value, value_text, event_ts, created_ts"
_TYPES: Final = ("bytea", "text", "bytea", "text", "timestamptz", "timestamptz")


class PostgresWriter:
    """Feast's tables in one database."""

    with_texts = True

    def __init__(self, config: Any, feast_views: dict[str, Any]) -> None:
        self._store_config = config.online_store
        self._tables = {name: table_name(config, view) for name, view in feast_views.items()}

    def load(self, batches: Iterable[Encoded]) -> None:
        """Stage every batch, then switch; one transaction."""
        with self._connection() as connection, connection.cursor() as cursor:
            staged: dict[str, None] = {}
            for batch in batches:
                table = self._tables[batch.view.name]
                if table not in staged:
                    staged[table] = None
                    self._make_staging(cursor, table)
                self._copy(cursor, table, batch)
            for table in staged:
                self._switch(cursor, table)

    def push(self, rows: Encoded) -> None:
        """Upsert in one transaction, the newer row winning."""
        table = self._tables[rows.view.name]
        with self._connection() as connection, connection.cursor() as cursor:
            self._make_staging(cursor, table)
            self._copy(cursor, table, rows)
            self._switch(cursor, table)

    def _connection(self) -> Any:
        """As a context: commits, or rolls back on an exception, and closes."""
        from feast.infra.utils.postgres.connection_utils import _get_conn

        return _get_conn(self._store_config)

    @staticmethod
    def _make_staging(cursor: Any, table: str) -> None:
        from psycopg import sql

        cursor.execute(
            sql.SQL("CREATE TEMP TABLE {} (LIKE {}) ON COMMIT DROP").format(
                sql.Identifier(f"staged_{table}"), sql.Identifier(table)
            )
        )

    @staticmethod
    def _copy(cursor: Any, table: str, batch: Encoded) -> None:
        from psycopg import sql

        statement = sql.SQL(f"COPY {{}} ({_COLUMNS}) FROM STDIN (FORMAT BINARY)").format(
            sql.Identifier(f"staged_{table}")
        )
        with cursor.copy(statement) as copy:
            copy.set_types(_TYPES)
            for row in _rows(batch):
                copy.write_row(row)

    @staticmethod
    def _switch(cursor: Any, table: str) -> None:
        from psycopg import sql

        # DISTINCT ON: a push may hold two rows of one user, which one statement may not touch.
        # Sorted: two loads lock rows in the same order.
        cursor.execute(
            sql.SQL(
                f"INSERT INTO {{table}} ({_COLUMNS}) SELECT DISTINCT ON (entity_key, feature_name) "
                f"{_COLUMNS} FROM {{staged}} ORDER BY entity_key, feature_name, event_ts DESC "
                "ON CONFLICT (entity_key, feature_name) DO UPDATE SET value = EXCLUDED.value, "
                "value_text = EXCLUDED.value_text, event_ts = EXCLUDED.event_ts, "
                "created_ts = EXCLUDED.created_ts WHERE EXCLUDED.event_ts >= {table}.event_ts"
            ).format(table=sql.Identifier(table), staged=sql.Identifier(f"staged_{table}"))
        )


def _rows(batch: Encoded) -> Iterator[tuple[Any, ...]]:
    for name, values in batch.values.items():
        yield from zip(
            batch.keys,
            itertools.repeat(name),
            values,
            batch.texts[name],
            batch.event_times,
            batch.created,
        )
