"""The best items of a score matrix: exact, masked, the same on every replica."""

# B users, I items, K list length

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES: Final = 64 << 20


def top_k(
    scores_BI: NDArray[np.float32],
    k: int,
    *,
    seen: Sequence[NDArray[np.integer]] | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ``k`` items with the highest scores of each user, best first.

    Of equal scores the lower item index wins. A score that is ``-inf`` or ``nan`` is never
    recommended. The catalogue is read once; working memory is bounded by blocks of users.

    Args:
        scores_BI: Scores, higher is better; not changed.
        k: List length; more than the catalogue gives rows padded at the end.
        seen: Per user, item indices to leave out.
        allowed: Items that may be recommended at all, shape (I,).

    Returns:
        Item indices, shape (B, k), and their scores; -1 and ``-inf`` pad short rows.

    Raises:
        ValueError: If ``k`` is below 1 or the inputs disagree on B or I.
    """
    num_users, num_items = scores_BI.shape
    if k < 1:
        raise ValueError(f"k is {k}; give 1 or more")
    if seen is not None and len(seen) != num_users:
        raise ValueError(f"seen has {len(seen)} rows, scores have {num_users}")
    if allowed is not None and allowed.shape != (num_items,):
        raise ValueError(f"allowed has shape {allowed.shape}, scores have {num_items} items")
    indices_BK = np.full((num_users, k), -1, np.int64)
    best_BK = np.full((num_users, k), -np.inf, np.float32)
    width = min(k, num_items)
    if not width:
        return indices_BK, best_BK
    block = max(1, _BLOCK_BYTES // (4 * num_items))
    for start in range(0, num_users, block):
        rows = slice(start, start + block)
        masked_BI = scores_BI[rows].astype(np.float32)
        if allowed is not None:
            masked_BI[:, ~allowed] = -np.inf
        if seen is not None:
            for row, items in enumerate(seen[rows]):
                masked_BI[row, items] = -np.inf
        np.copyto(masked_BI, -np.inf, where=np.isnan(masked_BI))
        indices_BK[rows, :width], best_BK[rows, :width] = _best(masked_BI, width)
    indices_BK[np.isneginf(best_BK)] = -1
    return indices_BK, best_BK


def _best(scores_BI: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    num_items = scores_BI.shape[1]
    picked_BK = np.argpartition(scores_BI, num_items - k, axis=1)[:, num_items - k :]
    least_B = np.take_along_axis(scores_BI, picked_BK, 1).min(1)
    # argpartition takes any of several items that tie for the last place.
    tied_B = (scores_BI >= least_B[:, None]).sum(1) > k
    for row in np.flatnonzero(tied_B):
        scores_I = scores_BI[row]
        above = np.flatnonzero(scores_I > least_B[row])
        level = np.flatnonzero(scores_I == least_B[row])
        picked_BK[row] = np.concatenate([above, level[: k - len(above)]])
    picked_BK.sort(axis=1)
    best_BK = np.take_along_axis(scores_BI, picked_BK, 1)
    order_BK = np.argsort(-best_BK, axis=1, kind="stable")
    return np.take_along_axis(picked_BK, order_BK, 1), np.take_along_axis(best_BK, order_BK, 1)
