"""Refused rows: the row as it came, as JSON, and the name of the reason.

Each source documents its reasons beside its rules; this file knows only the one that every text
format shares.
"""

import json
import math
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from perso.schema import CHECKED_SCHEMA

MALFORMED_LINE: Final = "malformed_line"
"""The line has another number of fields than the header, or is no JSON object."""


def with_rejects(events: pa.Table, raw: pa.Table, reasons: pa.Array) -> pa.Table:
    """The events without the refused rows, and after them the refused rows.

    Args:
        events: Columns of EVENT_SCHEMA, one row per row of ``raw``.
        raw: The rows as they came.
        reasons: Why each row is refused, null for valid ones.

    Returns:
        A CHECKED_SCHEMA table; a refused row has nulls in all but the last two columns.
    """
    num_bad = len(reasons) - reasons.null_count
    is_valid = pc.is_null(reasons)
    valid = events.filter(is_valid) if num_bad else events
    for name in CHECKED_SCHEMA.names[-2:]:
        valid = valid.append_column(name, pa.nulls(valid.num_rows, pa.string()))
    valid = valid.cast(CHECKED_SCHEMA)
    if not num_bad:
        return valid
    is_bad = pc.invert(is_valid)
    rows = [to_json(row) for row in raw.filter(is_bad).to_pylist()]
    return pa.concat_tables([valid, _refused(reasons.filter(is_bad), rows)])


def reject_lines(lines: Sequence[str]) -> pa.Table:
    """Malformed lines as refused rows, CHECKED_SCHEMA; the row is the line as a JSON string."""
    reasons = pa.array([MALFORMED_LINE] * len(lines), pa.string())
    return _refused(reasons, [json.dumps(line, ensure_ascii=False) for line in lines])


def _refused(reasons: pa.Array, rows: list[str]) -> pa.Table:
    columns = {f.name: pa.nulls(len(rows), f.type) for f in CHECKED_SCHEMA}
    columns |= {"reject_reason": reasons, "reject_row": pa.array(rows, pa.string())}
    return pa.table(columns, schema=CHECKED_SCHEMA)


def to_json(row: Any) -> str:
    """A raw row as one line of strict JSON; what JSON cannot say is written as text."""
    return json.dumps(_plain(row), ensure_ascii=False, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
