"""What the report compares: points of the search with their order, values and colours.

Who is ahead is decided by :mod:`perso.tuning.standings`; this adds what a page needs to tell it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from perso.evaluation.report import EvaluationReport
from perso.pages.drawing import MUTED
from perso.tuning.result import SearchResult
from perso.tuning.spec import SearchSpec
from perso.tuning.standings import Standing, standings
from perso.tuning.trial import Trial

# Okabe and Ito, Color Universal Design, 2008; a brown in place of the orange and the vermilion,
# which is the winner's.
_FAMILY_COLORS: Final = ("#0072b2", "#009e73", "#cc79a7", "#8c6d1f", "#56b4e9", "#3c3c3c")

Status = Literal["finished", "barred", "stopped", "failed", "unmeasured"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One point of the search: settings that were trained once with every seed."""

    standing: Standing
    """Its trials and their mean."""
    status: Status
    """``barred``: trained and measured, but outside the search's constraints; ``unmeasured``: no
    value although nothing failed."""

    @property
    def trials(self) -> tuple[Trial, ...]:
        """By seed."""
        return self.standing.trials

    @property
    def value(self) -> float:
        """Mean objective; ``nan`` if a seed was not measured."""
        return self.standing.value

    @property
    def is_measured(self) -> bool:
        """Whether there is a value, midway or at the end."""
        return math.isfinite(self.value)

    @property
    def number(self) -> int:
        """Of its first trial."""
        return self.standing.first.number

    @property
    def name(self) -> str:
        """In sentences."""
        return f"trial {self.numbers}" if len(self.trials) == 1 else f"trials {self.numbers}"

    @property
    def numbers(self) -> str:
        """Of its trials."""
        return ", ".join(str(trial.number) for trial in self.trials)

    @property
    def grid(self) -> int:
        """Which of the spec's grids it belongs to."""
        return self.standing.first.grid

    @property
    def family(self) -> str:
        """The family of models."""
        return str(self.standing.first.settings["family"])

    @property
    def searched(self) -> dict[str, Any]:
        """The searched settings, without the family."""
        return {n: v for n, v in self.standing.first.settings.items() if n != "family"}

    @property
    def settings_text(self) -> str:
        """The searched settings in one line."""
        return ", ".join(f"{n} {setting_text(v)}" for n, v in self.searched.items())

    def metric(self, name: str) -> float:
        """Mean of a metric over the seeds; ``nan`` if one of them lacks it."""
        values = [trial.metrics.get(name, math.nan) for trial in self.trials]
        return math.fsum(values) / len(values)


@dataclass(frozen=True, kw_only=True)
class Scoreboard:
    """A finished search, ordered."""

    result: SearchResult
    """As it came."""

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """Best first; those without a value last."""
        ranked = standings(self.result.trials, self.spec)
        return tuple(Candidate(standing=s, status=_status(s)) for s in ranked)

    @property
    def spec(self) -> SearchSpec:
        """The search."""
        return self.result.spec

    @property
    def objective(self) -> str:
        """Name of the objective."""
        return self.spec.goal.name

    @cached_property
    def winner(self) -> Candidate:
        """The candidate that the winning trial belongs to."""
        number = self.result.winner.number
        return next(c for c in self.candidates if number in {t.number for t in c.trials})

    @cached_property
    def families(self) -> tuple[str, ...]:
        """Those tried, in the order of the search."""
        tried = {candidate.family for candidate in self.candidates}
        ordered = dict.fromkeys(grid.family for grid in self.spec.grids)
        return tuple(family for family in ordered if family in tried)

    @cached_property
    def colors(self) -> dict[str, str]:
        """A colour per family."""
        palette = (*_FAMILY_COLORS, *[MUTED] * len(self.families))
        return dict(zip(self.families, palette, strict=False))

    @property
    def longest_list(self) -> int:
        """The longest list length that was measured."""
        return max(self.spec.k)

    @property
    def baseline_value(self) -> float:
        """The objective of popularity on the validation period."""
        return objective_of(self.result.validation_baseline.report, self.spec)

    def of_family(self, family: str) -> list[Candidate]:
        """Its candidates, best first."""
        return [candidate for candidate in self.candidates if candidate.family == family]

    def with_status(self, *statuses: Status) -> list[Candidate]:
        """Candidates of some statuses, best first."""
        return [candidate for candidate in self.candidates if candidate.status in statuses]

    def measured(self) -> Iterator[Candidate]:
        """Candidates with a value, best first."""
        return (candidate for candidate in self.candidates if candidate.is_measured)


def objective_of(report: EvaluationReport, spec: SearchSpec) -> float:
    """The objective of a report; ``nan`` where a part of it was not measured."""
    return spec.goal.value(report.overall, report.per_segment, report.num_users_by_segment)


def setting_text(value: Any) -> str:
    """A value of a setting in few digits.

    Example:
        >>> setting_text(0.0123456), setting_text(64), setting_text(None), setting_text(1e-7)
        ('0.01235', '64', 'none', '1e-07')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _status(standing: Standing) -> Status:
    if math.isfinite(standing.value):
        if not standing.is_finished:
            return "stopped"
        return "barred" if standing.violations else "finished"
    statuses = {trial.status for trial in standing.trials}
    if "failed" in statuses:
        return "failed"
    return "unmeasured" if statuses == {"finished"} else "stopped"
