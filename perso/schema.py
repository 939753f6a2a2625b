"""Column names and Arrow schemas of every table that crosses a folder's border.

A table is written and read with exactly these columns, in this order. What a row means and which
rows are legal is decided beside the code that makes them.
"""

from typing import Final, Literal

import pyarrow as pa

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")

Split = Literal["train", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "test")

EVENT_TYPES: Final = (
    "view_item",
    "add_to_cart",
    "remove_from_cart",
    "purchase",
    "refund",
    "rate_item",
    "dwell",
    "impression",
)
"""Event types with a meaning here (GA4's names); any other name is allowed as a custom type."""

EVENT_SCHEMA: Final = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("user_id", pa.string()),  # user_id or session_id is given
        pa.field("session_id", pa.string()),
        pa.field("item_id", pa.string()),
        pa.field("timestamp", TIMESTAMP, nullable=False),
        pa.field("value", pa.float64()),  # revenue of a purchase, stars of a rating, dwell seconds
        pa.field("quantity", pa.int64()),
        pa.field("currency", pa.string()),
        pa.field("request_id", pa.string()),  # the answer of ours that this event reacts to
        pa.field("device", pa.string()),  # context.device
        pa.field("region", pa.string()),  # context.region
        pa.field("campaign", pa.string()),  # context.campaign
        pa.field("consent", pa.bool_()),
        pa.field("price", pa.float64()),  # unit price, where the event carries its item's card
        pa.field("item_name", pa.string()),
        pa.field("item_category", pa.string()),
    ]
)

CHECKED_SCHEMA: Final = pa.schema(
    [pa.field(f.name, f.type) for f in EVENT_SCHEMA]
    + [
        pa.field("reject_reason", pa.string()),  # null: the row is a valid event
        pa.field("reject_row", pa.string()),  # the row as it came, as JSON; null for valid events
    ]
)
"""What a source reader yields: events and refused rows in one stream, so both are counted once."""

DAYPARTS: Final = ("night", "morning", "afternoon", "evening")
"""Six hours each, from midnight UTC."""

INTERACTION_SCHEMA: Final = pa.schema(
    [
        pa.field("user_index", pa.int32(), nullable=False),
        pa.field("item_index", pa.int32(), nullable=False),
        pa.field("weight", pa.float32(), nullable=False),  # decayed to the end of its split
        pa.field("rating", pa.float32()),  # the last explicit rating; null where none was given
        pa.field("num_events", pa.int32(), nullable=False),
        pa.field("first_at", TIMESTAMP, nullable=False),
        pa.field("last_at", TIMESTAMP, nullable=False),
        pa.field("device", pa.string()),  # of the last event, as are region and daypart
        pa.field("region", pa.string()),
        pa.field("daypart", pa.string(), nullable=False),
    ]
)

CONTEXT_COLUMNS: Final = ("device", "region", "daypart")

CATALOG_SCHEMA: Final = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("price", pa.float64()),
        pa.field("currency", pa.string()),
        pa.field("categories", pa.list_(pa.string())),
        pa.field("brand", pa.string()),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("in_stock", pa.bool_()),  # null: unknown, treated as in stock
    ]
)

RECOMMENDATION_SCHEMA: Final = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),  # 1 is the best
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),  # comparable within one user and source
        pa.field("source", pa.string(), nullable=False),  # the rung that put the item here
        pa.field("segment", pa.string()),  # of the user; null: unknown
        pa.field("model_version", pa.string(), nullable=False),
    ]
)
"""One row per place of a list, a user's rows one behind the other. A long table and not a list per
user: mail tools join each place with the catalogue, every SQL engine filters by rank, and repeated
names are runs in Parquet, which cost next to nothing."""
