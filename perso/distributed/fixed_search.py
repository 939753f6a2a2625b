"""A search on a table that says itself what is for the test: nothing is registered or served.

Points are tried on a validation part that is cut from train only; the winner is trained on all of
train and tested once. The rules are in :mod:`perso.tuning`.
"""

import logging
import time

from perso.data.fixed_split import FixedSplit, cut_validation
from perso.distributed.finalist import log_finalist, train_on_cluster
from perso.distributed.trials import run_trials
from perso.distributed.tuning import open_search
from perso.models.side_data import SideData
from perso.registry import Registry
from perso.tuning.journal import search_key
from perso.tuning.result import FixedSearchResult
from perso.tuning.spec import SearchSpec
from perso.tuning.standings import best_trial
from perso.tuning.wording import in_words
from perso.workspace import Workspace

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.1
"""Share of train's pairs that choose the winner, where the table has no validation of its own."""


def search_fixed_split(
    spec: SearchSpec, split: FixedSplit, workspace: Workspace, *, resume: bool = False
) -> FixedSearchResult:
    """Search on train, test the winner once; needs a connected Ray.

    The validation part is the newest tenth of train where the table has timestamps, else a random
    tenth of each user's pairs; or the table's own. MLflow shows one run for the search and one
    per trial; no version is registered.

    Args:
        spec: The search; its gate is not asked.
        split: The table.
        workspace: Where runs and the search's journal go.
        resume: Go on with the newest unfinished search of the same spec and table.

    Raises:
        InputError: If no node holds a trial, or there is nothing to resume.
        SearchError: If no trial finished.
    """
    started = time.perf_counter()
    train, validation = split.train, split.validation
    if validation is None:
        train, validation = cut_validation(
            train, share=VALIDATION_SHARE, seed=spec.seeds[0], by_time=split.has_timestamps
        )
    side = SideData.of_split(split)
    registry = Registry(workspace)
    key, tags = search_key(spec, split.hash), {"data_hash": split.hash}
    with open_search(spec, workspace, registry, key=key, tags=tags, resume=resume) as journal:
        trials = run_trials(spec, train, validation, side, registry=registry, journal=journal)
        winner = best_trial(trials, spec)
        finalist = train_on_cluster(
            spec, winner.point, split.train, split.test, side, storage=journal.folder / "final"
        )
        log_finalist(registry, journal.run_id, finalist)
        registry.close_run(journal.run_id, tags={"winner": in_words(winner.settings)})
    seconds = time.perf_counter() - started
    logger.info("search: %s wins (%.1f s)", in_words(winner.settings), seconds)
    return FixedSearchResult(
        spec=spec, trials=tuple(trials), winner=winner, finalist=finalist, seconds=seconds
    )
