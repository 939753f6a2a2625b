"""Refunds netted against the purchases they take back.

Decides which purchase a refund belongs to; nothing in a shop's log says so. Works on events of
which every user is complete, so a whole user partition at a time.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "refund_matched": "The refund took back one or more purchases, in full or in part.",
        "refund_partly_matched": "The refund is of more pieces than were bought before.",
        "refund_unmatched": "Nothing was bought before that the refund could take back.",
        "refunded_purchase": "The purchase was taken back in full.",
    }
)
"""Why an event is dropped, one sentence each."""

PURCHASE_REDUCED: Final = "purchase_reduced"
"""Counts purchases that were taken back in part: they are kept, with fewer pieces."""


@dataclass
class _Purchase:
    row: int
    at: int
    event_id: str
    bought: int
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.bought


@dataclass(frozen=True)
class _Refund:
    row: int
    at: int
    event_id: str
    pieces: int | None  # none: whatever one purchase has left


def net_refunds(events: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """The events without refunds, purchases reduced by what was taken back.

    Within one shopper (user, else session) and item, each refund takes back the latest purchase
    not after it that has exactly its number of pieces; when all exact matches are made, what is
    left takes pieces from the latest purchases on backwards. ``quantity`` and ``value`` shrink in
    proportion. A purchase without a quantity is of one piece, a refund without one is of a whole
    purchase. Row order carries no meaning; kept rows stay in theirs.

    Args:
        events: EVENT_SCHEMA rows, each event_id once.

    Returns:
        The kept events and counts: a dropped event has one of ``REASONS``, so these add up to
        the rows dropped; ``PURCHASE_REDUCED`` counts kept events.
    """
    is_refund = pc.equal(events["event_type"], "refund")
    if not pc.any(is_refund).as_py():
        return events, {}
    counts: Counter[str] = Counter()
    left_by_row: dict[int, _Purchase] = {}
    for purchases, refunds in _touched_pairs(events, is_refund):
        counts.update(_net_pair(purchases, refunds))
        left_by_row |= {p.row: p for p in purchases if p.left < p.bought}

    keep = pc.invert(is_refund).to_numpy().copy()
    keep[[row for row, purchase in left_by_row.items() if purchase.left == 0]] = False
    reduced = {row: p for row, p in left_by_row.items() if p.left}
    counts["refunded_purchase"] = len(left_by_row) - len(reduced)
    counts[PURCHASE_REDUCED] = len(reduced)
    netted = _reduce(events, reduced) if reduced else events
    return netted.filter(pa.array(keep)), {name: n for name, n in sorted(counts.items()) if n}


def _touched_pairs(
    events: pa.Table, is_refund: pa.ChunkedArray
) -> Iterable[tuple[list[_Purchase], list[_Refund]]]:
    """Purchases and refunds of every (shopper, item) with a refund, each in time order."""
    refunded = events.filter(is_refund)
    is_candidate = pc.and_(
        pc.and_(
            pc.equal(events["event_type"], "purchase"),
            _shares(events, refunded, "item_id"),
        ),
        pc.or_(_shares(events, refunded, "user_id"), _shares(events, refunded, "session_id")),
    )
    rows = pa.array(np.flatnonzero(pc.or_(is_refund, is_candidate).to_numpy()))
    names = ["event_type", "event_id", "user_id", "session_id", "item_id", "quantity", "timestamp"]
    touched = events.select(names).take(rows)
    touched = touched.set_column(6, "timestamp", touched["timestamp"].cast(pa.int64()))
    purchases: defaultdict[Any, list[_Purchase]] = defaultdict(list)
    refunds: defaultdict[Any, list[_Refund]] = defaultdict(list)
    for row, event in zip(rows.to_pylist(), touched.to_pylist(), strict=True):
        user_id = event["user_id"]
        pair = (user_id, None if user_id else event["session_id"], event["item_id"])
        at, event_id, quantity = event["timestamp"], event["event_id"], event["quantity"]
        if event["event_type"] == "refund":
            refunds[pair].append(_Refund(row, at, event_id, quantity))
        else:
            purchases[pair].append(_Purchase(row, at, event_id, quantity or 1))
    for pair, found in refunds.items():
        yield (
            sorted(purchases.get(pair, []), key=lambda p: (p.at, p.event_id)),
            sorted(found, key=lambda r: (r.at, r.event_id)),
        )


def _shares(events: pa.Table, refunded: pa.Table, name: str) -> pa.ChunkedArray:
    """Whether each event has a value of one of the refunds, null being none."""
    value_set = pc.unique(refunded[name]).drop_null()
    return pc.is_in(events[name], value_set=value_set)


def _net_pair(purchases: list[_Purchase], refunds: list[_Refund]) -> Counter[str]:
    """Take the refunds from the purchases' ``left``; counts refunds by outcome."""
    outcomes: Counter[str] = Counter()
    inexact = []
    for refund in refunds:
        for purchase in reversed(purchases):
            is_exact = refund.pieces in (None, purchase.left)
            if purchase.at <= refund.at and purchase.left and is_exact:
                purchase.left = 0
                outcomes["refund_matched"] += 1
                break
        else:
            inexact.append(refund)
    for refund in inexact:
        missing = wanted = refund.pieces or 1
        for purchase in reversed(purchases):
            if purchase.at <= refund.at:
                taken = min(missing, purchase.left)
                purchase.left -= taken
                missing -= taken
        if missing == wanted:
            outcomes["refund_unmatched"] += 1
        else:
            outcomes["refund_partly_matched" if missing else "refund_matched"] += 1
    return outcomes


def _reduce(events: pa.Table, reduced: Mapping[int, _Purchase]) -> pa.Table:
    """The events with the quantity and value of some purchases cut down."""
    share = np.ones(events.num_rows)
    quantity = pc.fill_null(events["quantity"], 0).to_numpy().copy()
    for row, purchase in reduced.items():
        share[row] = purchase.left / purchase.bought
        quantity[row] = purchase.left
    is_null = pc.is_null(events["quantity"]).to_numpy().copy()
    is_null[list(reduced)] = False
    columns = {
        "value": pc.multiply(events["value"], pa.array(share)),
        "quantity": pa.array(quantity, mask=is_null),
    }
    for name, column in columns.items():
        events = events.set_column(events.schema.get_field_index(name), events.field(name), column)
    return events
