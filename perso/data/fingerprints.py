"""Columns as a few bytes that are equal for equal contents, whoever made the columns."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def add_table(table: pa.Table | None, digest: Any) -> None:
    """Add a table's names and values to a hash; None is another value than an empty table."""
    if table is None:
        digest.update(b"none")
        return
    digest.update(f"{table.num_rows} rows".encode())
    for name in table.column_names:
        digest.update(f"\0{name}\0".encode())
        add_values(table[name].combine_chunks(), digest)


def add_values(column: pa.Array, digest: Any) -> None:
    """Add a column's values to a hash.

    Whatever lies under a null is not hashed: it depends on who made the column.
    """
    digest.update(np.packbits(column.is_valid().to_numpy(zero_copy_only=False)).data)
    present = column.drop_null()
    if pa.types.is_fixed_size_list(column.type):
        digest.update(f"{column.type.list_size}".encode())
        add_values(pc.list_flatten(present), digest)
        return
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        digest.update(pc.list_value_length(present).to_numpy().astype(np.int64).data)
        add_values(pc.list_flatten(present), digest)
        return
    texts = present.cast(pa.large_string())
    digest.update(pc.binary_length(texts).to_numpy().astype(np.int64).data)
    first, last = texts.offset, texts.offset + len(texts)
    offsets, characters = texts.buffers()[1:]
    if characters is not None:
        bounds = np.frombuffer(offsets, np.int64)
        digest.update(memoryview(characters)[bounds[first] : bounds[last]])
