from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.errors import ArtifactError
from perso.schema import EVENT_SCHEMA, USER_RFM_SCHEMA
from perso.segments.rfm import (
    SEGMENTS,
    SUMMARY_SCHEMA,
    RfmSpec,
    compute_rfm,
    score_rfm,
    segment_name,
    summarize_purchases,
)

AS_OF = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPEC = RfmSpec(frequency_window_days=30)


def events_table(rows):
    """EVENT_SCHEMA rows from (user_id, days before AS_OF, more columns)."""
    full = [
        {
            "event_id": str(i),
            "event_type": "purchase",
            "user_id": user_id,
            "item_id": "x",
            "timestamp": AS_OF - timedelta(days=days_ago),
            **more,
        }
        for i, (user_id, days_ago, more) in enumerate(rows)
    ]
    return pa.Table.from_pylist(full, schema=EVENT_SCHEMA)


def summary_of(rows, spec=SPEC):
    table = summarize_purchases(events_table(rows), as_of=AS_OF, spec=spec)
    return {row["user_id"]: row for row in table.to_pylist()}


def rfm(events, as_of=AS_OF):
    summary = summarize_purchases(events, as_of=as_of, spec=SPEC)
    return score_rfm(summary, as_of=as_of, created=as_of)


# ---------------------------------------------------------------------------------- the cube


def test_every_cell_of_the_cube_has_exactly_one_known_name():
    cube = {
        (r, f, m): segment_name(r, f, m)
        for r in range(1, 6)
        for f in range(1, 6)
        for m in range(1, 6)
    }
    assert len(cube) == 125
    assert {*cube.values(), segment_name(0, 0, 0)} == set(SEGMENTS)
    assert len(SEGMENTS) == 12


@pytest.mark.parametrize("scores", [(0, 1, 1), (6, 1, 1), (5, 0, 5), (1, 1, -1)])
def test_scores_outside_the_cube_are_refused(scores):
    with pytest.raises(ValueError, match="no cell"):
        segment_name(*scores)


@pytest.mark.parametrize(
    ("scores", "name"),
    [
        ((5, 5, 5), "champions"),
        ((5, 5, 3), "loyal"),
        ((5, 1, 5), "new"),
        ((4, 1, 1), "promising"),
        ((3, 3, 3), "need_attention"),
        ((3, 1, 5), "about_to_sleep"),
        ((2, 3, 3), "at_risk"),
        ((1, 1, 5), "cant_lose_them"),
        ((2, 1, 1), "hibernating"),
        ((1, 1, 1), "lost"),
    ],
)
def test_the_well_known_segments_are_where_marketing_expects_them(scores, name):
    assert segment_name(*scores) == name


# ---------------------------------------------------------------------------------- summaries


def test_lines_of_one_minute_are_one_order():
    minute = 1 / 24 / 60
    found = summary_of(
        [
            ("ann", 5, {"value": 10.0}),
            ("ann", 5 - minute / 2, {"value": 1.0}),
            ("ann", 5 - 2 * minute, {"value": 2.0}),
        ]
    )["ann"]
    assert (found["frequency"], found["monetary"]) == (2, 13.0)


def test_orders_outside_the_window_add_to_spend_and_recency_but_not_to_frequency():
    found = summary_of([("ann", 31, {"value": 7.0}), ("bob", 30, {"value": 7.0})])
    assert found["ann"]["frequency"] == 0
    assert found["ann"]["monetary"] == 7.0
    assert found["ann"]["last_purchase_at"] == AS_OF - timedelta(days=31)
    assert found["bob"]["frequency"] == 1


def test_spend_is_the_value_else_price_times_quantity_else_nothing():
    found = summary_of(
        [
            ("value", 1, {"value": 3.0, "price": 9.0, "quantity": 9}),
            ("product", 1, {"price": 2.5, "quantity": 4}),
            ("single", 1, {"price": 2.5}),
            ("unknown", 1, {}),
        ]
    )
    assert {user: row["monetary"] for user, row in found.items()} == {
        "value": 3.0,
        "product": 10.0,
        "single": 2.5,
        "unknown": 0.0,
    }


def test_who_only_looked_is_a_browser_and_sessions_are_nobody():
    table = rfm(
        events_table(
            [
                ("ann", 2, {"event_type": "view_item"}),
                (None, 2, {"session_id": "s"}),
                ("bob", 1, {"value": 1.0}),
            ]
        )
    )
    ann, bob = table.to_pylist()
    assert ann["user_id"] == "ann"
    assert ann["segment"] == "browsers"
    assert ann["recency_days"] is None
    assert {ann[f"{name}_score"] for name in ("recency", "frequency", "monetary")} == {0}
    assert bob["recency_days"] == 1.0


def test_an_event_at_the_instant_itself_is_not_counted():
    assert summary_of([("ann", 0, {})]) == {}


def test_a_naive_instant_is_refused():
    with pytest.raises(ValueError, match="no time zone"):
        summarize_purchases(events_table([]), as_of=datetime(2026, 1, 1), spec=SPEC)


def test_no_events_give_an_empty_table_with_the_right_schema():
    table = compute_rfm([], as_of=AS_OF, created=AS_OF, spec=SPEC)
    assert table.schema == USER_RFM_SCHEMA
    assert len(table) == 0
    assert rfm(events_table([])).schema == USER_RFM_SCHEMA


# ---------------------------------------------------------------------------------- scores


