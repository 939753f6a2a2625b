"""The feature store of one workspace: rows on disk, Feast over them, values online.

Rules this file decides:

- The files are the truth. Rows of one as-of instant are committed together; online shows the newest
  committed row of each user, or a newer one that was pushed since.
- A past row counts as known from its ``created``, and a point-in-time read passes over rows that
  were not known yet, so backfilled or late rows cannot leak into training.
- Feast does not expire online values (feast#6821): a reader says how old is too old.
"""

import contextlib
import sqlite3
import threading
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from perso.dictionary import EVENT_TIMESTAMP, SERVICES, USER_RECENT_EVENTS, Service
from perso.errors import FeatureStoreError, PersoError
from perso.features.encoding import encode
from perso.features.feast_import import import_feast
from perso.features.files import replace_file
from perso.features.history import check_rows, join_past_features
from perso.features.online_reader import OnlineReader, Row, let_reads_fail_soon
from perso.features.online_writer import OnlineWriter, open_writer
from perso.features.repository import declared_objects, filled_settings, settings
from perso.features.rows import COMPUTE_CURE, FeatureRows
from perso.features.sync import Freshness, SyncReport, read_freshness, sync_rows
from perso.schema import TIMESTAMP
from perso.workspace import Workspace

FEATURE_SERVICE: Final = "recommender_v1"
"""The contract that perso itself reads by, in training and in serving."""

_PUSH_SIZE: Final = 1_000
_SYNC_CURE: Final = "bring features online first (`perso features sync`)"


def open_features(workspace: Workspace) -> "Features":
    """The feature store of a workspace; touches nothing until it is used.

    The settings are those of ``feature_repo`` for the store that PERSO_FEATURE_STORE names
    (``local`` where it is not set), or of the file that FEAST_FS_YAML_FILE_PATH names.

    Raises:
        FeatureStoreError: If the settings cannot be read, need a variable that is not set, or are
            no Feast settings.
    """
    import_feast()
    from feast import FeatureStore, RepoConfig

    filled = filled_settings(workspace)
    with _named_error("open the feature store", "correct the settings file"):
        config = RepoConfig(**filled)
        config.repo_path = workspace.features
        return Features(workspace, FeatureStore(config=config))


