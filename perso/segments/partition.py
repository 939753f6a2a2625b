"""One partition of events as arrays, cut off at any instant.

Decides what a visit is and that a purchase counts less what was sent back by the instant. A
partition holds all events of its customers, is encoded once, and can be looked at as of as many
instants as asked. An event at or after an instant never counts for it. Impressions never count:
they say what was shown, not what was done.

A task holds one partition, about 100 bytes an event; 100 million interactions in 256 partitions
are 40 MB a task.

Shapes: N events by user, then time; U users; P past events of an instant, W those in its window,
B its purchases; E devices.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perso.data.refunds import net_refunds
from perso.segments.attributes import no_attributes
from perso.segments.measure_spec import MeasureSpec
from perso.segments.tallies import Ragged

US_PER_DAY: Final = 86_400_000_000

EVENT_COLUMNS: Final = (
    "event_id",
    "event_type",
    "user_id",
    "session_id",
    "item_id",
    "timestamp",
    "value",
    "quantity",
    "device",
    "region",
    "price",
)
"""What of EVENT_SCHEMA is read."""

KINDS: Final = (
    "view_item",
    "add_to_cart",
    "purchase",
    "refund",
    "dwell",
)
VIEW, CART, PURCHASE, REFUND, DWELL = range(len(KINDS))


class Partition:
    """The events of some customers as arrays, ready to be measured as of any instant."""

    def __init__(
        self,
        events: pa.Table,
        *,
        catalog: pa.Table,
        spec: MeasureSpec,
        attributes: pa.Table | None = None,
    ) -> None:
        """Sort and encode; nothing is counted yet.

        Args:
            events: Rows with at least EVENT_COLUMNS, in any order; all events of a user together.
                Those without a user are nobody's and are left out.
            catalog: CATALOG_SCHEMA rows; items that are not in it have no category.
            spec: How customers are measured.
            attributes: ``perso.segments.attributes`` rows of the customers, in any order.
        """
        self.spec = spec
        is_somebodys = pc.field("user_id").is_valid() & (pc.field("event_type") != "impression")
        events = events.select(EVENT_COLUMNS).filter(is_somebodys)
        # The id breaks ties, so that equal input in any order gives equal rows.
        events = events.sort_by(
            [("user_id", "ascending"), ("timestamp", "ascending"), ("event_id", "ascending")]
        ).combine_chunks()
        self.events = events
        users = events["user_id"].dictionary_encode().combine_chunks()
        self.users: pa.StringArray = users.dictionary.cast(pa.string())
        """Ids of the customers, sorted, shape (U,)."""
        self.user_N = users.indices.to_numpy().astype(np.int64)
        self.at_N = events["timestamp"].cast(pa.int64()).to_numpy()
        kinds = pc.index_in(events["event_type"], pa.array(KINDS))
        self.kind_N = pc.fill_null(kinds, -1).to_numpy()
        types = events["event_type"].dictionary_encode().combine_chunks()
        weights = [spec.event_weights.get(name, 0.0) for name in types.dictionary.to_pylist()]
        self.interest_N = np.array(weights, np.float64)[types.indices.to_numpy()]
        items = events["item_id"].dictionary_encode().combine_chunks()
        self.item_ids = items.dictionary
        self.item_N = pc.fill_null(items.indices, -1).to_numpy().astype(np.int64)
        self.visit_N = self._number_visits()
        self.quantity_N = pc.fill_null(events["quantity"], 1).to_numpy().astype(np.float64)
        self.value_N = pc.fill_null(events["value"], float("nan")).to_numpy()
        self.devices = Ragged.of_values(events["device"].combine_chunks())
        self.regions = Ragged.of_values(events["region"].combine_chunks())
        mobile = {name.lower() for name in spec.mobile_devices}
        is_mobile = [name.lower() in mobile for name in self.devices.names.to_pylist()]
        self.is_mobile_E = np.array(is_mobile, np.bool_)
        row_of_item = pc.index_in(self.item_ids, catalog["item_id"].combine_chunks())
        cards = catalog.select(["categories", "brand", "tags"]).take(row_of_item).combine_chunks()
        self.labels_of_item = {
            "categories": Ragged.of_lists(one_chunk(cards["categories"])),
            "brands": Ragged.of_values(one_chunk(cards["brand"])),
            "lifestyle_tags": Ragged.of_lists(one_chunk(cards["tags"])),
        }
        self.attributes = self._in_order(attributes)

    def _in_order(self, attributes: pa.Table | None) -> pa.Table:
        if attributes is None:
            return no_attributes(self.users)
        rows = pc.index_in(self.users, attributes["user_id"].combine_chunks())
        return attributes.take(rows)

    def _number_visits(self) -> NDArray[np.int64]:
        """The visit of each event, rising along the rows; an event's depends on the past only."""
        if not len(self.at_N):
            return np.empty(0, np.int64)
        sessions = self.events["session_id"].dictionary_encode().combine_chunks()
        session_N = pc.fill_null(sessions.indices, -1).to_numpy()
        is_named = (session_N[1:] >= 0) & (session_N[:-1] >= 0)
        is_paused = np.diff(self.at_N) > self.spec.session_gap_minutes * 60_000_000
        is_other = np.where(is_named, session_N[1:] != session_N[:-1], is_paused)
        begins = np.concatenate([[True], (np.diff(self.user_N) != 0) | is_other])
        return np.cumsum(begins) - 1

    def before(self, as_of: datetime) -> "Past":
        """The part that happened before an instant.

        Raises:
            ValueError: If ``as_of`` has no time zone.
        """
        end_us = instant_us(as_of)
        rows = np.flatnonzero(self.at_N < end_us)
        users, first_P = np.unique(self.user_N[rows], return_index=True)
        code_of_user = np.full(len(self.users), -1, np.int64)
        code_of_user[users] = np.arange(len(users))
        user_P = code_of_user[self.user_N[rows]]
        bought = self._net(rows, user_P)
        window_us = end_us - self.spec.window_weeks * 7 * US_PER_DAY
        is_inside = self.at_N[rows] >= window_us
        return Past(
            as_of=as_of,
            end_us=end_us,
            window_us=window_us,
            users=users,
            rows=rows,
            user_P=user_P,
            first_U=rows[first_P],
            last_U=rows[np.append(first_P[1:], len(rows))[: len(users)] - 1],
            row_W=rows[is_inside],
            user_W=user_P[is_inside],
            bought=bought,
            user_B=bought["code"].to_numpy(),
            at_B=bought["timestamp"].cast(pa.int64()).to_numpy(),
            amount_B=_amounts(bought),
        )

    def _net(self, past: NDArray[np.int64], user_P: NDArray[np.int64]) -> pa.Table:
        """Past purchases, reduced by past refunds; ``code`` is the user's."""
        kind_P = self.kind_N[past]
        is_deal = (kind_P == PURCHASE) | (kind_P == REFUND)
        # The user travels along as a number: netting drops rows.
        deals = self.events.take(pa.array(past[is_deal]))
        netted, _ = net_refunds(deals.append_column("code", pa.array(user_P[is_deal])))
        return netted.filter(pc.equal(netted["event_type"], "purchase")).combine_chunks()


