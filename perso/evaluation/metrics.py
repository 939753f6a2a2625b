"""Metrics of ranked lists and of predicted ratings, one value per user.

Definitions are those of the papers named at each; all lists are over the full catalogue. How
users are chosen and averaged is decided in :mod:`perso.evaluation.report`.
"""

# B users, K list length

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Relevant = Sequence[set[int] | NDArray[np.integer]]
"""Distinct held-out item indices of each user."""

_MAX_ITEMS: Final = 1 << 32  # so that (user, item) fits one int64


def recall_at_k(
    recommended_BK: NDArray[np.int64], relevant: Relevant, *, k: int
) -> NDArray[np.float64]:
    """Share of each user's held-out items found in the first ``k`` recommendations.

    The denominator is the number of relevant items, not capped at ``k``, as in the LightGCN
    tables; a user with more than ``k`` of them cannot reach 1.

    Args:
        recommended_BK: Item indices, best first, one row per user; -1 pads short rows.
        relevant: Held-out item indices of each of the B users.
        k: Cut-off, 1 to K.

    Returns:
        One value in [0, 1] per user, shape (B,); ``nan`` where nothing is held out.

    Raises:
        ValueError: If ``k`` is outside [1, K] or the inputs disagree on B.

    References:
        He et al., LightGCN, SIGIR 2020, section 4.1.
    """
    hits_BK, num_relevant_B = _hits(recommended_BK, relevant, k)
    return _ratio(hits_BK.sum(1), num_relevant_B)


def ndcg_at_k(
    recommended_BK: NDArray[np.int64], relevant: Relevant, *, k: int
) -> NDArray[np.float64]:
    """Discounted gain of the first ``k`` recommendations over that of the best possible list.

    Gain is 1 for a relevant item, the discount of place ``r`` is ``1 / log2(r + 1)``, and the
    best list holds ``min(k, relevant items)`` hits. Arguments, ``nan`` and errors as in
    :func:`recall_at_k`.

    References:
        Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 2002.
    """
    hits_BK, num_relevant_B = _hits(recommended_BK, relevant, k)
    discount_K = 1.0 / np.log2(np.arange(2, k + 2))
    best_B = np.concatenate([[0.0], discount_K.cumsum()])[np.minimum(num_relevant_B, k)]
    return _ratio(hits_BK @ discount_K, best_B)


def average_precision_at_k(
    recommended_BK: NDArray[np.int64], relevant: Relevant, *, k: int
) -> NDArray[np.float64]:
    """Mean of the precisions at each hit among the first ``k``; its mean over users is MAP@k.

    The denominator is ``min(k, relevant items)``, so that a list of hits only is 1. Arguments,
    ``nan`` and errors as in :func:`recall_at_k`.

    References:
        Aiolli, Efficient top-N recommendation for very large scale binary rated datasets,
        RecSys 2013 (the Million Song Dataset Challenge's truncated MAP).
    """
    hits_BK, num_relevant_B = _hits(recommended_BK, relevant, k)
    precision_BK = hits_BK.cumsum(1) / np.arange(1, k + 1)
    return _ratio((precision_BK * hits_BK).sum(1), np.minimum(num_relevant_B, k))


def reciprocal_rank_at_k(
    recommended_BK: NDArray[np.int64], relevant: Relevant, *, k: int
) -> NDArray[np.float64]:
    """One over the place of the first hit among the first ``k``, 0 without one; mean: MRR@k.

    Arguments, ``nan`` and errors as in :func:`recall_at_k`.

    References:
        Voorhees, The TREC-8 question answering track report, 1999.
    """
    hits_BK, num_relevant_B = _hits(recommended_BK, relevant, k)
    first_B = np.where(hits_BK.any(1), 1.0 / (hits_BK.argmax(1) + 1), 0.0)
    return np.where(num_relevant_B > 0, first_B, np.nan)


def catalog_coverage(recommended_BK: NDArray[np.int64], *, num_items: int) -> float:
    """Share of the catalogue that is in at least one list, in [0, 1].

    Raises:
        ValueError: If ``num_items`` is below 1.

    References:
        Ge et al., Beyond accuracy, RecSys 2010.
    """
    if num_items < 1:
        raise ValueError(f"num_items is {num_items}; give the size of the catalogue")
    return len(np.unique(recommended_BK[recommended_BK >= 0])) / num_items


def rmse(predicted: NDArray[np.floating], actual: NDArray[np.floating]) -> float:
    """Root of the mean squared error of predicted ratings; ``nan`` for none.

    Raises:
        ValueError: If the two differ in shape.
    """
    if predicted.shape != actual.shape:
        raise ValueError(f"{predicted.shape} predictions for {actual.shape} ratings")
    if not actual.size:
        return float("nan")
    return float(np.sqrt(np.mean(np.square(predicted.astype(np.float64) - actual))))


def _hits(
    recommended_BK: NDArray[np.int64], relevant: Relevant, k: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which of the first ``k`` places hold a relevant item, and how many items are relevant."""
    num_users, length = recommended_BK.shape
    if not 1 <= k <= length:
        raise ValueError(f"k is {k}; lists have 1 to {length} places")
    if len(relevant) != num_users:
        raise ValueError(f"{len(relevant)} users have relevant items, {num_users} have lists")
    arrays = [r if isinstance(r, np.ndarray) else np.fromiter(r, np.int64) for r in relevant]
    num_relevant_B = np.array([len(array) for array in arrays], np.int64)
    users = np.repeat(np.arange(num_users), num_relevant_B) * _MAX_ITEMS
    wanted = users + np.concatenate([np.empty(0, np.int64), *arrays])
    found_Bk = np.arange(num_users)[:, None] * _MAX_ITEMS + recommended_BK[:, :k]
    return np.isin(found_Bk, wanted) & (recommended_BK[:, :k] >= 0), num_relevant_B


def _ratio(
    numerator_B: NDArray[np.integer | np.floating], denominator_B: NDArray[np.integer | np.floating]
) -> NDArray[np.float64]:
    """Their quotient, ``nan`` where the denominator is 0."""
    quotient_B = np.full(len(denominator_B), np.nan)
    np.divide(numerator_B, denominator_B, out=quotient_B, where=denominator_B > 0)
    return quotient_B
