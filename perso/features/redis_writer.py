"""Rows into Feast's Redis online store, where one hash holds every view of a user.

A load fills hashes under a name of their own (about as much memory again while it runs), then moves
them over on the server, a hundred users a script: a script runs alone, so nobody sees one view of a
user from today and another from yesterday. What a killed load left is removed by the next one, and
by Redis itself after a day.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from perso.dictionary import VIEWS, View
from perso.features.encoding import Encoded

_USERS_PER_PIPELINE: Final = 1_000
_USERS_PER_SCRIPT: Final = 100
"""A script holds up every other client, here for a few milliseconds."""
_STAGED_FOR_S: Final = 24 * 3600

# Feast stores a view's time as a protobuf Timestamp: field 1 seconds, field 2 nanoseconds, both
# varints. Lua's numbers are exact up to 2^53, so the two are compared one after the other.
_IS_OLDER: Final = """
local function parse(stamp)
  local fields, at = {0, 0}, 1
  while at <= #stamp do
    local field = math.floor(string.byte(stamp, at) / 8)
    local value, factor = 0, 1
    repeat
      at = at + 1
      local byte = string.byte(stamp, at)
      value = value + (byte % 128) * factor
      factor = factor * 128
    until byte < 128
    fields[field] = value
    at = at + 1
  end
  return fields
end
local function is_older(stamp, known)
  if not known then return false end
  local a, b = parse(stamp), parse(known)
  if a[1] ~= b[1] then return a[1] < b[1] end
  return a[2] < b[2]
end
"""

# KEYS: staged and live hash of each user. ARGV: seconds to live or 0, then of each view the name of
# its time, the number of its features and their names.
_MOVE: Final = (
    _IS_OLDER
    + """
for k = 1, #KEYS, 2 do
  local at = 2
  while at <= #ARGV do
    local count = tonumber(ARGV[at + 1])
    local stamp = redis.call('HGET', KEYS[k], ARGV[at])
    if stamp and not is_older(stamp, redis.call('HGET', KEYS[k + 1], ARGV[at])) then
      local values = redis.call('HMGET', KEYS[k], unpack(ARGV, at + 2, at + 1 + count))
      local fields = {ARGV[at], stamp}
      for i = 1, count do
        if values[i] then
          fields[#fields + 1] = ARGV[at + 1 + i]
          fields[#fields + 1] = values[i]
        end
      end
      redis.call('HSET', KEYS[k + 1], unpack(fields))
    end
    at = at + 2 + count
  end
  if ARGV[1] ~= '0' then redis.call('EXPIRE', KEYS[k + 1], ARGV[1]) end
  redis.call('UNLINK', KEYS[k])
end
return redis.status_reply('OK')
"""
)

# KEYS: one live hash. ARGV: seconds to live or 0, name and value of the time, then of each field.
_PUSH: Final = (
    _IS_OLDER
    + """
if is_older(ARGV[3], redis.call('HGET', KEYS[1], ARGV[2])) then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
if ARGV[1] ~= '0' then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return 1
"""
)


class RedisWriter:
    """Feast's hashes in one Redis (with or without Sentinel)."""

    with_texts = False

    def __init__(self, config: Any, feast_views: dict[str, Any]) -> None:
        from feast.infra.online_stores.helpers import compute_versioned_name
        from feast.infra.online_stores.redis import RedisOnlineStore

        versioned = config.registry.enable_online_feature_view_versioning
        self._fields = {
            name: _Fields.of(VIEWS[name], compute_versioned_name(view, versioned))
            for name, view in feast_views.items()
        }
        self._client = RedisOnlineStore()._get_client(config.online_store)
        self._project = config.project.encode()
        self._staged = self._project + b"_staging"
        self._ttl_s = config.online_store.key_ttl_seconds or 0

    def load(self, batches: Iterable[Encoded]) -> None:
        """Stage every batch, then move every user."""
        self._remove_staged()
        views: dict[str, None] = {}
        try:
            for batch in batches:
                views[batch.view.name] = None
                self._stage(batch)
            self._move(views)
        finally:
            self._remove_staged()

    def push(self, rows: Encoded) -> None:
        """Write each user's row unless a newer one is there, checked on the server."""
        with self._client.pipeline(transaction=False) as pipe:
            for key, fields in self._hashes(rows):
                flat = [part for field in fields.items() for part in field]
                pipe.eval(_PUSH, 1, key + self._project, self._ttl_s, *flat)
            pipe.execute()

    def _stage(self, batch: Encoded) -> None:
        hashes = list(self._hashes(batch))
        for start in range(0, len(hashes), _USERS_PER_PIPELINE):
            with self._client.pipeline(transaction=False) as pipe:
                for key, fields in hashes[start : start + _USERS_PER_PIPELINE]:
                    pipe.hset(key + self._staged, mapping=fields)
                    pipe.expire(key + self._staged, _STAGED_FOR_S)
                pipe.execute()

    def _move(self, views: Iterable[str]) -> None:
        script = self._client.register_script(_MOVE)
        layout: list[Any] = [self._ttl_s]
        for view in views:
            fields = self._fields[view]
            layout += [fields.stamp, len(fields.features), *fields.features]
        for staged in self._staged_keys():
            keys = [
                name
                for key in staged
                for name in (key, key.removesuffix(self._staged) + self._project)
            ]
            script(keys=keys, args=layout)

    def _staged_keys(self) -> Iterator[list[bytes]]:
        pattern = b"*" + self._staged
        chunk: list[bytes] = []
        for key in self._client.scan_iter(match=pattern, count=1_000):
            chunk.append(key)
            if len(chunk) == _USERS_PER_SCRIPT:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _remove_staged(self) -> None:
        for keys in self._staged_keys():
            self._client.unlink(*keys)

    def _hashes(self, batch: Encoded) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        """Per row the entity key and the fields of the hash, the time first."""
        from google.protobuf.timestamp_pb2 import Timestamp

        stamps: dict[Any, bytes] = {}
        for at in set(batch.event_times):
            stamp = Timestamp()
            stamp.FromDatetime(at)
            stamps[at] = stamp.SerializeToString()
        fields = self._fields[batch.view.name]
        names = [fields.stamp, *fields.features]
        columns = [batch.values[name] for name in batch.view.feature_names]
        event_stamps = [stamps[at] for at in batch.event_times]
        for key, *values in zip(batch.keys, event_stamps, *columns, strict=True):
            yield key, dict(zip(names, values, strict=True))


@dataclass(frozen=True)
class _Fields:
    """The names of a view's time and features in a hash."""

    stamp: bytes
    features: list[bytes]

    @classmethod
    def of(cls, view: View, stored_name: str) -> "_Fields":
        from feast.infra.online_stores.helpers import _mmh3

        features = [_mmh3(f"{stored_name}:{feature}") for feature in view.feature_names]
        return cls(f"_ts:{stored_name}".encode(), features)
