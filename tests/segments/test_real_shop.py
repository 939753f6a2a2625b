"""RFM of ten customers of a real shop, worked out by hand from their invoice lines.

The lines are read from UCI Online Retail where it lies beside the checkout; elsewhere the test is
skipped. By hand means: products only, exact repetitions once, cancellations taken off, the shop's
local time turned to UTC (in summer an hour more has passed than the clocks say), invoices of one
minute counted as one order since 10 June, and the score 100 - floor(99 * days / 182).
"""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from perso.data.online_retail import check_invoice_lines
from perso.schema import CATALOG_SCHEMA, EVENT_SCHEMA
from perso.segments.measure_spec import MeasureSpec
from perso.segments.measures import measure
from perso.segments.partition import Partition
from perso.segments.rfm import RfmScale, RfmSpec

LINES = Path(__file__).parents[3] / "shared" / "data" / "online_retail.parquet"
AS_OF = datetime(2011, 12, 9, 13, tzinfo=UTC)

# Days since the last purchase, its score, orders since 10 June, spend so far.
BY_HAND = {
    "12347": (1.881, 99, 3, 4310.00),
    "12349": (18.131, 91, 1, 1457.55),
    "12350": (309.874, 1, 0, 294.40),
    "12352": (35.933, 81, 3, 1265.41),  # 1385.74 less 120.33 sent back
    "12356": (22.181, 88, 1, 2487.43),
    "12358": (1.107, 100, 2, 928.06),
    "12360": (51.943, 72, 2, 2302.06),  # bought on 18 October, in summer time
    "12370": (50.965, 73, 1, 3421.94),
    "12377": (314.885, 1, 0, 1548.12),
    "12346": (None, 0, 0, 0.00),  # bought 74,215 pieces and sent all of them back
}
# The quarters of 4,324 buyers by orders end at 1, 1 and 3; their tiers of spend at 652.41 (a half),
# 1,998.38 (four fifths) and 5,656.56 (all but a twentieth).
QUARTILE_TIER_SEGMENT = {
    "12347": (3, 3, "champions"),
    "12349": (1, 2, "new"),
    "12350": (1, 1, "lost"),
    "12352": (3, 2, "loyal"),
    "12356": (1, 3, "new"),
    "12358": (3, 2, "loyal"),
    "12360": (3, 3, "loyal"),
    "12370": (1, 3, "promising"),
    "12377": (1, 2, "lost"),
    "12346": (0, 0, "browsers"),
}

pytestmark = pytest.mark.skipif(not LINES.exists(), reason=f"{LINES.name} is not at hand")


@pytest.fixture(scope="module")
def scored():
    checked = check_invoice_lines(pq.read_table(LINES))
    events = checked.filter(pc.is_null(checked["reject_reason"])).select(EVENT_SCHEMA.names)
    once = events.group_by("event_id", use_threads=False).aggregate(
        [(name, "first") for name in EVENT_SCHEMA.names if name != "event_id"]
    )
    once = once.rename_columns([name.removesuffix("_first") for name in once.column_names])
    partition = Partition(once, catalog=CATALOG_SCHEMA.empty_table(), spec=MeasureSpec())
    measures = measure(partition, AS_OF).customers
    spec = RfmSpec()
    columns = RfmScale.fit(measures, spec).score(measures, spec)
    names = [spec.cube.names[code] for code in columns.pop("segment_code")]
    table = pa.table({"user_id": measures["user_id"], **columns, "segment": names})
    return {row["user_id"]: row for row in table.to_pylist()}


@pytest.mark.parametrize("user_id", BY_HAND)
def test_rfm_is_what_a_person_works_out(scored, user_id):
    row = scored[user_id]
    days, score, orders, spend = BY_HAND[user_id]
    assert row["recency_days"] == (None if days is None else pytest.approx(days, abs=1e-3))
    assert (row["recency_score"], row["frequency"]) == (score, orders)
    assert row["monetary"] == pytest.approx(spend, abs=0.005)
    quartile_tier_segment = row["frequency_quartile"], row["monetary_tier"], row["segment"]
    assert quartile_tier_segment == QUARTILE_TIER_SEGMENT[user_id]
