"""Settled events to weighted interactions: the rules, over one user partition at a time.

Everything that must see a user's whole history (netting refunds, adding up pairs) happens inside
one partition (``perso.data.partition``). So the rules below are plain functions of one Arrow
table, and running them on Ray (``perso.distributed.interactions``) or in a loop gives the same
bytes. Cost is linear in events; peak memory is one partition, about 250 bytes an event: at 100
million events choose 64 partitions or more.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perso.data.refunds import net_refunds
from perso.data.split import SplitEnds, SplitSpec
from perso.data.synthetic import ShopSpec
from perso.data.vocabulary import Vocabulary
from perso.schema import (
    CONTEXT_COLUMNS,
    DAYPARTS,
    INTERACTION_SCHEMA,
    SPLITS,
    TIMESTAMP,
    Split,
)

EVENT_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"view_item": 1.0, "add_to_cart": 3.0, "purchase": 5.0}
)
VALUE_WEIGHTS: Mapping[str, float] = MappingProxyType({"rate_item": 1.0, "dwell": 0.02})

PREFERENCE_COLUMNS = ("user_id", "item_id", "event_type", "value", "consent")
"""What of EVENT_SCHEMA says whether and how much a user wants an item."""

_TINY = float(np.finfo(np.float32).tiny)
_US_PER_HOUR = 3_600_000_000
_US_PER_DAY = 24 * _US_PER_HOUR


@dataclass(frozen=True, kw_only=True)
class PrepareSpec:
    """What to read and how events become interactions."""

    source: Literal["synthetic", "events", "online-retail", "movielens"] = "synthetic"
    """Layout of the input; ``synthetic`` makes its own."""
    path: str | None = None
    """File, folder or URI of the input; none for ``synthetic``."""
    catalog: str | None = None
    """File of the catalogue, where the source brings none or a poorer one."""
    shop: ShopSpec = field(default_factory=ShopSpec)
    """The shop that ``synthetic`` makes."""
    event_weights: dict[str, float] = field(default_factory=lambda: dict(EVENT_WEIGHTS))
    """Weight of one event by type; types in neither table carry no preference."""
    value_weights: dict[str, float] = field(default_factory=lambda: dict(VALUE_WEIGHTS))
    """Weight of one unit of an event's value by type: stars of a rating, seconds of a dwell."""
    half_life_days: float | None = 60.0
    """Time in which a weight halves; none for no decay."""
    min_user_items: int = 1
    """Users with fewer distinct items are left out of the interactions."""
    min_item_users: int = 1
    """Items with fewer distinct users are left out of the interactions. Both minimums look at the
    whole dataset: above 1, an item that becomes popular later keeps its early pairs."""
    split: SplitSpec = field(default_factory=SplitSpec)
    """How much of the time is held out."""
    num_partitions: int = 16
    """User partitions: the unit of parallel work and of memory."""

    def __post_init__(self) -> None:
        if self.source != "synthetic" and self.path is None:
            raise ValueError(f"source {self.source!r} needs a path; give --path")
        if self.source == "synthetic" and self.path is not None:
            raise ValueError(f"source 'synthetic' takes no path (got {self.path!r})")
        if self.half_life_days is not None and not self.half_life_days > 0:
            raise ValueError(f"half_life_days is {self.half_life_days}; give a positive number")
        for name in ("min_user_items", "min_item_users", "num_partitions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        both = sorted(self.event_weights.keys() & self.value_weights.keys())
        if both:
            raise ValueError(f"{both} stand in both event_weights and value_weights; keep one")
        for table in (self.event_weights, self.value_weights):
            for event_type, weight in table.items():
                if not weight >= 0:
                    raise ValueError(f"weight of {event_type!r} is {weight}; give 0 or more")


def preferences(events: pa.Table, spec: PrepareSpec) -> tuple[pa.Table, dict[str, int]]:
    """The events that carry a preference, with a float64 ``weight`` column, undecayed.

    Returns:
        The events, and how many fell out by reason (``no_user``: session only; ``no_consent``:
        the shopper refused personalization; ``no_weight``: their type has none, or their value
        is not positive).
    """
    encoded = pc.dictionary_encode(events["event_type"]).combine_chunks()
    types = encoded.dictionary.to_pylist()
    codes = encoded.indices.to_numpy()
    fixed = np.array([spec.event_weights.get(t, 0.0) for t in types] or [0.0])
    per_unit = np.array([spec.value_weights.get(t, 0.0) for t in types] or [0.0])
    value = pc.fill_null(events["value"], 0.0).to_numpy()
    weight = fixed[codes] + per_unit[codes] * value if len(codes) else np.zeros(0)
    has_user = pc.is_valid(events["user_id"]).to_numpy()
    may_use = pc.fill_null(events["consent"], True).to_numpy()
    has_weight = weight > 0
    counts = {
        "no_user": int((~has_user).sum()),
        "no_consent": int((has_user & ~may_use).sum()),
        "no_weight": int((has_user & may_use & ~has_weight).sum()),
    }
    weighted = events.append_column("weight", pa.array(weight))
    kept = weighted.filter(pa.array(has_user & may_use & has_weight))
    return kept, {reason: count for reason, count in counts.items() if count}


def count_item_users(events: pa.Table, spec: PrepareSpec) -> pa.Table:
    """Distinct users per item of one partition: columns item_id, num_users (int64), sorted."""
    liked, _ = preferences(events, spec)
    pairs = liked.group_by(["item_id", "user_id"]).aggregate([])
    return (
        pairs.group_by("item_id")
        .aggregate([("user_id", "count")])
        .rename_columns(["item_id", "num_users"])
        .sort_by("item_id")
    )


def keep_items(parts: list[pa.Table], spec: PrepareSpec) -> tuple[Vocabulary, int]:
    """The item vocabulary, sorted by id, and how many items the minimum left out.

    A user lives in one partition, so the partitions' counts of distinct users add up.
    """
    totals = (
        pa.concat_tables(parts)
        .group_by("item_id")
        .aggregate([("num_users", "sum")])
        .sort_by("item_id")
    )
    kept = totals.filter(pc.greater_equal(totals["num_users_sum"], spec.min_item_users))
    return Vocabulary(_one_array(kept["item_id"])), totals.num_rows - kept.num_rows


def keep_users(events: pa.Table, items: Vocabulary, spec: PrepareSpec) -> Vocabulary:
    """The partition's users with enough items, sorted by id.

    Args:
        events: At least PREFERENCE_COLUMNS of the partition.
        items: The item vocabulary; other items do not count.
        spec: The minimum and the weights.
    """
    liked, _ = preferences(events, spec)
    known = liked.filter(pc.is_in(liked["item_id"], value_set=items.ids))
    per_user = (
        known.group_by(["user_id", "item_id"])
        .aggregate([])
        .group_by("user_id")
        .aggregate([("item_id", "count")])
        .sort_by("user_id")
    )
    kept = per_user.filter(pc.greater_equal(per_user["item_id_count"], spec.min_user_items))
    return Vocabulary(_one_array(kept["user_id"]))


@dataclass(frozen=True, kw_only=True)
class PartitionInteractions:
    """The interactions of one user partition."""

    by_split: dict[Split, pa.Table]
    """INTERACTION_SCHEMA per split, sorted by user, then item."""
    counts: dict[str, int]
    """Events by reason that became part of no interaction."""


def aggregate_pairs(
    events: pa.Table,
    *,
    users: Vocabulary,
    first_user_index: int,
    items: Vocabulary,
    ends: SplitEnds,
    spec: PrepareSpec,
) -> PartitionInteractions:
    """One weighted interaction per (user, item) and split.

    An event of age ``a`` days before the end of its split counts ``weight · 0.5^(a / half-life)``.
    Sums run in event order in float64, so any two runs agree to the bit. A refund takes back
    purchases of its own and of earlier periods, but only in the periods that end after it: what
    happens later never changes an earlier period.

    Args:
        events: The settled events of the partition.
        users: The partition's kept users; they get consecutive rows.
        first_user_index: Row of the first of them.
        items: The item vocabulary.
        ends: Where the splits end.
        spec: Weights and half-life.
    """
    by_split: dict[Split, pa.Table] = {}
    counts: Counter[str] = Counter()
    start: datetime | None = None
    for split in SPLITS:
        end = ends.end_of(split)
        known, _ = net_refunds(events.filter(pc.field("timestamp") < pa.scalar(end, TIMESTAMP)))
        if start is not None:
            known = known.filter(pc.field("timestamp") >= pa.scalar(start, TIMESTAMP))
        start = end
        liked, dropped = preferences(known, spec)
        counts.update(dropped)
        rows = _index_rows(liked, users, first_user_index, items)
        if rows.num_rows < liked.num_rows:
            counts["below_minimum"] += liked.num_rows - rows.num_rows
        by_split[split] = _sum_pairs(_decay(rows, end, spec.half_life_days))
    used = sum(int(pc.sum(pairs["num_events"]).as_py() or 0) for pairs in by_split.values())
    taken_back = events.num_rows - used - counts.total()
    if taken_back:
        counts["refunds_and_refunded"] = taken_back
    return PartitionInteractions(by_split=by_split, counts=dict(counts))


def _index_rows(
    liked: pa.Table, users: Vocabulary, first_user_index: int, items: Vocabulary
) -> pa.Table:
    """The events of known users and items, with their rows in the vocabularies."""
    user = pc.index_in(liked["user_id"], value_set=users.ids)
    item = pc.index_in(liked["item_id"], value_set=items.ids)
    is_rating = pc.equal(liked["event_type"], "rate_item")
    columns = {
        "user_index": pc.add(pc.cast(user, pa.int32()), pa.scalar(first_user_index, pa.int32())),
        "item_index": pc.cast(item, pa.int32()),
        "weight": liked["weight"],
        "rating": pc.if_else(is_rating, liked["value"], None),
        "timestamp": liked["timestamp"],
        "device": liked["device"],
        "region": liked["region"],
    }
    return pa.table(columns).filter(pc.and_(pc.is_valid(user), pc.is_valid(item)))


def _decay(rows: pa.Table, end: datetime, half_life_days: float | None) -> pa.Table:
    """The rows with their weight as of ``end``, and the part of the day they happened in."""
    timestamp = rows["timestamp"].cast(pa.int64()).to_numpy()
    rows = rows.append_column("daypart", pa.array(_dayparts(timestamp), pa.string()))
    if half_life_days is None:
        return rows
    end_us = pa.scalar(end, TIMESTAMP).cast(pa.int64()).as_py()
    age_days = (end_us - timestamp) / _US_PER_DAY
    # What decayed below float32's range is still an interaction: weights stay positive.
    weight = np.maximum(rows["weight"].to_numpy() * 0.5 ** (age_days / half_life_days), _TINY)
    return rows.set_column(rows.schema.get_field_index("weight"), "weight", pa.array(weight))


def _sum_pairs(rows: pa.Table) -> pa.Table:
    pairs = rows.group_by(["user_index", "item_index"], use_threads=False).aggregate(
        [
            ("weight", "sum"),
            ("rating", "last"),
            ("timestamp", "count"),
            ("timestamp", "min"),
            ("timestamp", "max"),
            *((name, "last") for name in CONTEXT_COLUMNS),
        ]
    )
    columns = {
        "user_index": pairs["user_index"],
        "item_index": pairs["item_index"],
        "weight": pairs["weight_sum"],
        "rating": pairs["rating_last"],
        "num_events": pairs["timestamp_count"],
        "first_at": pairs["timestamp_min"],
        "last_at": pairs["timestamp_max"],
        **{name: pairs[f"{name}_last"] for name in CONTEXT_COLUMNS},
    }
    ordered = pa.table(columns).sort_by([("user_index", "ascending"), ("item_index", "ascending")])
    return ordered.cast(INTERACTION_SCHEMA)


def _dayparts(timestamp_us: NDArray[np.int64]) -> NDArray[np.str_]:
    quarter = (timestamp_us % _US_PER_DAY) // (6 * _US_PER_HOUR)
    return np.array(DAYPARTS)[quarter]


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined
