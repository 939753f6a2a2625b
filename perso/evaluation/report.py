"""A model against a held-out period: over all users, per segment, newcomers and new items.

Every list is taken over the full catalogue, never a sample of it. Items that a user had before
the period are neither recommended nor relevant, so that remembering a basket is worth nothing.
Metrics of ranks are means over users; those of whole lists (coverage, Gini, popularity lift) are
of all lists together. Nothing here depends on the clock, so equal inputs give equal reports.
"""

# B users that count, K list length

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perso.data.groups import UserGroups
from perso.data.prepared import Interactions
from perso.evaluation.bootstrap import bootstrap_intervals
from perso.evaluation.categories import ItemCategories
from perso.evaluation.fairness import MIN_USERS, fairness_gaps
from perso.evaluation.hits import find_hits, ranking_metrics
from perso.evaluation.list_quality import list_quality
from perso.evaluation.per_user import PerUser, measure_per_user
from perso.evaluation.prediction_error import prediction_errors
from perso.models.protocol import Scorer

NEW_ITEMS: Final = "(new items)"
"""The slice of users of the overall figures with a relevant item that nobody had before the
period; only such items are relevant in it."""


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Means over users, named like ``recall@20``; ``nan`` where there was no user to measure."""

    overall: Mapping[str, float]
    """Over users with an earlier interaction: ``recall``, ``ndcg``, ``map``, ``mrr``,
    ``precision``, ``hit_rate`` and ``coverage``, ``gini``, ``novelty``, ``serendipity``,
    ``popularity_lift`` at each list length; with categories ``intra_list_diversity`` and
    ``calibration``; ``rmse`` and ``mae`` where the model predicts what the period holds."""
    per_segment: Mapping[str, Mapping[str, float]]
    """The ranking metrics of each segment, of users without one, of new items and newcomers."""
    num_users: int
    """Users behind ``overall``."""
    num_users_by_segment: Mapping[str, int]
    """Users behind each entry of ``per_segment``."""
    num_ratings: int
    """Held-out ratings or weights behind ``rmse`` and ``mae``."""
    fairness_gap: Mapping[str, float] = field(default_factory=dict)
    """Per ranking metric, the best served segment less the worst served; of segments with enough
    users, empty with fewer than two of them."""
    confidence: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Per overall ranking metric, the ends of a 95 % interval; empty if none were asked for."""

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values, ``nan`` as None."""
        return {
            "overall": _to_json(self.overall),
            "per_segment": {name: _to_json(m) for name, m in self.per_segment.items()},
            "num_users": self.num_users,
            "num_users_by_segment": dict(self.num_users_by_segment),
            "num_ratings": self.num_ratings,
            "fairness_gap": _to_json(self.fairness_gap),
            "confidence": {
                name: [None if math.isnan(end) else end for end in ends]
                for name, ends in self.confidence.items()
            },
        }


def evaluate(
    model: Scorer,
    *,
    train: Interactions,
    held_out: Interactions,
    ks: Sequence[int] = (10, 20),
    segments: UserGroups | None = None,
    catalog: pa.Table | None = None,
    min_rating: float = 4.0,
    min_segment_users: int = MIN_USERS,
    intervals: int = 0,
    seed: int = 0,
    batch_size: int = 1024,
    device: str = "cpu",
) -> EvaluationReport:
    """Measure a model on a period after its training.

    A user counts if a relevant item is left that was not in ``train``; an item is relevant if
    the user touched it in the period and did not rate it below ``min_rating``. The model is asked
    once per user, in the context of the user's first event of the period. Memory: one block of
    scores, ``batch_size`` · 8 bytes an item, and a list of the longest ``k`` per user.

    Args:
        model: What to measure.
        train: All that the model has learned from.
        held_out: The period after it, over the same vocabularies.
        ks: List lengths.
        segments: Each user's segment as of the end of ``train``; also told to the model.
        catalog: One row per item_index; its column ``categories`` or ``category``, if it has one,
            gives the metrics of categories.
        min_rating: Least rating of a relevant item, where there is one.
        min_segment_users: Users that a segment needs to count for the fairness gap.
        intervals: Resamples behind confidence intervals; 0: none.
        seed: Start of the resampling.
        batch_size: Users scored at once by models without factors; changes no result.
        device: Where products of factors are computed: ``cpu`` or a CUDA device.

    Raises:
        ValueError: If a list length or the batch size is below 1, ``intervals`` is negative, or
            the inputs disagree on users or items.
    """
    _check(model, train, held_out, ks, segments, catalog, batch_size, intervals)
    figures = measure_per_user(
        model,
        train=train,
        held_out=held_out,
        ks=ks,
        segments=segments,
        min_rating=min_rating,
        batch_size=batch_size,
        device=device,
    )
    return report_of(
        figures,
        model,
        train=train,
        held_out=held_out,
        ks=ks,
        catalog=catalog,
        min_segment_users=min_segment_users,
        intervals=intervals,
        seed=seed,
    )


def report_of(
    figures: PerUser,
    model: Scorer,
    *,
    train: Interactions,
    held_out: Interactions,
    ks: Sequence[int] = (10, 20),
    catalog: pa.Table | None = None,
    min_segment_users: int = MIN_USERS,
    intervals: int = 0,
    seed: int = 0,
) -> EvaluationReport:
    """The report of a model whose users are measured already; see :func:`evaluate`.

    Args:
        figures: Of the model, on the same period and with the same list lengths.
        model: What was measured.
        train: All that the model has learned from.
        held_out: The period after it.
        ks: List lengths.
        catalog: One row per item_index.
        min_segment_users: Users that a segment needs to count for the fairness gap.
        intervals: Resamples behind confidence intervals; 0: none.
        seed: Start of the resampling.
    """
    users, lists_BK, by_metric = figures.users, figures.lists_BK, figures.by_metric
    is_known_B, slices = figures.is_known_B, figures.slices
    per_segment = {name: _means(by_metric, inside_B) for name, inside_B in slices.items()}
    num_users_by_segment = {name: int(inside_B.sum()) for name, inside_B in slices.items()}
    gaps = fairness_gaps(
        {name: per_segment[name] for name in figures.segments},
        num_users_by_segment,
        min_users=min_segment_users,
    )
    new_indptr_B1, new_items_P = users.only_new_items()
    num_new_B = np.diff(new_indptr_B1)
    asks_new_B = is_known_B & (num_new_B > 0)
    if asks_new_B.any():
        new_hits_BK = find_hits(lists_BK, new_indptr_B1, new_items_P)
        per_segment[NEW_ITEMS] = _means(ranking_metrics(new_hits_BK, num_new_B, ks), asks_new_B)
        num_users_by_segment[NEW_ITEMS] = int(asks_new_B.sum())
    overall = _means(by_metric, is_known_B)
    overall |= list_quality(
        lists_BK,
        figures.hits_BK,
        ks,
        train=train,
        profiles=figures.profiles,
        inside_B=is_known_B,
        categories=None if catalog is None else ItemCategories.from_catalog(catalog),
    )
    errors, num_ratings = prediction_errors(model, train, held_out)
    overall |= errors
    return EvaluationReport(
        overall=overall,
        per_segment=per_segment,
        num_users=int(is_known_B.sum()),
        num_users_by_segment=num_users_by_segment,
        num_ratings=num_ratings,
        fairness_gap=gaps,
        confidence=_confidence(by_metric, is_known_B, intervals, seed) if intervals else {},
    )


def _check(
    model: Scorer,
    train: Interactions,
    held_out: Interactions,
    ks: Sequence[int],
    segments: UserGroups | None,
    catalog: pa.Table | None,
    batch_size: int,
    intervals: int,
) -> None:
    if not ks or min(ks) < 1:
        raise ValueError(f"ks is {tuple(ks)}; give list lengths of 1 or more")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give 1 or more")
    if intervals < 0:
        raise ValueError(f"intervals is {intervals}; give 0 for none, or a number of resamples")
    sizes = {
        "users": {train.num_users, held_out.num_users}
        | (set() if segments is None else {len(segments.codes_U)}),
        "items": {train.num_items, held_out.num_items, model.num_items}
        | (set() if catalog is None else {catalog.num_rows}),
    }
    for what, counts in sizes.items():
        if len(counts) > 1:
            raise ValueError(
                f"model, train, held_out, segments and catalog disagree on the number of {what}: "
                f"{sorted(counts)}; take them from one prepared dataset"
            )


def _means(
    by_metric: Mapping[str, NDArray[np.float64]], inside_B: NDArray[np.bool_]
) -> dict[str, float]:
    return {
        name: float(values_B[inside_B].mean()) if inside_B.any() else math.nan
        for name, values_B in by_metric.items()
    }


def _confidence(
    by_metric: Mapping[str, NDArray[np.float64]],
    inside_B: NDArray[np.bool_],
    num_resamples: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    values_BM = np.stack([values_B[inside_B] for values_B in by_metric.values()], axis=1)
    ends_M2 = bootstrap_intervals(values_BM, num_resamples=num_resamples, seed=seed)
    return {
        name: (float(low), float(high))
        for name, (low, high) in zip(by_metric, ends_M2, strict=True)
    }


def _to_json(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}
