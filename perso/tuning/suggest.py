"""Points that are chosen by what was good before: Optuna's tree-structured Parzen estimator.

References:
    Bergstra et al., Algorithms for hyper-parameter optimization, NeurIPS 2011. Akiba et al.,
    Optuna, KDD 2019.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from perso.spec import spec_hash
from perso.tuning.points import Point
from perso.tuning.space import Distribution
from perso.tuning.spec import SearchSpec
from perso.tuning.trial import Trial

_TRIES: Final = 50


class Suggester:
    """Asks Optuna for points and tells it what became of them.

    The trials of a point, one per seed, have consecutive numbers, and their mean is its value.
    Values of a grid and choices are told apart by their place, so they may be lists.
    """

    def __init__(self, spec: SearchSpec, known: Sequence[Trial] = ()) -> None:
        """Begin, or go on with a search of which some trials are known.

        Args:
            spec: The search.
            known: Its trials so far; those that are not done are suggested again first.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._spec = spec
        # Not the draws of the earlier attempt again; Optuna takes 32 bits.
        seed = (spec.seeds[0] + len(known)) % 2**32
        self._rng = np.random.default_rng(seed)
        self._study = optuna.create_study(
            direction="maximize" if spec.goal.mode == "max" else "minimize",
            sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        )
        self._values: dict[int, dict[int, float]] = {}
        """Objective by place of the point and seed."""
        self._asked: dict[int, Any] = {}
        """Optuna's trial by place of the point."""
        self._chosen = {_key(trial.point) for trial in known}
        """Every combination that was suggested, whatever came of it."""
        self._waiting: list[Point] = []
        by_place: defaultdict[int, list[Trial]] = defaultdict(list)
        for trial in known:
            by_place[self._place(trial.number)].append(trial)
        for place, trials in sorted(by_place.items()):
            done = {trial.seed for trial in trials if trial.status != "running"}
            point = trials[0].point
            self._waiting += [p for p in self._points(place, point) if p.seed not in done]
            for trial in trials:
                if trial.seed in done:
                    self.tell(trial)
        places = range(self._place(spec.num_trials))
        self._places = [place for place in places if place not in by_place]

    def suggest(self) -> Point | None:
        """The next point, None when the budget or the space is used up."""
        if not self._waiting:
            if not self._places or (point := self._ask(self._places[0])) is None:
                return None
            self._waiting += self._points(self._places.pop(0), point)
        return self._waiting.pop(0)

    def tell(self, trial: Trial) -> None:
        """Learn from a trial that is over."""
        import optuna

        place = self._place(trial.number)
        values = self._values.setdefault(place, {})
        values[trial.seed] = trial.value(self._spec)
        if len(values) < len(self._spec.seeds):
            return
        value = math.fsum(values.values()) / len(values)
        asked = self._asked.pop(place, None)
        if asked is not None and math.isnan(value):
            self._study.tell(asked, state=optuna.trial.TrialState.FAIL)
        elif asked is not None:
            self._study.tell(asked, value)
        elif not math.isnan(value):  # of an earlier attempt
            self._study.add_trial(self._earlier(trial.point, value))

    def _ask(self, place: int) -> Point | None:
        """A combination that was not suggested yet; by chance where Optuna comes to no other."""
        import optuna

        for attempt in range(2 * _TRIES):
            if attempt >= _TRIES:
                self._study.enqueue_trial(self._params(self._draw()))
            asked = self._study.ask()
            point = self._read(asked)
            if _key(point) not in self._chosen:
                self._chosen.add(_key(point))
                self._asked[place] = asked
                return point
            self._study.tell(asked, state=optuna.trial.TrialState.FAIL)  # it learns nothing
        return None

    def _read(self, asked: Any) -> Point:
        """What Optuna's trial says."""
        grid = 0
        if len(self._spec.grids) > 1:
            grid = asked.suggest_categorical("grid", list(range(len(self._spec.grids))))
        searched = {
            name: _suggest(asked, f"{grid}.{name}", space)
            for name, space in self._spec.grids[grid].space.items()
        }
        return Point(number=0, grid=grid, searched=searched, seed=0)

    def _draw(self) -> Point:
        grid = int(self._rng.integers(len(self._spec.grids)))
        return Point(number=0, grid=grid, searched=self._spec.grids[grid].draw(self._rng), seed=0)

    def _place(self, number: int) -> int:
        return number // len(self._spec.seeds)

    def _points(self, place: int, point: Point) -> list[Point]:
        first = place * len(self._spec.seeds)
        return [
            Point(number=number, grid=point.grid, searched=point.searched, seed=seed)
            for number, seed in enumerate(self._spec.seeds, start=first)
        ]

    def _earlier(self, point: Point, value: float) -> Any:
        """A trial of an earlier attempt as Optuna's."""
        import optuna

        distributions = {
            f"{point.grid}.{name}": _distribution(space)
            for name, space in self._spec.grids[point.grid].space.items()
        }
        if len(self._spec.grids) > 1:
            places = list(range(len(self._spec.grids)))
            distributions["grid"] = optuna.distributions.CategoricalDistribution(places)
        return optuna.trial.create_trial(
            params=self._params(point), distributions=distributions, value=value
        )

    def _params(self, point: Point) -> dict[str, Any]:
        """A point in Optuna's words; what is listed goes by its place."""
        params: dict[str, Any] = {"grid": point.grid} if len(self._spec.grids) > 1 else {}
        for name, space in self._spec.grids[point.grid].space.items():
            values, found = space.choice or space.steps, point.searched[name]
            params[f"{point.grid}.{name}"] = values.index(found) if values else found
        return params


def _key(point: Point) -> str:
    return spec_hash(point.grid, point.searched)


def _distribution(space: Distribution) -> Any:
    from optuna import distributions

    if space.choice is not None:
        return distributions.CategoricalDistribution(list(range(len(space.choice))))
    if space.steps:
        return distributions.IntDistribution(0, len(space.steps) - 1)
    assert space.bounds is not None
    return distributions.FloatDistribution(*space.bounds, log=space.loguniform is not None)


def _suggest(asked: Any, key: str, space: Distribution) -> Any:
    if space.choice is not None:
        return space.choice[asked.suggest_categorical(key, list(range(len(space.choice))))]
    if space.steps:
        return space.steps[asked.suggest_int(key, 0, len(space.steps) - 1)]
    assert space.bounds is not None
    return asked.suggest_float(key, *space.bounds, log=space.loguniform is not None)
