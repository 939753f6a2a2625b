"""Columns of any type to columns of one type, and which cells would not go.

Every function takes a raw column and returns it clean together with a mask of the bad cells, or
with no mask where all are good: that is the fast path, without Python per row. A cell's result
never depends on the other cells.
"""

from typing import Final, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perso.schema import TIMESTAMP

BadCells: TypeAlias = pa.BooleanArray | None
"""True where a cell could not be read; none where all could."""

EARLIEST_YEAR: Final = 1990
LATEST_YEAR: Final = 2099

_EARLIEST_US: Final = int(pd.Timestamp(EARLIEST_YEAR, 1, 1, tz="UTC").value) // 1000
_LATEST_US: Final = int(pd.Timestamp(LATEST_YEAR + 1, 1, 1, tz="UTC").value) // 1000
_ISO_8601: Final = (
    r"^\d{4}-\d{2}-\d{2}([T ]\d{2}(:\d{2}(:\d{2}(\.\d{1,9})?)?)?"
    r"( ?(Z|[+-]\d{2}(:?\d{2})?))?)?$"
)
_EPOCH_LIMITS: Final = (10**11, 10**14, 10**17, 9 * 10**18)  # ends of s, ms, µs, ns
_INTEGER: Final = r"^-?\d{1,18}$"
_NUMBER: Final = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


