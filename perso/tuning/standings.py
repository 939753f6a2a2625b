"""Who is ahead: points by the mean of their seeds, those that keep the constraints first."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from perso.errors import SearchError
from perso.tuning.spec import SearchSpec
from perso.tuning.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One point with all of its trials."""

    trials: tuple[Trial, ...]
    """One per seed that was tried, in the order of the numbers."""
    value: float
    """Mean objective; ``nan`` if a seed was not measured."""
    spread: float
    """Highest less lowest objective of the seeds."""
    violations: tuple[str, ...]
    """Constraints that the means do not keep, each as a sentence with the value."""
    is_finished: bool
    """Whether every seed was trained to its end."""

    @property
    def first(self) -> Trial:
        """The trial of the first seed, which stands for the point."""
        return self.trials[0]


def standings(trials: Sequence[Trial], spec: SearchSpec) -> list[Standing]:
    """Every point, best first; on a tie the one tried earlier.

    Before all others come points that were trained to their end and keep the constraints; then
    those that were stopped but keep them; then the rest.
    """
    by_point: defaultdict[int, list[Trial]] = defaultdict(list)
    for trial in sorted(trials, key=lambda trial: trial.number):
        # Not by settings: of a population two trials may end with the same ones.
        by_point[trial.number // len(spec.seeds)].append(trial)
    found = [_standing(tuple(of_point), spec) for of_point in by_point.values()]

    def place(standing: Standing) -> tuple[bool, bool, bool, float, int]:
        unknown = math.isnan(standing.value)
        height = math.inf if unknown else -spec.goal.sign * standing.value
        broken = bool(standing.violations)
        return unknown, broken, not standing.is_finished, height, standing.first.number

    return sorted(found, key=place)


def best_trial(trials: Sequence[Trial], spec: SearchSpec) -> Trial:
    """The winner: the first seed of the best point that was measured and keeps the constraints.

    Raises:
        SearchError: If there is none; the message has the first failure, or how far the best
            point is from the constraints.
    """
    if not trials:
        raise SearchError(f"no trial began within budget.minutes, {spec.budget.minutes}; give more")
    ranked = standings(trials, spec)
    measured = [standing for standing in ranked if not math.isnan(standing.value)]
    if not measured:
        first = next((t.error for t in trials if t.error), f"{spec.goal.name} was not measured")
        raise SearchError(f"none of {len(trials)} trials finished; the first: {first}")
    if measured[0].violations:
        raise SearchError(
            f"none of {len(measured)} measured points keeps the constraints; the best one by "
            f"{spec.goal.name}: {'; '.join(measured[0].violations)}"
        )
    return measured[0].first


def _standing(trials: tuple[Trial, ...], spec: SearchSpec) -> Standing:
    values = [trial.value(spec) for trial in trials]
    if len(trials) < len(spec.seeds):
        values.append(math.nan)
    violations = []
    for name, bound in spec.constraints.items():
        mean = math.fsum(t.metrics.get(name, math.nan) for t in trials) / len(trials)
        if not bound.allows(mean):
            violations.append(f"{name} is {mean:.4f}, allowed is {bound}")
    return Standing(
        trials=trials,
        value=math.fsum(values) / len(values),
        spread=math.nan if any(map(math.isnan, values)) else max(values) - min(values),
        violations=tuple(violations),
        is_finished=all(trial.status == "finished" for trial in trials),
    )
