"""Lists of all users on a Ray cluster: one task a part, each written where it is made.

What a list holds is decided in ``perso.online.batch``, which files there are in
``perso.online.list_folder``; this file hands out parts. A worker process opens the bundle once,
memory-mapped, so the processes of a node share its pages; the folder of the bundle lies on a disk
that every node sees. At 10 million users there are 200 parts of 50,000, of which twice as many as
cores are under way at a time; the driver holds 12 bytes a user and the attributes, if asked for.
Lists of 50 are 2.5 GB then, 5 bytes a place.
"""

import logging
import time
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import ray

from perso.distributed.cluster import own_errors
from perso.models.bundle import load_bundle
from perso.online.audience import Audience
from perso.online.batch import BatchRecommender
from perso.online.list_folder import ListFolder, ListPlan
from perso.online.strategies import StrategySpec

logger = logging.getLogger(__name__)

_PARTS_PER_CORE: Final = 2
"""One that is made and one that waits, so that no core does."""
_SECONDS_PER_LINE: Final = 30.0
"""Between two lines of the log that say how far it is."""


def write_lists(
    plan: ListPlan,
    audience: Audience,
    *,
    bundle_folder: Path,
    out: str,
    strategies: StrategySpec | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the lists that a folder still lacks; needs a connected Ray.

    A part does not depend on the number of workers, so a run that was killed is finished by any
    other with the same plan.

    Args:
        plan: What is written.
        audience: The users of the plan.
        bundle_folder: The model's bundle, at the same path on every node.
        out: Path or URI of the folder; a path is one that every node sees.
        strategies: The shop's rules; none: lists are the model's own.
        overwrite: Replace the lists that are there.

    Returns:
        The manifest; see :meth:`perso.online.list_folder.ListFolder.finish`.

    Raises:
        InputError: If the folder holds other lists or files, or cannot be read or written.
        ArtifactError: If the bundle is damaged.
    """
    folder = ListFolder(out)
    missing = folder.begin(plan, overwrite=overwrite)
    maker = ray.put((bundle_folder, plan, folder, strategies))
    running: list[Any] = []
    told_at = time.monotonic()
    with own_errors():
        for count, number in enumerate(missing):
            if len(running) >= _PARTS_PER_CORE * max(1, int(ray.cluster_resources().get("CPU", 0))):
                done, running = ray.wait(running)
                ray.get(done)
            if time.monotonic() - told_at > _SECONDS_PER_LINE:
                num_written = plan.num_parts - len(missing) + count - len(running)
                logger.info("recommend: %d of %d parts", num_written, plan.num_parts)
                told_at = time.monotonic()
            running.append(_write_part.remote(maker, number, audience.rows(*plan.bounds(number))))
        ray.get(running)
    manifest = folder.finish(plan, created_at=datetime.now(UTC))
    logger.info(
        "recommend: %d users -> %d rows in %d parts, %d of them new",
        plan.num_users,
        manifest["rows"],
        plan.num_parts,
        len(missing),
    )
    return manifest


@ray.remote
def _write_part(
    maker: tuple[Path, ListPlan, ListFolder, StrategySpec | None], number: int, audience: Audience
) -> None:
    bundle_folder, plan, folder, strategies = maker
    recommender = _open(bundle_folder, plan.model_version, strategies)
    folder.write(plan, number, recommender.lists(audience, k=plan.k))


@lru_cache(maxsize=1)
def _open(folder: Path, version: str, strategies: StrategySpec | None) -> BatchRecommender:
    """One a process: what it has computed of the bundle serves all its parts."""
    return BatchRecommender(version, load_bundle(folder), strategies=strategies)
