"""What each demand of the gate comes to, and the sentence that says so."""

# B users that count

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perso.evaluation.comparison import compare
from perso.evaluation.per_user import NEWCOMERS, PerUser
from perso.models.bundle import Bundle
from perso.models.protocol import UserBatch
from perso.online.ranking import Query, Ranker
from perso.tuning.gate import Check, GateSpec

_ARTIFACT: Final = "artifact answers"


def check_gain(
    gate: GateSpec, metric: str, ours: PerUser, theirs: PerUser, *, rival: str, caveat: str = ""
) -> Check:
    """Whether a model beats another by the asked gain and by more than chance explains.

    The interval is that of the mean difference over the same users, so it is narrower than what
    the two means by themselves would allow to say.

    Args:
        gate: What is asked.
        metric: The ranking metric that decides.
        ours: The challenger's values.
        theirs: The rival's.
        rival: How sentences call it.
        caveat: Added to the sentence.
    """
    name = f"beats {rival}"
    inside_B = ours.is_known_B
    num_users = int(inside_B.sum())
    if not num_users:
        return Check(
            name=name,
            passed=False,
            reason=f"{metric} could not be measured: nobody in the test period was there before",
        )
    our_mean, their_mean = (_mean(figures, metric, inside_B) for figures in (ours, theirs))
    difference = compare(
        ours, theirs, metric, num_resamples=gate.num_resamples, confidence=gate.confidence
    )
    asked = gate.min_gain * their_mean
    passed = difference.mean >= asked and difference.low > asked
    gain = f" ({our_mean / their_mean - 1:+.1%})" if their_mean > 0 else ""
    interval = (
        f"{difference.low:+.4f} to {difference.high:+.4f} with {gate.confidence:.0%} confidence "
        f"over {num_users} test users"
    )
    least = f"the asked {asked:+.4f} ({gate.min_gain:+.1%})" if gate.min_gain else "0"
    reason = (
        f"{metric} {our_mean:.4f} against {rival}'s {their_mean:.4f}{gain}: the difference, "
        f"{interval}, is {'' if passed else 'not clearly '}above {least}{caveat}"
    )
    return Check(name=name, passed=passed, reason=reason)


def check_segments(
    gate: GateSpec, metric: str, ours: PerUser, theirs: PerUser, *, rival: str
) -> Check:
    """Whether every segment with enough users keeps what it had, but for the allowed loss.

    The loss is that of the means, whether or not chance explains it: a wrong no costs a week, a
    wrong yes a group of customers. The interval is told, for who decides to overrule it. Newcomers
    are no segment: whoever is new is answered by popularity. A segment in which the rival is worth
    nothing has nothing to lose.
    """
    losses: dict[str, float] = {}
    for segment, inside_B in ours.slices.items():
        if segment != NEWCOMERS and inside_B.sum() >= gate.min_segment_users:
            our_mean, their_mean = (_mean(f, metric, inside_B) for f in (ours, theirs))
            losses[segment] = 1 - our_mean / their_mean if their_mean > 0 else 0.0
    name = "no segment loses"
    if not losses:
        reason = f"no segment has {gate.min_segment_users} test users, so none is held to it"
        return Check(name=name, passed=True, reason=reason)

    def told(segment: str) -> str:
        inside_B = ours.slices[segment]
        difference = compare(
            ours,
            theirs,
            metric,
            inside_B=inside_B,
            num_resamples=gate.num_resamples,
            confidence=gate.confidence,
        )
        return (
            f"{segment} {0 - losses[segment]:+.1%} ({metric} {_mean(ours, metric, inside_B):.4f} "
            f"against {_mean(theirs, metric, inside_B):.4f}, difference {difference.low:+.4f} to "
            f"{difference.high:+.4f}, {inside_B.sum()} test users)"
        )

    allowed = f"at most {gate.max_segment_loss:.1%} may be lost against {rival}"
    worst_first = sorted(losses, key=lambda segment: (-losses[segment], segment))
    if losing := [s for s in worst_first if losses[s] > gate.max_segment_loss]:
        reason = f"{'; '.join(map(told, losing))}: {allowed}"
        return Check(name=name, passed=False, reason=reason)
    reason = f"the worst of {len(losses)} is {told(worst_first[0])}: {allowed}"
    return Check(name=name, passed=True, reason=reason)


def check_floors(gate: GateSpec, metrics: Mapping[str, float]) -> list[Check]:
    """One check per floor.

    Raises:
        ValueError: If a metric is not measured at that list length.
    """
    checks = []
    for name, least in gate.floors.items():
        if name not in metrics and not name.startswith("intra_list_diversity@"):
            raise ValueError(f"the floor {name!r} is not measured; there are: {', '.join(metrics)}")
        value = metrics.get(name, math.nan)
        if math.isnan(value):
            reason = f"{name} was not measured (diversity needs a catalogue with categories)"
        else:
            reason = f"{name} is {value:.4f}, asked is at least {least:g}"
        checks.append(Check(name=f"floor of {name}", passed=value >= least, reason=reason))
    return checks


def check_answers(bundle: Bundle, asked: Mapping[str, int], *, k: int) -> Check:
    """Whether a bundle gives full lists of allowed items with finite scores.

    Args:
        bundle: Loaded, its checksums verified.
        asked: Who is asked for, as words and user_index; -1 for a stranger.
        k: List length.
    """
    users_B = np.array([user for user in asked.values() if user >= 0], np.int64)
    if np.isnan(bundle.model.score(UserBatch(user_indices=users_B))).any():
        return artifact_fails("the model gives scores that are no numbers")
    ranker, num_items = Ranker(bundle), len(bundle.items)
    for who, user_index in asked.items():
        ranked = ranker.recommend(Query(k=k, user_index=user_index))
        items = {place.item_index for place in ranked}
        seen = bundle.seen.of(user_index)
        expected = min(k, num_items - len(seen))
        if not all(math.isfinite(place.score) for place in ranked):
            return artifact_fails(f"{who} gets an item with an infinite score")
        if len(items - set(seen.tolist())) < expected:
            return artifact_fails(f"{who} gets {len(items)} new items instead of {expected}")
    reason = f"its files match their checksums, and {len(asked)} lists of {k} hold allowed items"
    return Check(name=_ARTIFACT, passed=True, reason=reason)


def artifact_fails(why: str) -> Check:
    """The check of an artifact that cannot serve."""
    return Check(name=_ARTIFACT, passed=False, reason=why)


def _mean(figures: PerUser, metric: str, inside_B: NDArray[np.bool_]) -> float:
    return float(figures.by_metric[metric][inside_B].mean())
