"""The nearest items of each item by what the same users, or baskets, have in common.

One sparse product of the interactions with themselves, cut into blocks of items so that memory
stays linear: a block holds about ``block_entries`` similarities, of which the nearest few of each
item remain. Time grows with the sum over users of their number of items squared, 14 million of
these a CPU-second: 3.4 s for Gowalla (810,000 pairs), 12 minutes for 100 million pairs of users
with 100 items each.
"""

# U users or baskets, I items, P pairs, E entries (similarities) of one block

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]

from perso.data.prepared import Interactions
from perso.models.knn_config import ItemKnnConfig

BLOCK_ENTRIES: Final = 1 << 22
"""Similarities held at once: 50 MB of them, with Pearson or shrinkage up to six times that."""

_ROUNDING: Final = 1e-9
"""A rating nearer to its item's mean than this share of the largest rating lies on it."""


@dataclass(frozen=True, kw_only=True)
class NearestItems:
    """Neighbours by item_index: 8 bytes each."""

    indptr_I1: NDArray[np.int64]
    """Where each item's neighbours begin, and the end, shape (I + 1,)."""
    item_indices: NDArray[np.int32]
    """Neighbours of all items, each item's in ascending order; never the item itself."""
    similarities: NDArray[np.float32]
    """Of each neighbour; positive."""

    @property
    def num_items(self) -> int:
        """Rows of the item vocabulary."""
        return len(self.indptr_I1) - 1

    def of(self, item_index: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Neighbours of one item and their similarities."""
        part = slice(self.indptr_I1[item_index], self.indptr_I1[item_index + 1])
        return self.item_indices[part], self.similarities[part]


def matrix_of(interactions: Interactions, config: ItemKnnConfig) -> Any:
    """What a similarity looks at, a ``scipy.sparse.csr_array`` of float64, shape (U, I)."""
    if config.similarity == "pearson":
        values_P = interactions.ratings if interactions.has_ratings else interactions.weights
    elif config.weighted:
        values_P = interactions.weights
    else:
        values_P = np.ones(len(interactions), np.float32)
    indptr_U1 = np.searchsorted(
        interactions.user_indices, np.arange(interactions.num_users + 1, dtype=np.int32)
    )
    kind = index_type(len(interactions))
    return sparse.csr_array(
        (values_P.astype(np.float64), interactions.item_indices, indptr_U1.astype(kind)),
        shape=(interactions.num_users, interactions.num_items),
    )


def index_type(num_entries: int) -> type[np.int32] | type[np.int64]:
    """The width in which a csr_array addresses its entries without copying their indices."""
    return np.int32 if num_entries <= np.iinfo(np.int32).max else np.int64


def find_nearest(
    matrix_UI: Any, config: ItemKnnConfig, *, block_entries: int = BLOCK_ENTRIES
) -> NearestItems:
    """The ``config.num_neighbors`` items with the highest positive similarity to each item.

    Of equal similarities (as float32) the lower item index wins. Items without a common user are
    no neighbours, and neither are items that correlate negatively.

    Args:
        matrix_UI: What users did with items as a ``scipy.sparse.csr_array`` of float64: weights,
            ones or ratings. What is stored is an interaction, a zero too; not changed.
        config: The similarity. Its ``weighted`` is without effect: the matrix is what counts.
        block_entries: About how many similarities to hold at once; changes no result.
    """
    kernel: _Kernel = (
        _Pearson(matrix_UI) if config.similarity == "pearson" else _Cosine(matrix_UI, config)
    )
    lengths_I = np.zeros(matrix_UI.shape[1], np.int64)
    item_indices = [np.empty(0, np.int32)]
    similarities = [np.empty(0, np.float32)]
    for start, stop in _blocks(matrix_UI, block_entries):
        entries, shared_E = kernel.block(start, stop)
        similar_E = entries.data
        if config.shrinkage:
            similar_E = similar_E * (shared_E / (shared_E + config.shrinkage))
        similar_E = similar_E.astype(np.float32)
        for item in range(start, stop):
            row = slice(*entries.indptr[item - start : item - start + 2])
            nearest, similarity = _best(
                entries.indices[row], similar_E[row], item, config.num_neighbors
            )
            lengths_I[item] = len(nearest)
            item_indices.append(nearest)
            similarities.append(similarity)
    return NearestItems(
        indptr_I1=np.concatenate([[0], np.cumsum(lengths_I)]),
        item_indices=np.concatenate(item_indices),
        similarities=np.concatenate(similarities),
    )


def _blocks(matrix_UI: Any, block_entries: int) -> Iterator[tuple[int, int]]:
    """Runs of items that have about so many similarities, as first item and end."""
    per_user_U = np.diff(matrix_UI.indptr)
    num_users, num_items = matrix_UI.shape
    users_P = np.repeat(np.arange(num_users), per_user_U)
    most_I = np.bincount(matrix_UI.indices, per_user_U[users_P], num_items)
    entries_I = np.cumsum(np.minimum(most_I, num_items))
    starts = np.flatnonzero(np.diff(entries_I // block_entries, prepend=-1))
    yield from zip(starts.tolist(), [*starts[1:].tolist(), num_items], strict=True)


def _best(
    items: NDArray[np.int32], similar: NDArray[np.float32], item: int, k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """At most k positive ones in ascending order of items, without the item itself."""
    usable = (similar > 0) & (items != item)
    items, similar = items[usable], similar[usable]
    if len(items) > k:
        least = np.partition(similar, len(items) - k)[len(items) - k]
        above, level = np.flatnonzero(similar > least), np.flatnonzero(similar == least)
        level = level[np.argsort(items[level])]  # ties keep the lower item index
        picked = np.concatenate([above, level[: k - len(above)]])
        items, similar = items[picked], similar[picked]
    order = np.argsort(items)
    return items[order].astype(np.int32), similar[order]


class _Kernel(Protocol):
    """Similarities of a run of items with all items."""

    def block(self, start: int, stop: int) -> tuple[Any, NDArray[np.float64]]:
        """Similarities, a csr_array of shape (stop - start, I), and the common users of each."""
        ...


class _Cosine:
    """Products of co-occurring items, scaled by the degrees of users and items."""

    def __init__(self, matrix_UI: Any, config: ItemKnnConfig) -> None:
        square_UI = matrix_UI.power(2)
        by_user_U = _power(square_UI.sum(axis=1), -2 * config.user_exponent)
        self._scale_I = _power(square_UI.sum(axis=0), -config.item_exponent)
        self._columns_IU = matrix_UI.T.tocsr()
        by_user_P = np.repeat(by_user_U, np.diff(matrix_UI.indptr))
        self._rows_UI = _with_data(matrix_UI, matrix_UI.data * by_user_P)
        self._ones_UI = _with_data(matrix_UI, np.ones(matrix_UI.nnz))
        self._ones_IU = self._ones_UI.T.tocsr()
        self._needs_counts = config.shrinkage > 0

    def block(self, start: int, stop: int) -> tuple[Any, NDArray[np.float64]]:
        entries = self._columns_IU[start:stop] @ self._rows_UI
        shared_E = (
            _values_at(self._ones_IU[start:stop] @ self._ones_UI, entries)
            if self._needs_counts
            else np.zeros(0)
        )
        scale_E = np.repeat(self._scale_I[start:stop], np.diff(entries.indptr))
        entries.data *= scale_E * self._scale_I[entries.indices]
        return entries, shared_E


class _Pearson:
    """Correlations over the users who rated both items."""

    def __init__(self, matrix_UI: Any) -> None:
        ones_UI = _with_data(matrix_UI, np.ones(matrix_UI.nnz))
        means_I = matrix_UI.sum(axis=0) / np.maximum(ones_UI.sum(axis=0), 1)
        centered_P = matrix_UI.data - means_I[matrix_UI.indices]
        largest = np.abs(matrix_UI.data).max(initial=0.0)
        centered_P[np.abs(centered_P) <= _ROUNDING * largest] = 0.0
        self._ones_UI = ones_UI
        self._centered_UI = _with_data(matrix_UI, centered_P)
        self._squares_UI = _with_data(matrix_UI, centered_P**2)
        self._ones_IU, self._centered_IU, self._squares_IU = (
            rows.T.tocsr() for rows in (ones_UI, self._centered_UI, self._squares_UI)
        )

    def block(self, start: int, stop: int) -> tuple[Any, NDArray[np.float64]]:
        block = slice(start, stop)
        entries = self._ones_IU[block] @ self._ones_UI
        products_E = _values_at(self._centered_IU[block] @ self._centered_UI, entries)
        squares_E = _values_at(self._squares_IU[block] @ self._ones_UI, entries)
        squares_E *= _values_at(self._ones_IU[block] @ self._squares_UI, entries)
        shared_E = entries.data
        entries.data = np.divide(
            products_E, np.sqrt(squares_E), out=np.zeros_like(products_E), where=squares_E > 0
        )
        return entries, shared_E


def _values_at(product: Any, entries: Any) -> NDArray[np.float64]:
    """The values of a product at the places of other entries, which contain its own.

    Products of equally filled factors list their entries in one order, but scipy leaves out a sum
    that is exactly 0.
    """
    if np.array_equal(product.indptr, entries.indptr) and np.array_equal(
        product.indices, entries.indices
    ):
        same_E: NDArray[np.float64] = product.data
        return same_E
    places_E = _places(entries)
    order_E = np.argsort(places_E)
    found = order_E[np.searchsorted(places_E, _places(product), sorter=order_E)]
    values_E = np.zeros(entries.nnz)
    values_E[found] = product.data
    return values_E


def _places(matrix: Any) -> NDArray[np.int64]:
    rows_E = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    places_E: NDArray[np.int64] = rows_E * matrix.shape[1] + matrix.indices
    return places_E


def _with_data(matrix: Any, data: NDArray[np.float64]) -> Any:
    return sparse.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def _power(degrees: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """Powers, 0 where the degree is."""
    return np.power(degrees, exponent, out=np.zeros_like(degrees), where=degrees > 0)
