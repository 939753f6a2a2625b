"""A whole search on a cluster: trials, the final test, registry, promotion.

The rules are in :mod:`perso.tuning`; this file puts its steps in order and moves data between
the dataset, the workers and the registry.
"""

import logging
import shutil
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from perso.data.prepared import PreparedData
from perso.distributed.finalist import log_finalist, train_on_cluster
from perso.distributed.trials import flat, in_words, run_trials
from perso.errors import InputError
from perso.evaluation.report import EvaluationReport
from perso.models.popularity import fit_popularity
from perso.models.side_data import SideData
from perso.registry import ModelVersion, Registry, git_commit
from perso.spec import spec_hash, spec_to_dict
from perso.tuning.finalist import save_finalist
from perso.tuning.spec import SearchSpec
from perso.tuning.trial import Trial, best_trial
from perso.tuning.verdict import Baseline, judge, measure_popularity
from perso.workspace import Workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """One finished search."""

    spec: SearchSpec
    trials: tuple[Trial, ...]
    """Every trial, in the order of :meth:`SearchSpec.points`."""
    winner: Trial
    validation_baseline: Baseline
    """The better popularity fitted on train, on the period that chose the winner."""
    test_model: EvaluationReport
    """The winner retrained on train and validation, on the test period."""
    test_baseline: Baseline
    """The better popularity fitted on train and validation, on the test period."""
    promoted: bool
    """Whether the winner became the champion."""
    reason: str
    """Why, in one sentence with both values."""
    version: ModelVersion
    """The winner in the registry, champion or not."""
    seconds: float
    """Wall time of the whole search."""


def run_search(
    spec: SearchSpec,
    data: PreparedData,
    workspace: Workspace,
    *,
    before_validation: SideData | None = None,
    before_test: SideData | None = None,
) -> SearchResult:
    """Search the grid, test the winner, register it, and promote it if it beats popularity.

    Needs a connected Ray. MLflow shows one run for the search (the winner's test metrics, and
    those of the better popularity under ``popularity/``) and below it one run per trial.

    Args:
        spec: The grid.
        data: The dataset; winner and popularity serve what they were tested as, trained on
            everything before the test period.
        workspace: Where runs, versions and Tune's own records go.
        before_validation: Segments and attributes of users as of the end of train.
        before_test: The same as of the end of validation.

    Raises:
        InputError: If a period has no interactions.
        SearchError: If no trial finished.
    """
    started, started_at = time.perf_counter(), datetime.now(UTC)
    train, validation = data.interactions("train"), data.interactions("validation")
    known, test = data.interactions("train", "validation"), data.interactions("test")
    for name, period in {"train": train, "validation": validation, "test": test}.items():
        if not len(period):
            raise InputError(
                f"the {name} period of dataset {data.key} has no interactions; "
                "prepare more data or change its split"
            )
    catalog = data.catalog()
    before_validation = replace(before_validation or SideData(), item_features=catalog)
    before_test = replace(before_test or SideData(), item_features=catalog)
    registry = Registry(workspace)
    lineage = _lineage(data)
    run_id = registry.open_run(spec.name, params=flat(spec_to_dict(spec)), tags=lineage)
    try:
        trials = run_trials(
            spec,
            train,
            validation,
            before_validation,
            registry=registry,
            parent_run_id=run_id,
            storage=workspace.searches,
        )
        winner = best_trial(trials, spec)
        logger.info("search: %s wins", in_words(winner.settings))
        finalist = train_on_cluster(spec, winner.number, known, test, before_test)
        validation_baseline = measure_popularity(
            fit_popularity(train, before_validation.segments),
            spec,
            known=train,
            held_out=validation,
            side=before_validation,
        )
        verdict = judge(
            spec.gate,
            model=finalist.model_report.overall,
            baseline=finalist.baseline,
        )
        log_finalist(registry, run_id, finalist)
        building = workspace.bundles / run_id
        save_finalist(
            finalist,
            building,
            data=data,
            spec=spec,
            number=winner.number,
            now=started_at,
        )
        version = registry.register(building, run_id=run_id, tags=lineage)
        shutil.rmtree(building)
        if verdict.promoted:
            version = registry.promote(version.version)
        registry.close_run(
            run_id,
            tags={
                "verdict": verdict.reason,
                "winner": in_words(winner.settings),
                "popularity": finalist.baseline.kind,
            },
        )
    except BaseException as error:
        registry.close_run(run_id, status="FAILED", tags={"error": repr(error)})
        raise
    seconds = time.perf_counter() - started
    logger.info("search: version %s, %s (%.1f s)", version.version, verdict.reason, seconds)
    return SearchResult(
        spec=spec,
        trials=tuple(trials),
        winner=winner,
        validation_baseline=validation_baseline,
        test_model=finalist.model_report,
        test_baseline=finalist.baseline,
        promoted=verdict.promoted,
        reason=verdict.reason,
        version=version,
        seconds=seconds,
    )


def _lineage(data: PreparedData) -> dict[str, str]:
    files = data.manifest["source"]["files"]
    tags = {"data_key": data.key, "data_hash": spec_hash([file["hash"] for file in files])}
    commit = git_commit(Path.cwd())
    return tags if commit is None else tags | {"git_commit": commit}
