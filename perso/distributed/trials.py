"""Trials on Ray Tune: data once into the object store, points out to the workers.

What a trial does is decided in :mod:`perso.tuning`; this file hands out points, brings trials back
after a lost worker or a killed driver, and records what comes back: a file per trial in the
search's journal, and a run per trial in MLflow, written by the driver (importing MLflow costs a
worker seconds).

The driver holds a few kilobytes a trial. The journal and the checkpoints lie in the workspace,
which every node has to see.
"""

import contextlib
import io
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import ray
from ray import tune

from perso.data.prepared import Interactions
from perso.distributed.capacity import require_room
from perso.distributed.fitting import Fitting
from perso.distributed.progress import SearchProgress
from perso.distributed.schedulers import (
    EPOCH,
    OBJECTIVE,
    TRIAL,
    SuggestingSearcher,
    make_scheduler,
)
from perso.models.side_data import SideData
from perso.registry import Registry
from perso.spec import spec_to_dict
from perso.tuning.journal import SearchJournal
from perso.tuning.points import Point, planned_points
from perso.tuning.snapshots import load_snapshot, newest_snapshot, save_snapshot
from perso.tuning.spec import SearchSpec
from perso.tuning.suggest import Suggester
from perso.tuning.trial import Snapshot, Trial, run_trial
from perso.tuning.wording import in_words

_TUNE_SETTINGS: Final = {
    # The driver records results itself; Tune would write each of them three times.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # An interrupt ends the search; Tune's handler would end the trials and go on to the test.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A checkpoint is reported without an objective.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # A search goes on by its journal; Tune's own snapshots of the driver are for nobody.
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}

_COORDINATOR: Final = {"memory": float(256 << 20)}
"""Set aside for a trial that only waits for the workers that train for it."""

logger = logging.getLogger(__name__)


def run_trials(
    spec: SearchSpec,
    train: Interactions,
    validation: Interactions,
    side: SideData,
    *,
    registry: Registry,
    journal: SearchJournal,
) -> list[Trial]:
    """Every trial of the search that was begun, by number; failed ones say why.

    Trials that the journal knows as over are not run again; those it knows as running go on from
    their newest checkpoint. The arrays are put into the object store once and workers map them
    read-only. A worker runs one trial after another, so libraries are imported once per worker.

    Args:
        spec: The search.
        train: What trials learn from.
        validation: What they are measured on.
        side: Segments and features as of the end of train.
        registry: Where runs go, below the journal's.
        journal: Of this search, begun before.

    Raises:
        InputError: If no node holds a trial and none will come.
    """
    require_room(resources(spec))
    is_shared = spec.workers_per_trial > 1
    for name, value in _TUNE_SETTINGS.items():
        os.environ.setdefault(name, value)
    # It misses the results that Tune's loggers would have written; the journal has them.
    logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)
    known = journal.trials()
    over = {trial.number for trial in known if trial.status != "running"}
    with SearchProgress(spec, known) as progress:
        log = _RunLog(spec, registry=registry, journal=journal, progress=progress)
        trainable = tune.with_parameters(
            _train, spec=spec, train=train, validation=validation, side=side, journal=journal
        )
        space, searcher, num_left = _points_left(spec, known, journal)
        if num_left:
            tuner = tune.Tuner(
                tune.with_resources(trainable, _COORDINATOR if is_shared else resources(spec)),
                param_space=space,
                tune_config=tune.TuneConfig(
                    reuse_actors=True,
                    search_alg=searcher,
                    num_samples=1 if searcher is None else num_left,
                    scheduler=make_scheduler(spec, known),
                    # Workers that are shared are not in what Tune sets aside: one trial at a time.
                    max_concurrent_trials=spec.max_concurrent or (1 if is_shared else None),
                    time_budget_s=spec.budget.minutes and spec.budget.minutes * 60,
                    trial_dirname_creator=_folder_name,
                ),
                run_config=tune.RunConfig(
                    name=f"tune-{journal.attempt}",
                    storage_path=str(journal.folder),
                    callbacks=[log],
                    # The newest may be half written when its node is lost, and a population takes
                    # over from who may have gone on since.
                    checkpoint_config=tune.CheckpointConfig(num_to_keep=3),
                    failure_config=tune.FailureConfig(max_failures=spec.retries),
                    verbose=0,
                ),
            )
            with contextlib.redirect_stdout(io.StringIO()):  # Tune greets at every verbosity
                tuner.fit()
            log.end_rest()
    trials = journal.trials()
    logger.info("search: %d trials, %d of them from before", len(trials), len(over))
    return trials


