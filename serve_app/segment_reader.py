"""Segments at request time: cached, bounded in time, and never a reason to fail an answer."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from perso.errors import FeatureStoreError

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
"""The feature columns of one user and ``event_timestamp``."""


class OnlineFeatures(Protocol):
    """The part of the feature store that serving needs."""

    def read_online(self, user_ids: Sequence[str]) -> Sequence[Row | None]:
        """One row per user, None for a stranger."""
        ...


@dataclass(frozen=True, kw_only=True)
class SegmentReaderSpec:
    """How long a read may take and a row may be kept."""

    ttl_s: float = 60.0
    """Seconds for which a row is not asked for again; segments change daily."""
    timeout_s: float = 0.25
    """Seconds after which an answer does without the segment."""
    retry_after_s: float = 5.0
    """Seconds for which the store is left alone after a failure."""
    max_users: int = 100_000
    """Rows kept, about 1 kB each; the oldest goes first."""

    def __post_init__(self) -> None:
        for name in ("ttl_s", "timeout_s", "retry_after_s", "max_users"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give a number above 0")


class SegmentReader:
    """Feature rows by user for one event loop.

    A store that fails or hangs is left alone for a while; meanwhile rows read before go on being
    given, whatever their age.
    """

    def __init__(
        self, open_store: Callable[[], OnlineFeatures], *, spec: SegmentReaderSpec | None = None
    ) -> None:
        """Open nothing yet.

        Args:
            open_store: Makes the store at the first read, in a thread; called again after a
                failure.
            spec: Limits.
        """
        self._open_store = open_store
        self._spec = spec or SegmentReaderSpec()
        self._store: OnlineFeatures | None = None
        self._opening = threading.Lock()
        self._rows: dict[str, tuple[float, Row | None]] = {}
        self._closed_until = 0.0
        # Own threads: a store that hangs must not hold up writes to the event log.
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="segments")

    async def warm(self, *, timeout_s: float = 60.0) -> None:
        """Open the store ahead of the first request; a failure is left to the first read."""
        try:
            await self._ask("", timeout_s)
        except FeatureStoreError:
            self._closed_until = 0.0

    async def read(self, user_id: str) -> Row | None:
        """The newest known row of a user, None for a stranger.

        Raises:
            FeatureStoreError: If the store does not answer in time and the row is not kept.
        """
        now = time.monotonic()
        expires, row = self._rows.get(user_id, (-1.0, None))
        if now < expires:
            return row
        if now < self._closed_until:
            return self._kept(user_id, FeatureStoreError("the feature store failed a moment ago"))
        try:
            row = await self._ask(user_id, self._spec.timeout_s)
        except FeatureStoreError as error:
            return self._kept(user_id, error)
        self._keep(user_id, now + self._spec.ttl_s, row)
        return row

    async def _ask(self, user_id: str, timeout_s: float) -> Row | None:
        asked = asyncio.get_running_loop().run_in_executor(
            self._threads, self._read_blocking, user_id
        )
        try:
            row = await asyncio.wait_for(asked, timeout_s)
        except (FeatureStoreError, TimeoutError) as error:
            if self._closed_until == 0.0:
                logger.warning("answers do without segments: %s", error or "no answer in time")
            self._closed_until = time.monotonic() + self._spec.retry_after_s
            if isinstance(error, FeatureStoreError):
                raise
            raise FeatureStoreError(
                f"the feature store did not answer within {timeout_s} s"
            ) from error
        if self._closed_until:
            logger.warning("the feature store answers again")
            self._closed_until = 0.0
        return row

    def _read_blocking(self, user_id: str) -> Row | None:
        with self._opening:
            if self._store is None:
                self._store = self._open_store()
        return self._store.read_online([user_id])[0]

    def _kept(self, user_id: str, error: FeatureStoreError) -> Row | None:
        if user_id not in self._rows:
            raise error
        return self._rows[user_id][1]

    def _keep(self, user_id: str, expires: float, row: Row | None) -> None:
        self._rows.pop(user_id, None)  # to the young end
        if len(self._rows) >= self._spec.max_users:
            del self._rows[next(iter(self._rows))]
        self._rows[user_id] = (expires, row)
