"""Recency, frequency and monetary value of every customer, and the segment they add up to.

This file decides what counts as an order, how scores are cut and which name each cell of the
score cube has. It reads events only and knows neither where rows go nor what time it is: an event
at or after ``as_of`` is never counted, so a row computed today for a past instant is the row that
a run at that instant would have written from the same events.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from perso.data.refunds import net_refunds
from perso.errors import ArtifactError
from perso.schema import TIMESTAMP, USER_RFM_SCHEMA

BROWSERS: Final = "browsers"
"""The segment of who has never bought: no scores, but the widest audience of a shop."""

_STILL_COMING: Final = {  # recency score -> names by frequency score 1..5
    5: ("new", "potential_loyalists", "potential_loyalists", "champions", "champions"),
    4: ("promising", "potential_loyalists", "potential_loyalists", "loyal", "champions"),
    3: ("about_to_sleep", "about_to_sleep", "need_attention", "loyal", "loyal"),
}
_GONE_QUIET: Final = {  # recency score -> names by monetary score 1..5
    2: ("hibernating", "hibernating", "at_risk", "at_risk", "cant_lose_them"),
    1: ("lost", "lost", "at_risk", "at_risk", "cant_lose_them"),
}

SEGMENTS: Final = tuple(
    sorted({*sum(_STILL_COMING.values(), ()), *sum(_GONE_QUIET.values(), ()), BROWSERS})
)
"""Every segment name there is."""

EVENT_COLUMNS: Final = (
    "event_id",
    "event_type",
    "user_id",
    "session_id",
    "item_id",
    "timestamp",
    "value",
    "quantity",
    "price",
)
"""What of EVENT_SCHEMA is read."""

SUMMARY_SCHEMA: Final = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("last_purchase_at", TIMESTAMP),  # null: never bought
        pa.field("frequency", pa.int64(), nullable=False),
        pa.field("monetary", pa.float64(), nullable=False),
    ]
)
"""One row per user, before scores: what a partition of events is reduced to."""


@dataclass(frozen=True, kw_only=True)
class RfmSpec:
    """How customers are measured."""

    frequency_window_days: int = 182
    """Orders are counted over this many days before the as-of instant; half a year sees a
    seasonal shopper once and forgets who stopped."""

    def __post_init__(self) -> None:
        if self.frequency_window_days < 1:
            raise ValueError(
                f"frequency_window_days is {self.frequency_window_days}; give 1 day or more"
            )


def segment_name(recency_score: int, frequency_score: int, monetary_score: int) -> str:
    """The one segment of a cell of the score cube.

    Who still comes (recency 3 to 5) is named by how often they order; who has gone quiet
    (recency 1, 2) by what they spent, because orders inside a window say nothing about someone
    who left before it began. Champions also spend: below monetary 4 they are loyal.

    Args:
        recency_score: 1 (longest ago) to 5, or 0 with the other two: never bought.
        frequency_score: 1 (fewest orders) to 5.
        monetary_score: 1 (least spent) to 5.

    Raises:
        ValueError: If the scores are no cell: each 1 to 5, or all three 0.

    Example:
        >>> segment_name(5, 5, 5), segment_name(1, 1, 5), segment_name(0, 0, 0)
        ('champions', 'cant_lose_them', 'browsers')
    """
    scores = (recency_score, frequency_score, monetary_score)
    if scores == (0, 0, 0):
        return BROWSERS
    if not all(1 <= score <= 5 for score in scores):
        raise ValueError(f"scores {scores} are no cell: give 1 to 5 each, or 0 for all three")
    if recency_score in _GONE_QUIET:
        return _GONE_QUIET[recency_score][monetary_score - 1]
    name = _STILL_COMING[recency_score][frequency_score - 1]
    return "loyal" if name == "champions" and monetary_score < 4 else name


def summarize_purchases(events: pa.Table, *, as_of: datetime, spec: RfmSpec) -> pa.Table:
    """Last purchase, orders and spend of every user with an event before ``as_of``.

    Purchases within one minute of the clock are one order: a basket is logged line by line. Spend
    is ``value``, else ``price`` × ``quantity`` (1 where unknown), else 0. Events without a
    ``user_id`` are nobody's and are left out. A purchase counts less what refunds before
    ``as_of`` took back.

    Args:
        events: Rows with at least EVENT_COLUMNS, in any order; all events of a user together.
        as_of: Aware instant; events at or after it are not counted.
        spec: The measuring window.

    Returns:
        SUMMARY_SCHEMA rows sorted by ``user_id``.

    Raises:
        ValueError: If ``as_of`` has no time zone.
    """
    instant = _utc_scalar(as_of)
    past = events.select(EVENT_COLUMNS).filter(
        (pc.field("timestamp") < instant) & pc.field("user_id").is_valid()
    )
    users = pa.table({"user_id": pc.unique(past["user_id"]).cast(pa.string())})
    netted, _ = net_refunds(past)
    bought = netted.filter(pc.field("event_type") == "purchase")
    lines = pa.table(
        {
            "user_id": bought["user_id"],
            "timestamp": bought["timestamp"],
            "amount": _spend(bought),
        }
        # A float sum depends on its order; sorted, it does not depend on the order of rows.
    ).sort_by([("user_id", "ascending"), ("timestamp", "ascending"), ("amount", "ascending")])
    spent = lines.group_by("user_id", use_threads=False).aggregate(
        [("timestamp", "max"), ("amount", "sum")]
    )
    window_start = _utc_scalar(as_of - timedelta(days=spec.frequency_window_days))
    recent = lines.filter(pc.field("timestamp") >= window_start)
    orders = (
        pa.table(
            {
                "user_id": recent["user_id"],
                "minute": pc.floor_temporal(recent["timestamp"], unit="minute"),
            }
        )
        .group_by("user_id", use_threads=False)
        .aggregate([("minute", "count_distinct")])
    )
    joined = users.join(spent, "user_id").join(orders, "user_id").sort_by("user_id")
    return pa.table(
        {
            "user_id": joined["user_id"],
            "last_purchase_at": joined["timestamp_max"],
            "frequency": pc.fill_null(joined["minute_count_distinct"], 0),
            "monetary": pc.fill_null(joined["amount_sum"], 0.0),
        }
    ).cast(SUMMARY_SCHEMA)


def score_rfm(summary: pa.Table, *, as_of: datetime, created: datetime) -> pa.Table:
    """Scores and segment of every user, as feature rows.

    Scores are quintiles over all users who ever bought, from exact thresholds: equal values have
    equal scores, and a shop where most ordered once gives them all frequency score 1. Needs every
    user at once, about 150 bytes each.

    Args:
        summary: SUMMARY_SCHEMA rows of all users, in any order.
        as_of: The instant that the summary was cut at; becomes ``event_timestamp``.
        created: From when the rows count as known, never before ``as_of``.

    Returns:
        USER_RFM_SCHEMA rows sorted by ``user_id``.

    Raises:
        ValueError: If an instant has no time zone or ``created`` is before ``as_of``.
        ArtifactError: If a user has two rows: their events were spread over two files.
    """
    if created < as_of:
        raise ValueError(
            f"created {created} is before as_of {as_of}: nobody knew these rows then; "
            "give the as-of instant (a replay) or a later one"
        )
    summary = summary.sort_by("user_id")
    if pc.count_distinct(summary["user_id"]).as_py() != len(summary):
        raise ArtifactError(
            "a user's events are spread over several event files; prepare the data again"
        )
    instant = _utc_scalar(as_of)
    age = pc.subtract(instant, summary["last_purchase_at"]).cast(pa.int64())  # microseconds
    is_buyer = age.is_valid().to_numpy()
    age_us = pc.fill_null(age, 0).to_numpy()
    recency_scores = _quintile_scores(-age_us, among=is_buyer)
    frequency_scores = _quintile_scores(summary["frequency"].to_numpy(), among=is_buyer)
    monetary_scores = _quintile_scores(summary["monetary"].to_numpy(), among=is_buyer)
    return pa.table(
        {
            "user_id": summary["user_id"],
            "event_timestamp": pa.repeat(instant, len(summary)),
            "created": pa.repeat(_utc_scalar(created), len(summary)),
            "recency_days": pa.array(age_us / 86_400e6, pa.float32(), mask=~is_buyer),
            "frequency": summary["frequency"],
            "monetary": summary["monetary"],
            "recency_score": recency_scores,
            "frequency_score": frequency_scores,
            "monetary_score": monetary_scores,
            "segment": _segment_names(recency_scores, frequency_scores, monetary_scores),
        },
    ).cast(USER_RFM_SCHEMA)


def summarize_file(path: Path, *, as_of: datetime, spec: RfmSpec) -> pa.Table:
    """:func:`summarize_purchases` of one event file, reading only the columns it needs."""
    events = pq.read_table(path, columns=list(EVENT_COLUMNS), partitioning=None)
    return summarize_purchases(events, as_of=as_of, spec=spec)


def compute_rfm(
    event_files: Iterable[Path], *, as_of: datetime, created: datetime, spec: RfmSpec
) -> pa.Table:
    """Feature rows of every user in the files, one file in memory at a time.

    Raises:
        ValueError: If an instant has no time zone or ``created`` is before ``as_of``.
        ArtifactError: If a user's events are spread over two files.
    """
    summaries = [summarize_file(path, as_of=as_of, spec=spec) for path in event_files]
    return score_rfm(concat_summaries(summaries), as_of=as_of, created=created)


def concat_summaries(summaries: Iterable[pa.Table]) -> pa.Table:
    """The summaries of all partitions as one table; empty where there are none."""
    return pa.concat_tables([SUMMARY_SCHEMA.empty_table(), *summaries])


def _spend(purchases: pa.Table) -> pa.ChunkedArray:
    quantity = pc.fill_null(purchases["quantity"], 1).cast(pa.float64())
    return pc.coalesce(purchases["value"], pc.multiply(purchases["price"], quantity), 0.0)


def _quintile_scores(
    values: NDArray[np.float64] | NDArray[np.int64], *, among: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """1 + the number of quintile thresholds below each value; 0 outside ``among``."""
    scores = np.zeros(len(values), np.int64)
    if among.any():
        ordered = np.sort(values[among])
        # The smallest value that j fifths do not exceed, in integers: nothing is interpolated.
        thresholds = ordered[(np.arange(1, 5) * len(ordered) + 4) // 5 - 1]
        scores[among] = 1 + np.searchsorted(thresholds, values[among], side="left")
    return scores


def _segment_names(
    recency: NDArray[np.int64], frequency: NDArray[np.int64], monetary: NDArray[np.int64]
) -> pa.Array:
    """The segment of each row, looked up once per cell that occurs."""
    cells, cell_of_row = np.unique(
        np.stack([recency, frequency, monetary], axis=1), axis=0, return_inverse=True
    )
    names = pa.array([segment_name(*map(int, cell)) for cell in cells], pa.string())
    return names.take(pa.array(cell_of_row.reshape(-1)))


def _utc_scalar(instant: datetime) -> pa.Scalar:
    if instant.tzinfo is None:
        raise ValueError(f"{instant} has no time zone; give an aware instant, e.g. in UTC")
    return pa.scalar(instant.astimezone(UTC), TIMESTAMP)
