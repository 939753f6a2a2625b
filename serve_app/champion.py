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
        self._is_lost = False

    async def follow(self) -> None:
        """Look for a new champion until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            await self.catch_up()

    async def catch_up(self) -> None:
        """Serve the present champion; on any failure the model before goes on answering.

        A version whose bundle is damaged is refused once; a watcher that is down is asked again.
        """
        try:
            champion = await self._ask_champion()
        except Exception as error:  # whatever the registry's back end or Ray raises
            if not self._is_lost:
                logger.warning("the champion is not known: %r; asking again", error)
            self._is_lost = True
            return
        self._is_lost = False
        if champion is None or champion[0] in {self._live.version, self._refused}:
            return
        version, folder = champion
        started = time.perf_counter()
        try:
            await asyncio.to_thread(self._live.load, version, Path(folder))
        except (ArtifactError, OSError) as error:
            self._refused = version
            self._telemetry.count_failed_load()
            logger.error("version %s cannot be served: %s", version, error)
            return
        self._telemetry.set_model_version(version)
        logger.info("version %s answers (%.1f s)", version, time.perf_counter() - started)
