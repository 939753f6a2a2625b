"""Rows into the online store: one nightly load that is all or nothing, and pushes in between.

Values stay in Feast's own format, so plain Feast reads them. What Feast's writers lack is decided
here and in the files of single stores:

- A row never replaces a newer one, on any store.
- A load is first staged where no reader looks, then switched over at once (SQLite and Postgres: all
  views in one transaction; Redis: all views of a user in one script). The other stores have nothing
  to switch with: each batch is visible when it is written, and a repeated load finishes the rest.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from perso.dictionary import VIEWS
from perso.features.encoding import Encoded, entity_key_messages


class OnlineWriter(Protocol):
    """Writes one online store in Feast's format."""

    with_texts: bool
    """Whether it keeps the text beside a value."""

    def load(self, batches: Iterable[Encoded]) -> None:
        """Bring rows of any views online; where the store can, all of them or none."""
        ...

    def push(self, rows: Encoded) -> None:
        """Bring rows online now, except where newer ones are there."""
        ...


def open_writer(config: Any, feast_views: dict[str, Any]) -> OnlineWriter:
    """The writer for the configured online store.

    Args:
        config: Feast's RepoConfig.
        feast_views: Feast's feature views by name.
    """
    kind = config.online_store.type
    if kind == "sqlite":
        from perso.features.sqlite_writer import SqliteWriter

        return SqliteWriter(config, feast_views)
    if kind == "postgres":
        from perso.features.postgres_writer import PostgresWriter

        return PostgresWriter(config, feast_views)
    if kind == "redis" and config.online_store.redis_type != "redis_cluster":
        from perso.features.redis_writer import RedisWriter

        return RedisWriter(config, feast_views)
    return FeastWriter(config, feast_views)


def table_name(config: Any, feast_view: Any) -> str:
    """The table that Feast keeps a view in."""
    from feast.infra.online_stores.helpers import compute_table_id

    versioned = config.registry.enable_online_feature_view_versioning
    name: str = compute_table_id(config.project, feast_view, versioned)
    return name


class FeastWriter:
    """Any store of Feast's, through Feast's own writer."""

    with_texts = False

    def __init__(self, config: Any, feast_views: dict[str, Any]) -> None:
        from feast.infra.online_stores.helpers import get_online_store_from_config

        self._config = config
        self._views = feast_views
        self._store = get_online_store_from_config(config.online_store)

    def load(self, batches: Iterable[Encoded]) -> None:
        """Write batch after batch; the views of a batch's users follow one another."""
        for batch in batches:
            if VIEWS[batch.view.name].source == "push":
                self.push(batch)
            else:
                self._write(batch)

    def push(self, rows: Encoded) -> None:
        """Write the rows that are not older than what is there; two pushers at once may race."""
        messages = entity_key_messages(rows.view.entity, rows.ids)
        feature = rows.view.feature_names[:1]
        known = self._store.online_read(
            self._config, self._views[rows.view.name], messages, list(feature)
        )
        kept = [
            i
            for i, (known_at, _) in enumerate(known)
            if known_at is None or _aware(known_at) <= rows.event_times[i]
        ]
        self._write(rows if len(kept) == len(rows) else rows.take(kept))

    def _write(self, rows: Encoded) -> None:
        from feast.protos.feast.types.Value_pb2 import Value

        if not len(rows):
            return
        parse: Callable[[bytes], Any] = Value.FromString
        columns = {name: list(map(parse, column)) for name, column in rows.values.items()}
        names = list(columns)
        features = [
            dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
        messages = entity_key_messages(rows.view.entity, rows.ids)
        data = list(zip(messages, features, rows.event_times, rows.created, strict=True))
        self._store.online_write_batch(self._config, self._views[rows.view.name], data, None)


def _aware(instant: Any) -> Any:
    from feast.utils import make_tzaware

    return make_tzaware(instant)
