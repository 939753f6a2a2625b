"""The columns of a table that says itself which rows are for training and which for the test.

Decides which columns have a meaning, and what a cell of each says; what the rows add up to is
decided in ``perso.data.fixed_split``. Distinct values are turned into text once each, so that ids
may be numbers or long strings at the same cost per row.
"""

# R rows

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perso.data.columns import to_instant, to_number, to_text
from perso.data.readers import format_of, list_chunks, read_chunk
from perso.errors import InputError
from perso.schema import SPLITS

NEEDED: Final = ("user", "item", "split")
OPTIONAL: Final = ("rating", "timestamp")
CONTEXT_PREFIX: Final = "context_"
USER_PREFIX: Final = "user_"
ITEM_PREFIX: Final = "item_"

_PREFIXES: Final = (CONTEXT_PREFIX, USER_PREFIX, ITEM_PREFIX)
_LEADING_ZERO: Final = r"^-?0\d"


def read_columns(address: str) -> tuple[pa.Table, int]:
    """The rows of a file with the columns that mean something, and the number of malformed lines.

    Raises:
        InputError: If the file cannot be read, is neither Parquet nor CSV, has no byte or row,
            lacks a column or has one twice.
    """
    chunks = list_chunks(address)
    if format_of(address) not in ("parquet", "csv"):
        raise InputError(f"{address} is no Parquet or CSV file; a fixed split is one of these")
    blocks = []
    num_malformed = 0
    for chunk in chunks:
        for block, malformed in read_chunk(chunk):
            names = block.column_names
            if missing := [name for name in NEEDED if name not in names]:
                raise InputError(
                    f"{address} has no column {', '.join(missing)}; it has {', '.join(names)}, "
                    f"and a fixed split needs {', '.join(NEEDED)}"
                )
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise InputError(f"{address} has several columns {', '.join(twice)}; keep one")
            used = [name for name in names if _has_meaning(name)]
            blocks.append(block.select(used))
            num_malformed += len(malformed)
    return pa.concat_tables(blocks), num_malformed


def _has_meaning(name: str) -> bool:
    return name in (*NEEDED, *OPTIONAL) or any(
        name.startswith(prefix) and name != prefix for prefix in _PREFIXES
    )


def encode(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.StringArray]:
    """Each row's place among the distinct texts of a column, and the texts.

    Returns:
        The places, shape (R,), -1 where the cell is empty; and the texts, not sorted, some of
        which may occur in no row.

    Raises:
        pa.ArrowException: If the column's type has no text form, or bytes are not UTF-8.
    """
    if pa.types.is_null(column.type):
        return np.full(len(column), -1, np.int64), pa.array([], pa.string())
    encoded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    values = to_text(encoded.dictionary)
    texts = pc.unique(values).drop_null()
    # Several values may have one text (1 and 1.0), or none ("").
    place_of = pc.fill_null(pc.index_in(values, value_set=texts), -1).to_numpy().astype(np.int64)
    codes_R = pc.fill_null(encoded.indices.cast(pa.int64()), len(place_of)).to_numpy()
    return np.append(place_of, -1)[codes_R], texts


def compact(
    codes_R: NDArray[np.int64], texts: pa.StringArray
) -> tuple[pa.StringArray, NDArray[np.int32]]:
    """The texts that occur, sorted by their UTF-8 bytes, and each row's place among them.

    Args:
        codes_R: What :func:`encode` gave, or a part of it; -1 stays.
        texts: The texts that the codes mean.
    """
    used = np.flatnonzero(np.bincount(codes_R[codes_R >= 0], minlength=len(texts)))
    occurring = texts.take(pa.array(used))
    order = pc.sort_indices(occurring).to_numpy()
    new_code = np.full(len(texts) + 1, -1, np.int32)
    new_code[used[order]] = np.arange(len(used))
    return occurring.take(pa.array(order)), new_code[codes_R]


def split_codes(column: pa.ChunkedArray, address: str) -> NDArray[np.int64]:
    """Each row's place in SPLITS, shape (R,).

    Raises:
        InputError: If a cell is empty or another word.
    """
    codes_R, texts = encode(column)
    occurring, _ = compact(codes_R, texts)
    unknown = [repr(text) for text in occurring.to_pylist() if text not in SPLITS]
    if num_empty := int((codes_R < 0).sum()):
        unknown.append(f"nothing (in {num_empty} rows)")
    if unknown:
        shown = ", ".join(unknown[:5]) + (", …" if len(unknown) > 5 else "")
        raise InputError(f"{address}: split is {shown}; allowed are {', '.join(SPLITS)}")
    found = pc.index_in(texts, value_set=pa.array(SPLITS))
    split_R: NDArray[np.int64] = pc.fill_null(found, -1).to_numpy().astype(np.int64)[codes_R]
    return split_R


def instants_of(column: pa.ChunkedArray, address: str) -> NDArray[np.int64]:
    """Microseconds since the epoch, shape (R,).

    Raises:
        InputError: If a cell is no instant.
    """
    cells = one_array(column)
    instants = to_instant(cells)
    _refuse(instants.is_null(), cells, address, "timestamp", "an instant of 1990 to 2099")
    micros_R: NDArray[np.int64] = instants.cast(pa.int64()).to_numpy()
    return micros_R


def ratings_of(column: pa.ChunkedArray, address: str) -> NDArray[np.float32]:
    """Each row's rating, shape (R,); ``nan`` where none.

    Raises:
        InputError: If a cell is neither empty nor a finite float32.
    """
    cells = one_array(column)
    numbers, bad = to_number(cells)
    with np.errstate(over="ignore"):
        ratings_R: NDArray[np.float32] = (
            pc.fill_null(numbers, float("nan")).to_numpy().astype(np.float32)
        )
    too_large = pa.array(np.isinf(ratings_R))
    bad = too_large if bad is None else pc.or_(bad, too_large)
    _refuse(bad, cells, address, "rating", "a finite number, or empty")
    return ratings_R


def _refuse(bad: pa.BooleanArray, cells: pa.Array, address: str, name: str, wanted: str) -> None:
    if num_bad := pc.sum(bad).as_py():
        first = cells[pc.index(bad, True).as_py()].as_py()
        raise InputError(
            f"{address}: {num_bad} of {len(cells)} rows have a {name} that cannot be used, "
            f"the first is {first!r}; it must be {wanted}, or leave the column out"
        )


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """The column in one piece."""
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def numbers_of_text(column: pa.StringArray) -> pa.Array:
    """Integers or floats where every cell is one; codes such as 007 stay text."""
    if (
        column.null_count == len(column)
        or pc.any(pc.match_substring_regex(column, _LEADING_ZERO)).as_py()
    ):
        return column
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        numbers, bad = to_number(column)
        return column if bad is not None and pc.any(bad).as_py() else numbers
