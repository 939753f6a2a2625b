"""Segments in and out of Feast: rows to write, the point-in-time join, the online look-up.

Rules this file decides:

- The files are the truth. Rows of one as-of instant are one folder, written whole; online shows
  the newest written row of each user, whatever the order of loads.
- A past row counts as known from its ``created``, and a point-in-time read passes over rows that
  were not known yet, so backfilled or late rows cannot leak into training.
- Feast does not expire online values (feast#6821): a reader says how old is too old.
"""

import contextlib
import io
import logging
import os
import sqlite3
import time
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from perso.errors import FeatureStoreError
from perso.features.feast_import import import_feast
from perso.features.repository import declared_objects, settings
from perso.schema import USER_RFM_SCHEMA
from perso.workspace import Workspace

logger = logging.getLogger(__name__)

FEATURE_VIEW: Final = "user_rfm"
FEATURE_SERVICE: Final = "recommender_v1"
"""The contract that perso itself reads by, in training and in serving."""

_COMPUTE_CURE: Final = "compute segments first (`perso segments run`)"
_KEYS: Final = ("user_id", "event_timestamp", "created")
_FEATURES_SCHEMA: Final = pa.schema(
    [USER_RFM_SCHEMA.field("user_id")]
    + [field.with_nullable(True) for field in USER_RFM_SCHEMA if field.name not in _KEYS]
)


def open_features(workspace: Workspace) -> "Features":
    """The feature store of a workspace; touches nothing until it is used.

    The settings are those of ``feature_repo``, or of the file that FEAST_FS_YAML_FILE_PATH names.

    Raises:
        FeatureStoreError: If the settings cannot be read or are no Feast settings.
    """
    import_feast()
    from feast import FeatureStore, RepoConfig

    text = os.path.expandvars(yaml.safe_dump(settings(workspace)))
    with _named_error("open the feature store", "correct the settings file"):
        config = RepoConfig(**yaml.safe_load(text))
        config.repo_path = workspace.features
        return Features(workspace, FeatureStore(config=config))