def to_text(column: pa.Array) -> pa.StringArray:
    """The cells as text; whole floats without a point (a null makes pandas' ids floats)."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return to_text(column.cast(kind.value_type))
    if pa.types.is_floating(kind):
        whole = pc.equal(pc.floor(column), column)
        small = pc.less(pc.abs(column), 2.0**63)
        as_int = pc.if_else(pc.and_(whole, small), column, None).cast(pa.int64())
        real = pc.if_else(pc.is_nan(column), None, column)
        return pc.coalesce(as_int.cast(pa.string()), real.cast(pa.string()))
    if pa.types.is_nested(kind):
        return pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())
    text = column.cast(pa.string())
    is_blank = pc.equal(text, "")
    return pc.if_else(is_blank, pa.scalar(None, pa.string()), text) if _any(is_blank) else text


def to_number(column: pa.Array) -> tuple[pa.DoubleArray, BadCells]:
    """The cells as finite float64."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _is_text(column.type):
        text = to_text(column)
        try:
            numbers = text.cast(pa.float64())
        except pa.ArrowInvalid:
            looks_right = pc.match_substring_regex(text, _NUMBER)
            candidates = pc.if_else(looks_right, text, None).to_pandas()
            numbers = pa.array(pd.to_numeric(candidates, errors="coerce"), pa.float64())
            bad = pc.and_(pc.is_valid(text), pc.is_null(numbers))
            return _keep_finite(numbers, bad)
    else:
        try:
            numbers = column.cast(pa.float64(), safe=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return pa.nulls(len(column), pa.float64()), column.is_valid()
    return _keep_finite(numbers, None)


def _keep_finite(numbers: pa.DoubleArray, bad: BadCells) -> tuple[pa.DoubleArray, BadCells]:
    infinite = pc.invert(pc.is_finite(numbers))
    if _any(infinite):
        numbers = pc.if_else(infinite, None, numbers)
        infinite = pc.fill_null(infinite, False)
        bad = infinite if bad is None else pc.or_(bad, infinite)
    return numbers, bad


def to_flag(column: pa.Array) -> tuple[pa.BooleanArray, BadCells]:
    """The cells as booleans; text may say true, false, 1 or 0."""
    if pa.types.is_boolean(column.type):
        return column, None
    text = pc.utf8_lower(to_text(column))
    flags = pc.if_else(
        pc.is_in(text, value_set=pa.array(["true", "1"])),
        True,
        pc.if_else(
            pc.is_in(text, value_set=pa.array(["false", "0"])), False, pa.scalar(None, pa.bool_())
        ),
    )
    bad = pc.and_(pc.is_valid(text), pc.is_null(flags))
    return flags, bad if _any(bad) else None


def to_instant(column: pa.Array) -> pa.TimestampArray:
    """The cells as UTC instants in microseconds, null where missing or bad.

    Times without a zone are UTC. Text is ISO 8601 or a number. A number counts seconds,
    milliseconds, microseconds or nanoseconds since the epoch, whichever falls between the years
    1990 and 2099: these four ranges do not overlap. Instants outside these years are bad.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return to_instant(column.cast(kind.value_type))
    if pa.types.is_timestamp(kind):
        instants = column.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(TIMESTAMP)
    elif pa.types.is_date(kind):
        instants = column.cast(pa.timestamp("us")).cast(TIMESTAMP)
    elif _is_text(kind):
        instants = _instants_of_text(to_text(column))
    elif pa.types.is_integer(kind):
        instants = _instants_of_integers(column)
    elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        instants = _instants_of_floats(column.cast(pa.float64(), safe=False))
    else:
        return pa.nulls(len(column), TIMESTAMP)
    micros = instants.cast(pa.int64())
    outside = pc.or_(pc.less(micros, _EARLIEST_US), pc.greater_equal(micros, _LATEST_US))
    return pc.if_else(outside, pa.scalar(None, TIMESTAMP), instants) if _any(outside) else instants


def _instants_of_integers(epochs: pa.Array) -> pa.TimestampArray:
    """Exact: floats would lose the last digits of microseconds and nanoseconds."""
    epochs = epochs.cast(pa.int64(), safe=False)
    size = pc.abs(epochs)
    micros = pc.case_when(
        pc.make_struct(*(pc.less(size, limit) for limit in _EPOCH_LIMITS)),
        pc.multiply(epochs, 1_000_000),
        pc.multiply(epochs, 1_000),
        epochs,
        pc.divide(epochs, 1_000),
    )
    return micros.cast(TIMESTAMP)


def _instants_of_floats(epochs: pa.DoubleArray) -> pa.TimestampArray:
    size = pc.abs(epochs)
    micros = pc.case_when(
        pc.make_struct(*(pc.less(size, float(limit)) for limit in _EPOCH_LIMITS)),
        pc.multiply(epochs, 1e6),
        pc.multiply(epochs, 1e3),
        epochs,
        pc.divide(epochs, 1e3),
    )
    return pc.round(micros).cast(pa.int64()).cast(TIMESTAMP)


def _instants_of_text(text: pa.StringArray) -> pa.TimestampArray:
    for kind in (pa.timestamp("us"), TIMESTAMP):  # all without a zone, or all with one
        try:
            return text.cast(kind).cast(TIMESTAMP)
        except pa.ArrowInvalid:
            continue
    whole = pc.if_else(pc.match_substring_regex(text, _INTEGER), text, None)
    real = pc.if_else(pc.match_substring_regex(text, _NUMBER), text, None)
    iso = pc.if_else(pc.match_substring_regex(text, _ISO_8601), text, None)
    parsed = pd.to_datetime(iso.to_pandas(), format="ISO8601", utc=True, errors="coerce")
    return pc.coalesce(
        pa.array(parsed.dt.as_unit("us"), TIMESTAMP),
        _instants_of_integers(whole.cast(pa.int64())),
        _instants_of_floats(real.cast(pa.float64())),
    )


def hash_rows(columns: list[pa.Array]) -> pa.StringArray:
    """A stable 128-bit hash of each row, 32 hexadecimal digits, equal on every machine.

    Distinct values are hashed once each, so the cost is about one pass over the rows.
    """
    num_rows = len(columns[0])
    lanes = np.zeros((num_rows, 2), np.uint64)
    multipliers = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)
    for column in columns:
        encoded = column.dictionary_encode(null_encoding="encode")
        values = encoded.dictionary
        hashes = (
            pd.util.hash_array(values.to_numpy(zero_copy_only=False))
            if pa.types.is_string(values.type)
            else _hash_bits(values)
        )
        lanes ^= hashes[encoded.indices.to_numpy()][:, None]
        lanes *= multipliers
        lanes ^= lanes >> np.uint64(29)
    return _hexadecimal(lanes)


def _hash_bits(values: pa.Array) -> NDArray[np.uint64]:
    """Hashes of numbers by their bits; null has a hash of its own."""
    width = pa.float64() if pa.types.is_floating(values.type) else pa.int64()
    bits = pc.fill_null(values.cast(width), 0).to_numpy(zero_copy_only=False).view(np.uint64)
    hashes = pd.util.hash_array(bits)
    hashes[values.is_null().to_numpy(zero_copy_only=False)] = np.uint64(0x5BF03635F0935AD1)
    return hashes


def _hexadecimal(lanes: NDArray[np.uint64]) -> pa.StringArray:
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    octets = np.ascontiguousarray(lanes.astype(">u8")).view(np.uint8)
    text = digits[np.stack([octets >> 4, octets & 15], axis=-1)].reshape(len(lanes), 32)
    offsets = np.arange(len(lanes) + 1, dtype=np.int32) * 32
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text))]
    return pa.StringArray.from_buffers(len(lanes), buffers[1], buffers[2])


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def _any(mask: pa.BooleanArray) -> bool:
    return bool(pc.any(mask).as_py())
