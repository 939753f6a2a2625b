"""The best items of a score matrix, or of user and item vectors: exact, masked, reproducible.

Of equal scores the lower item index wins, so two replicas answer alike. Few users are answered
by NumPy, so that a request never waits for a compiler; many by compiled code
(:mod:`perso.models.top_k_kernel`) or on a GPU (:mod:`perso.models.top_k_torch`), with the same
lists. Memory is that of one block. A million users x 100,000 items x 64 factors take
some two minutes on two cores, nearly all of it for the products.
"""

# B users, I items, D factors, K list length, P seen pairs

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perso.models.left_out import LeftOut
from perso.models.top_k_kernel import blas_of_one_thread, select_by_block

_FEW_USERS: Final = 8
"""Up to which NumPy is quick enough."""
_CHUNK: Final = 64
"""Near sqrt(I / K), where chunk maxima and the items of the best chunks are equally many."""


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
        ValueError: If ``k`` is below 1, the inputs disagree on B or I, or an item to leave out
            is not in the catalogue.
    """
    num_users, num_items = scores_BI.shape
    left_out = LeftOut.of_lists(seen, allowed, num_users=num_users, num_items=num_items)
    bias_I = left_out.mask(np.zeros(num_items, np.float32))
    if num_users <= _FEW_USERS:
        return _select_by_row(scores_BI, bias_I, k, left_out)

    def score(rows: slice, items: slice, out_BT: NDArray[np.float32]) -> None:
        out_BT[:] = scores_BI[rows, items]

    return select_by_block(score, bias_I, k, left_out)


def top_k_factors(
    user_BD: NDArray[np.float32],
    item_ID: NDArray[np.float32],
    item_bias_I: NDArray[np.float32],
    k: int,
    *,
    seen_indptr: NDArray[np.integer] | None = None,
    seen_indices: NDArray[np.integer] | None = None,
    allowed: NDArray[np.bool_] | None = None,
    device: str = "cpu",
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ``k`` items with the highest ``user · item + item bias`` of each user, best first.

    The lists of :func:`top_k` over all scores, of which only a block exists at a time. Threads
    are those that ``OMP_NUM_THREADS`` allows, else one a core. Made for lists of tens of items:
    each item that enters a list shifts the places behind it.

    Args:
        user_BD: User vectors, float32.
        item_ID: Item vectors, float32.
        item_bias_I: What is added to each item's scores, float32.
        k: List length; more than the catalogue gives rows padded at the end.
        seen_indptr: Where each user's items to leave out begin, and the end, shape (B + 1,).
        seen_indices: Items to leave out, user after user, shape (P,).
        allowed: Items that may be recommended at all, shape (I,).
        device: ``cpu``, or a CUDA device of PyTorch.

    Returns:
        Item indices, shape (B, k), and their scores, float32; -1 and ``-inf`` pad short rows.

    Raises:
        ValueError: If ``k`` is below 1, the inputs disagree on B, I or D, only one array of the
            seen items is given, or an item to leave out is not in the catalogue.
        RuntimeError: If PyTorch has no such device.
    """
    user_BD, item_ID = np.asarray(user_BD, np.float32), np.asarray(item_ID, np.float32)
    num_users, num_items = len(user_BD), len(item_ID)
    if user_BD.shape[1] != item_ID.shape[1] or item_bias_I.shape != (num_items,):
        raise ValueError(
            f"users {user_BD.shape}, items {item_ID.shape} and biases {item_bias_I.shape} "
            "disagree on factors or items"
        )
    left_out = LeftOut.of_rows(
        seen_indptr, seen_indices, allowed, num_users=num_users, num_items=num_items
    )
    bias_I = left_out.mask(item_bias_I)
    if device != "cpu":
        from perso.models.top_k_torch import select_on_device

        return select_on_device(user_BD, item_ID, bias_I, k, left_out, device=device)
    if num_users <= _FEW_USERS:
        return _select_by_row(user_BD @ item_ID.T, bias_I, k, left_out)

    def score(rows: slice, items: slice, out_BT: NDArray[np.float32]) -> None:
        # NumPy's OpenBLAS: on AMD twice as fast as the MKL of PyTorch.
        np.matmul(user_BD[rows], item_ID[items].T, out=out_BT)

    with blas_of_one_thread():
        return select_by_block(score, bias_I, k, left_out)


def _select_by_row(
    scores_BI: NDArray[np.float32], bias_I: NDArray[np.float32], k: int, left_out: LeftOut
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best items of ``scores + bias``, user by user."""
    indices_BK, best_BK = left_out.empty_lists(k)
    for row in range(len(indices_BK)):
        with np.errstate(invalid="ignore"):  # an infinite score of an item that is not allowed
            scores_I = scores_BI[row] + bias_I
        scores_I[left_out.of(row)] = -np.inf
        np.copyto(scores_I, -np.inf, where=np.isnan(scores_I))
        found = np.flatnonzero((scores_I >= _bound(scores_I, k)) & (scores_I > -np.inf))
        # Stable: of equal scores the lower index stays first.
        found = found[np.argsort(-scores_I[found], kind="stable")[:k]]
        indices_BK[row, : len(found)] = found
        best_BK[row, : len(found)] = scores_I[found]
    return indices_BK, best_BK


def _bound(scores_I: NDArray[np.float32], k: int) -> float:
    """A score that at least ``k`` items reach and not many more.

    The k-th best of the maxima of parts of the catalogue: six times quicker at 50,000 items than
    to partition them all.
    """
    num_chunks = len(scores_I) // _CHUNK
    if num_chunks < k:
        return -np.inf
    maxima = scores_I[: num_chunks * _CHUNK].reshape(num_chunks, _CHUNK).max(1)
    return float(np.partition(maxima, num_chunks - k)[num_chunks - k])
