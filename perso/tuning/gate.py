"""What a tested model owes before it may serve, and what became of each demand.

This file says the demands and how an answer looks; :mod:`perso.tuning.checks` decides each of
them, and :mod:`perso.tuning.verdict` measures what they speak about.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Final

from perso.tuning.objective import LIST_METRICS, LOWER_IS_BETTER, RANKING_METRICS

VERDICT_TAG: Final = "gate"
"""The tag of a model version that holds its verdict."""

_FLOOR_METRICS: Final = tuple(
    metric for metric in (*RANKING_METRICS, *LIST_METRICS) if metric not in LOWER_IS_BETTER
)


@dataclass(frozen=True, kw_only=True)
class GateSpec:
    """What a challenger owes on the test period to become the champion."""

    metric: str | None = None
    """The ranking metric that decides, such as ``ndcg@20``; none: the search's own."""
    min_gain: float = 0.0
    """Relative gain over popularity and over the champion that is asked for: 0.02 is 2 % better.
    At 0 it has to be better at all, by more than chance explains."""
    confidence: float = 0.95
    """Share of resamples inside the interval that has to lie above the asked gain. With 100 test
    users it is wide, and rightly so: they cannot tell two good models apart."""
    num_resamples: int = 1000
    """How often test users are drawn anew for the interval."""
    max_segment_loss: float = 0.1
    """Largest relative loss of any one segment: 0.1 lets none lose more than 10 %."""
    min_segment_users: int = 100
    """Test users that a segment needs to be held to that: with fewer its mean says more of chance
    than of the model, and a gate that chance closes stays closed."""
    floors: dict[str, float] = field(default_factory=dict)
    """Least value of further metrics, such as ``coverage@20: 0.1``."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.min_gain) and self.min_gain >= 0):
            raise ValueError(f"min_gain is {self.min_gain}; give 0 or more, 0.02 for 2 % better")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence is {self.confidence}; give a share between 0 and 1")
        if self.num_resamples < 1:
            raise ValueError(f"num_resamples is {self.num_resamples}; give 1 or more")
        if not 0 <= self.max_segment_loss <= 1:
            raise ValueError(f"max_segment_loss is {self.max_segment_loss}; give a share, 0 to 1")
        if self.min_segment_users < 1:
            raise ValueError(f"min_segment_users is {self.min_segment_users}; give 1 or more")
        for name, least in self.floors.items():
            if not math.isfinite(least):
                raise ValueError(f"the floor of {name} is {least}; give a number")
            if name.split("@")[0] not in _FLOOR_METRICS:
                raise ValueError(
                    f"{name!r} cannot have a floor; give one of {', '.join(_FLOOR_METRICS)} at a "
                    "list length"
                )


@dataclass(frozen=True, kw_only=True)
class Check:
    """One demand and what became of it."""

    name: str
    """Such as ``beats popularity``; unique within a verdict."""
    passed: bool
    reason: str
    """One sentence with the values."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a tested model may serve, and why."""

    promoted: bool
    """Whether it becomes the champion: every check has passed."""
    reason: str
    """One sentence for who has not read the checks."""
    checks: tuple[Check, ...]

    def to_json(self) -> str:
        """For the registry, where it stands beside the version."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Verdict":
        """What :meth:`to_json` wrote.

        Raises:
            ValueError: If it is something else.
        """
        try:
            document = json.loads(text)
            checks = tuple(Check(**check) for check in document.pop("checks"))
            return cls(**document, checks=checks)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"this is no verdict: {text[:80]!r}") from error
