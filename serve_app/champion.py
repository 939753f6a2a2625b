"""From the registry's champion to the model that answers, without a restart.

One watcher process asks the registry and knows MLflow (seconds to import, 170 MB); replicas ask
the watcher, load the new bundle beside the old one, and swap.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from ray import serve

from perso.errors import ArtifactError
from perso.online.live import LiveRecommender
from perso.registry import Registry
from perso.workspace import Workspace
from serve_app.telemetry import Telemetry

logger = logging.getLogger(__name__)

POLL_S = 2.0

AskChampion = Callable[[], Awaitable[tuple[str, str] | None]]
"""Version and bundle folder of the champion, None before the first promotion."""


@serve.deployment(num_replicas=1, max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})
class ChampionWatcher:
    """Knows the champion; asks the registry at most every POLL_S seconds."""

    def __init__(self, root: str) -> None:
        self._registry = Registry(Workspace.open(root))
        self._champion: tuple[str, str] | None = None
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    async def champion(self) -> tuple[str, str] | None:
        """Version and bundle folder, None before the first promotion."""
        async with self._asking:
            if time.monotonic() - self._asked_at >= POLL_S:
                found = await asyncio.to_thread(self._registry.champion)
                self._champion = None if found is None else (found.version, str(found.folder))
                self._asked_at = time.monotonic()
        return self._champion


class ChampionFollower:
    """Keeps one replica's model the champion."""

    def __init__(
        self, live: LiveRecommender, ask_champion: AskChampion, telemetry: Telemetry
    ) -> None:
        self._live = live
        self._ask_champion = ask_champion
        self._telemetry = telemetry
        self._refused: str | None = None
        self._failed: str | None = None
        self._is_lost = False

    async def follow(self) -> None:
        """Look for a new champion until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            await self.catch_up()

    async def catch_up(self) -> None:
        """Serve the present champion; on any failure the model before goes on answering.

        A version whose bundle is damaged or foreign is refused once and for all. Any other
        failure may pass (storage that hiccups, memory that is short, a watcher that is down), so
        the next call tries again.
        """
        try:
            version, folder = await self._ask_champion() or (None, "")
        except Exception as error:  # whatever the registry's back end or Ray raises
            if not self._is_lost:
                logger.warning("the champion is not known: %r; asking again", error)
            self._is_lost = True
            return
        self._is_lost = False
        if version is None or version in {self._live.version, self._refused}:
            return
        started = time.perf_counter()
        try:
            await asyncio.to_thread(self._live.load, version, Path(folder))
            self._telemetry.set_model_version(version)
        except Exception as error:  # nothing may end the task that follows the champion
            self._note_failure(version, error)
            return
        logger.info("version %s answers (%.1f s)", version, time.perf_counter() - started)

    def _note_failure(self, version: str, error: Exception) -> None:
        self._telemetry.count_failed_load()
        # A file that cannot be read now makes an ArtifactError too, with the reason as its cause.
        is_final = isinstance(error, ArtifactError) and not isinstance(error.__cause__, OSError)
        if is_final:
            self._refused = version
        if is_final or self._failed != version:
            then = "it is refused" if is_final else "trying again"
            logger.error("version %s cannot be served: %r; %s", version, error, then)
        self._failed = version
