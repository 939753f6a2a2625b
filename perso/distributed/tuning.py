"""A whole search on a cluster: trials, the final test, the gate, registry, report.

The rules are in :mod:`perso.tuning`; this file puts its steps in order and moves data between
the dataset, the workers and the registry.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from perso.data.prepared import PreparedData
from perso.distributed.finalist import judge_on_cluster, log_finalist, train_on_cluster
from perso.distributed.trials import by_segment, flat, run_trials
from perso.errors import InputError
from perso.models.popularity import fit_popularity
from perso.models.side_data import SideData
from perso.registry import CHAMPION, PREVIOUS, ModelVersion, Registry, git_commit
from perso.schema import SPLITS
from perso.spec import spec_hash, spec_to_dict
from perso.tuning.finalist import save_finalist
from perso.tuning.gate import VERDICT_TAG, Verdict
from perso.tuning.journal import SearchJournal, search_key
from perso.tuning.report.render import write_report
from perso.tuning.result import SearchResult
from perso.tuning.spec import SearchSpec
from perso.tuning.standings import best_trial
from perso.tuning.verdict import measure_popularity
from perso.tuning.wording import in_words
from perso.workspace import Workspace

logger = logging.getLogger(__name__)


def run_search(
    spec: SearchSpec,
    data: PreparedData,
    workspace: Workspace,
    *,
    before_validation: SideData | None = None,
    before_test: SideData | None = None,
    resume: bool = False,
) -> SearchResult:
    """Search, test the winner, register it, and promote it if it passes the gate.

    Needs a connected Ray. MLflow shows one run for the search (the winner's test metrics, those
    of the better popularity under ``popularity/``, the report) and below it one run per trial.

    Args:
        spec: The search.
        data: The dataset; winner and popularity serve what they were tested as, trained on
            everything before the test period.
        workspace: Where runs, versions and the search's journal go.
        before_validation: Segments and attributes of users as of the end of train.
        before_test: The same as of the end of validation.
        resume: Go on with the newest unfinished search of the same spec and data.

    Raises:
        InputError: If a period has no interactions, no node holds a trial, or there is nothing
            to resume.
        SearchError: If no trial finished.
        ChampionMovedError: If another version was promoted while this one was judged; resuming
            judges it against that one.
    """
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
    key = search_key(spec, data.key, before_validation.fingerprint, before_test.fingerprint)
    with open_search(spec, workspace, registry, key=key, tags=lineage, resume=resume) as journal:
        trials = run_trials(
            spec, train, validation, before_validation, registry=registry, journal=journal
        )
        winner = best_trial(trials, spec)
        logger.info("search: %s wins", in_words(winner.settings))
        finalist = train_on_cluster(
            spec, winner.point, known, test, before_test, storage=journal.folder / "final"
        )
        validation_baseline = measure_popularity(
            fit_popularity(train, before_validation.segments),
            spec,
            known=train,
            held_out=validation,
            side=before_validation,
        )
        log_finalist(registry, journal.run_id, finalist)
        building = workspace.bundles / journal.run_id
        shutil.rmtree(building, ignore_errors=True)  # of an attempt that was killed
        save_finalist(
            finalist,
            building,
            data=data,
            spec=spec,
            point=winner.point,
            now=journal.begun_at,
        )
        rival = _rival(registry, journal.run_id)
        judgement = judge_on_cluster(
            spec,
            building,
            rival,
            finalist.baseline,
            data=data,
            known=known,
            test=test,
            side=before_test,
        )
        verdict, champion = judgement.verdict, judgement.incumbent
        if champion is not None:
            served = champion.report
            theirs = dict(served.overall) | by_segment(served.per_segment)
            registry.log_metrics(
                journal.run_id, {f"champion/{name}": value for name, value in theirs.items()}
            )
        version = _register_once(
            registry, building, journal, tags=lineage, verdict=verdict, rival=rival
        )
        shutil.rmtree(building)
        result = SearchResult(
            spec=spec,
            trials=tuple(trials),
            winner=winner,
            validation_baseline=validation_baseline,
            tested=finalist.model_report,
            test_baseline=finalist.baseline,
            champion=champion,
            verdict=verdict,
            version=version,
            lineage=lineage,
            periods=_periods(data),
            started_at=journal.begun_at,
            seconds=(datetime.now(UTC) - journal.begun_at).total_seconds(),
        )
        report = write_report(result, journal.folder / "report")
        registry.log_artifacts(journal.run_id, journal.folder / "report")
        tags = {
            "verdict": verdict.reason,
            "winner": in_words(winner.settings),
            "popularity": finalist.baseline.kind,
            "report": str(report.html),
        }
        registry.close_run(journal.run_id, tags=tags)
    logger.info("search: version %s, %s (%.1f s)", version, verdict.reason, result.seconds)
    logger.info("search: report %s", report.html)
    return result


def _rival(registry: Registry, run_id: str) -> ModelVersion | None:
    """The champion; the one before it where a killed attempt of this search is champion already."""
    champion = registry.champion()
    if champion is None or champion.run_id != run_id:
        return champion
    before = next((v.version for v in registry.versions() if PREVIOUS in v.aliases), None)
    return None if before is None else registry.version(before)


def _register_once(
    registry: Registry,
    bundle: Path,
    journal: SearchJournal,
    *,
    tags: dict[str, str],
    verdict: Verdict,
    rival: ModelVersion | None,
) -> str:
    """The winner's version, promoted if it may serve; that of a killed attempt if it got so far."""
    earlier = next((v for v in registry.versions() if v.run_id == journal.run_id), None)
    if earlier is not None and CHAMPION in earlier.aliases:
        return earlier.version
    told = tags | {VERDICT_TAG: verdict.to_json()}
    if earlier is None:
        version = registry.register(bundle, run_id=journal.run_id, tags=told).version
    else:  # of an attempt that was ended before it could promote, or judged against another one
        version = earlier.version
        registry.tag(version, told)
    if verdict.promoted:
        judged = None if rival is None else rival.version
        registry.promote(version, instead_of=judged, why=verdict.reason)
    return version


