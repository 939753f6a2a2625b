"""Ranking metrics from hits: which places of each list hold a relevant item.

One pass over the lists finds the hits once, and every metric at every cut-off follows. What each
metric means and where it comes from is said in :mod:`perso.evaluation.metrics`.
"""

# B users, K list length, P relevant items of all users

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_MAX_ITEMS: Final = 1 << 32  # so that (user, item) fits one int64


def find_hits(
    recommended_BK: NDArray[np.int64],
    relevant_indptr_B1: NDArray[np.integer],
    relevant_items_P: NDArray[np.integer],
) -> NDArray[np.bool_]:
    """Which places of each list hold a relevant item, shape (B, K).

    Args:
        recommended_BK: Item indices, one row per user; -1 pads short rows.
        relevant_indptr_B1: Where each user's relevant items begin, and the end.
        relevant_items_P: Relevant items, user after user.

    Raises:
        ValueError: If the inputs disagree on B.
    """
    num_users = len(recommended_BK)
    if len(relevant_indptr_B1) != num_users + 1:
        raise ValueError(
            f"{len(relevant_indptr_B1) - 1} users have relevant items, {num_users} have lists"
        )
    users_B = np.arange(num_users) * _MAX_ITEMS
    wanted_P = np.repeat(users_B, np.diff(relevant_indptr_B1)) + relevant_items_P
    return np.isin(users_B[:, None] + recommended_BK, wanted_P) & (recommended_BK >= 0)


def ranking_metrics(
    hits_BK: NDArray[np.bool_], num_relevant_B: NDArray[np.int64], ks: Sequence[int]
) -> dict[str, NDArray[np.float64]]:
    """Every ranking metric at every list length, named like ``recall@20``.

    Args:
        hits_BK: Which places hold a relevant item, from :func:`find_hits`.
        num_relevant_B: Relevant items of each user.
        ks: Cut-offs, 1 to K.

    Returns:
        One value per user, shape (B,), for each metric and cut-off.

    Raises:
        ValueError: If a cut-off is outside [1, K].
    """
    for k in ks:
        check_cut_off(hits_BK, k)
    return {
        f"{name}@{k}": metric(hits_BK[:, :k], num_relevant_B)
        for k in ks
        for name, metric in RANKING_METRICS.items()
    }


def check_cut_off(lists_BK: NDArray[np.generic], k: int) -> None:
    """Refuse a list length that the lists do not have.

    Raises:
        ValueError: If ``k`` is outside [1, K].
    """
    length = lists_BK.shape[1]
    if not 1 <= k <= length:
        raise ValueError(f"k is {k}; lists have 1 to {length} places")


# Below, hits_BK is already cut to the k places that count.


def recall(hits_BK: NDArray[np.bool_], num_relevant_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """See :func:`perso.evaluation.metrics.recall_at_k`."""
    return _ratio(hits_BK.sum(1), num_relevant_B)


def ndcg(hits_BK: NDArray[np.bool_], num_relevant_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """See :func:`perso.evaluation.metrics.ndcg_at_k`."""
    k = hits_BK.shape[1]
    discount_K = 1.0 / np.log2(np.arange(2, k + 2))
    best_B = np.concatenate([[0.0], discount_K.cumsum()])[np.minimum(num_relevant_B, k)]
    return _ratio(hits_BK @ discount_K, best_B)


def average_precision(
    hits_BK: NDArray[np.bool_], num_relevant_B: NDArray[np.int64]
) -> NDArray[np.float64]:
    """See :func:`perso.evaluation.metrics.average_precision_at_k`."""
    k = hits_BK.shape[1]
    precision_BK = hits_BK.cumsum(1) / np.arange(1, k + 1)
    return _ratio((precision_BK * hits_BK).sum(1), np.minimum(num_relevant_B, k))


def reciprocal_rank(
    hits_BK: NDArray[np.bool_], num_relevant_B: NDArray[np.int64]
) -> NDArray[np.float64]:
    """See :func:`perso.evaluation.metrics.reciprocal_rank_at_k`."""
    first_B = np.where(hits_BK.any(1), 1.0 / (hits_BK.argmax(1) + 1), 0.0)
    return np.where(num_relevant_B > 0, first_B, np.nan)


def precision(hits_BK: NDArray[np.bool_], num_relevant_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """See :func:`perso.evaluation.metrics.precision_at_k`."""
    return np.where(num_relevant_B > 0, hits_BK.mean(1), np.nan)


def hit_rate(hits_BK: NDArray[np.bool_], num_relevant_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """See :func:`perso.evaluation.metrics.hit_rate_at_k`."""
    return np.where(num_relevant_B > 0, hits_BK.any(1), np.nan)


def _ratio(
    numerator_B: NDArray[np.integer | np.floating], denominator_B: NDArray[np.integer | np.floating]
) -> NDArray[np.float64]:
    """Their quotient, ``nan`` where the denominator is 0."""
    quotient_B = np.full(len(denominator_B), np.nan)
    np.divide(numerator_B, denominator_B, out=quotient_B, where=denominator_B > 0)
    return quotient_B


RANKING_METRICS: Final[
    Mapping[str, Callable[[NDArray[np.bool_], NDArray[np.int64]], NDArray[np.float64]]]
] = {
    "recall": recall,
    "ndcg": ndcg,
    "map": average_precision,
    "mrr": reciprocal_rank,
    "precision": precision,
    "hit_rate": hit_rate,
}
"""By name, each from the hits among the first ``k`` places and the number of relevant items."""
