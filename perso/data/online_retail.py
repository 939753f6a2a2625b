"""UCI Online Retail and Online Retail II: invoice lines of a British shop to events.

Decides which lines are sales to a known customer. Every line that is not gets the first reason of
``REASONS`` that applies. Cancelled invoices (number with a C) become ``refund`` events; matching
them to their purchases needs the customer's whole history and is done by ``perso.data.refunds``.

References:
    Chen, Online Retail, UCI Machine Learning Repository, doi:10.24432/C5BW33 and C5CG6D.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from perso.data.columns import hash_rows, to_instant, to_number, to_text
from perso.data.events import first_reason
from perso.data.rejects import with_rejects
from perso.errors import InputError
from perso.schema import EVENT_SCHEMA, TIMESTAMP

CURRENCY: Final = "GBP"
TIME_ZONE: Final = "Europe/London"
"""Invoice times are the shop's local time."""

REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "no_item": "The line has no stock code.",
        "bad_timestamp": "The invoice date is missing or no date.",
        "bad_quantity": "The quantity is no whole number, 0, or positive on a cancellation.",
        "bad_price": "The price is no number, or negative.",
        "non_product_code": "The stock code is postage, a fee, a voucher or a manual entry.",
        "stock_write_off": "The quantity is negative on an invoice that is no cancellation.",
        "zero_price": "The price is 0: a gift or a stock correction.",
        "no_customer": "The line names no customer.",
    }
)
"""Why a line is dropped, one sentence each."""

_SPELLINGS: Final = {
    "invoice": "invoice",
    "invoiceno": "invoice",
    "stockcode": "stock_code",
    "description": "description",
    "quantity": "quantity",
    "invoicedate": "invoiced_at",
    "price": "price",
    "unitprice": "price",
    "customerid": "customer",
    "country": "country",
}
_REQUIRED: Final = (
    "Invoice or InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "Price or UnitPrice",
    "Customer ID or CustomerID",
    "Country",
)
# Products are five digits with an optional letter suffix; DCGS…, SP… and PADS are the exceptions.
_PRODUCT_CODE: Final = r"^(\d{5}.*|DCGS.+|SP\d+|PADS)$"


def check_invoice_lines(raw: pa.Table) -> pa.Table:
    """The lines as events: valid ones first, in order, then the refused ones.

    A sale becomes a ``purchase``, a cancelled line a ``refund`` with positive quantity and value.
    ``event_id`` is a hash of the whole line, invoice number included, so exact duplicates share
    it.

    Args:
        raw: Lines with the columns of either edition, of any types.

    Returns:
        A CHECKED_SCHEMA table with as many rows as ``raw``.

    Raises:
        InputError: If a column is missing.
    """
    line = _canonical(raw)
    quantity, _ = to_number(line["quantity"])
    price, _ = to_number(line["price"])
    text = {name: pc.utf8_trim_whitespace(to_text(line[name])) for name in _TEXT_COLUMNS}
    invoice = pc.fill_null(pc.utf8_upper(text["invoice"]), "")
    item_id = pc.utf8_upper(text["stock_code"])
    text["customer"] = pc.replace_substring_regex(text["customer"], r"\.0$", "")
    timestamp = _to_utc(line["invoiced_at"])

    is_cancelled = pc.starts_with(invoice, "C")
    is_negative = pc.less(quantity, 0.0)
    is_no_count = pc.or_(pc.equal(quantity, 0.0), pc.not_equal(pc.floor(quantity), quantity))
    is_positive_refund = pc.and_(is_cancelled, pc.invert(is_negative))
    reasons = first_reason(
        {
            "no_item": pc.equal(pc.fill_null(item_id, ""), ""),
            "bad_timestamp": pc.is_null(timestamp),
            "bad_quantity": _any_of(pc.is_null(quantity), is_no_count, is_positive_refund),
            "bad_price": _any_of(pc.is_null(price), pc.less(price, 0.0)),
            "non_product_code": pc.invert(pc.match_substring_regex(item_id, _PRODUCT_CODE)),
            "stock_write_off": pc.and_(is_negative, pc.invert(is_cancelled)),
            "zero_price": pc.equal(price, 0.0),
            "no_customer": pc.equal(pc.fill_null(text["customer"], ""), ""),
        },
        raw.num_rows,
    )
    pieces = pc.abs(pc.if_else(pc.is_null(reasons), quantity, None))
    columns = {f.name: pa.nulls(raw.num_rows, f.type) for f in EVENT_SCHEMA} | {
        "event_id": hash_rows([*text.values(), quantity, price, timestamp]),
        "event_type": pc.if_else(is_cancelled, "refund", "purchase"),
        "user_id": text["customer"],
        "item_id": item_id,
        "timestamp": timestamp,
        "value": pc.multiply(pieces, price),
        "quantity": pieces.cast(pa.int64()),
        "currency": pc.if_else(pc.is_valid(item_id), CURRENCY, None),
        "region": text["country"],
        "price": price,
        "item_name": clean_title(text["description"]),
    }
    return with_rejects(pa.table(columns), raw, reasons)


_TEXT_COLUMNS: Final = ("invoice", "stock_code", "description", "customer", "country")


def clean_title(description: pa.StringArray) -> pa.StringArray:
    """The product's title with single blanks, null for a clerk's note.

    The shop writes titles in capitals; a description without any capital (``check``, ``?``,
    ``sold as set on dotcom``) is a remark about the stock.
    """
    title = pc.utf8_trim_whitespace(pc.replace_substring_regex(description, r"\s+", " "))
    return pc.if_else(pc.match_substring_regex(title, "[A-Z]"), title, pa.scalar(None, pa.string()))


def _canonical(raw: pa.Table) -> dict[str, pa.Array]:
    raw = raw.combine_chunks()
    found: dict[str, pa.Array] = {}
    for name in raw.column_names:
        spelling = "".join(c for c in name.lower() if c.isalnum())
        if spelling in _SPELLINGS:
            column = raw[name]
            found[_SPELLINGS[spelling]] = (
                column.chunk(0) if column.num_chunks else pa.array([], column.type)
            )
    missing = [
        label
        for label, name in zip(_REQUIRED, dict.fromkeys(_SPELLINGS.values()), strict=True)
        if name not in found
    ]
    if missing:
        raise InputError(
            f"column {', '.join(missing)} is missing; found {', '.join(raw.column_names)}; "
            f"Online Retail has {', '.join(_REQUIRED)}"
        )
    return found


def _to_utc(column: pa.Array) -> pa.TimestampArray:
    """Local invoice times as UTC; text may be ISO 8601 or the CSV editions' ``12/1/2010 8:26``."""
    instants = to_instant(column)
    if pa.types.is_string(column.type) and instants.null_count:
        american = pd.to_datetime(column.to_pandas(), format="%m/%d/%Y %H:%M", errors="coerce")
        parsed = pa.array(american.dt.as_unit("us"), pa.timestamp("us")).cast(TIMESTAMP)
        instants = pc.coalesce(instants, parsed)
    local = instants.cast(pa.timestamp("us", "UTC")).to_pandas().dt.tz_localize(None)
    # The hour that a clock change repeats is taken as summer time.
    utc = local.dt.tz_localize(TIME_ZONE, ambiguous=True, nonexistent="shift_forward")
    return pa.array(utc.dt.tz_convert("UTC"), TIMESTAMP)


def _any_of(*masks: pa.BooleanArray) -> pa.BooleanArray:
    """Whether one of the masks holds; an unknown does not."""
    found = pc.fill_null(masks[0], False)
    for mask in masks[1:]:
        found = pc.or_(found, pc.fill_null(mask, False))
    return found
