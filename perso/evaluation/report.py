"""A model against a held-out period: over all users, per segment, and for newcomers.

Every list is taken over the full catalogue, never a sample of it. Items that a user had before
the period are neither recommended nor relevant, so that remembering a basket is worth nothing.
"""

# B users of one block, K list length

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perso.data.groups import UserGroups
from perso.data.prepared import Interactions
from perso.evaluation.metrics import (
    Relevant,
    average_precision_at_k,
    catalog_coverage,
    ndcg_at_k,
    recall_at_k,
    reciprocal_rank_at_k,
    rmse,
)
from perso.models.factors import FactorModel
from perso.models.protocol import Recommender, UserBatch
from perso.models.seen import SeenItems
from perso.models.top_k import top_k

NEWCOMERS: Final = "(newcomers)"
"""The slice of users without an interaction before the period; no part of the overall figures."""
NO_SEGMENT: Final = "(no segment)"

_METRICS: Final[dict[str, Callable[..., NDArray[np.float64]]]] = {
    "recall": recall_at_k,
    "ndcg": ndcg_at_k,
    "map": average_precision_at_k,
    "mrr": reciprocal_rank_at_k,
}
_PAIRS_AT_ONCE: Final = 1 << 18


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Means over users, named like ``recall@20``; ``nan`` where there was no user to measure."""

    overall: Mapping[str, float]
    """Over users with an earlier interaction; with ``coverage@k``, and ``rmse`` where the model
    predicts ratings and the period has some."""
    per_segment: Mapping[str, Mapping[str, float]]
    """The ranking metrics of each segment, of users without one, and of newcomers."""
    num_users: int
    """Users behind ``overall``."""
    num_users_by_segment: Mapping[str, int]
    """Users behind each entry of ``per_segment``."""
    num_ratings: int
    """Held-out ratings behind ``rmse``."""

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values, ``nan`` as None."""
        return {
            "overall": _to_json(self.overall),
            "per_segment": {name: _to_json(m) for name, m in self.per_segment.items()},
            "num_users": self.num_users,
            "num_users_by_segment": dict(self.num_users_by_segment),
            "num_ratings": self.num_ratings,
        }


def evaluate(
    model: Recommender,
    *,
    train: Interactions,
    held_out: Interactions,
    ks: Sequence[int] = (10, 20),
    segments: UserGroups | None = None,
    min_rating: float = 4.0,
    batch_size: int = 1024,
) -> EvaluationReport:
    """Measure a model on a period after its training.

    A user counts if a relevant item is left that was not in ``train``; an item is relevant if
    the user touched it in the period and did not rate it below ``min_rating``. Memory: one block
    of scores, ``batch_size`` · 8 bytes an item, and a list of the longest ``k`` per user.

    Args:
        model: What to measure.
        train: All that the model has learned from.
        held_out: The period after it, over the same vocabularies.
        ks: List lengths.
        segments: Each user's segment as of the end of ``train``; also told to the model.
        min_rating: Least rating of a relevant item, where there is one.
        batch_size: Users scored at once; changes no result.

    Raises:
        ValueError: If a list length or the batch size is below 1, or the inputs disagree on
            users or items.
    """
    _check(model, train, held_out, ks, segments, batch_size)
    seen = SeenItems.from_interactions(train)
    relevant_items, starts_U = _relevant(train, held_out, min_rating)
    users = np.flatnonzero(np.diff(starts_U))
    is_newcomer = np.diff(seen.indptr_U1)[users] == 0
    values: dict[str, list[NDArray[np.float64]]] = {}
    lists = [np.empty((0, max(ks)), np.int64)]
    for start in range(0, len(users), batch_size):
        users_B = users[start : start + batch_size]
        scores = model.score(
            UserBatch(user_indices=users_B, segment_names=_segment_names(segments, users_B))
        )
        recommended_BK, _ = top_k(scores, max(ks), seen=[seen.of(user) for user in users_B])
        relevant = [relevant_items[starts_U[user] : starts_U[user + 1]] for user in users_B]
        for name, value_B in _rank_metrics(recommended_BK, relevant, ks).items():
            values.setdefault(name, []).append(value_B)
        lists.append(recommended_BK)
    by_metric = {
        f"{name}@{k}": np.concatenate([np.empty(0), *values.get(f"{name}@{k}", [])])
        for k in ks
        for name in _METRICS
    }
    known_lists = np.concatenate(lists)[~is_newcomer]
    overall = _means(by_metric, ~is_newcomer)
    for k in ks:
        overall[f"coverage@{k}"] = catalog_coverage(known_lists[:, :k], num_items=train.num_items)
    error, num_ratings = _rating_error(model, train, held_out)
    if num_ratings:
        overall["rmse"] = error
    slices = _slices(users, is_newcomer, segments)
    return EvaluationReport(
        overall=overall,
        per_segment={name: _means(by_metric, inside) for name, inside in slices.items()},
        num_users=int((~is_newcomer).sum()),
        num_users_by_segment={name: int(inside.sum()) for name, inside in slices.items()},
        num_ratings=num_ratings,
    )


