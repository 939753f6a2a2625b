"""Raw rows to valid events: which columns an event needs and which values are legal.

Rows that break a rule are refused with one reason, the first that applies in the order of
``REASONS``. Nothing is guessed: a bad optional value refuses the row rather than vanish. Unknown
columns are ignored. About a million clean rows a second and core; only refused rows go through
Python one by one.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from perso.data.columns import (
    EARLIEST_YEAR,
    LATEST_YEAR,
    BadCells,
    hash_rows,
    to_flag,
    to_instant,
    to_number,
    to_text,
)
from perso.data.lines import parse_object
from perso.data.rejects import with_rejects
from perso.errors import InputError
from perso.schema import EVENT_SCHEMA

REQUIRED_COLUMNS: Final = ("event_type", "timestamp", "item_id", "user_id or session_id")
TYPES_WITH_VALUE: Final = ("rate_item", "dwell")
CONTEXT_FIELDS: Final = ("device", "region", "campaign")

REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "no_event_type": "The event says not what happened.",
        "no_user_or_session": "Neither user_id nor session_id is given.",
        "no_item": "The event has no item_id.",
        "bad_timestamp": (
            "The timestamp is missing, neither ISO 8601 nor an epoch number, or outside "
            f"{EARLIEST_YEAR} to {LATEST_YEAR}."
        ),
        "bad_value": "The value is no finite number.",
        "no_value": "A rate_item or dwell event has no value.",
        "bad_quantity": "The quantity is no whole number of at least 1.",
        "bad_price": "The price is no finite number of at least 0.",
        "bad_consent": "The consent is neither true nor false.",
        "bad_context": "The context is no JSON object.",
    }
)
"""Why an event is refused, one sentence each."""

_LARGEST_QUANTITY: Final = 2.0**53


def check_events(raw: pa.Table) -> pa.Table:
    """The rows as events: valid ones first, in order, then the refused ones.

    Ids may be text or numbers; empty text is null. Times follow ``columns.to_instant``. Context
    comes as flat columns (``device``, ``context_device``, ``context.device``), or as one
    ``context`` column of structs or JSON text; a flat column wins. A missing ``event_id`` is a
    hash of the event's fields, so exact repetitions of a row share it.

    Args:
        raw: Rows of any column types, with at least the required columns.

    Returns:
        A CHECKED_SCHEMA table with as many rows as ``raw``.

    Raises:
        InputError: If a required column is missing.
    """
    _require_columns(raw.column_names)
    raw = raw.combine_chunks()
    text = {f.name: _text_column(raw, f.name) for f in EVENT_SCHEMA if f.type == pa.string()}
    context, bad_context = _context(raw)
    timestamp = to_instant(_column(raw, "timestamp"))
    value, bad_value = to_number(_column(raw, "value"))
    quantity, bad_quantity = _to_quantity(_column(raw, "quantity"))
    price, bad_price = to_number(_column(raw, "price"))
    consent, bad_consent = to_flag(_column(raw, "consent"))
    needs_value = pc.is_in(text["event_type"], value_set=pa.array(TYPES_WITH_VALUE))
    events = text | context
    events |= {"timestamp": timestamp, "value": value, "quantity": quantity}
    events |= {"price": price, "consent": consent}

    bad: dict[str, BadCells] = {
        "no_event_type": pc.is_null(events["event_type"]),
        "no_user_or_session": pc.and_(
            pc.is_null(events["user_id"]), pc.is_null(events["session_id"])
        ),
        "no_item": pc.is_null(events["item_id"]),
        "bad_timestamp": pc.is_null(timestamp),
        "bad_value": bad_value,
        "no_value": pc.and_(needs_value, pc.is_null(value)),
        "bad_quantity": bad_quantity,
        "bad_price": _or(bad_price, pc.less(price, 0.0)),
        "bad_consent": bad_consent,
        "bad_context": bad_context,
    }
    if events["event_id"].null_count:
        content = [events[f.name] for f in EVENT_SCHEMA if f.name != "event_id"]
        events["event_id"] = pc.coalesce(events["event_id"], hash_rows(content))
    table = pa.table([events[name] for name in EVENT_SCHEMA.names], names=EVENT_SCHEMA.names)
    return with_rejects(table, raw, first_reason(bad, raw.num_rows))


def check_event(event: Mapping[str, Any]) -> str | None:
    """The reason to refuse one event, none for a valid one; the rules of :func:`check_events`."""
    fields = dict.fromkeys(EVENT_SCHEMA.names) | dict(event)
    checked = check_events(pa.Table.from_pylist([fields]))
    reason: str | None = checked["reject_reason"][0].as_py()
    return reason


def first_reason(bad: Mapping[str, BadCells], num_rows: int) -> pa.StringArray:
    """The first reason that applies to each row, null where none does.

    Args:
        bad: True where the reason applies (null: it does not), in order of precedence; none
            where it applies nowhere.
        num_rows: Length of the masks.
    """
    reasons = pa.nulls(num_rows, pa.string())
    for reason, mask in reversed(list(bad.items())):
        if mask is not None and pc.any(mask).as_py():
            reasons = pc.if_else(pc.fill_null(mask, False), reason, reasons)
    return reasons


def _require_columns(found: list[str]) -> None:
    missing = [name for name in REQUIRED_COLUMNS[:3] if name not in found]
    if not {"user_id", "session_id"} & set(found):
        missing.append(REQUIRED_COLUMNS[3])
    if missing:
        raise InputError(
            f"column {', '.join(missing)} is missing; found {', '.join(found) or 'no column'}; "
            f"events need {', '.join(REQUIRED_COLUMNS)}"
        )


def _column(raw: pa.Table, name: str) -> pa.Array:
    if name not in raw.column_names:
        return pa.nulls(raw.num_rows, pa.string())
    column = raw[name]
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _text_column(raw: pa.Table, name: str) -> pa.StringArray:
    return to_text(_column(raw, name))


def _to_quantity(column: pa.Array) -> tuple[pa.Int64Array, BadCells]:
    numbers, bad = to_number(column)
    wrong = pc.or_(
        pc.or_(pc.less(numbers, 1.0), pc.greater(numbers, _LARGEST_QUANTITY)),
        pc.not_equal(pc.floor(numbers), numbers),
    )
    if pc.any(wrong).as_py():
        numbers = pc.if_else(wrong, None, numbers)
        bad = _or(bad, wrong)
    return numbers.cast(pa.int64()), bad


def _or(mask: BadCells, other: pa.BooleanArray) -> pa.BooleanArray:
    other = pc.fill_null(other, False)
    return other if mask is None else pc.or_(mask, other)


def _context(raw: pa.Table) -> tuple[dict[str, pa.StringArray], BadCells]:
    """The context fields as text columns, from whichever columns carry them."""
    nested, bad = _nested_context(_column(raw, "context"))
    columns = {}
    for name in CONTEXT_FIELDS:
        spellings = (name, f"context_{name}", f"context.{name}")
        found = [
            _text_column(raw, spelling) for spelling in spellings if spelling in raw.schema.names
        ]
        found += [nested[name]] if name in nested else []
        columns[name] = pc.coalesce(*found) if found else pa.nulls(raw.num_rows, pa.string())
    return columns, bad


def _nested_context(column: pa.Array) -> tuple[dict[str, pa.StringArray], BadCells]:
    """Fields of a column of structs or of JSON text."""
    if pa.types.is_struct(column.type):
        names = {field.name for field in column.type}
        flat = dict(zip([f.name for f in column.type], column.flatten(), strict=True))
        return {name: to_text(flat[name]) for name in CONTEXT_FIELDS if name in names}, None
    if column.null_count == len(column):
        return {}, None
    # Contexts repeat, so each distinct one is parsed once.
    encoded = pc.dictionary_encode(to_text(column))
    parsed = [_parse_context(text) for text in encoded.dictionary.to_pylist()]
    fields = {
        name: to_text(pa.array([(p or {}).get(name) for p in parsed], pa.string()))
        for name in CONTEXT_FIELDS
    }
    is_bad = pa.array([p is None for p in parsed], pa.bool_())
    return (
        {name: values.take(encoded.indices) for name, values in fields.items()},
        is_bad.take(encoded.indices),
    )


def _parse_context(text: str) -> dict[str, str | None] | None:
    context = parse_object(text)
    if context is None:
        return None
    return {name: None if v is None else str(v) for name, v in context.items()}