@contextmanager
def open_search(
    spec: SearchSpec,
    workspace: Workspace,
    registry: Registry,
    *,
    key: str,
    tags: dict[str, str],
    resume: bool,
) -> Iterator[SearchJournal]:
    """The search's journal and run: ended when the block ends, left to be resumed if it fails.

    Raises:
        InputError: If there is nothing to resume, or another process runs it.
    """
    journal = SearchJournal.unfinished(workspace.searches, key) if resume else None
    if resume and journal is None:
        raise InputError(
            f"no unfinished search {spec.name!r} of this spec and these data is in "
            f"{workspace.searches}; leave --resume out to begin one"
        )
    if journal is None:
        run_id = registry.open_run(spec.name, params=flat(spec_to_dict(spec)), tags=tags)
        journal = SearchJournal.begin(
            workspace.searches, spec, key=key, run_id=run_id, now=datetime.now(UTC)
        )
    with journal.held():
        if resume:
            journal.begin_again()
            registry.reopen_run(journal.run_id)
            logger.info("search: goes on; %s", _kept(journal, spec))
        try:
            yield journal
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                logger.warning(
                    "search: interrupted; %s are kept: the same command with --resume goes on",
                    _kept(journal, spec),
                )
            registry.close_run(journal.run_id, status="FAILED", tags={"error": repr(error)})
            raise
        journal.end(datetime.now(UTC))


def _kept(journal: SearchJournal, spec: SearchSpec) -> str:
    over = [trial for trial in journal.trials() if trial.status != "running"]
    return f"{len(over)} of {spec.num_trials} trials"


def _lineage(data: PreparedData) -> dict[str, str]:
    files = data.manifest["source"]["files"]
    tags = {"data_key": data.key, "data_hash": spec_hash([file["hash"] for file in files])}
    commit = git_commit(Path.cwd())
    return tags if commit is None else tags | {"git_commit": commit}


def _periods(data: PreparedData) -> dict[str, str]:
    """What each period covers, in days."""
    train, validation, test = (data.split_end(split).date().isoformat() for split in SPLITS)
    return {
        "train": f"until {train}",
        "validation": f"{train} to {validation}",
        "test": f"{validation} to {test}",
    }
