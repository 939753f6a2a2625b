"""Several cut-offs in time instead of one: whether a model's figures hold from month to month.

A pair carries only the time of its last event, so a period is approximate: a pair counts in the
period of its last event, with the weight of all its events. Training sees no event from after its
cut-off; but it misses the earlier events of pairs that went on after it, and these are held out as
if they were new. Weights are decayed to the end of the whole time, which scales those of an
earlier training by one number. The headline stays the split of :mod:`perso.data.split`, which cuts
events.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from perso.data.groups import UserGroups
from perso.data.prepared import Interactions
from perso.evaluation.report import EvaluationReport, evaluate
from perso.models.protocol import Recommender


@dataclass(frozen=True, kw_only=True)
class RollingReport:
    """One family of models at several cut-offs."""

    cutoffs: tuple[int, ...]
    """Microseconds since the epoch, ascending."""
    reports: tuple[EvaluationReport, ...]
    """On the period from each cut-off to the next one, the last one to the end."""

    @property
    def mean(self) -> dict[str, float]:
        """Each overall metric's mean over the cut-offs at which it was measured."""
        names = dict.fromkeys(name for report in self.reports for name in report.overall)
        found = {
            name: [
                r.overall[name] for r in self.reports if np.isfinite(r.overall.get(name, np.nan))
            ]
            for name in names
        }
        return {name: float(np.mean(values)) for name, values in found.items() if values}

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return {
            "cutoffs": list(self.cutoffs),
            "mean": self.mean,
            "reports": [report.to_dict() for report in self.reports],
        }


def rolling_origin(
    pairs: Interactions, cutoffs: Sequence[int]
) -> Iterator[tuple[Interactions, Interactions]]:
    """For each cut-off what was before it, and what from it to the next one (or the end).

    Args:
        pairs: All interactions; not changed.
        cutoffs: Microseconds since the epoch, ascending.

    Yields:
        (train, held out), over the same vocabularies.

    Raises:
        ValueError: If there is no cut-off, they do not ascend, or a period is empty.
    """
    if not len(cutoffs) or any(b <= a for a, b in itertools.pairwise(cutoffs)):
        raise ValueError(f"cutoffs are {list(cutoffs)}; give one or more, in ascending order")
    ends = [*cutoffs[1:], np.iinfo(np.int64).max]
    for cutoff, end in zip(cutoffs, ends, strict=True):
        before = pairs.last_at < cutoff
        within = ~before & (pairs.last_at < end)
        if not before.any() or not within.any():
            raise ValueError(
                f"{int(before.sum())} pairs lie before the cut-off {cutoff} and "
                f"{int(within.sum())} from it to the next; each side needs one or more"
            )
        yield pairs.take(before), pairs.take(within)


def evaluate_rolling(
    fit: Callable[[Interactions], Recommender],
    pairs: Interactions,
    cutoffs: Sequence[int],
    *,
    ks: Sequence[int] = (10, 20),
    segments: Sequence[UserGroups] | None = None,
    catalog: pa.Table | None = None,
    min_rating: float = 4.0,
) -> RollingReport:
    """Fit and measure at each cut-off.

    Args:
        fit: Trains a model on what was before a cut-off.
        pairs: All interactions.
        cutoffs: Microseconds since the epoch, ascending.
        ks: List lengths.
        segments: Each user's segment as of each cut-off; later ones would know the future.
        catalog: One row per item_index, for metrics of categories.
        min_rating: Least rating of a relevant item, where there is one.

    Raises:
        ValueError: As :func:`rolling_origin` and :func:`perso.evaluation.report.evaluate`, or if
            there are not as many segments as cut-offs.
    """
    if segments is not None and len(segments) != len(cutoffs):
        raise ValueError(f"{len(segments)} segments for {len(cutoffs)} cut-offs; give one for each")
    reports = [
        evaluate(
            fit(train),
            train=train,
            held_out=held_out,
            ks=ks,
            segments=None if segments is None else segments[number],
            catalog=catalog,
            min_rating=min_rating,
        )
        for number, (train, held_out) in enumerate(rolling_origin(pairs, cutoffs))
    ]
    return RollingReport(cutoffs=tuple(cutoffs), reports=tuple(reports))
