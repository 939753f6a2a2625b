"""Which categories each item is in, as rows of one compact array."""

# I items, C categories, N item–category pairs, P user–item pairs, E entries

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class ItemCategories:
    """Categories by item_index; an item may be in none.

    Example:
        >>> categories = ItemCategories.from_lists([["tea", "gifts"], None, ["tea"]])
        >>> categories.num_categories, categories.counts_I.tolist()
        (2, [2, 0, 1])
    """

    num_categories: int
    """C."""
    indptr_I1: NDArray[np.int64]
    """Where each item's categories begin, and the end, shape (I + 1,)."""
    codes: NDArray[np.int64]
    """Distinct categories of each item, item after item, shape (N,)."""

    @classmethod
    def from_catalog(cls, catalog: pa.Table) -> "ItemCategories | None":
        """The column ``categories`` or, where there is none, ``category``; None without either.

        Args:
            catalog: One row per item_index; a cell is a list of names or one name.
        """
        for column in ("categories", "category"):
            if column in catalog.column_names:
                cells = catalog[column].to_pylist()
                return cls.from_lists([c if isinstance(c, list) else [c] for c in cells])
        return None

    @classmethod
    def from_lists(
        cls, names_by_item: Sequence[Sequence[Hashable | None] | None]
    ) -> "ItemCategories":
        """Categories from the names of each item; a name that repeats counts once."""
        code_of: dict[Hashable, int] = {}
        codes: list[int] = []
        ends = [0]
        for names in names_by_item:
            for name in dict.fromkeys(names or ()):
                if name is not None:
                    codes.append(code_of.setdefault(name, len(code_of)))
            ends.append(len(codes))
        return cls(
            num_categories=len(code_of),
            indptr_I1=np.array(ends, np.int64),
            codes=np.array(codes, np.int64),
        )

    @property
    def num_items(self) -> int:
        """Rows of the item vocabulary."""
        return len(self.indptr_I1) - 1

    @property
    def counts_I(self) -> NDArray[np.int64]:
        """How many categories each item is in."""
        return np.diff(self.indptr_I1)

    def totals(
        self,
        rows_P: NDArray[np.integer],
        items_P: NDArray[np.integer],
        weights_P: NDArray[np.floating],
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Weight of each (row, category), where every pair gives its weight to all its categories.

        Args:
            rows_P: Any non-negative number per pair, such as the place of its user.
            items_P: Item of each pair.
            weights_P: What it gives to each of its categories.

        Returns:
            Keys ``row * num_categories + category`` in ascending order, shape (E,), and weights.
        """
        counts_P = self.counts_I[items_P]
        pairs_E = np.repeat(np.arange(len(items_P)), counts_P)
        first_E = np.repeat(self.indptr_I1[items_P], counts_P)
        place_E = np.arange(len(pairs_E)) - np.repeat(counts_P.cumsum() - counts_P, counts_P)
        keys_E = rows_P[pairs_E].astype(np.int64) * self.num_categories
        keys_E += self.codes[first_E + place_E]
        keys, inverse_E = np.unique(keys_E, return_inverse=True)
        totals: NDArray[np.float64] = np.bincount(
            inverse_E, weights_P[pairs_E], minlength=len(keys)
        ).astype(np.float64)
        return keys, totals