@dataclass(frozen=True, kw_only=True)
class Past:
    """The part of a partition before one instant; users are numbered 0 to U - 1 among its own."""

    as_of: datetime
    end_us: int
    """The instant, in microseconds."""
    window_us: int
    """Where the window begins."""
    users: NDArray[np.int64]
    """Place of each user in ``Partition.users``, rising, shape (U,)."""
    rows: NDArray[np.int64]
    """Rows of the partition, rising, shape (P,)."""
    user_P: NDArray[np.int64]
    first_U: NDArray[np.int64]
    """Row of each user's first event."""
    last_U: NDArray[np.int64]
    """Row of each user's last event."""
    row_W: NDArray[np.int64]
    """Rows inside the window, shape (W,)."""
    user_W: NDArray[np.int64]
    bought: pa.Table
    """Purchases less refunds, both before the instant, shape (B,)."""
    user_B: NDArray[np.int64]
    at_B: NDArray[np.int64]
    amount_B: NDArray[np.float64]
    """Revenue of each."""

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.users)


def instant_us(instant: datetime) -> int:
    """Microseconds since the epoch, exactly.

    Raises:
        ValueError: If the instant has no time zone.
    """
    if instant.tzinfo is None:
        raise ValueError(f"{instant} has no time zone; give an aware instant, e.g. in UTC")
    return (instant.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def pieces(purchases: pa.Table) -> pa.ChunkedArray:
    """Quantity of each purchase, one where it is not given."""
    return pc.fill_null(purchases["quantity"], 1).cast(pa.float64())


def _amounts(purchases: pa.Table) -> NDArray[np.float64]:
    """Revenue: the value, else the price of all pieces, else 0."""
    full_price = pc.multiply(purchases["price"], pieces(purchases))
    amounts: NDArray[np.float64] = pc.coalesce(purchases["value"], full_price, 0.0).to_numpy()
    return amounts


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array."""
    return column.combine_chunks()
