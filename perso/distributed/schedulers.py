"""The search's schedulers and searcher as Ray Tune's, taught what an earlier attempt found."""

import json
import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

from ray import tune
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search import Searcher

from perso.tuning.journal import SearchJournal
from perso.tuning.space import Distribution
from perso.tuning.spec import SearchSpec
from perso.tuning.suggest import Suggester
from perso.tuning.trial import Trial

EPOCH: Final = "epoch"
OBJECTIVE: Final = "objective"
TRIAL: Final = "trial"
"""Names in Tune's results; the last is a :class:`Trial` as JSON text."""

logger = logging.getLogger(__name__)


def make_scheduler(spec: SearchSpec, known: Sequence[Trial]) -> TrialScheduler:
    """The spec's scheduler; ASHA with the rungs of trials that are over already.

    Args:
        spec: The search.
        known: Trials of an earlier attempt.
    """
    if spec.scheduler == "none":
        return FIFOScheduler()
    epochs = [getattr(config, "epochs", 1) for config in spec.extremes()]
    if spec.scheduler == "asha":
        asha = AsyncHyperBandScheduler(
            time_attr=EPOCH,
            metric=OBJECTIVE,
            mode=spec.goal.mode,
            # Above every training: a trial that reaches its own end is over anyway.
            max_t=max(*epochs, spec.asha.first_epoch) + 1,
            grace_period=spec.asha.first_epoch,
            reduction_factor=spec.asha.reduction,
        )
        for trial in known:
            _replay(asha, trial, spec)
        return asha
    (grid,) = spec.grids
    return PopulationBasedTraining(
        time_attr=EPOCH,
        metric=OBJECTIVE,
        mode=spec.goal.mode,
        perturbation_interval=spec.pbt.every_epochs,
        burn_in_period=spec.pbt.every_epochs,
        quantile_fraction=spec.pbt.quantile,
        resample_probability=spec.pbt.resample,
        hyperparam_mutations={
            "point": {"searched": {name: _mutation(space) for name, space in grid.space.items()}}
        },
        require_attrs=False,  # a checkpoint is reported without an objective
        custom_explore_fn=lambda config: _inside(config, grid.space),
        log_config=False,
    )


def _replay(scheduler: AsyncHyperBandScheduler, trial: Trial, spec: SearchSpec) -> None:
    """Tell the rungs what a trial showed; Tune does not keep a scheduler's own state."""
    if trial.status in ("running", "failed"):
        return  # one that goes on tells its rungs again itself
    config = trial.point.config(spec)
    rungs = set(spec.rungs(config.family, getattr(config, "epochs", 0)))
    stand_in = SimpleNamespace(trial_id=f"earlier-{trial.number}")
    scheduler.on_trial_add(None, stand_in)
    for epoch, value in trial.curve:
        if epoch in rungs:
            scheduler.on_trial_result(None, stand_in, {EPOCH: epoch, OBJECTIVE: value})


def _mutation(space: Distribution) -> Any:
    """How a setting is drawn anew, in Tune's words; lists are moved along, numbers scaled."""
    if values := space.choice or space.steps:
        return list(values)
    assert space.bounds is not None
    return (tune.loguniform if space.loguniform is not None else tune.uniform)(*space.bounds)


def _inside(config: dict[str, Any], space: dict[str, Distribution]) -> dict[str, Any]:
    searched = config["point"]["searched"]
    moved = {name: space[name].nearest(searched[name]) for name in space}
    return config | {"point": config["point"] | {"searched": searched | moved}}


class SuggestingSearcher(Searcher):  # type: ignore[misc]
    """Hands Tune the points that :class:`Suggester` chooses."""

    def __init__(self, suggester: Suggester, journal: SearchJournal) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._suggester = suggester
        self._journal = journal
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next point as Tune's config."""
        point = self._suggester.suggest()
        if point is None:
            return Searcher.FINISHED
        self._numbers[trial_id] = point.number
        return {"point": point.to_dict()}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell what became of it."""
        if error or result is None or TRIAL not in result:
            so_far = self._journal.read(self._numbers.pop(trial_id))
            assert so_far is not None
            self._suggester.tell(so_far.fail("its worker died"))
        else:
            del self._numbers[trial_id]
            self._suggester.tell(Trial.of(json.loads(result[TRIAL])))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a search goes on by its journal."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a search goes on by its journal."""
