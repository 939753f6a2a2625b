"""What lists are beside right, over all users together: exposure, novelty, diversity, calibration.

Each figure's definition stands with its function in :mod:`perso.evaluation.exposure` and
:mod:`perso.evaluation.diversity`; this file computes them block by block and averages.
"""

# B users, K list length, I items

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perso.data.prepared import Interactions
from perso.evaluation.categories import ItemCategories
from perso.evaluation.diversity import calibration_error, intra_list_diversity
from perso.evaluation.exposure import (
    average_popularity,
    catalog_coverage,
    gini_of_exposure,
    novelty,
    popularity_lift,
    serendipity_at_k,
)
from perso.evaluation.lists import Profiles

_USERS_AT_ONCE: Final = 1 << 13


def list_quality(
    lists_BK: NDArray[np.int64],
    hits_BK: NDArray[np.bool_],
    ks: Sequence[int],
    *,
    train: Interactions,
    profiles: Profiles,
    inside_B: NDArray[np.bool_],
    categories: ItemCategories | None = None,
) -> dict[str, float]:
    """The figures at every list length, named like ``novelty@20``.

    Args:
        lists_BK: Each user's list.
        hits_BK: Which places hold a relevant item.
        ks: List lengths, 1 to K.
        train: The time before the lists.
        profiles: What each of the users had in it.
        inside_B: The users to average over.
        categories: Of the items; without them there is no diversity and no calibration.

    Returns:
        ``nan`` where no user has a value.
    """
    item_users_I = np.bincount(train.item_indices, minlength=train.num_items)
    num_users = len(np.unique(train.user_indices))
    profile_B = _profile_popularity(profiles, item_users_I)
    blocks = [
        slice(start, min(start + _USERS_AT_ONCE, len(lists_BK)))
        for start in range(0, len(lists_BK), _USERS_AT_ONCE)
    ]
    quality: dict[str, float] = {}
    for k in ks:
        shown_BK = lists_BK[:, :k]
        values: dict[str, list[NDArray[np.float64]]] = {}
        for rows in blocks:
            for name, value_B in _of_block(
                shown_BK[rows],
                hits_BK[rows, :k],
                item_users_I,
                num_users,
                profiles.rows(rows),
                categories,
            ).items():
                values.setdefault(name, []).append(value_B)
        per_user = {name: np.concatenate(parts)[inside_B] for name, parts in values.items()}
        popularity_B = per_user.pop("popularity", np.empty(0))
        quality |= {
            f"coverage@{k}": catalog_coverage(shown_BK[inside_B], num_items=train.num_items),
            f"gini@{k}": gini_of_exposure(shown_BK[inside_B], num_items=train.num_items),
            f"popularity_lift@{k}": popularity_lift(popularity_B, profile_B[inside_B]),
        }
        quality |= {f"{name}@{k}": _mean(value_B) for name, value_B in per_user.items()}
    return quality


def _of_block(
    shown_BK: NDArray[np.int64],
    hits_BK: NDArray[np.bool_],
    item_users_I: NDArray[np.int64],
    num_users: int,
    profiles: Profiles,
    categories: ItemCategories | None,
) -> dict[str, NDArray[np.float64]]:
    values = {
        "popularity": average_popularity(shown_BK, item_users_I),
        "novelty": novelty(shown_BK, item_users_I, num_users=num_users),
        "serendipity": serendipity_at_k(
            shown_BK,
            hits_BK,
            item_users_I,
            k=shown_BK.shape[1],
            seen_indptr_B1=profiles.indptr_B1,
            seen_items_P=profiles.items_P,
        ),
    }
    if categories is not None:
        values["intra_list_diversity"] = intra_list_diversity(shown_BK, categories)
        values["calibration"] = calibration_error(
            shown_BK,
            categories,
            history_indptr_B1=profiles.indptr_B1,
            history_items_P=profiles.items_P,
            history_weights_P=profiles.weights_P,
        )
    return values


def _profile_popularity(profiles: Profiles, item_users_I: NDArray[np.int64]) -> NDArray[np.float64]:
    """Average popularity of what each user had, shape (B,); ``nan`` for newcomers."""
    counts_B = np.diff(profiles.indptr_B1)
    rows_P = np.repeat(np.arange(len(counts_B)), counts_B)
    sum_B = np.bincount(rows_P, item_users_I[profiles.items_P], minlength=len(counts_B))
    mean_B = np.full(len(counts_B), np.nan)
    np.divide(sum_B, counts_B, out=mean_B, where=counts_B > 0)
    return mean_B


def _mean(value_B: NDArray[np.float64]) -> float:
    """Over users who have a value."""
    value_B = value_B[np.isfinite(value_B)]
    return float(value_B.mean()) if len(value_B) else float("nan")