class Features:
    """One workspace's feature store; made by :func:`open_features`.

    Reads may run in several threads (``asyncio.to_thread`` in a replica); writes are one
    process's. It is not picklable: each process opens its own.
    """

    def __init__(self, workspace: Workspace, feast_store: Any) -> None:
        self._workspace = workspace
        self._feast = feast_store

    def apply(self) -> None:
        """Register what ``feature_repo`` declares; a repeat changes nothing.

        Also writes the settings with the root filled in to ``features/feature_store.yaml``, for
        ``feast -f``. Objects that are no longer declared stay registered: other teams may read
        them; ``feast delete`` removes one.

        Raises:
            FeatureStoreError: If the registry or online store cannot be reached.
        """
        folder = self._workspace.features
        folder.mkdir(parents=True, exist_ok=True)
        with _named_error("register features", "check registry and online store in the settings"):
            self._feast.apply(declared_objects(self._workspace))
            _let_readers_in(self._feast.config.online_store)
        text = yaml.safe_dump(settings(self._workspace), sort_keys=False)
        _replace_file(folder / "feature_store.yaml", text.encode())

    def write_rfm(self, rows: pa.Table) -> Path:
        """Write the feature rows of one as-of instant; the same instant again replaces them.

        Args:
            rows: USER_RFM_SCHEMA rows that share one ``event_timestamp``.

        Returns:
            The Parquet file.

        Raises:
            ValueError: If the schema differs, or there is not exactly one ``event_timestamp``.
        """
        if not rows.schema.equals(USER_RFM_SCHEMA):
            raise ValueError(f"rows have schema {rows.schema}, write USER_RFM_SCHEMA rows")
        instants = pc.unique(rows["event_timestamp"]).to_pylist()
        if len(instants) != 1:
            raise ValueError(
                f"rows have {len(instants)} event timestamps; write those of one instant at a time"
            )
        path = self._rows_folder / f"as_of={_format(instants[0])}" / "part-0.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        pq.write_table(rows, buffer, coerce_timestamps="us")  # duckdb refuses nanoseconds
        _replace_file(path, buffer.getvalue())
        return path

    def written(self) -> list[datetime]:
        """The as-of instants that rows were written for, oldest first."""
        names = (path.parent.name for path in self._rows_folder.glob("as_of=*/part-0.parquet"))
        return sorted(_parse(name.removeprefix("as_of=")) for name in names)

    def materialize(self, as_of: datetime) -> None:
        """Bring the rows of an as-of instant online; a repeat changes nothing.

        A user with a newer written row gets that one: online values never go back in time, not
        even when an older instant is loaded after a newer one (SQLite would let them). Loads
        3 to 5 thousand rows a second.

        Raises:
            FeatureStoreError: If nothing was written for the instant, nothing is applied, or the
                online store cannot be reached.
        """
        written = self.written()
        if as_of not in written:
            raise FeatureStoreError(
                f"no rows were written for {as_of}; {_COMPUTE_CURE}. "
                f"Written: {', '.join(map(str, written)) or 'none'}"
            )
        started = time.perf_counter()
        with (
            _named_error("bring features online", _COMPUTE_CURE),
            # Feast prints its progress; a library does not.
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            # The window reaches up to the newest rows: of each user, Feast loads the latest.
            self._feast.materialize(as_of, written[-1], feature_views=[FEATURE_VIEW])
        logger.info("features: %s online (%.1f s)", as_of, time.perf_counter() - started)

    def read_online(
        self, user_ids: Sequence[str], *, not_before: datetime | None = None
    ) -> list[dict[str, Any] | None]:
        """What is known now of each user, in the order asked.

        Args:
            user_ids: Users; a stranger is no error.
            not_before: Rows with an older event time count as unknown. Online event times are
                whole seconds, and SQLite keeps them in local time: loader and reader need the
                same time zone setting.

        Returns:
            Per user the feature columns of USER_RFM_SCHEMA and ``event_timestamp`` (UTC), or None
            for a stranger and for a row that is too old.

        Raises:
            FeatureStoreError: If nothing is applied or the online store cannot be reached.
        """
        if not user_ids:
            return []
        with _named_error("read features online", _COMPUTE_CURE):
            response = self._feast.get_online_features(
                self._feast.get_feature_service(FEATURE_SERVICE, allow_cache=True),
                {"user_id": list(user_ids)},
            ).proto
        by_name = dict(zip(response.metadata.feature_names.val, response.results, strict=True))
        columns = {name: by_name[name] for name in _FEATURES_SCHEMA.names[1:]}
        oldest = not_before.timestamp() if not_before else 1  # a stranger's event time is 0
        # Read from the response's own messages: its to_dict() takes twice as long.
        rows: list[dict[str, Any] | None] = []
        for i in range(len(user_ids)):
            event_time = columns["segment"].event_timestamps[i].seconds
            if event_time < oldest:
                rows.append(None)
                continue
            row = {name: _plain(column.values[i]) for name, column in columns.items()}
            rows.append(row | {"event_timestamp": datetime.fromtimestamp(event_time, UTC)})
        return rows

    def read_historical(self, user_ids: Sequence[str], *, as_of: datetime) -> pa.Table:
        """What was known of each user at an instant: the point-in-time join.

        Of each user the row with the latest ``event_timestamp`` at or before ``as_of`` is taken,
        out of those also ``created`` by then and not older than the view's time to live.

        Args:
            user_ids: Users, repeats allowed; a stranger is no error.
            as_of: Aware instant.

        Returns:
            ``user_id`` and the feature columns of USER_RFM_SCHEMA, one row per id in the order
            asked; all features are null where nothing was known.

        Raises:
            ValueError: If ``as_of`` has no time zone.
            FeatureStoreError: If no rows were ever written or nothing is applied.
        """
        if as_of.tzinfo is None:
            raise ValueError(f"{as_of} has no time zone; give an aware instant, e.g. in UTC")
        import pandas as pd

        wanted = pa.array(user_ids, pa.string())
        if not len(wanted):
            return _FEATURES_SCHEMA.empty_table()
        if not self.written():
            raise FeatureStoreError(f"no segments were ever written; {_COMPUTE_CURE}")
        users = pc.unique(wanted)
        asked = pd.DataFrame({"user_id": users.to_pylist()})
        asked["event_timestamp"] = pd.Timestamp(as_of.astimezone(UTC)).as_unit("us")
        with _named_error("read past features", _COMPUTE_CURE):
            found = self._feast.get_historical_features(
                entity_df=asked,
                features=self._feast.get_feature_service(FEATURE_SERVICE, allow_cache=True),
                filter_by_created_timestamp=True,  # off, backfilled rows leak into the past
            ).to_arrow()
        in_order = found.take(pc.index_in(wanted, value_set=found["user_id"].combine_chunks()))
        return in_order.select(_FEATURES_SCHEMA.names).cast(_FEATURES_SCHEMA)

    @property
    def _rows_folder(self) -> Path:
        return self._workspace.features / FEATURE_VIEW


@contextlib.contextmanager
def _named_error(deed: str, cure: str) -> Iterator[None]:
    """One error for whatever the configured back ends raise: each has exceptions of its own."""
    try:
        with warnings.catch_warnings():
            # ibis calls duckdb by a name that duckdb 2 deprecates.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="ibis")
            yield
    except FeatureStoreError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FeatureStoreError(f"cannot {deed}: {reason}; {cure}") from error


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("val")
    return getattr(value, kind) if kind else None


def _let_readers_in(online_store: Any) -> None:
    """Switch an embedded online store to write-ahead logging; the file remembers it.

    Otherwise a load locks readers out for seconds whenever its transaction outgrows the cache.
    """
    if online_store.type == "sqlite":
        with contextlib.closing(sqlite3.connect(online_store.path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")


def _replace_file(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old or the new one, never half of it."""
    building = path.with_name(f".{path.name}.{os.getpid()}.building")
    building.write_bytes(content)
    building.replace(path)


def _format(as_of: datetime) -> str:
    """20111209T125000Z, with a fraction only where there is one."""
    text = f"{as_of.astimezone(UTC):%Y%m%dT%H%M%S}"
    return text + (f".{as_of:%f}" if as_of.microsecond else "") + "Z"


def _parse(text: str) -> datetime:
    layout = "%Y%m%dT%H%M%S.%fZ" if "." in text else "%Y%m%dT%H%M%SZ"
    return datetime.strptime(text, layout).replace(tzinfo=UTC)