def _points_left(
    spec: SearchSpec, known: list[Trial], journal: SearchJournal
) -> tuple[dict[str, Any], SuggestingSearcher | None, int]:
    """Tune's space, the searcher if there is one, and how many trials are left."""
    over = {trial.number for trial in known if trial.status != "running"}
    if spec.searcher == "tpe":
        searcher = SuggestingSearcher(Suggester(spec, known), journal)
        return {}, searcher, spec.num_trials - len(over)
    begun = {trial.number: trial.point for trial in known}
    points = [begun.get(p.number, p) for p in planned_points(spec) if p.number not in over]
    return {"point": tune.grid_search([p.to_dict() for p in points])}, None, len(points)


def _folder_name(trial: Any) -> str:
    return f"{trial.config['point']['number']:05d}"


def _point(config: Mapping[str, Any], folder: str) -> Point:
    """What a trial trains.

    Its folder knows the number: who takes over in a population takes the number over, too.
    """
    return replace(Point.of(config["point"]), number=int(Path(folder).name))


def _train(
    config: dict[str, Any],
    *,
    spec: SearchSpec,
    train: Interactions,
    validation: Interactions,
    side: SideData,
    journal: SearchJournal,
) -> None:
    """What a worker runs: one trial, from the newest checkpoint that there is."""
    point = _point(config, tune.get_context().get_trial_dir())
    resume = _snapshot_of(point, journal)
    if resume is not None and spec.scheduler == "asha":
        for epoch, value in resume.so_far.curve:  # the rungs of a new scheduler are empty
            tune.report({EPOCH: epoch, OBJECTIVE: value})
    trial = run_trial(
        spec,
        point,
        train=train,
        validation=validation,
        side=side,
        watch=_Checkpoints(spec),
        resume=resume,
        fit=Fitting.of(spec, journal.shared_folder(point.number)),
    )
    # Without an objective: whoever is at the end is stopped by nobody.
    tune.report({EPOCH: trial.epochs, TRIAL: _told(trial)})


