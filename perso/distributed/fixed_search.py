"""A search on a table that says itself what is for the test: nothing is registered or served.

Points are tried on a validation part that is cut from train only; the winner is trained on all of
train and tested once. The rules are in :mod:`perso.tuning`.
"""

import logging
import time
from dataclasses import dataclass
from typing import Any

from perso.data.fixed_split import FixedSplit, cut_validation
from perso.distributed.finalist import log_finalist, train_on_cluster
from perso.distributed.trials import flat, in_words, run_trials
from perso.models.side_data import SideData
from perso.registry import Registry
from perso.spec import spec_to_dict
from perso.tuning.finalist import Finalist
from perso.tuning.spec import SearchSpec
from perso.tuning.trial import Trial, best_trial
from perso.workspace import Workspace

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.1
"""Share of train's pairs that choose the winner, where the table has no validation of its own."""


@dataclass(frozen=True, kw_only=True)
class FixedSearchResult:
    """One finished search on a fixed split."""

    spec: SearchSpec
    trials: tuple[Trial, ...]
    """Every trial, in the order of :meth:`SearchSpec.points`."""
    winner: Trial
    finalist: Finalist
    """The winner trained on all of train, on the test."""
    seconds: float
    """Wall time of the whole search."""

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able values."""
        return {
            "spec": spec_to_dict(self.spec),
            "trials": [
                {
                    "settings": trial.settings,
                    "validation": trial.metrics,
                    "train_s": trial.train_s,
                    "evaluate_s": trial.evaluate_s,
                    "error": trial.error,
                }
                for trial in self.trials
            ],
            "winner": self.winner.settings,
            "test": self.finalist.model_report.to_dict(),
            "popularity": self.finalist.baseline.report.to_dict(),
            "seconds": self.seconds,
        }


def search_fixed_split(
    spec: SearchSpec, split: FixedSplit, workspace: Workspace
) -> FixedSearchResult:
    """Search on train, test the winner once; needs a connected Ray.

    The validation part is the newest tenth of train where the table has timestamps, else a random
    tenth of each user's pairs; or the table's own. MLflow shows one run for the search and one
    per trial; no version is registered.

    Raises:
        SearchError: If no trial finished.
    """
    started = time.perf_counter()
    train, validation = split.train, split.validation
    if validation is None:
        train, validation = cut_validation(
            train, share=VALIDATION_SHARE, seed=spec.seed, by_time=split.has_timestamps
        )
    side = SideData.of_split(split)
    registry = Registry(workspace)
    run_id = registry.open_run(
        spec.name, params=flat(spec_to_dict(spec)), tags={"data_hash": split.hash}
    )
    try:
        trials = run_trials(
            spec,
            train,
            validation,
            side,
            registry=registry,
            parent_run_id=run_id,
            storage=workspace.searches,
        )
        winner = best_trial(trials, spec)
        finalist = train_on_cluster(spec, winner.number, split.train, split.test, side)
        log_finalist(registry, run_id, finalist)
        registry.close_run(run_id, tags={"winner": in_words(winner.settings)})
    except BaseException as error:
        registry.close_run(run_id, status="FAILED", tags={"error": repr(error)})
        raise
    seconds = time.perf_counter() - started
    logger.info("search: %s wins (%.1f s)", in_words(winner.settings), seconds)
    return FixedSearchResult(
        spec=spec, trials=tuple(trials), winner=winner, finalist=finalist, seconds=seconds
    )
