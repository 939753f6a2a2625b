"""The thin reader: the online rows of a service for a few users, in a fraction of a millisecond.

It asks the same store object for the same stored values as ``get_online_features`` and leaves out
what that does besides: resolving names, checking the registry's age, making one big response and
taking it apart again. Where the store can answer several views in one round trip, it is asked once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

import pyarrow as pa

from perso.dictionary import VIEWS, Service, View
from perso.features.encoding import entity_key_messages

Row = dict[str, Any]
ViewRow = tuple[datetime, Mapping[str, Any]]
"""When a view's row is of, and its stored ``Value`` messages by feature."""

_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class OnlineReader:
    """Reads one service; usable from several threads."""

    service: Service
    config: Any
    """Feast's RepoConfig."""
    store: Any
    """Feast's OnlineStore."""
    feast_views: Mapping[str, Any]
    """Feast's feature views by name."""

    def read(self, ids: Sequence[str], *, not_before: datetime | None = None) -> list[Row | None]:
        """Per id the columns of the service and ``event_timestamp``, None for a stranger.

        Args:
            ids: Users or items.
            not_before: A view's row of before this instant counts as missing. Some stores keep
                whole seconds, so fractions are left out of account.
        """
        oldest = not_before.replace(microsecond=0) if not_before else _NEVER
        by_view = self.read_views(ids)
        return [
            self._row({view: rows[i] for view, rows in by_view.items()}, oldest)
            for i in range(len(ids))
        ]

    def read_views(self, ids: Sequence[str]) -> dict[str, list[ViewRow | None]]:
        """Per view of the service and per id what is stored."""
        views = self._views
        keys = entity_key_messages(views[0][0].entity, ids)
        asked = [(self.feast_views[view.name], columns) for view, columns in views]
        if type(self.store).__name__ == "RedisOnlineStore":
            found = _read_from_redis(self.store, self.config, asked, keys)
        else:
            try:
                found = [
                    self.store.online_read(self.config, view, keys, list(columns))
                    for view, columns in asked
                ]
            except Exception:
                _drop_pool(self.store)
                raise
        return {
            view.name: [_present(row) for row in rows]
            for (view, _), rows in zip(views, found, strict=True)
        }

    @cached_property
    def _views(self) -> list[tuple[View, list[str]]]:
        return self.service.views()

    def _row(self, stored: Mapping[str, ViewRow | None], oldest: datetime) -> Row | None:
        row: Row = {}
        first: datetime | None = None
        is_known = False
        for i, (view, columns) in enumerate(self._views):
            found = stored[view.name]
            if found is None or found[0] < oldest:
                row |= dict.fromkeys(columns)
                continue
            is_known = True
            if i == 0:
                first = found[0]
            row |= plain_values(view, columns, found[1])
        return row | {"event_timestamp": first} if is_known else None


def let_reads_fail_soon(store: Any, config: Any) -> None:
    """Spare readers Redis' own waits, which add up to ten seconds where nobody answers.

    One more try without a wait is kept: an idle connection may have been closed meanwhile.
    """
    if type(store).__name__ == "RedisOnlineStore":
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        client = store._get_client(config.online_store)
        if hasattr(client, "set_retry"):
            client.set_retry(Retry(NoBackoff(), 1))


def plain_values(view: View, columns: Sequence[str], stored: Mapping[str, Any]) -> Row:
    """Stored messages as Python values; a feature that is not stored is None."""
    decoders = _DECODERS[view.name]
    return {
        name: decoders[name](stored[name])
        if name in stored and stored[name].WhichOneof("val")
        else None
        for name in columns
    }


def _present(row: tuple[datetime | None, Mapping[str, Any] | None]) -> ViewRow | None:
    """A store's answer; Redis answers for a stranger with no values as of 1970."""
    at, values = row
    if at is None or values is None:
        return None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return (at, values) if at > _NEVER else None


def _drop_pool(store: Any) -> None:
    """Let the next read connect anew.

    Feast's Postgres store never gives a connection back whose read failed: ten of those, and the
    pool would be empty for good.
    """
    pool = getattr(store, "_conn_pool", None)
    if pool is not None:
        store._conn_pool = None
        pool.close(timeout=0)


def _read_from_redis(
    store: Any, config: Any, asked: Sequence[tuple[Any, list[str]]], keys: Sequence[Any]
) -> list[list[tuple[datetime | None, Mapping[str, Any] | None]]]:
    """One round trip for all views: a user's views are one hash."""
    from feast.infra.online_stores.redis import _versioned_fv_name

    hashes = store._generate_redis_keys_for_entities(config, keys)
    names: list[tuple[str, list[str]]] = []
    commands = []
    for view, columns in asked:
        stored_name = _versioned_fv_name(view, config)
        # Feast appends the name of the time to the list it is given.
        requested, fields = store._generate_hset_keys_for_features(
            view, list(columns), fv_name_override=stored_name
        )
        names.append((stored_name, requested))
        commands += [(key, fields) for key in hashes]
    values = store._read_hash_fields(config, commands)
    found = []
    for place, (stored_name, requested) in enumerate(names):
        mine = values[place * len(hashes) : (place + 1) * len(hashes)]
        found.append(store._convert_redis_values_to_protobuf(mine, stored_name, requested))
    return found


def _decoder(kind: pa.DataType) -> Callable[[Any], Any]:
    if pa.types.is_list(kind):
        if pa.types.is_string(kind.value_type):
            return lambda value: list(value.string_list_val.val)
        return lambda value: list(value.float_list_val.val)
    if pa.types.is_timestamp(kind):
        return lambda value: datetime.fromtimestamp(value.unix_timestamp_val, UTC)
    name = {
        pa.string(): "string_val",
        pa.int64(): "int64_val",
        pa.float32(): "float_val",
        pa.float64(): "double_val",
        pa.bool_(): "bool_val",
    }[kind]
    return lambda value: getattr(value, name)


_DECODERS: Final = {
    view.name: {feature.name: _decoder(feature.type) for feature in view.features}
    for view in VIEWS.values()
}
