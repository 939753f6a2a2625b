"""Features at request time: cached, bounded in time, and never a reason to fail an answer.

Decides how long an answer waits for the store and what it makes do with instead. An old segment is
given all the same, because it is a better guess than none; how a read went is told with every row,
so that a store that is down, slow, empty or out of date is seen by whoever asks.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal, Protocol

from perso.errors import FeatureStoreError

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
"""The columns of ``recommender_v1`` of one customer and ``event_timestamp``, when the segment is
of: None for a customer who has only recent events yet."""

Failure = Literal["slow", "down"]
Outcome = Literal["fresh", "cached", "stale", "kept", "unknown", "slow", "down"]
"""How a read went: read now; read a moment ago; either, but the segment is older than it should be;
read before the store failed; the store has no segment for this id; no answer within the budget;
the store fails."""


class OnlineFeatures(Protocol):
    """The part of the feature store that serving needs."""

    def read_online(self, ids: Sequence[str]) -> Sequence[Row | None]:
        """One row per user, None for a stranger."""
        ...


@dataclass(frozen=True, kw_only=True)
class FeatureReaderSpec:
    """How long a read may take and a row may be kept."""

    budget_ms: float = 50.0
    """Milliseconds after which an answer does without features; a usual read takes about one."""
    retry_after_s: float = 5.0
    """Seconds for which the store is left alone after a failure."""
    ttl_s: float = 60.0
    """Seconds for which a row is not asked for again; segments change daily at most."""
    max_age_days: float = 15.0
    """Days after which a segment counts as stale: two weekly runs were missed."""
    max_users: int = 50_000
    """Rows kept, about 4 kB each; the oldest goes first."""

    def __post_init__(self) -> None:
        for name in ("budget_ms", "retry_after_s", "ttl_s", "max_age_days", "max_users"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give a number above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureRead:
    """What is known of one customer, and how that was found out."""

    row: Row | None
    """None for a stranger, and where the store did not answer and never did."""
    outcome: Outcome
    """How the read went."""

    @property
    def is_degraded(self) -> bool:
        """Whether the store did not answer, so that the row is missing or may be out of date."""
        return self.outcome in {"kept", "slow", "down"}


class FeatureReader:
    """Feature rows by user for one event loop.

    A store that fails or hangs is left alone for a while, or until the late answer comes, which is
    kept for the next time; meanwhile rows read before go on being given, whenever that was.
    """

    def __init__(
        self, open_store: Callable[[], OnlineFeatures], *, spec: FeatureReaderSpec | None = None
    ) -> None:
        """Open nothing yet.

        Args:
            open_store: Makes the store at the first read, in a thread; called again after a
                failure.
            spec: Limits.
        """
        self._open_store = open_store
        self._spec = spec or FeatureReaderSpec()
        self._store: OnlineFeatures | None = None
        self._opening = threading.Lock()
        self._rows: dict[str, tuple[float, Row | None]] = {}
        self._closed_until = 0.0
        self._failure: Failure | None = None  # of the newest read
        # Own threads: a store that hangs must not hold up writes to the event log.
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="features")

    async def warm(self, *, timeout_s: float = 60.0) -> None:
        """Open the store ahead of the first request; a failure is left to the first read."""
        try:
            await self._ask("", timeout_s)
        except (FeatureStoreError, TimeoutError):
            self._closed_until, self._failure = 0.0, None

    async def read(self, user_id: str, *, now: datetime) -> FeatureRead:
        """What is known of a customer; never an error, and never later than the budget.

        Args:
            user_id: Anybody.
            now: The instant (UTC) that the age of a segment is told by.
        """
        clock = time.monotonic()
        expires, row = self._rows.get(user_id, (-1.0, None))
        if clock < expires:
            return self._answered(row, "cached", now)
        if clock < self._closed_until:
            return self._kept(user_id, self._failure or "down")
        if self._failure is not None:  # one read at a time finds out whether it answers again
            self._closed_until = clock + self._spec.retry_after_s
        try:
            row = await self._ask(user_id, self._spec.budget_ms / 1e3)
        except TimeoutError:
            return self._kept(user_id, "slow")
        except FeatureStoreError:
            return self._kept(user_id, "down")
        self._keep(user_id, row)
        return self._answered(row, "fresh", now)

    def _answered(
        self, row: Row | None, outcome: Literal["fresh", "cached"], now: datetime
    ) -> FeatureRead:
        segment_at: datetime | None = None if row is None else row["event_timestamp"]
        if segment_at is None:
            return FeatureRead(row=row, outcome="unknown")
        if (now - segment_at) / timedelta(days=1) > self._spec.max_age_days:
            return FeatureRead(row=row, outcome="stale")
        return FeatureRead(row=row, outcome=outcome)

    async def _ask(self, user_id: str, timeout_s: float) -> Row | None:
        asked = asyncio.get_running_loop().run_in_executor(
            self._threads, self._read_blocking, user_id
        )
        try:
            row = await asyncio.wait_for(asyncio.shield(asked), timeout_s)
        except TimeoutError:
            self._close("slow", f"no answer within {timeout_s * 1e3:g} ms")
            asked.add_done_callback(partial(self._take_late, user_id))
            raise
        except FeatureStoreError as error:
            self._close("down", str(error))
            raise
        if self._failure is not None:
            logger.warning("the feature store answers again")
        self._closed_until, self._failure = 0.0, None
        return row

    def _close(self, failure: Failure, reason: str) -> None:
        if self._failure is None:
            logger.warning("answers do without features: %s", reason)
        self._failure = failure
        self._closed_until = time.monotonic() + self._spec.retry_after_s

    def _take_late(self, user_id: str, asked: asyncio.Future[Row | None]) -> None:
        if asked.cancelled() or asked.exception() is not None:
            return
        self._keep(user_id, asked.result())
        if self._failure == "slow":  # the next read finds out whether it still is
            self._closed_until = 0.0

    def _read_blocking(self, user_id: str) -> Row | None:
        with self._opening:
            if self._store is None:
                self._store = self._open_store()
            store = self._store
        try:
            return store.read_online([user_id])[0]
        except FeatureStoreError:
            self._store = None  # what it believes of the registry may be out of date
            raise

    def _kept(self, user_id: str, failure: Failure) -> FeatureRead:
        if user_id not in self._rows:
            return FeatureRead(row=None, outcome=failure)
        return FeatureRead(row=self._rows[user_id][1], outcome="kept")

    def _keep(self, user_id: str, row: Row | None) -> None:
        self._rows.pop(user_id, None)  # to the young end
        if len(self._rows) >= self._spec.max_users:
            del self._rows[next(iter(self._rows))]
        self._rows[user_id] = (time.monotonic() + self._spec.ttl_s, row)
