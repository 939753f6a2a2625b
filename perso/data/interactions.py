"""Valid events to weighted interactions: the rules, over one user partition at a time.

Users are dealt to partitions by a stable hash, and everything that must see a user's whole
history (folding duplicates, netting refunds, adding up pairs) happens inside one partition. So
the rules below are plain functions of one Arrow table, and running them on Ray
(``perso.distributed.interactions``) or in a loop gives the same bytes. Cost is linear in events;
peak memory is one partition: at 100 million events and 64 partitions, about 300 MB each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd
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
    EVENT_SCHEMA,
    INTERACTION_SCHEMA,
    SPLITS,
    Split,
)

EVENT_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"view_item": 1.0, "add_to_cart": 3.0, "purchase": 5.0}
)
VALUE_WEIGHTS: Mapping[str, float] = MappingProxyType({"rate_item": 1.0, "dwell": 0.02})

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
    """Items with fewer distinct users are left out of the interactions."""
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


@dataclass(frozen=True, kw_only=True)
class SettledPartition:
    """One partition's events after everything that needs a user's whole history."""

    events: pa.Table
    """EVENT_SCHEMA, each event once, refunds netted, sorted by user, time and event id."""
    rejects: pa.Table
    """Columns reason and row (JSON), sorted."""
    counts: dict[str, int]
    """Rows by what became of them: ``read``, ``kept`` and one entry per reason of a drop."""


def partition_of(checked: pa.Table, num_partitions: int) -> pa.Array:
    """The user partition of each row, int32, by a hash that is equal on every machine.

    Anonymous events go by their session and refused rows by their content.
    """
    key = pc.coalesce(
        checked["user_id"],
        checked["session_id"],
        checked["reject_row"],
        pa.scalar("", pa.string()),
    )
    encoded = pc.dictionary_encode(key)
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    hashes = pd.util.hash_array(encoded.dictionary.to_numpy(zero_copy_only=False))
    partitions = (hashes % np.uint64(num_partitions)).astype(np.int32)
    return pa.array(partitions[encoded.indices.to_numpy()])


def settle_partition(checked: pa.Table) -> SettledPartition:
    """Fold duplicates, net refunds and put one partition into its final order.

    Args:
        checked: All CHECKED_SCHEMA rows of the partition, in any order.
    """
    is_valid = pc.is_null(checked["reject_reason"])
    refused = checked.filter(pc.invert(is_valid))
    rejects = pa.table({"reason": refused["reject_reason"], "row": refused["reject_row"]}).sort_by(
        [("reason", "ascending"), ("row", "ascending")]
    )
    counts = {"read": checked.num_rows}
    counts |= {
        entry["values"]: entry["counts"] for entry in pc.value_counts(rejects["reason"]).to_pylist()
    }

    events = checked.filter(is_valid).select(EVENT_SCHEMA.names).cast(EVENT_SCHEMA)
    distinct = _sort_and_fold(events)
    if events.num_rows > distinct.num_rows:
        counts["duplicate_event_id"] = events.num_rows - distinct.num_rows
    kept, refund_counts = net_refunds(distinct)
    counts |= refund_counts
    counts["kept"] = kept.num_rows
    return SettledPartition(events=kept, rejects=rejects, counts=counts)


def _sort_and_fold(events: pa.Table) -> pa.Table:
    """Sorted by user, time and event id, with the earliest row of each event id.

    The remaining columns break ties, so equal input gives equal output in any row order.
    """
    if not events.num_rows:
        return events
    user = _ranks(pc.fill_null(events["user_id"], ""))
    timestamp = events["timestamp"].cast(pa.int64()).to_numpy()
    event_id = pc.dictionary_encode(events["event_id"]).combine_chunks()
    id_codes = event_id.indices.to_numpy()
    id_hashes = pd.util.hash_array(event_id.dictionary.to_numpy(zero_copy_only=False))[id_codes]
    has_duplicates = len(event_id.dictionary) < events.num_rows
    tie = _row_hashes(events) if has_duplicates else np.zeros(events.num_rows, np.uint64)
    order = np.lexsort((tie, id_hashes, timestamp, user))
    if has_duplicates:
        by_id = np.lexsort((tie, timestamp, id_codes))
        is_first = np.r_[True, np.diff(id_codes[by_id]) != 0]
        keep = np.zeros(events.num_rows, np.bool_)
        keep[by_id[is_first]] = True
        order = order[keep[order]]
    return events.take(pa.array(order))


def _row_hashes(events: pa.Table) -> NDArray[np.uint64]:
    """A stable hash of each whole row; only partitions with duplicates pay for it."""
    return np.asarray(pd.util.hash_pandas_object(events.to_pandas(), index=False), np.uint64)


def _ranks(values: pa.ChunkedArray) -> NDArray[np.int64]:
    """The place of each string among the sorted distinct ones."""
    encoded = pc.dictionary_encode(values).combine_chunks()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    ranks: NDArray[np.int64] = rank[encoded.indices.to_numpy()]
    return ranks


def count_by_hour(events: pa.Table) -> dict[int, int]:
    """Number of events per hour since the epoch (UTC)."""
    hours = events["timestamp"].cast(pa.int64()).to_numpy() // _US_PER_HOUR
    values, counts = np.unique(hours, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def preferences(events: pa.Table, spec: PrepareSpec) -> tuple[pa.Table, dict[str, int]]:
    """The events that carry a preference, with a float64 ``weight`` column, undecayed.

    Returns:
        The events, and how many fell out by reason (``no_user``: session only; ``no_weight``:
        their type has none, or their value is not positive).
    """
    encoded = pc.dictionary_encode(events["event_type"]).combine_chunks()
    types = encoded.dictionary.to_pylist()
    codes = encoded.indices.to_numpy()
    fixed = np.array([spec.event_weights.get(t, 0.0) for t in types] or [0.0])
    per_unit = np.array([spec.value_weights.get(t, 0.0) for t in types] or [0.0])
    value = pc.fill_null(events["value"], 0.0).to_numpy()
    weight = fixed[codes] + per_unit[codes] * value if len(codes) else np.zeros(0)
    has_user = pc.is_valid(events["user_id"]).to_numpy()
    has_weight = weight > 0
    counts = {
        "no_user": int((~has_user).sum()),
        "no_weight": int((has_user & ~has_weight).sum()),
    }
    weighted = events.append_column("weight", pa.array(weight))
    kept = weighted.filter(pa.array(has_user & has_weight))
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
        events: At least the columns user_id, item_id, event_type and value of the partition.
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
    Sums run in event order in float64, so any two runs agree to the bit.

    Args:
        events: The settled events of the partition.
        users: The partition's kept users; they get consecutive rows.
        first_user_index: Row of the first of them.
        items: The item vocabulary.
        ends: Where the splits end.
        spec: Weights and half-life.
    """
    liked, counts = preferences(events, spec)
    user = pc.index_in(liked["user_id"], value_set=users.ids)
    item = pc.index_in(liked["item_id"], value_set=items.ids)
    timestamp = liked["timestamp"].cast(pa.int64()).to_numpy()
    ends_us = np.array([int(ends.end_of(s).timestamp()) * 1_000_000 for s in SPLITS])
    split = np.searchsorted(ends_us, timestamp, side="right")
    age_days = (ends_us[np.minimum(split, len(SPLITS) - 1)] - timestamp) / _US_PER_DAY
    decay = 1.0 if spec.half_life_days is None else 0.5 ** (age_days / spec.half_life_days)
    is_rating = pc.equal(liked["event_type"], "rate_item")
    columns = {
        "user_index": pc.add(pc.cast(user, pa.int32()), pa.scalar(first_user_index, pa.int32())),
        "item_index": pc.cast(item, pa.int32()),
        "split": pa.array(split),
        "weight": pa.array(liked["weight"].to_numpy() * decay),
        "rating": pc.if_else(is_rating, liked["value"], None),
        "timestamp": liked["timestamp"],
        "device": liked["device"],
        "region": liked["region"],
        "daypart": pa.array(_dayparts(timestamp)),
    }
    known = pc.and_(pc.is_valid(user), pc.is_valid(item))
    table = pa.table(columns).filter(known)
    if table.num_rows < liked.num_rows:
        counts["below_minimum"] = liked.num_rows - table.num_rows
    return PartitionInteractions(
        by_split={
            name: _sum_pairs(table.filter(pc.equal(table["split"], code)))
            for code, name in enumerate(SPLITS)
        },
        counts=counts,
    )


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