def _snapshot_of(point: Point, journal: SearchJournal) -> Snapshot | None:
    """Tune's checkpoint after a lost worker or for a taken-over population, else the journal's."""
    if (checkpoint := tune.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder, contextlib.suppress(OSError, ValueError):
            return load_snapshot(Path(folder))
    return newest_snapshot(journal.checkpoints(point.number))


def _told(trial: Trial) -> str:
    """A trial as text: of numbers Tune would keep a history each."""
    return json.dumps(replace(trial, node=ray.util.get_node_ip_address()).to_dict())


class _Checkpoints:
    """Between two epochs: tells the scheduler what was measured, and keeps a checkpoint in time."""

    def __init__(self, spec: SearchSpec) -> None:
        self._every_s = spec.checkpoint_every_s
        # Population based training copies the vectors of whoever is ahead at any measurement.
        self._at_measurements = spec.scheduler == "pbt"
        self._kept_at = time.monotonic()

    def __call__(self, so_far: Trial, snapshot: Callable[[], Snapshot], *, measured: bool) -> None:
        told: dict[str, Any] = {EPOCH: so_far.epochs}
        if measured:  # and what it will have been if the scheduler stops it here
            told |= {OBJECTIVE: so_far.curve[-1][1], TRIAL: _told(so_far)}
        is_due = time.monotonic() - self._kept_at >= self._every_s
        if is_due or (measured and self._at_measurements):
            with tempfile.TemporaryDirectory() as folder:
                save_snapshot(Path(folder), snapshot())
                tune.report(told, checkpoint=tune.Checkpoint.from_directory(folder))
            self._kept_at = time.monotonic()
        elif measured:
            tune.report(told)


class _RunLog(tune.Callback):  # type: ignore[misc]
    """Writes each trial into the journal and a run of its own, and tells the progress."""

    def __init__(
        self,
        spec: SearchSpec,
        *,
        registry: Registry,
        journal: SearchJournal,
        progress: SearchProgress,
    ) -> None:
        self._spec = spec
        self._registry = registry
        self._journal = journal
        self._progress = progress
        self._run_ids = registry.child_runs(journal.run_id)
        still_open = registry.child_runs(journal.run_id, status="RUNNING")
        for trial in journal.trials():  # that the driver was killed before it had logged
            run_id = still_open.get(str(trial.number))
            if run_id is not None and trial.status != "running":
                log_trial(registry, run_id, trial, spec)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        point = _point(trial.config, trial.path)
        self._progress.begin(point.number)
        if self._journal.read(point.number) is None:
            self._journal.write(Trial.begin(point, self._spec))
        if str(point.number) not in self._run_ids:
            try:
                params = flat(spec_to_dict(point.config(self._spec)))
            except ValueError:  # the family refuses it, and the trial will say why
                params = point.settings(self._spec)
            self._run_ids[str(point.number)] = self._registry.open_run(
                in_words(point.settings(self._spec)),
                parent_run_id=self._journal.run_id,
                params=params,
                tags={"trial": str(point.number)},
            )

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if TRIAL in result:
            so_far = Trial.of(json.loads(result[TRIAL]))
            if so_far.status == "stopped":  # or not, if the scheduler lets it go on
                self._journal.write(replace(so_far, status="running"))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if TRIAL in trial.last_result:
            ended = Trial.of(json.loads(trial.last_result[TRIAL]))
        else:  # at a rung that it had come to before
            so_far = self._journal.read(_point(trial.config, trial.path).number)
            assert so_far is not None
            ended = _stopped(so_far)
        self._record(ended, trial)

    def end_rest(self) -> None:
        """Record what the budget has ended: Tune tells nobody of it."""
        for so_far in self._journal.trials():
            if so_far.status == "running":
                self._end(_stopped(so_far))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        point = _point(trial.config, trial.path)
        told = str(trial.get_error() or "").strip().splitlines()
        error = told[-1] if told else "its worker died"
        so_far = self._journal.read(point.number) or Trial.begin(point, self._spec)
        self._record(so_far.fail(error), trial)

    def _record(self, ended: Trial, trial: Any) -> None:
        self._end(replace(ended, retries=trial.run_metadata.num_failures))

    def _end(self, ended: Trial) -> None:
        self._journal.write(ended)
        if (run_id := self._run_ids.get(str(ended.number))) is not None:
            log_trial(self._registry, run_id, ended, self._spec)
        self._progress.end(ended)


def _stopped(so_far: Trial) -> Trial:
    """What a trial has become that was ended from outside."""
    if so_far.metrics:
        return replace(so_far, status="stopped")
    return so_far.fail("the budget ended before anything was measured")


def log_trial(registry: Registry, run_id: str, trial: Trial, spec: SearchSpec) -> None:
    """What a trial showed and what it took, into its run, which is closed."""
    took = {
        "train_s": trial.train_s,
        "evaluate_s": trial.evaluate_s,
        "cpus": trial.cpus,
        "gpus": trial.gpus,
        "peak_memory_mib": trial.peak_memory_mib,
        "retries": float(trial.retries),
    }
    at_epoch = dict(trial.curve)
    objective = [at_epoch.get(epoch, float("nan")) for epoch in range(1, max(at_epoch, default=0))]
    registry.log_metrics(
        run_id,
        trial.metrics | by_segment(trial.per_segment) | took,
        curves={"loss": trial.losses, "objective": [*objective, trial.value(spec)]},
    )
    tags = {"status": trial.status, "node": trial.node, "seed": str(trial.seed)}
    if trial.error is None:
        registry.close_run(run_id, tags=tags)
    else:
        registry.close_run(run_id, status="FAILED", tags=tags | {"error": trial.error})


def resources(spec: SearchSpec) -> dict[str, float]:
    """What Ray sets aside for each process of a trial; it holds its threads to the CPUs."""
    return {"CPU": spec.cpus_per_trial, "GPU": spec.gpus_per_trial}


def by_segment(per_segment: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Metrics of all segments under one level of names: ``segment/loyal/ndcg@20``."""
    return {
        f"segment/{segment}/{name}": value
        for segment, metrics in per_segment.items()
        for name, value in metrics.items()
    }


def flat(spec: Mapping[str, Any]) -> dict[str, Any]:
    """MLflow's params are one level deep: ``learned.num_factors``, ``grids.0.family``."""
    levels: dict[str, Any] = {}
    for name, value in spec.items():
        is_list = isinstance(value, list | tuple) and any(isinstance(v, dict) for v in value)
        nested = {str(n): v for n, v in enumerate(value)} if is_list else value
        if isinstance(nested, dict):
            levels |= {f"{name}.{inner}": v for inner, v in flat(nested).items()}
        else:
            levels[name] = value
    return levels
