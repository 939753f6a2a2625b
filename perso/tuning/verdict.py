"""Whether a tested model may serve: it has to beat the better kind of popularity.

Two rules protect the answer: the winner is chosen on the validation period alone, and the test
period is looked at once, by the winner retrained on everything before it and by popularity fitted
on the same data.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from perso.data.prepared import Interactions
from perso.evaluation.report import EvaluationReport
from perso.models.popularity import PopularityModel
from perso.models.side_data import SideData
from perso.tuning.spec import SearchSpec
from perso.tuning.trial import measure

PopularityKind = Literal["global", "segment"]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What a model has to beat on one period: the kind of popularity that does better there."""

    kind: PopularityKind
    """Everyone gets what sells in the whole shop, or in the own segment."""
    report: EvaluationReport
    """Of that kind, over the same users as the model's."""

    @property
    def name(self) -> str:
        """For tables and sentences."""
        return f"{self.kind} popularity"


def measure_popularity(
    popularity: PopularityModel,
    spec: SearchSpec,
    *,
    known: Interactions,
    held_out: Interactions,
    side: SideData,
) -> Baseline:
    """The better of global and segment popularity by the gate's metric; the global one on a tie.

    Neither is always the stronger: a segment may have a taste of its own, or too few purchases to
    show it.

    Args:
        popularity: Fitted on ``known``; without segments in it there is only the global kind.
        spec: The search, with the gate's metric.
        known: All that popularity has counted.
        held_out: The period after it.
        side: With each user's segment as of the end of ``known``.
    """
    kinds: dict[PopularityKind, PopularityModel] = {"global": replace(popularity, slices={})}
    if "segment" in popularity.slices:
        kinds["segment"] = popularity
    measured = [
        Baseline(
            kind=kind,
            report=measure(model, spec, known=known, held_out=held_out, side=side),
        )
        for kind, model in kinds.items()
    ]
    return max(measured, key=lambda baseline: baseline.report.overall[spec.gate])


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a tested model may serve, and why."""

    promoted: bool
    """Whether it becomes the champion."""
    reason: str
    """One sentence with both values."""


def judge(metric: str, *, model: Mapping[str, float], baseline: Baseline) -> Verdict:
    """A model may serve if it is strictly better than popularity on the test period.

    Args:
        metric: The gate's metric.
        model: Its metrics over all test users.
        baseline: The better kind of popularity, fitted on the same data, over the same users.
    """
    ours = model.get(metric, math.nan)
    theirs = baseline.report.overall.get(metric, math.nan)
    if not (math.isfinite(ours) and math.isfinite(theirs)):
        return Verdict(
            promoted=False,
            reason=f"{metric} could not be measured on the test period: no user of it was "
            "seen before; the champion stays",
        )
    if ours <= theirs:
        return Verdict(
            promoted=False,
            reason=f"{metric} {ours:.4f} does not beat {baseline.name}'s {theirs:.4f} on the "
            "test period; the champion stays",
        )
    gain = f" (+{ours / theirs - 1:.0%})" if theirs > 0 else ""
    return Verdict(
        promoted=True,
        reason=f"{metric} {ours:.4f} beats {baseline.name}'s {theirs:.4f}{gain} on the test period",
    )