class Features:
    """One workspace's feature store; made by :func:`open_features`.

    Reads may run in several threads (``asyncio.to_thread`` in a replica). It is not picklable: each
    process opens its own.
    """

    def __init__(self, workspace: Workspace, feast_store: Any) -> None:
        self._workspace = workspace
        self._feast = feast_store
        self._rows = FeatureRows(workspace)
        self._readers: dict[str, OnlineReader] = {}
        self._writer: OnlineWriter | None = None
        self._opening = threading.Lock()

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
            with warnings.catch_warnings():
                # Feast says at every start that on-demand views are experimental.
                warnings.filterwarnings("ignore", category=RuntimeWarning, module="feast")
                self._feast.apply(declared_objects(self._workspace))
            _let_readers_in(self._feast.config.online_store)
        text = yaml.safe_dump(settings(self._workspace), sort_keys=False)
        replace_file(folder / "feature_store.yaml", text.encode())

    def written(self) -> list[datetime]:
        """The as-of instants that rows were committed for, oldest first."""
        return self._rows.written()

    def sync(self) -> SyncReport:
        """Bring the newest committed rows of every view online; run it nightly.

        A repeat changes nothing. Until the rows are switched over, everybody reads the values of
        before; a sync that fails or is killed on SQLite or Postgres leaves those, and on Redis some
        users with all views of the new instant and the others with all of the one before. Other
        stores show each batch as it is written. A repeat finishes what is left. Users that the
        newest rows lack keep the values they had.

        Raises:
            FeatureStoreError: If nothing was ever committed, nothing is applied, the online store
                cannot be reached, or another sync runs.
        """
        if not self.written():
            raise FeatureStoreError(f"no rows were ever written; {COMPUTE_CURE}")
        with _named_error("bring features online", "mend it and repeat `perso features sync`"):
            return sync_rows(self._rows, self._open_writer(), self._workspace.features)

    def freshness(self, now: datetime) -> Freshness:
        """How old the values are that the last sync brought online."""
        return read_freshness(self._rows, self._workspace.features, now=now)

    def push_recent(self, rows: pa.Table) -> int:
        """Bring newer recent events online at once, for the time until the next sync.

        A row never replaces a newer one, so late and repeated pushes do no harm; on SQLite rows of
        the same second count as equally new.

        Args:
            rows: USER_RECENT_EVENTS rows whose ``event_timestamp`` is ``last_event_at``.

        Returns:
            How many rows were sent: of each user the newest.

        Raises:
            ValueError: If the schema differs or a row's two times do.
            FeatureStoreError: If nothing is applied or the online store cannot be reached.
        """
        view = USER_RECENT_EVENTS
        if not rows.schema.equals(view.schema):
            raise ValueError(f"rows have schema {rows.schema}; push rows of {view.name}")
        if not pc.all(pc.equal(rows[EVENT_TIMESTAMP], rows["last_event_at"])).as_py() and len(rows):
            raise ValueError(f"{EVENT_TIMESTAMP} differs from last_event_at; set both to that")
        newest = _newest_rows(rows, view.entity)
        with _named_error("push recent events", _SYNC_CURE):
            writer = self._open_writer()
            for start in range(0, len(newest), _PUSH_SIZE):
                batch = newest.slice(start, _PUSH_SIZE)
                writer.push(encode(view, batch, with_texts=writer.with_texts))
        return len(newest)

    def read_online(
        self,
        ids: Sequence[str],
        service: str = FEATURE_SERVICE,
        *,
        not_before: datetime | None = None,
    ) -> list[Row | None]:
        """What is known now of each user (or item), in the order asked.

        Values are plain: text, numbers, lists, and instants in UTC. Instants online are whole
        seconds. SQLite keeps event times in local time: loader and reader need the same time zone
        setting.

        Args:
            ids: Users or items, by the entity of the service; a stranger is no error.
            service: Name of a service of the dictionary.
            not_before: A view's row of before this instant counts as missing.

        Returns:
            Per id the columns of the service, None for those of a missing view, and
            ``event_timestamp``: when the service's first view (``user_rfm``) is of, None where that
            view is missing. None instead of a row where every view is missing.

        Raises:
            ValueError: If the service is unknown.
            FeatureStoreError: If nothing is applied or the online store cannot be reached.
        """
        wanted = _service(service)
        if not ids:
            return []
        with _named_error("read features online", COMPUTE_CURE):
            return self.online_reader(wanted.name).read(ids, not_before=not_before)

    def read_historical(
        self, ids: Sequence[str], *, as_of: datetime, service: str = FEATURE_SERVICE
    ) -> pa.Table:
        """What was known of each user (or item) at an instant: the point-in-time join.

        Args:
            ids: Users or items, repeats allowed; a stranger is no error.
            as_of: Aware instant.
            service: Name of a service of the dictionary.

        Returns:
            The key column and the columns of the service, one row per id in the order asked; the
            features of a view are null where nothing was known.

        Raises:
            ValueError: If the service is unknown or ``as_of`` has no time zone.
            FeatureStoreError: If no rows were ever written or nothing is applied.
        """
        if as_of.tzinfo is None:
            raise ValueError(f"{as_of} has no time zone; give an aware instant, e.g. in UTC")
        wanted = _service(service)
        entity = wanted.views()[0][0].entity
        times = pa.repeat(pa.scalar(as_of.astimezone(UTC), TIMESTAMP), len(ids))
        asked = pa.table({entity: pa.array(ids, pa.string()), EVENT_TIMESTAMP: times})
        return self.join_historical(asked, service=service).drop_columns(EVENT_TIMESTAMP)

    def join_historical(self, rows: pa.Table, *, service: str = FEATURE_SERVICE) -> pa.Table:
        """The rows with the features that were true and known at each row's own time.

        Of each view the row with the latest ``event_timestamp`` at or before the asked one is
        taken, out of those also ``created`` by then and not older than the view's time to live.

        Args:
            rows: ``user_id`` (or ``item_id``), aware ``event_timestamp``, and any other columns.
            service: Name of a service of the dictionary.

        Returns:
            The same rows in the same order, with the columns of the service appended.

        Raises:
            ValueError: If the service is unknown, a column is missing, timestamps are not aware, or
                a column has the name of a feature.
            FeatureStoreError: If no rows were ever written or nothing is applied.
        """
        wanted = _service(service)
        if len(rows) and not self.written():
            raise FeatureStoreError(f"no rows were ever written; {COMPUTE_CURE}")
        check_rows(rows, wanted)
        with _named_error("read past features", COMPUTE_CURE), warnings.catch_warnings():
            # ibis calls duckdb by a name that duckdb 2 deprecates.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="ibis")
            written = [name for name, _ in wanted.columns if self._rows.newest(name) is not None]
            return join_past_features(self._feast, rows, wanted, written)

    @property
    def rows(self) -> FeatureRows:
        """The rows on disk."""
        return self._rows

    @property
    def feast(self) -> Any:
        """Feast's own FeatureStore, for what perso has no word of its own for."""
        return self._feast

    def online_reader(self, service: str) -> OnlineReader:
        """The thin reader of a service, made at the first read.

        Raises:
            Exception: Whatever Feast raises where nothing is applied.
        """
        if service not in self._readers:
            with self._opening:
                names = [name for name, _ in SERVICES[service].columns]
                views = {
                    name: self._feast.get_feature_view(name, allow_registry_cache=True)
                    for name in names
                }
                online_store = self._feast._get_provider().online_store
                let_reads_fail_soon(online_store, self._feast.config)
                self._readers[service] = OnlineReader(
                    service=SERVICES[service],
                    config=self._feast.config,
                    store=online_store,
                    feast_views=views,
                )
        return self._readers[service]

    def _open_writer(self) -> OnlineWriter:
        with self._opening:
            if self._writer is None:
                views = {view.name: view for view in self._feast.list_feature_views()}
                if not views:
                    raise FeatureStoreError("no feature is registered; run `perso features sync`")
                self._writer = open_writer(self._feast.config, views)
            return self._writer


def _service(name: str) -> Service:
    if name not in SERVICES:
        raise ValueError(f"no feature service {name!r}; there are: {', '.join(SERVICES)}")
    return SERVICES[name]


def _newest_rows(rows: pa.Table, entity: str) -> pa.Table:
    """Of each user the newest row."""
    by_time = rows.sort_by(EVENT_TIMESTAMP)
    last = {user_id: place for place, user_id in enumerate(by_time[entity].to_pylist())}
    return by_time.take(pa.array(list(last.values()), pa.int64()))


@contextlib.contextmanager
def _named_error(deed: str, cure: str) -> Iterator[None]:
    """One error for whatever the configured back ends raise: each has exceptions of its own."""
    try:
        yield
    except PersoError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FeatureStoreError(f"cannot {deed}: {reason}; {cure}") from error


def _let_readers_in(online_store: Any) -> None:
    """Switch an embedded online store to write-ahead logging; the file remembers it.

    Otherwise a load locks readers out for seconds whenever its transaction outgrows the cache.
    """
    if online_store.type == "sqlite":
        with contextlib.closing(sqlite3.connect(online_store.path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
