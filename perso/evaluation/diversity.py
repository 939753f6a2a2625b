"""How varied each list is, and whether it has the user's own mix of categories.

Memory: a few numbers per place of a list and category of its item; :mod:`perso.evaluation.report`
calls with a block of users.
"""

# B users, K list length, I items, V numbers of an item vector, P weighted items of all users

from typing import Final

import numpy as np
from numpy.typing import NDArray

from perso.evaluation.categories import ItemCategories

SMOOTHING: Final = 0.01
"""Part of the history's mix that is added to the list's, so that a missing category costs a finite
amount (Steck's alpha)."""


def intra_list_diversity(
    recommended_BK: NDArray[np.int64], items: NDArray[np.floating] | ItemCategories
) -> NDArray[np.float64]:
    """One minus the mean cosine between two items of a list, over all its pairs.

    1 where no two items share a category, 0 where all are the same; with vectors that have
    negative numbers up to ``K / (K - 1)``. Items that are in no category, or whose vector is
    zero, do not count.

    Args:
        recommended_BK: Item indices, one row per user; -1 pads short rows.
        items: A vector per item, shape (I, V), or the items' categories, as vectors of 0 and 1.

    Returns:
        One value per user, shape (B,); ``nan`` for lists with fewer than two items that count.

    References:
        Smyth and McClave, Similarity vs. diversity, ICCBR 2001; Ziegler et al., Improving
        recommendation lists through topic diversification, WWW 2005.
    """
    found_BK = recommended_BK >= 0
    if isinstance(items, ItemCategories):
        counts_BK = np.where(found_BK, items.counts_I[recommended_BK], 0)
        described_BK = counts_BK > 0
        rows, places = np.nonzero(described_BK)
        keys, sums = items.totals(
            rows, recommended_BK[rows, places], counts_BK[rows, places] ** -0.5
        )
        users = keys // max(items.num_categories, 1)
        squares_B = np.bincount(users, np.square(sums), minlength=len(recommended_BK))
    else:
        vectors_BKV = items[recommended_BK].astype(np.float64)
        lengths_BK = np.linalg.norm(vectors_BKV, axis=2)
        described_BK = found_BK & (lengths_BK > 0)
        inverse_BK = np.divide(1.0, lengths_BK, out=np.zeros_like(lengths_BK), where=described_BK)
        squares_B = np.square(np.einsum("bkv,bk->bv", vectors_BKV, inverse_BK)).sum(1)
    # Of unit vectors, |sum|² is their number and twice the cosines of all pairs.
    num_B = described_BK.sum(1)
    ordered_pairs_B = num_B * (num_B - 1)
    mean_B = np.full(len(num_B), np.nan)
    np.divide(squares_B - num_B, ordered_pairs_B, out=mean_B, where=ordered_pairs_B > 0)
    return 1.0 - mean_B


def calibration_error(
    recommended_BK: NDArray[np.int64],
    categories: ItemCategories,
    *,
    history_indptr_B1: NDArray[np.integer],
    history_items_P: NDArray[np.integer],
    history_weights_P: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Divergence of the list's mix of categories from that of the user's history, in nats.

    ``sum_c p_c ln(p_c / q_c)``: ``p`` is the history's mix, each item's weight spread evenly over
    its categories; ``q`` the list's, every place alike, with :data:`SMOOTHING` of ``p`` mixed in.
    0 if the mixes agree, at most ``-ln(SMOOTHING)`` = 4.6.

    Args:
        recommended_BK: Item indices, one row per user; -1 pads short rows.
        categories: The items' categories.
        history_indptr_B1: Where each user's earlier items begin, and the end.
        history_items_P: Earlier items, user after user.
        history_weights_P: Their weights; decayed ones make recent taste count more.

    Returns:
        One value per user, shape (B,); ``nan`` where list or history has no item in a category.

    References:
        Steck, Calibrated recommendations, RecSys 2018, equations 2 to 6.
    """
    num_users = len(recommended_BK)
    rows, places = np.nonzero(recommended_BK >= 0)
    list_keys, list_shares, list_B = _mix(
        rows, recommended_BK[rows, places], np.ones(len(rows)), categories, num_users
    )
    history_rows_P = np.repeat(np.arange(num_users), np.diff(history_indptr_B1))
    keys, shares, history_B = _mix(
        history_rows_P, history_items_P, history_weights_P, categories, num_users
    )
    listed = np.zeros(len(keys))
    if len(list_keys):
        nearest = np.minimum(np.searchsorted(list_keys, keys), len(list_keys) - 1)
        listed = np.where(list_keys[nearest] == keys, list_shares[nearest], 0.0)
    smoothed = (1 - SMOOTHING) * listed + SMOOTHING * shares
    terms = shares * np.log(shares / smoothed)
    users = keys // max(categories.num_categories, 1)
    error_B = np.bincount(users, terms, minlength=num_users).astype(np.float64)
    # A sum of rounded terms may fall below 0 by some 1e-16.
    return np.where(list_B & history_B, np.maximum(error_B, 0.0), np.nan)


def _mix(
    rows_P: NDArray[np.integer],
    items_P: NDArray[np.integer],
    weights_P: NDArray[np.floating],
    categories: ItemCategories,
    num_users: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """Each user's share of each category by key, and whether the user has any, shape (B,)."""
    spread_P = weights_P / np.maximum(categories.counts_I[items_P], 1)
    keys, totals = categories.totals(rows_P, items_P, spread_P)
    users = keys // max(categories.num_categories, 1)
    sum_B = np.bincount(users, totals, minlength=num_users)
    return keys, totals / sum_B[users], sum_B > 0
