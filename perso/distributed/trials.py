"""Trials on Ray Tune: data once into the object store, points out to the workers.

What a trial does is decided in :mod:`perso.tuning`; this file hands out points and records what
comes back, one MLflow run per trial, written by the driver (importing MLflow costs a worker
seconds).
"""

import contextlib
import io
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.logger import JsonLoggerCallback

from perso.data.prepared import Interactions
from perso.models.side_data import SideData
from perso.registry import Registry
from perso.spec import spec_to_dict
from perso.tuning.spec import SearchSpec
from perso.tuning.trial import Trial, run_trial

logger = logging.getLogger(__name__)


def run_trials(
    spec: SearchSpec,
    train: Interactions,
    validation: Interactions,
    side: SideData,
    *,
    registry: Registry,
    parent_run_id: str,
    storage: Path,
) -> list[Trial]:
    """Every trial of the grid, in the order of its points; failed ones say why.

    The arrays are put into the object store once and workers map them read-only. A worker runs
    one trial after another, so libraries are imported once per worker, not per trial.
    """
    # Of Tune's own loggers only the JSON one: it reads results back from it and warns otherwise.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # An interrupt ends the search; Tune's handler would end the grid and go on to the test.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    points = spec.points()
    log = _RunLog(spec, registry=registry, parent_run_id=parent_run_id, num_trials=len(points))
    trainable = tune.with_parameters(
        _TrialWorker, spec=spec, train=train, validation=validation, side=side
    )
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources(spec)),
        param_space={"number": tune.grid_search(list(range(len(points))))},
        tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=spec.max_concurrent),
        run_config=tune.RunConfig(
            name=parent_run_id,
            storage_path=str(storage),
            callbacks=[log, JsonLoggerCallback()],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            # A trial reports its own errors; what is left is a lost worker, tried once more.
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    )
    with contextlib.redirect_stdout(io.StringIO()):  # Tune greets at every verbosity
        tuner.fit()
    return [log.trials[number] for number in range(len(points))]


class _TrialWorker(tune.Trainable):  # type: ignore[misc]
    """A process that runs one point of the grid per reset."""

    def setup(
        self,
        config: dict[str, int],
        *,
        spec: SearchSpec,
        train: Interactions,
        validation: Interactions,
        side: SideData,
    ) -> None:
        self._run = partial(run_trial, spec, train=train, validation=validation, side=side)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, int]) -> bool:
        self._number = new_config["number"]
        return True

    def step(self) -> dict[str, Any]:
        return {"trial": asdict(self._run(number=self._number)), "done": True}


class _RunLog(tune.Callback):  # type: ignore[misc]
    """Writes each trial into its own MLflow run, and a line into the log."""

    def __init__(
        self, spec: SearchSpec, *, registry: Registry, parent_run_id: str, num_trials: int
    ) -> None:
        self.trials: dict[int, Trial] = {}
        self._spec = spec
        self._configs = spec.points()
        self._settings = spec.settings()
        self._registry = registry
        self._parent_run_id = parent_run_id
        self._num_trials = num_trials
        self._run_ids: dict[int, str] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        if number in self._run_ids:  # a lost worker's second try
            return
        params = flat(spec_to_dict(self._configs[number]))
        self._run_ids[number] = self._registry.open_run(
            in_words(self._settings[number]), parent_run_id=self._parent_run_id, params=params
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._record(Trial(**trial.last_result["trial"]))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        told = str(trial.get_error() or "").strip().splitlines()
        error = told[-1] if told else "its worker died"
        self._record(Trial(number=number, settings=self._settings[number], error=error))

    def _record(self, trial: Trial) -> None:
        self.trials[trial.number] = trial
        run_id = self._run_ids[trial.number]
        seconds = {"train_s": trial.train_s, "evaluate_s": trial.evaluate_s}
        metrics = trial.metrics | by_segment(trial.per_segment) | seconds
        self._registry.log_metrics(run_id, metrics, curves={"loss": trial.losses})
        if trial.error is None:
            self._registry.close_run(run_id)
        else:
            self._registry.close_run(run_id, status="FAILED", tags={"error": trial.error})
        value = trial.metrics.get(self._spec.objective, float("nan"))
        logger.info(
            "search: trial %d of %d, %s: %s (%.1f s)",
            len(self.trials),
            self._num_trials,
            in_words(trial.settings),
            trial.error or f"{self._spec.objective} {value:.4f}",
            trial.train_s + trial.evaluate_s,
        )


def resources(spec: SearchSpec) -> dict[str, float]:
    """What Ray sets aside for one trial; it holds the worker's threads to the CPUs."""
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


def in_words(settings: Mapping[str, Any]) -> str:
    """The settings of a point as one line for people: ``sgd num_factors=32 l2=0.1``."""
    words = [str(v) if name == "family" else f"{name}={v}" for name, v in settings.items()]
    return " ".join(words)
