"""What a search optimises: a metric, the worst segment's, or a weighted sum; and its limits.

As YAML writes it::

    objective: ndcg@20
    objective: {metric: ndcg@20, over: worst_segment}
    objective: [{metric: ndcg@20, weight: 0.8}, {metric: coverage@20, weight: 0.2}]
    constraints: {coverage@20: {at_least: 0.2}}
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

RANKING_METRICS: Final = ("recall", "ndcg", "map", "mrr", "precision", "hit_rate")
"""Of each user's list; measured per segment too. Higher is better."""
LIST_METRICS: Final = (
    "coverage",
    "gini",
    "novelty",
    "serendipity",
    "popularity_lift",
    "intra_list_diversity",
    "calibration",
)
"""Of the lists together."""
ERROR_METRICS: Final = ("rmse", "mae")
"""Of predicted numbers, without a list length."""
LOWER_IS_BETTER: Final = frozenset({"gini", "popularity_lift", "calibration", *ERROR_METRICS})

Mode = Literal["max", "min"]


def measured_metrics(ks: tuple[int, ...]) -> list[str]:
    """Every metric that a search can name, such as ``ndcg@20``."""
    at_k = [f"{metric}@{k}" for metric in (*RANKING_METRICS, *LIST_METRICS) for k in ks]
    return [*at_k, *ERROR_METRICS]


@dataclass(frozen=True, kw_only=True)
class Term:
    """One metric of an objective."""

    metric: str
    """A metric at one of the list lengths, such as ``ndcg@20``, or ``rmse`` or ``mae``."""
    weight: float = 1.0
    """What it counts in the sum; below 0 for what should be low."""
    over: Literal["all", "worst_segment"] = "all"
    """Over all users, or the lowest among segments of enough users."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight):
            raise ValueError(f"the weight of {self.metric} is {self.weight}; give one but 0")
        if self.over == "worst_segment" and self.base not in RANKING_METRICS:
            raise ValueError(
                f"{self.metric} is not measured per segment; worst_segment takes one of "
                f"{', '.join(RANKING_METRICS)}"
            )

    @property
    def base(self) -> str:
        """The metric without its list length."""
        return self.metric.split("@")[0]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Limits of a metric that the winner has to keep.

    Raises:
        ValueError: If no end is given, or the lower one is above the upper one.
    """

    at_least: float | None = None
    """The lowest value allowed."""
    at_most: float | None = None
    """The highest value allowed."""

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ValueError(
                "a constraint without at_least and at_most allows everything; give one of them"
            )
        low, high = self._ends
        if low > high:
            raise ValueError(f"no value is at least {low} and at most {high}; swap the ends")

    @property
    def _ends(self) -> tuple[float, float]:
        return (
            -math.inf if self.at_least is None else self.at_least,
            math.inf if self.at_most is None else self.at_most,
        )

    def allows(self, value: float) -> bool:
        """Whether a value is within; ``nan`` is not."""
        low, high = self._ends
        return low <= value <= high

    def __str__(self) -> str:
        ends = [(self.at_least, "at least"), (self.at_most, "at most")]
        return " and ".join(f"{words} {end:g}" for end, words in ends if end is not None)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One number for a trial, from its metrics."""

    terms: tuple[Term, ...]
    """Added up."""
    mode: Mode
    """Whether the highest or the lowest wins."""
    min_segment_users: int
    """Users that a segment needs to be the worst one."""

    @property
    def name(self) -> str:
        """For tables: ``ndcg@20``, ``worst segment's ndcg@20``, ``0.8 ndcg@20 + 0.2 mrr@20``."""
        if len(self.terms) == 1 and self.terms[0].weight == 1:
            return _words(self.terms[0])
        return " + ".join(f"{term.weight:g} {_words(term)}" for term in self.terms)

    @property
    def sign(self) -> float:
        """1 where the highest wins, else -1: the product is to be high."""
        return 1.0 if self.mode == "max" else -1.0

    def value(
        self,
        metrics: Mapping[str, float],
        per_segment: Mapping[str, Mapping[str, float]],
        num_users_by_segment: Mapping[str, int],
    ) -> float:
        """The objective of one measurement; ``nan`` where a part of it was not measured.

        Args:
            metrics: Over all users.
            per_segment: The same of each segment; names in brackets are slices, no segments.
            num_users_by_segment: Users behind them.
        """
        total = 0.0
        for term in self.terms:
            found = metrics.get(term.metric, math.nan)
            if term.over == "worst_segment":
                values = [
                    segment[term.metric]
                    for name, segment in per_segment.items()
                    if not name.startswith("(")
                    and num_users_by_segment.get(name, 0) >= self.min_segment_users
                    and term.metric in segment
                ]
                found = min(values, default=math.nan)
            total += term.weight * found
        return total


def default_mode(terms: tuple[Term, ...]) -> Mode:
    """``min`` where every term is better when low, ``max`` where every one is better when high.

    Raises:
        ValueError: If some pull up and others down.
    """
    low = [term for term in terms if (term.base in LOWER_IS_BETTER) != (term.weight < 0)]
    if low and len(low) < len(terms):
        raise ValueError(
            f"of the objective {_words(low[0])} is better when low and others when high; give it "
            f"weight {-low[0].weight:g}, or say the mode"
        )
    return "min" if low else "max"


def _words(term: Term) -> str:
    return term.metric if term.over == "all" else f"worst segment's {term.metric}"
