"""What a set of lists shows: how much of the catalogue, how evenly, how popular, how surprising.

Popularity here is the number of users who had an item before the period, so the figures compare
between datasets whose weights mean different things. Cost: a look-up or a count per place of a
list, and for serendipity a sort of the users' earlier items.
"""

# B users, K list length, I items, P earlier items of all users

import numpy as np
from numpy.typing import NDArray


def catalog_coverage(recommended_BK: NDArray[np.int64], *, num_items: int) -> float:
    """Share of the catalogue that is in at least one list, in [0, 1].

    Raises:
        ValueError: If ``num_items`` is below 1.

    References:
        Ge et al., Beyond accuracy, RecSys 2010.
    """
    return float((_exposure(recommended_BK, num_items) > 0).mean())


def gini_of_exposure(recommended_BK: NDArray[np.int64], *, num_items: int) -> float:
    """How unevenly the lists' places are spread over the catalogue.

    0 if every item is in as many lists as any other, 1 if a single item takes all places:
    ``sum_j (2 j - I - 1) p_j / (I - 1)`` over the items' shares ``p`` of all places, ascending.

    Returns:
        A value in [0, 1]; ``nan`` without a recommendation, 0 in a catalogue of one item.

    Raises:
        ValueError: If ``num_items`` is below 1.

    References:
        Shani and Gunawardana, Evaluating recommendation systems, Recommender Systems Handbook,
        2011, section 8.3.3.
    """
    exposure_I = np.sort(_exposure(recommended_BK, num_items))
    total = exposure_I.sum()
    if not total:
        return float("nan")
    ranks_I = 2 * np.arange(1, num_items + 1) - num_items - 1
    return float(ranks_I @ (exposure_I / total)) / max(num_items - 1, 1)


def novelty(
    recommended_BK: NDArray[np.int64], item_users_I: NDArray[np.integer], *, num_users: int
) -> NDArray[np.float64]:
    """Mean self-information of each list's items in bits: ``-log2(share of users who had it)``.

    An item that nobody had counts as if one user had, so a value lies in
    [0, log2(``num_users``)].

    Args:
        recommended_BK: Item indices, one row per user; -1 pads short rows.
        item_users_I: How many users had each item.
        num_users: How many users had anything.

    Returns:
        One value per user, shape (B,); ``nan`` for an empty list.

    Raises:
        ValueError: If an item has more than ``num_users`` users.

    References:
        Zhou et al., Solving the apparent diversity-accuracy dilemma of recommender systems,
        PNAS 2010 (surprisal).
    """
    if len(item_users_I) and item_users_I.max() > num_users:
        raise ValueError(f"an item has {item_users_I.max()} users, but there are {num_users}")
    bits_I = np.log2(max(num_users, 1)) - np.log2(np.maximum(item_users_I, 1))
    return _mean_of_items(recommended_BK, bits_I)


def average_popularity(
    recommended_BK: NDArray[np.int64], item_users_I: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Mean number of users who had each list's items, shape (B,); ``nan`` for an empty list.

    References:
        Yin et al., Challenging the long tail recommendation, VLDB 2012 (ARP).
    """
    return _mean_of_items(recommended_BK, item_users_I.astype(np.float64))


def popularity_lift(
    list_popularity_B: NDArray[np.float64], profile_popularity_B: NDArray[np.float64]
) -> float:
    """How much more popular than what the users had is what they are shown.

    The mean average popularity of the lists over that of the profiles, less 1: 0 if lists are as
    popular as histories, 1 if twice as popular; at least -1. Users without one of the two do not
    count.

    Args:
        list_popularity_B: From :func:`average_popularity` of the lists.
        profile_popularity_B: The same of each user's earlier items.

    Returns:
        The lift; ``nan`` without users.

    References:
        Abdollahpouri et al., The unfairness of popularity bias in recommendation, RMSE workshop
        at RecSys 2019 (delta GAP of one group).
    """
    both_B = np.isfinite(list_popularity_B) & np.isfinite(profile_popularity_B)
    if not both_B.any():
        return float("nan")
    return float(list_popularity_B[both_B].mean() / profile_popularity_B[both_B].mean() - 1)


def serendipity_at_k(
    recommended_BK: NDArray[np.int64],
    hits_BK: NDArray[np.bool_],
    item_users_I: NDArray[np.integer],
    *,
    k: int,
    seen_indptr_B1: NDArray[np.integer],
    seen_items_P: NDArray[np.integer],
) -> NDArray[np.float64]:
    """Share of the first ``k`` places with a hit that popularity would not have given there.

    What popularity would have given is the user's own list of length ``k``: the items that most
    users had (of equals the lower index), without those the user had. At most the precision.

    Args:
        recommended_BK: Item indices, best first, one row per user; -1 pads short rows.
        hits_BK: Which places hold a relevant item (:func:`perso.evaluation.hits.find_hits`).
        item_users_I: How many users had each item.
        k: Cut-off, 1 to K.
        seen_indptr_B1: Where each user's earlier items begin, and the end.
        seen_items_P: Earlier items, user after user, each once.

    Returns:
        One value in [0, 1] per user, shape (B,).

    Raises:
        ValueError: If ``k`` is outside [1, K].

    References:
        Ge et al., Beyond accuracy, RecSys 2010: useful items that a primitive model does not
        predict, over the length of the list.
    """
    length = recommended_BK.shape[1]
    if not 1 <= k <= length:
        raise ValueError(f"k is {k}; lists have 1 to {length} places")
    num_items = len(item_users_I)
    rank_I = np.empty(num_items, np.int64)
    rank_I[np.argsort(-item_users_I, kind="stable")] = np.arange(num_items)
    row_of_P = np.repeat(np.arange(len(recommended_BK)), np.diff(seen_indptr_B1))
    seen_keys_P = np.sort(row_of_P * num_items + rank_I[seen_items_P])
    rows, places = np.nonzero(hits_BK[:, :k])
    ranks = rank_I[recommended_BK[rows, places]]
    # An item's place in the user's own popularity list: its rank less the better ones they had.
    num_better_seen = np.searchsorted(seen_keys_P, rows * num_items + ranks) - seen_indptr_B1[rows]
    is_unexpected = ranks - num_better_seen >= k
    return np.bincount(rows[is_unexpected], minlength=len(recommended_BK)) / k


def _exposure(recommended_BK: NDArray[np.int64], num_items: int) -> NDArray[np.int64]:
    """In how many lists each item is, shape (I,)."""
    if num_items < 1:
        raise ValueError(f"num_items is {num_items}; give the size of the catalogue")
    return np.bincount(recommended_BK[recommended_BK >= 0], minlength=num_items)


def _mean_of_items(
    recommended_BK: NDArray[np.int64], value_I: NDArray[np.float64]
) -> NDArray[np.float64]:
    found_BK = recommended_BK >= 0
    sum_B = np.where(found_BK, value_I[recommended_BK], 0.0).sum(1)
    count_B = found_BK.sum(1)
    mean_B = np.full(len(sum_B), np.nan)
    np.divide(sum_B, count_B, out=mean_B, where=count_B > 0)
    return mean_B
