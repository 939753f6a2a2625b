"""Recent events on their way from the event log to the feature store, off the request path.

One process tails the log and pushes what customers did, about once a second, so that other teams
read it from Feast a moment later. It remembers how far it came in a file of the workspace: after a
crash it goes on there, and pushing an event twice changes nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
from ray import serve

from perso.errors import EventLogError, FeatureStoreError
from perso.online.recent_rows import fold_recent, folds
from perso.stream.event_log import EventLog
from perso.stream.protocol import EventStream
from perso.workspace import Workspace
from serve_app.telemetry import Telemetry

logger = logging.getLogger(__name__)

PAUSE_S: Final = 1.0
PAUSE_AFTER_FAILURE_S: Final = 10.0
EVENTS_PER_PUSH: Final = 1_000


class RecentStore(Protocol):
    """The part of the feature store that a pusher needs."""

    def read_online(self, ids: Sequence[str]) -> Sequence[Mapping[str, Any] | None]:
        """One row per user, None for a stranger."""
        ...

    def push_recent(self, rows: pa.Table) -> int:
        """Bring newer recent events online."""
        ...


class RecentPusher:
    """Pushes what is in an event log, each event at least once."""

    def __init__(
        self,
        log: EventStream,
        open_store: Callable[[], RecentStore],
        offset_file: Path,
        telemetry: Telemetry,
    ) -> None:
        """Open nothing yet.

        Args:
            log: What to tail.
            open_store: Makes the store at the first push; called again after a failure.
            offset_file: Remembers the offset of the next event.
            telemetry: Counts events and failures.
        """
        self._log = log
        self._open_store = open_store
        self._store: RecentStore | None = None
        self._offset_file = offset_file
        self._telemetry = telemetry
        self._is_failing = False

    async def run(self) -> None:
        """Push until cancelled; a failure is told once, counted, and tried again."""
        while True:
            try:
                num_events = await asyncio.to_thread(self.push_next)
            except (EventLogError, FeatureStoreError, OSError) as error:
                if not self._is_failing:
                    logger.warning("recent events do not reach the feature store: %s", error)
                self._is_failing = True
                self._telemetry.count_push_failure()
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)
                continue
            if self._is_failing:
                logger.warning("recent events reach the feature store again")
            self._is_failing = False
            if num_events < EVENTS_PER_PUSH:  # else the log holds more
                await asyncio.sleep(PAUSE_S)

    def push_next(self) -> int:
        """Push the next events of the log; returns how many were taken from it.

        Raises:
            EventLogError: If the log cannot be read.
            FeatureStoreError: If the store cannot be reached; the same events come again.
            OSError: If the offset cannot be kept.
        """
        logged = self._log.read_from(self._offset(), EVENTS_PER_PUSH)
        if not logged:
            return 0
        events = [one.event for one in logged]
        users = sorted({e.user_id for e in events if e.user_id is not None and folds(e)})
        if users:
            store = self._open()
            try:
                rows = fold_recent(events, dict(zip(users, store.read_online(users), strict=True)))
                if len(rows):
                    self._telemetry.count_pushed(store.push_recent(rows))
            except FeatureStoreError:
                self._store = None
                raise
        self._keep_offset(logged[-1].offset + 1)
        return len(logged)

    def _open(self) -> RecentStore:
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def _offset(self) -> int:
        try:
            return int(self._offset_file.read_text())
        except FileNotFoundError:
            return 0
        except ValueError as error:
            raise OSError(f"{self._offset_file} holds no offset; remove it") from error

    def _keep_offset(self, offset: int) -> None:
        self._offset_file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._offset_file.with_suffix(".new")
        fresh.write_text(str(offset))
        fresh.replace(self._offset_file)


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0})
class RecentEvents:
    """The one pusher of the service; it takes no requests."""

    async def __init__(self, root: str) -> None:  # type: ignore[misc]  # Ray awaits it
        workspace = Workspace.open(root)

        def open_store() -> RecentStore:
            from perso.features.store import open_features

            return open_features(workspace)

        pusher = RecentPusher(
            EventLog(workspace.event_log),
            open_store,
            workspace.features / "recent_events.offset",
            Telemetry(),
        )
        self._pushing = asyncio.create_task(pusher.run())

    def check_health(self) -> None:
        """Ray replaces a replica whose task has ended."""
        if self._pushing.done():
            raise RuntimeError(f"the pusher ended: {self._pushing}")
