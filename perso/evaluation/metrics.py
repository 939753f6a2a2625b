"""Metrics of ranked lists and of predicted ratings, one value per user.

Definitions are those of the papers named at each; all lists are over the full catalogue. How
users are chosen and averaged is decided in :mod:`perso.evaluation.report`; what a list is beside
right (novel, diverse, …) in :mod:`perso.evaluation.exposure` and
:mod:`perso.evaluation.diversity`.
"""

# B users, K list length, P relevant items of all users

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perso.evaluation import hits

Relevant = Sequence[set[int] | NDArray[np.integer]]
"""Distinct held-out item indices of each user."""


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
    return hits.recall(*_hits(recommended_BK, relevant, k))


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
    return hits.ndcg(*_hits(recommended_BK, relevant, k))


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
    return hits.average_precision(*_hits(recommended_BK, relevant, k))


def reciprocal_rank_at_k(
    recommended_BK: NDArray[np.int64], relevant: Relevant, *, k: int
) -> NDArray[np.float64]:
    """One over the place of the first hit among the first ``k``, 0 without one; mean: MRR@k.

    Arguments, ``nan`` and errors as in :func:`recall_at_k`.

    References:
        Voorhees, The TREC-8 question answering track report, 1999.
    """
    return hits.reciprocal_rank(*_hits(recommended_BK, relevant, k))


def precision_at_k(
    recommended_BK: NDArray[np.int64], relevant: Relevant, *, k: int
) -> NDArray[np.float64]:
    """Share of the first ``k`` places that hold a relevant item; an empty place holds none.

    Arguments, ``nan`` and errors as in :func:`recall_at_k`.

    References:
        Herlocker et al., Evaluating collaborative filtering recommender systems, TOIS 2004.
    """
    return hits.precision(*_hits(recommended_BK, relevant, k))


def hit_rate_at_k(
    recommended_BK: NDArray[np.int64], relevant: Relevant, *, k: int
) -> NDArray[np.float64]:
    """1 where one of the first ``k`` recommendations is relevant, else 0.

    Arguments, ``nan`` and errors as in :func:`recall_at_k`.

    References:
        Deshpande and Karypis, Item-based top-N recommendation algorithms, TOIS 2004.
    """
    return hits.hit_rate(*_hits(recommended_BK, relevant, k))


def rmse(predicted: NDArray[np.floating], actual: NDArray[np.floating]) -> float:
    """Root of the mean squared error of predicted ratings; ``nan`` for none.

    Raises:
        ValueError: If the two differ in shape.
    """
    errors = _errors(predicted, actual)
    return float(np.sqrt(np.mean(np.square(errors)))) if errors.size else float("nan")


def mae(predicted: NDArray[np.floating], actual: NDArray[np.floating]) -> float:
    """Mean absolute error of predicted ratings; ``nan`` for none.

    Raises:
        ValueError: If the two differ in shape.

    References:
        Herlocker et al., Evaluating collaborative filtering recommender systems, TOIS 2004.
    """
    errors = _errors(predicted, actual)
    return float(np.mean(np.abs(errors))) if errors.size else float("nan")


def _errors(predicted: NDArray[np.floating], actual: NDArray[np.floating]) -> NDArray[np.float64]:
    if predicted.shape != actual.shape:
        raise ValueError(f"{predicted.shape} predictions for {actual.shape} ratings")
    return predicted.astype(np.float64) - actual


def _hits(
    recommended_BK: NDArray[np.int64], relevant: Relevant, k: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which of the first ``k`` places hold a relevant item, and how many items are relevant."""
    hits.check_cut_off(recommended_BK, k)
    arrays = [r if isinstance(r, np.ndarray) else np.fromiter(r, np.int64) for r in relevant]
    num_relevant_B = np.array([len(array) for array in arrays], np.int64)
    indptr_B1 = np.concatenate([[0], num_relevant_B.cumsum()])
    items_P = np.concatenate([np.empty(0, np.int64), *arrays])
    return hits.find_hits(recommended_BK[:, :k], indptr_B1, items_P), num_relevant_B