def test_ten_distinct_customers_fall_into_five_even_quintiles():
    table = rfm(events_table([(f"u{i}", i + 1, {"value": 100.0 - i}) for i in range(10)]))
    assert table["recency_score"].to_pylist() == [5, 5, 4, 4, 3, 3, 2, 2, 1, 1]
    assert table["monetary_score"].to_pylist() == [5, 5, 4, 4, 3, 3, 2, 2, 1, 1]
    assert set(table["frequency_score"].to_pylist()) == {1}  # all ordered once: a tie


def test_browsers_do_not_move_the_quintiles_of_buyers():
    buyers = [(f"u{i}", i + 1, {"value": 1.0 + i}) for i in range(5)]
    looks = [(f"v{i}", 1, {"event_type": "view_item"}) for i in range(50)]
    alone = rfm(events_table(buyers))
    among_browsers = rfm(events_table(buyers + looks))
    assert among_browsers.slice(0, 5).equals(alone)


def test_rows_known_before_their_instant_are_refused():
    summary = summarize_purchases(events_table([("ann", 1, {})]), as_of=AS_OF, spec=SPEC)
    with pytest.raises(ValueError, match="nobody knew"):
        score_rfm(summary, as_of=AS_OF, created=AS_OF - timedelta(seconds=1))


def test_a_user_spread_over_two_files_is_an_error_not_a_guess(tmp_path):
    for name in ("a", "b"):
        pq.write_table(events_table([("ann", 1, {})]), tmp_path / f"{name}.parquet")
    with pytest.raises(ArtifactError, match="several event files"):
        compute_rfm(sorted(tmp_path.glob("*")), as_of=AS_OF, created=AS_OF, spec=SPEC)


def test_a_window_below_one_day_is_refused():
    with pytest.raises(ValueError, match="frequency_window_days is 0"):
        RfmSpec(frequency_window_days=0)


# ---------------------------------------------------------------------------------- properties

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "cem", "dea", "eva", "fox", None]),
        st.floats(-40, 90, allow_nan=False),
        st.fixed_dictionaries(
            {
                "event_type": st.sampled_from(["purchase", "purchase", "view_item"]),
                "value": st.one_of(st.none(), st.floats(0, 1000)),
                "price": st.one_of(st.none(), st.floats(0, 100)),
                "quantity": st.one_of(st.none(), st.integers(1, 9)),
            }
        ),
    ),
    max_size=30,
)


def test_a_refund_counts_from_the_instant_it_happened():
    rows = [("u", 20, {"quantity": 1, "value": 9.0}), ("u", 10, {"event_type": "refund"})]
    events = events_table(rows)
    before = AS_OF - timedelta(days=15)
    (then,) = summarize_purchases(events, as_of=before, spec=SPEC).to_pylist()
    (now,) = summarize_purchases(events, as_of=AS_OF, spec=SPEC).to_pylist()
    assert (then["frequency"], then["monetary"]) == (1, 9.0)
    assert (now["frequency"], now["monetary"]) == (0, 0.0)


@given(EVENTS)
@settings(max_examples=60, deadline=None)
def test_future_events_change_nothing(rows):
    past = [row for row in rows if row[1] > 0]
    assert rfm(events_table(rows)).equals(rfm(events_table(past)))


@given(EVENTS, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_events_carries_no_meaning(rows, random):
    events = events_table(rows)
    order = list(range(len(events)))
    random.shuffle(order)
    assert rfm(events.take(pa.array(order, pa.int64()))).equals(rfm(events))


@given(EVENTS)
@settings(max_examples=60, deadline=None)
def test_summaries_equal_a_naive_count(rows):
    events = [row for row in events_table(rows).to_pylist() if row["user_id"]]
    expected = defaultdict(lambda: {"last": None, "minutes": set(), "spend": 0.0})
    for event in events:
        if event["timestamp"] >= AS_OF:
            continue
        user = expected[event["user_id"]]
        if event["event_type"] != "purchase":
            continue
        user["last"] = max(filter(None, (user["last"], event["timestamp"])))
        if event["timestamp"] >= AS_OF - timedelta(days=30):
            user["minutes"].add(event["timestamp"].replace(second=0, microsecond=0))
        if event["value"] is not None:
            user["spend"] += event["value"]
        elif event["price"] is not None:
            user["spend"] += event["price"] * (event["quantity"] or 1)
    found = summary_of(rows)
    assert list(found) == sorted(expected)
    for user_id, row in found.items():
        user = expected[user_id]
        assert row["last_purchase_at"] == user["last"]
        assert row["frequency"] == len(user["minutes"])
        assert row["monetary"] == pytest.approx(user["spend"])


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_scores_follow_values_and_equal_values_score_alike(measures):
    summary = pa.table(
        {
            "user_id": [f"{i:03d}" for i in range(len(measures))],
            "last_purchase_at": [AS_OF - timedelta(hours=1 + m[0]) for m in measures],
            "frequency": [m[1] for m in measures],
            "monetary": [float(m[0]) for m in measures],
        }
    ).cast(SUMMARY_SCHEMA)
    rows = score_rfm(summary, as_of=AS_OF, created=AS_OF).to_pylist()
    for value, score, sign in (
        ("recency_days", "recency_score", -1),
        ("frequency", "frequency_score", 1),
        ("monetary", "monetary_score", 1),
    ):
        pairs = sorted((sign * row[value], row[score]) for row in rows)
        scores_of = defaultdict(set)
        for key, found in pairs:
            scores_of[key].add(found)
        assert all(len(scores) == 1 for scores in scores_of.values())
        assert [found for _, found in pairs] == sorted(found for _, found in pairs)
        assert all(1 <= found <= 5 for _, found in pairs)
        # At most a fifth of the buyers lie above each threshold.
        for level in range(1, 5):
            above = sum(found > level for _, found in pairs)
            assert above <= len(pairs) * (5 - level) / 5
