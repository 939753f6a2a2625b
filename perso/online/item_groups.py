"""Which items have a category, brand, tag or price: the catalogue as masks over the items.

Made once per bundle, at the first question that needs it; then a mask costs the items it names.

Legend: I items.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_NOTHING: Final = np.empty(0, np.int64)


class ItemGroups:
    """Masks over one catalogue; holds no state that a call changes, safe to share."""

    def __init__(self, catalog: pa.Table) -> None:
        """Keep the table.

        Args:
            catalog: CATALOG_SCHEMA, row ``i`` for item_index ``i``.
        """
        self._catalog = catalog

    def in_categories(self, names: Iterable[str]) -> NDArray[np.bool_]:
        """Items of any of these categories, shape (I,); an unknown name has none."""
        return self._mask(self._rows_by_category, names)

    def of_brands(self, names: Iterable[str]) -> NDArray[np.bool_]:
        """Items of any of these brands, shape (I,)."""
        return self._mask(self._rows_by_brand, names)

    def with_tags(self, names: Iterable[str]) -> NDArray[np.bool_]:
        """Items with any of these tags, shape (I,)."""
        return self._mask(self._rows_by_tag, names)

    @cached_property
    def prices_I(self) -> NDArray[np.float64]:
        """Price of each item, ``nan`` where unknown; every comparison with that is false."""
        prices: NDArray[np.float64] = pc.fill_null(self._catalog["price"], np.nan).to_numpy()
        return prices

    @cached_property
    def in_stock_I(self) -> NDArray[np.bool_]:
        """Items not known to be out of stock."""
        return np.asarray(pc.fill_null(self._catalog["in_stock"], True).to_numpy(), np.bool_)

    def _mask(
        self, rows_by_name: Mapping[str, NDArray[np.int64]], names: Iterable[str]
    ) -> NDArray[np.bool_]:
        inside_I = np.zeros(len(self._catalog), np.bool_)
        for name in names:
            inside_I[rows_by_name.get(name, _NOTHING)] = True
        return inside_I

    @cached_property
    def _rows_by_category(self) -> dict[str, NDArray[np.int64]]:
        return _rows_by_listed_name(self._catalog["categories"])

    @cached_property
    def _rows_by_tag(self) -> dict[str, NDArray[np.int64]]:
        return _rows_by_listed_name(self._catalog["tags"])

    @cached_property
    def _rows_by_brand(self) -> dict[str, NDArray[np.int64]]:
        brands = _one_chunk(self._catalog["brand"])
        rows = np.flatnonzero(brands.is_valid().to_numpy(zero_copy_only=False))
        return _rows_by_name(brands.drop_null(), rows)


def _rows_by_listed_name(column: pa.ChunkedArray) -> dict[str, NDArray[np.int64]]:
    lists = _one_chunk(column)
    return _rows_by_name(pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy())


def _rows_by_name(names: pa.Array, rows: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Rows grouped by the name beside each."""
    encoded = pc.dictionary_encode(names)
    codes = encoded.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    distinct = encoded.dictionary.to_pylist()
    bounds = np.searchsorted(codes[order], np.arange(1, len(distinct)))
    return dict(zip(distinct, np.split(rows[order], bounds), strict=True)) if distinct else {}


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
