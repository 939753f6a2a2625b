"""What was bought at one time: a user's items, cut into baskets where time passes.

Interactions name no order or session, so a basket is what one user last touched within a window.
They keep the last time of each pair only: an item bought every month is in the newest basket
alone. Memory is linear: about 60 bytes a pair while cutting, 4 a pair and 8 a basket after.
"""

# U users, P pairs (of a user and an item), K baskets

import logging
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perso.data.prepared import Interactions

logger = logging.getLogger(__name__)

MAX_ITEMS: Final = 100
"""A basket of more is somebody's stock: it says little of what goes together, at the cost of its
size squared."""

_MICROSECONDS_PER_HOUR: Final = 3_600_000_000


@dataclass(frozen=True, kw_only=True)
class Baskets:
    """Distinct items of each basket."""

    num_items: int
    """Rows of the item vocabulary."""
    indptr_K1: NDArray[np.int64]
    """Where each basket's items begin, and the end, shape (K + 1,)."""
    item_indices: NDArray[np.int32]
    """Items of all baskets."""
    num_left_out: int = 0
    """Baskets of more items than were allowed."""
    num_pairs_left_out: int = 0
    """Items in the baskets that were left out."""

    def __len__(self) -> int:
        return len(self.indptr_K1) - 1


def cut_baskets(
    interactions: Interactions, *, window_hours: float = 24.0, max_items: int = MAX_ITEMS
) -> Baskets:
    """Each user's items in runs of at most ``window_hours``, users and times ascending.

    The oldest pair of a user opens a basket; so does the first one that comes later than the
    window after the opening of the one before. So any two items of a basket lie within the
    window. Baskets of more than ``max_items`` are left out whole, since a part of them would be a
    choice of items, and counted.

    Args:
        interactions: Pairs with true instants; not changed.
        window_hours: Longest time between two items of one basket.
        max_items: Largest basket that counts.

    Raises:
        ValueError: If the window is negative or ``max_items`` is below 1.
    """
    if not window_hours >= 0:
        raise ValueError(f"window_hours is {window_hours}; give 0 or more")
    if max_items < 1:
        raise ValueError(f"max_items is {max_items}; give 1 or more")
    by_time_P = np.lexsort((interactions.last_at, interactions.user_indices))
    starts = _openings(
        interactions.user_indices[by_time_P],
        interactions.last_at[by_time_P],
        round(window_hours * _MICROSECONDS_PER_HOUR),
    )
    sizes_K = np.diff(starts, append=len(interactions))
    is_kept_K = sizes_K <= max_items
    is_kept_P = np.repeat(is_kept_K, sizes_K)
    baskets = Baskets(
        num_items=interactions.num_items,
        indptr_K1=np.concatenate([[0], np.cumsum(sizes_K[is_kept_K])]).astype(np.int64),
        item_indices=interactions.item_indices[by_time_P][is_kept_P].astype(np.int32),
        num_left_out=int((~is_kept_K).sum()),
        num_pairs_left_out=int((~is_kept_P).sum()),
    )
    logger.info(
        "baskets: %d pairs -> %d baskets (left out: %d of more than %d items, with %d pairs)",
        len(interactions),
        len(baskets),
        baskets.num_left_out,
        max_items,
        baskets.num_pairs_left_out,
    )
    return baskets


def _openings(
    users_P: NDArray[np.int32], times_P: NDArray[np.int64], window: int
) -> NDArray[np.int64]:
    """Places of the pairs that open a basket, shape (K,); pairs by user, then time."""
    if not len(users_P):
        return np.empty(0, np.int64)
    # Ranks of times in place of times, so that user and time fit into one sortable integer.
    times, ranks_P = np.unique(times_P, return_inverse=True)
    width = len(times) + 1
    keys_P = users_P.astype(np.int64) * width + ranks_P
    later_P = np.searchsorted(times, times_P + window, side="right")
    next_P = np.searchsorted(keys_P, users_P.astype(np.int64) * width + later_P)
    is_opening_P = np.concatenate([[True], users_P[1:] != users_P[:-1]])
    current = np.flatnonzero(is_opening_P)
    while len(current):  # one basket of every user that has another
        following = next_P[current]
        is_same_user = following < len(users_P)
        is_same_user[is_same_user] = (
            users_P[following[is_same_user]] == users_P[current[is_same_user]]
        )
        current = following[is_same_user]
        is_opening_P[current] = True
    return np.flatnonzero(is_opening_P)