def _check(
    model: Recommender,
    train: Interactions,
    held_out: Interactions,
    ks: Sequence[int],
    segments: UserGroups | None,
    batch_size: int,
) -> None:
    if not ks or min(ks) < 1:
        raise ValueError(f"ks is {tuple(ks)}; give list lengths of 1 or more")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give 1 or more")
    sizes = {
        "users": {train.num_users, held_out.num_users}
        | (set() if segments is None else {len(segments.codes_U)}),
        "items": {train.num_items, held_out.num_items, model.num_items},
    }
    for what, counts in sizes.items():
        if len(counts) > 1:
            raise ValueError(
                f"model, train, held_out and segments disagree on the number of {what}: "
                f"{sorted(counts)}; take them from one prepared dataset"
            )


def _relevant(
    train: Interactions, held_out: Interactions, min_rating: float
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Relevant items of all users, user after user, and where each user's begin, shape (U + 1,)."""
    known = np.isin(_pair_keys(held_out), _pair_keys(train))
    kept = ~known & ~(held_out.ratings < min_rating)  # no rating: nan, not below anything
    counts_U = np.bincount(held_out.user_indices[kept], minlength=held_out.num_users)
    starts_U = np.concatenate([[0], counts_U.cumsum()]).astype(np.int64)
    return held_out.item_indices[kept], starts_U


def _pair_keys(interactions: Interactions) -> NDArray[np.int64]:
    return interactions.user_indices.astype(np.int64) * interactions.num_items + (
        interactions.item_indices
    )


def _segment_names(
    segments: UserGroups | None, users_B: NDArray[np.int64]
) -> tuple[str | None, ...] | None:
    if segments is None:
        return None
    return tuple(segments.names[code] if code >= 0 else None for code in segments.codes_U[users_B])


def _rank_metrics(
    recommended_BK: NDArray[np.int64], relevant: Relevant, ks: Sequence[int]
) -> dict[str, NDArray[np.float64]]:
    return {
        f"{name}@{k}": metric(recommended_BK, relevant, k=k)
        for k in ks
        for name, metric in _METRICS.items()
    }


def _slices(
    users: NDArray[np.int64], is_newcomer: NDArray[np.bool_], segments: UserGroups | None
) -> dict[str, NDArray[np.bool_]]:
    """Masks over ``users``, without empty ones."""
    slices: dict[str, NDArray[np.bool_]] = {}
    if segments is not None:
        codes = np.where(is_newcomer, len(segments.names), segments.codes_U[users])
        slices = {name: codes == code for code, name in enumerate(segments.names)}
        slices[NO_SEGMENT] = codes == -1
    slices[NEWCOMERS] = is_newcomer
    return {name: inside for name, inside in slices.items() if inside.any()}


def _means(
    by_metric: Mapping[str, NDArray[np.float64]], inside: NDArray[np.bool_]
) -> dict[str, float]:
    return {
        name: float(values[inside].mean()) if inside.any() else math.nan
        for name, values in by_metric.items()
    }


def _rating_error(
    model: Recommender, train: Interactions, held_out: Interactions
) -> tuple[float, int]:
    """RMSE over held-out ratings of users and items that were rated in ``train``, and their number.

    A model that only ranks has none: its scores are no stars.
    """
    if not (isinstance(model, FactorModel) and model.predicts_ratings):
        return math.nan, 0
    rated = ~np.isnan(train.ratings)
    known_users = np.bincount(train.user_indices[rated], minlength=train.num_users) > 0
    known_items = np.bincount(train.item_indices[rated], minlength=train.num_items) > 0
    pairs = np.flatnonzero(
        ~np.isnan(held_out.ratings)
        & known_users[held_out.user_indices]
        & known_items[held_out.item_indices]
    )
    predicted = [np.empty(0, np.float32)]
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        part = pairs[start : start + _PAIRS_AT_ONCE]
        predicted.append(model.predict(held_out.user_indices[part], held_out.item_indices[part]))
    return rmse(np.concatenate(predicted), held_out.ratings[pairs]), len(pairs)


def _to_json(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}
