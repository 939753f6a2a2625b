"""From one partition of events to one row of numbers per customer, as of an instant.

Decides how every number of a customer is counted; which of them make scores, segments or clusters
is decided by who reads them. A row computed today for a past instant is the row that a run at that
instant would have written from the same events.

Cost is linear in events, for each instant.

Shapes: U customers; P past events of an instant, W those in its window, B its purchases.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perso.dictionary import (
    ITEM_POPULARITY,
    USER_ACTIVITY,
    USER_AFFINITIES,
    USER_PROFILE,
    USER_RECENT_EVENTS,
)
from perso.schema import DAYPARTS
from perso.segments.attributes import demographics
from perso.segments.measure_spec import MeasureSpec
from perso.segments.partition import (
    CART,
    DWELL,
    PURCHASE,
    REFUND,
    US_PER_DAY,
    VIEW,
    Partition,
    Past,
    one_chunk,
    pieces,
)
from perso.segments.tallies import Tally

FREQUENCY_DAYS: Final = 182
"""Six months: the period that ``frequency`` counts orders in."""

_VIEWS: Final = (USER_ACTIVITY, USER_PROFILE, USER_AFFINITIES, USER_RECENT_EVENTS)
MEASURES_SCHEMA: Final = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("recency_days", pa.float32()),  # since the last purchase; null: never bought
        pa.field("frequency", pa.int64(), nullable=False),  # orders in FREQUENCY_DAYS
        pa.field("monetary", pa.float64(), nullable=False),  # spend up to the instant
    ]
    + [pa.field(f.name, f.type) for view in _VIEWS for f in view.features]
)
"""One row per customer, before anything that needs all customers at once."""

ITEM_COUNTS_SCHEMA: Final = pa.schema(
    [
        pa.field(name, ITEM_POPULARITY.schema.field(name).type)
        for name in ("item_id", *ITEM_POPULARITY.feature_names)
        if name != "item_rank"
    ]
)
"""One row per item that somebody of the partition touched."""

_RECENT_ITEMS: Final = 20
_DISCOUNT: Final = 0.995  # of the list price; the rest is rounding


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One partition as of one instant."""

    customers: pa.Table
    """MEASURES_SCHEMA, every customer with an event before the instant, sorted by user."""
    items: pa.Table
    """ITEM_COUNTS_SCHEMA, every item touched in the window: to be added up over partitions."""


def measure(events: Partition, as_of: datetime) -> Measured:
    """What a partition's events before ``as_of`` say of customers and of items.

    Raises:
        ValueError: If ``as_of`` has no time zone.
    """
    past = events.before(as_of)
    columns: dict[str, Any] = {"user_id": events.users.take(pa.array(past.users))}
    columns |= _purchases(past)
    columns |= _activity(events, past)
    columns |= _affinities(events, past)
    columns |= _recent_events(events, past)
    columns |= _profile(events, past)
    depth_U = columns.pop("_events_per_visit")
    columns |= _engagement(events.spec, depth_U, columns["mean_dwell_s"])
    arrays = [_to_arrow(columns[field.name]).cast(field.type) for field in MEASURES_SCHEMA]
    return Measured(customers=pa.table(arrays, schema=MEASURES_SCHEMA), items=_items(events, past))


def _purchases(past: Past) -> dict[str, Any]:
    """What was bought, less what was taken back by the instant."""
    num_users, bought = past.num_users, past.bought
    user_B, at_B, amount_B = past.user_B, past.at_B, past.amount_B
    last_at_U = np.full(num_users, np.iinfo(np.int64).min)
    np.maximum.at(last_at_U, user_B, at_B)
    is_buyer_U = np.bincount(user_B, minlength=num_users) > 0
    recency = np.where(is_buyer_U, (past.end_us - last_at_U) / US_PER_DAY, np.nan)

    in_window = at_B >= past.window_us
    orders_U = _count_orders(user_B[in_window], at_B[in_window], num_users)
    in_half_year = at_B >= past.end_us - FREQUENCY_DAYS * US_PER_DAY
    spend_U = np.bincount(user_B[in_window], amount_B[in_window], minlength=num_users)
    tells_both = pc.and_(bought["price"].is_valid(), bought["value"].is_valid())
    told = tells_both.to_numpy() & in_window
    full_price = pc.multiply(bought["price"], pieces(bought))
    is_reduced = pc.less(bought["value"], pc.multiply(full_price, _DISCOUNT))
    reduced_B = pc.fill_null(is_reduced, False).to_numpy().astype(np.float64)
    return {
        "recency_days": recency,
        "frequency": _count_orders(user_B[in_half_year], at_B[in_half_year], num_users),
        "monetary": np.bincount(user_B, amount_B, minlength=num_users),
        "num_orders": orders_U,
        "spend": spend_U,
        "average_order_value": _ratio(spend_U, orders_U),
        "discount_share": _ratio(
            np.bincount(user_B[told], reduced_B[told], minlength=num_users),
            np.bincount(user_B[told], minlength=num_users),
        ),
    }


