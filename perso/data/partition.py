"""One user partition of checked events: dealt, each event once, in its final order.

Users are dealt to partitions by a stable hash, so everything that must see a user's whole history
can happen inside one. Which refund takes back which purchase is not settled here: that depends on
the instant one looks from.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from perso.data.refunds import net_refunds
from perso.schema import EVENT_SCHEMA

_US_PER_HOUR = 3_600_000_000


@dataclass(frozen=True, kw_only=True)
class SettledPartition:
    """One partition's events after everything that needs a user's whole history."""

    events: pa.Table
    """EVENT_SCHEMA, each event once, sorted by user, time and event id. Refunds are among them:
    what they take back depends on the instant one looks from."""
    rejects: pa.Table
    """Columns reason and row (JSON), sorted."""
    counts: dict[str, int]
    """Rows by what became of them: ``read``, ``kept`` and one entry per reason of a drop."""
    refund_counts: dict[str, int]
    """What the refunds take back, seen from the end (``perso.data.refunds.REASONS``)."""


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
    """Fold duplicates and put one partition into its final order.

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
    kept = _sort_and_fold(events)
    if events.num_rows > kept.num_rows:
        counts["duplicate_event_id"] = events.num_rows - kept.num_rows
    counts["kept"] = kept.num_rows
    _, refund_counts = net_refunds(kept)
    return SettledPartition(
        events=kept, rejects=rejects, counts=counts, refund_counts=refund_counts
    )


def _sort_and_fold(events: pa.Table) -> pa.Table:
    """Sorted by user, time and event id, with the earliest row of a shopper's event id.

    The remaining columns break ties, so equal input gives equal output in any row order. An id is
    folded within its shopper (user, else session): senders repeat their own events, and a whole
    log need not be searched for each.
    """
    if not events.num_rows:
        return events
    user = _ranks(pc.fill_null(events["user_id"], ""))
    timestamp = events["timestamp"].cast(pa.int64()).to_numpy()
    event_id = pc.dictionary_encode(events["event_id"]).combine_chunks()
    id_codes = event_id.indices.to_numpy()
    id_hashes = pd.util.hash_array(event_id.dictionary.to_numpy(zero_copy_only=False))[id_codes]
    may_repeat = len(event_id.dictionary) < events.num_rows
    tie = _row_hashes(events) if may_repeat else np.zeros(events.num_rows, np.uint64)
    order = np.lexsort((tie, id_hashes, timestamp, user))
    if may_repeat:
        shopper = _ranks(pc.coalesce(events["user_id"], events["session_id"]))
        by_id = np.lexsort((tie, timestamp, id_codes, shopper))
        is_first = np.r_[True, (np.diff(id_codes[by_id]) != 0) | (np.diff(shopper[by_id]) != 0)]
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