def _items(events: Partition, past: Past) -> pa.Table:
    """ITEM_COUNTS_SCHEMA rows of the items touched in the window, sorted by item."""
    rows = past.row_W
    on_item = rows[events.item_N[rows] >= 0]
    item_W, kind_W = events.item_N[on_item], events.kind_N[on_item]
    num_items = len(events.item_ids)
    in_window = past.at_B >= past.window_us
    sold = past.bought.filter(pa.array(in_window))
    places = pc.index_in(sold["item_id"], value_set=events.item_ids)
    is_item = places.is_valid().to_numpy()
    item_B = pc.fill_null(places, 0).to_numpy().astype(np.int64)[is_item]
    user_B = past.user_B[in_window][is_item]
    pairs = np.unique(user_B * max(num_items, 1) + item_B)
    counts = {
        "item_views": np.bincount(item_W[kind_W == VIEW], minlength=num_items),
        "item_carts": np.bincount(item_W[kind_W == CART], minlength=num_items),
        "item_purchases": np.bincount(item_B, minlength=num_items),
        "item_buyers": np.bincount(pairs % max(num_items, 1), minlength=num_items),
        "item_revenue": np.bincount(item_B, past.amount_B[in_window][is_item], minlength=num_items),
    }
    counted = pa.table(
        [events.item_ids.cast(pa.string()), *counts.values()], schema=ITEM_COUNTS_SCHEMA
    )
    is_touched = np.bincount(item_W, minlength=num_items) + counts["item_purchases"] > 0
    return counted.filter(pa.array(is_touched)).sort_by("item_id")


def _activity(events: Partition, past: Past) -> dict[str, Any]:
    rows, user_W = past.row_W, past.user_W
    kind_W, num_users = events.kind_N[rows], past.num_users
    events_U = np.bincount(user_W, minlength=num_users)
    is_new_visit = np.diff(events.visit_N[rows], prepend=-1) != 0
    visits_U = np.bincount(user_W[is_new_visit], minlength=num_users)
    views_U = np.bincount(user_W[kind_W == VIEW], minlength=num_users)
    pieces_W = events.quantity_N[rows]
    bought_U, returned_U = (
        np.bincount(user_W[kind_W == kind], pieces_W[kind_W == kind], minlength=num_users)
        for kind in (PURCHASE, REFUND)
    )
    is_dwell = kind_W == DWELL
    dwell_U = np.bincount(user_W[is_dwell], events.value_N[rows[is_dwell]], minlength=num_users)
    daypart_W = events.at_N[rows] % US_PER_DAY // (US_PER_DAY // len(DAYPARTS))
    dayparts = Tally.of(user_W, daypart_W, np.ones(len(rows)), pa.array(DAYPARTS))
    devices = events.devices.spread(user_W, rows, np.ones(len(rows)))
    device_U = np.bincount(devices.users, devices.weights, minlength=num_users)
    on_phone = events.is_mobile_E[devices.labels] if len(devices.labels) else slice(0)
    phone_U = np.bincount(devices.users[on_phone], devices.weights[on_phone], minlength=num_users)
    return {
        "days_since_event": (past.end_us - events.at_N[past.last_U]) / US_PER_DAY,
        "tenure_days": (past.end_us - events.at_N[past.first_U]) / US_PER_DAY,
        "num_events": events_U,
        "num_sessions": visits_U,
        "num_views": views_U,
        "browsing_depth": _ratio(views_U, visits_U),
        "_events_per_visit": _ratio(events_U, visits_U),
        "cart_abandonment_rate": _cart_abandonment(events, past),
        "return_rate": np.minimum(_ratio(returned_U, bought_U), 1.0),
        "preferred_daypart": dayparts.most(num_users),
        **{
            f"{daypart}_share": _ratio(
                np.bincount(user_W[daypart_W == code], minlength=num_users), events_U
            )
            for code, daypart in enumerate(DAYPARTS)
        },
        "preferred_device": devices.most(num_users),
        "mobile_share": _ratio(phone_U, device_U),
        "mean_dwell_s": _ratio(dwell_U, np.bincount(user_W[is_dwell], minlength=num_users)),
    }


def _cart_abandonment(events: Partition, past: Past) -> NDArray[np.float64]:
    """Share of the pairs (user, item) put into a cart that were not bought."""
    width = max(len(events.item_ids), 1)
    pair_W = past.user_W * width + events.item_N[past.row_W]
    kind_W = events.kind_N[past.row_W]
    carted = np.unique(pair_W[kind_W == CART])
    is_left = ~np.isin(carted, pair_W[kind_W == PURCHASE])
    user_C = carted // width
    return _ratio(
        np.bincount(user_C[is_left], minlength=past.num_users),
        np.bincount(user_C, minlength=past.num_users),
    )


def _affinities(events: Partition, past: Past) -> dict[str, Any]:
    rows, user_W = past.row_W, past.user_W
    on_item = events.item_N[rows] >= 0
    rows, user_W = rows[on_item], user_W[on_item]
    # Per user and item first: a customer looks at one item many times.
    items = Tally.of(user_W, events.item_N[rows], events.interest_N[rows], events.item_ids)
    columns: dict[str, Any] = {}
    for kind, labels_of_item in events.labels_of_item.items():
        tally = labels_of_item.spread(items.users, items.labels, items.weights)
        best, shares = tally.best(past.num_users, events.spec.num_affinities)
        columns |= {f"top_{kind}": best, f"top_{kind}_weights": shares}
        if kind == "categories":
            columns["category_entropy"] = tally.entropy_bits(past.num_users)
    return columns


def _recent_events(events: Partition, past: Past) -> dict[str, Any]:
    """The last event, and the items touched last."""
    on_item = events.item_N[past.rows] >= 0
    rows, user_P = past.rows[on_item], past.user_P[on_item]
    pair_P = user_P * max(len(events.item_ids), 1) + events.item_N[rows]
    # Rows rise with time within a user, so the last of a pair is the newest.
    pairs, from_end = np.unique(pair_P[::-1], return_index=True)
    newest = rows[::-1][from_end]
    tally = Tally(
        users=pairs // max(len(events.item_ids), 1),
        labels=events.item_N[newest],
        weights=newest.astype(np.float64) + 1.0,
        names=events.item_ids,
    )
    recent, _ = tally.best(past.num_users, _RECENT_ITEMS)
    last = events.events.select(["timestamp", "event_type", "item_id"]).take(pa.array(past.last_U))
    return {
        "last_event_at": one_chunk(last["timestamp"]),
        "last_event_type": one_chunk(last["event_type"]),
        "last_item_id": one_chunk(last["item_id"]),
        "recent_item_ids": recent,
    }


def _profile(events: Partition, past: Past) -> dict[str, Any]:
    given = demographics(events.attributes.take(pa.array(past.users)), as_of=past.as_of)
    rows, user_W = past.row_W, past.user_W
    regions = events.regions.spread(user_W, rows, np.ones(len(rows)))
    return {**given, "location": pc.coalesce(given["location"], regions.most(past.num_users))}


def _engagement(
    spec: MeasureSpec, depth_U: NDArray[np.float64], dwell_U: NDArray[np.float64]
) -> dict[str, Any]:
    """Depth and dwell, each on a scale that saturates; their mean where both are known."""
    parts_2U = np.stack(
        [
            -np.expm1(-depth_U / spec.depth_scale),
            -np.expm1(-dwell_U / spec.dwell_scale_s),
        ]
    )
    known_2U = ~np.isnan(parts_2U)
    sums_U = np.where(known_2U, parts_2U, 0.0).sum(axis=0)
    engagement_U = sums_U / np.maximum(known_2U.sum(axis=0), 1)
    level_U = np.searchsorted(spec.engagement_cuts, engagement_U, side="right")
    return {
        "engagement": engagement_U,
        "engagement_level": pa.array(["low", "medium", "high"]).take(pa.array(level_U)),
    }


def _count_orders(
    users: NDArray[np.int64], at: NDArray[np.int64], num_users: int
) -> NDArray[np.int64]:
    """Orders of each user: lines within one minute of the clock are one basket."""
    minutes = at // 60_000_000
    if not len(minutes):
        return np.zeros(num_users, np.int64)
    first = minutes.min()
    width = minutes.max() - first + 1
    orders = np.unique(users * width + (minutes - first))
    return np.bincount(orders // width, minlength=num_users)


def _ratio(
    part: NDArray[np.int64] | NDArray[np.float64], whole: NDArray[np.int64] | NDArray[np.float64]
) -> NDArray[np.float64]:
    """``part / whole``, nan where there is no whole."""
    share: NDArray[np.float64] = np.divide(
        part, whole, out=np.full(len(whole), np.nan), where=whole > 0
    )
    return share


def _to_arrow(values: Any) -> pa.Array:
    """Numbers with nan as null; Arrow arrays as they are."""
    if isinstance(values, np.ndarray):
        return pa.array(values, from_pandas=values.dtype.kind == "f")
    return values
