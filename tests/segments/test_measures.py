import math
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perso.schema import DAYPARTS
from perso.segments.attributes import read_attributes
from perso.segments.measure_spec import MeasureSpec
from perso.segments.measures import ITEM_COUNTS_SCHEMA, MEASURES_SCHEMA, measure
from perso.segments.partition import Partition

SPEC = MeasureSpec(window_weeks=4)
MINUTE = 1 / 24 / 60


@pytest.fixture
def measured(events_of, catalog, as_of):
    """Measures by user of (user_id, days ago, more) rows."""

    def run(rows, *, at=as_of, spec=SPEC, attributes=None):
        partition = Partition(events_of(rows), catalog=catalog, spec=spec, attributes=attributes)
        return {row["user_id"]: row for row in measure(partition, at).customers.to_pylist()}

    return run


@pytest.fixture
def items_of(events_of, catalog, as_of):
    def run(rows):
        partition = Partition(events_of(rows), catalog=catalog, spec=SPEC)
        return {row["item_id"]: row for row in measure(partition, as_of).items.to_pylist()}

    return run


# ---------------------------------------------------------------------------------- purchases


def test_lines_of_one_minute_are_one_order(measured):
    ann = measured(
        [
            ("ann", 5, {"value": 10.0}),
            ("ann", 5 - MINUTE / 2, {"value": 1.0}),
            ("ann", 5 - 2 * MINUTE, {"value": 2.0}),
        ]
    )["ann"]
    assert (ann["num_orders"], ann["spend"], ann["average_order_value"]) == (2, 13.0, 6.5)
    assert (ann["frequency"], ann["monetary"]) == (2, 13.0)


def test_window_half_year_and_lifetime_count_their_own_orders(measured):
    ann = measured(
        [("ann", d, {"value": v}) for d, v in [(1, 1.0), (29, 2.0), (181, 4.0), (183, 8.0)]]
    )["ann"]
    assert (ann["num_orders"], ann["spend"]) == (1, 1.0)
    assert ann["frequency"] == 3
    assert ann["monetary"] == 15.0
    assert ann["recency_days"] == 1.0


def test_spend_is_the_value_else_price_times_quantity_else_nothing(measured):
    found = measured(
        [
            ("value", 1, {"value": 3.0, "price": 9.0, "quantity": 9}),
            ("product", 1, {"price": 2.5, "quantity": 4}),
            ("single", 1, {"price": 2.5}),
            ("unknown", 1, {}),
        ]
    )
    assert {user: row["spend"] for user, row in found.items()} == {
        "value": 3.0,
        "product": 10.0,
        "single": 2.5,
        "unknown": 0.0,
    }


def test_a_refund_counts_from_the_instant_it_happened(measured, as_of):
    rows = [("ann", 20, {"quantity": 2, "value": 9.0}), ("ann", 10, {"event_type": "refund"})]
    then = measured(rows, at=as_of - timedelta(days=15))["ann"]
    now = measured(rows)["ann"]
    assert (then["num_orders"], then["spend"], then["return_rate"]) == (1, 9.0, 0.0)
    assert (now["num_orders"], now["spend"], now["return_rate"]) == (0, 0.0, 0.5)
    assert now["recency_days"] is None  # nothing is left that was bought


def test_return_rate_is_of_pieces_and_never_above_one(measured):
    rows = [("ann", 9, {"quantity": 4}), ("ann", 8, {"event_type": "refund", "quantity": 1})]
    rows += [("bob", 9, {"quantity": 1}), ("bob", 8, {"event_type": "refund", "quantity": 5})]
    found = measured(rows)
    assert found["ann"]["return_rate"] == 0.25
    assert found["bob"]["return_rate"] == 1.0


def test_a_discount_is_a_revenue_below_the_list_price(measured):
    found = measured(
        [
            ("ann", 1, {"value": 8.0, "price": 5.0, "quantity": 2}),
            ("ann", 2, {"value": 10.0, "price": 5.0, "quantity": 2}),
            ("ann", 3, {"value": 1.0}),  # tells no list price
            ("bob", 1, {"value": 1.0}),
        ]
    )
    assert found["ann"]["discount_share"] == 0.5
    assert found["bob"]["discount_share"] is None


# ---------------------------------------------------------------------------------- visits


def test_a_visit_is_a_session_id_or_a_half_hour_without_pause(measured):
    view = {"event_type": "view_item"}
    found = measured(
        [
            ("paused", 2, view),
            ("paused", 2 - 20 * MINUTE, view),
            ("paused", 2 - 70 * MINUTE, view),
            ("named", 2, view | {"session_id": "s"}),
            ("named", 2 - 200 * MINUTE, view | {"session_id": "s"}),
            ("named", 2 - 201 * MINUTE, view | {"session_id": "t"}),
        ]
    )
    assert found["paused"]["num_sessions"] == 2
    assert found["paused"]["browsing_depth"] == 1.5
    assert found["named"]["num_sessions"] == 2


def test_engagement_grows_with_depth_and_dwell_and_is_their_mean(measured):
    shallow = [("shallow", 2, {"event_type": "view_item"})]
    deep = [("deep", 2 - i * MINUTE, {"event_type": "view_item"}) for i in range(12)]
    reader = [("reader", 2, {"event_type": "dwell", "value": 600.0})]
    found = measured(shallow + deep + reader)
    assert found["shallow"]["engagement"] == pytest.approx(1 - math.exp(-1 / 5))
    assert found["deep"]["engagement"] == pytest.approx(1 - math.exp(-12 / 5))
    both = (1 - math.exp(-1 / 5) + 1 - math.exp(-10)) / 2
    assert found["reader"]["engagement"] == pytest.approx(both)
    levels = {user: row["engagement_level"] for user, row in found.items()}
    assert levels == {"shallow": "low", "deep": "high", "reader": "medium"}


def test_carts_left_behind_are_those_never_bought(measured):
    cart = {"event_type": "add_to_cart"}
    found = measured(
        [
            ("ann", 3, cart | {"item_id": "mug"}),
            ("ann", 3, cart | {"item_id": "mug"}),
            ("ann", 3, cart | {"item_id": "lamp"}),
            ("ann", 2, {"item_id": "mug"}),
            ("bob", 2, {"item_id": "mug"}),
        ]
    )
    assert found["ann"]["cart_abandonment_rate"] == 0.5
    assert found["bob"]["cart_abandonment_rate"] is None


def test_habits_are_dayparts_and_devices(measured):
    # AS_OF is noon: half a day before is midnight.
    rows = [("ann", d, {"device": "Mobile"}) for d in (1.5, 2.5)]  # night
    rows += [("ann", 2.2, {"device": "desktop"}), ("ann", 2.0, {})]  # morning, noon
    ann = measured(rows)["ann"]
    assert ann["preferred_daypart"] == "night"
    assert [ann[f"{d}_share"] for d in DAYPARTS] == [0.5, 0.25, 0.25, 0.0]
    assert ann["preferred_device"] == "Mobile"
    assert ann["mobile_share"] == pytest.approx(2 / 3)


# ---------------------------------------------------------------------------------- tastes


def test_affinities_weigh_what_was_done_and_share_an_items_weight(measured):
    rows = [
        ("ann", 3, {"event_type": "view_item", "item_id": "mug"}),  # 1: mugs .5, gifts .5
        ("ann", 2, {"item_id": "lamp"}),  # 5: lamps
        ("ann", 1, {"item_id": "x"}),  # no category
        ("bob", 1, {"item_id": "x"}),
    ]
    found = measured(rows)
    ann = found["ann"]
    assert ann["top_categories"] == ["lamps", "gifts", "mugs"]
    assert ann["top_categories_weights"] == pytest.approx([5 / 6, 0.5 / 6, 0.5 / 6])
    assert ann["top_brands"] == ["Elm", "Alder"]
    assert ann["top_lifestyle_tags"] == ["modern", "oak"]
    shares = [5 / 6, 0.5 / 6, 0.5 / 6]
    assert ann["category_entropy"] == pytest.approx(-sum(s * math.log2(s) for s in shares))
    assert found["bob"]["top_categories"] == []
    assert found["bob"]["category_entropy"] is None


def test_recent_items_are_distinct_newest_first(measured):
    rows = [("ann", 9 - i, {"item_id": f"i{i % 3}", "event_type": "view_item"}) for i in range(5)]
    ann = measured(rows)["ann"]
    assert ann["recent_item_ids"] == ["i1", "i0", "i2"]
    assert (ann["last_item_id"], ann["last_event_type"]) == ("i1", "view_item")
    many = [("bob", 40 - i, {"item_id": f"i{i:02d}"}) for i in range(30)]
    assert measured(many)["bob"]["recent_item_ids"] == [f"i{i}" for i in range(29, 9, -1)]


def test_impressions_and_anonymous_events_count_for_nobody(measured, items_of):
    rows = [
        ("ann", 1, {"event_type": "impression"}),
        (None, 1, {"session_id": "s"}),
        ("bob", 1, {"event_type": "view_item"}),
    ]
    assert list(measured(rows)) == ["bob"]
    assert items_of(rows)["x"]["item_views"] == 1


# ---------------------------------------------------------------------------------- attributes


def test_the_customer_file_says_who_somebody_is(measured, tmp_path, as_of):
    path = tmp_path / "customers.csv"
    path.write_text(
        "user_id,birth_year,gender,location\nann,1990,female,north\nbob,1700,,\nzoe,1980,,\n"
    )
    rows = [("ann", 1, {"region": "south"}), ("bob", 1, {"region": "south"}), ("cem", 1, {})]
    attributes = read_attributes(str(path), pa.array(["cem", "ann", "bob"]))
    found = measured(rows, attributes=attributes)
    profile = {u: (r["age_band"], r["gender"], r["location"]) for u, r in found.items()}
    assert profile == {
        "ann": ("30-39", "female", "north"),
        "bob": (None, None, "south"),
        "cem": (None, None, None),
    }


# ---------------------------------------------------------------------------------- items


def test_items_are_counted_with_their_buyers_and_revenue(items_of):
    rows = [
        ("ann", 3, {"item_id": "mug", "event_type": "view_item"}),
        ("ann", 3, {"item_id": "mug", "value": 4.0}),
        ("ann", 2, {"item_id": "mug", "value": 4.0}),
        ("bob", 2, {"item_id": "mug", "value": 5.0}),
        ("bob", 1, {"item_id": "mug", "event_type": "refund"}),
        ("bob", 40, {"item_id": "lamp", "value": 5.0}),  # before the window
    ]
    assert items_of(rows) == {
        "mug": {
            "item_id": "mug",
            "item_views": 1,
            "item_carts": 0,
            "item_purchases": 2,
            "item_buyers": 1,
            "item_revenue": 8.0,
        }
    }


# ---------------------------------------------------------------------------------- properties


def test_no_events_give_empty_tables_with_the_right_schema(events_of, catalog, as_of):
    found = measure(Partition(events_of([]), catalog=catalog, spec=SPEC), as_of)
    assert found.customers.schema == MEASURES_SCHEMA
    assert found.items.schema == ITEM_COUNTS_SCHEMA
    assert len(found.customers) == len(found.items) == 0


def test_a_naive_instant_is_refused(events_of, catalog):
    with pytest.raises(ValueError, match="no time zone"):
        measure(Partition(events_of([]), catalog=catalog, spec=SPEC), datetime(2026, 1, 1))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"window_weeks": 0}, "window_weeks is 0"),
        ({"event_weights": {"view_item": -1.0}}, "event_weights has"),
        ({"engagement_cuts": (0.7, 0.3)}, "engagement_cuts is"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(bad, says):
    with pytest.raises(ValueError, match=says):
        MeasureSpec(**bad)


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "cem", "dea", None]),
        st.floats(-20, 230, allow_nan=False),
        st.fixed_dictionaries(
            {
                "event_type": st.sampled_from(
                    ["purchase", "view_item", "add_to_cart", "refund", "impression"]
                ),
                "item_id": st.sampled_from(["mug", "lamp", "x", "new"]),
                "session_id": st.sampled_from([None, "s", "t"]),
                "device": st.sampled_from([None, "mobile", "desktop"]),
                "value": st.one_of(st.none(), st.integers(0, 400).map(lambda n: n / 4)),
                "price": st.one_of(st.none(), st.integers(0, 80).map(lambda n: n / 4)),
                "quantity": st.one_of(st.none(), st.integers(1, 4)),
            }
        ),
    ),
    max_size=25,
)
IN_FIXTURES = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@given(ROWS)
@IN_FIXTURES
def test_future_events_change_nothing(events_of, catalog, as_of, rows):
    past = [row for row in rows if row[1] > 0]
    whole, known = (
        measure(Partition(events_of(r), catalog=catalog, spec=SPEC), as_of) for r in (rows, past)
    )
    assert whole.customers.equals(known.customers)
    assert whole.items.equals(known.items)


@given(ROWS, st.randoms(use_true_random=False))
@IN_FIXTURES
def test_the_order_of_events_carries_no_meaning(events_of, catalog, as_of, rows, random):
    events = events_of(rows)
    order = list(range(len(events)))
    random.shuffle(order)
    shuffled = events.take(pa.array(order, pa.int64()))
    found, again = (
        measure(Partition(e, catalog=catalog, spec=SPEC), as_of) for e in (events, shuffled)
    )
    assert found.customers.equals(again.customers)


@given(ROWS)
@IN_FIXTURES
def test_numbers_equal_a_naive_count(measured, as_of, rows):
    rows = [row for row in rows if row[2]["event_type"] != "refund"]
    mine = defaultdict(list)
    for user_id, days_ago, more in rows:
        at = as_of - timedelta(days=days_ago)
        if user_id and at < as_of and more["event_type"] != "impression":
            mine[user_id].append((at, more))
    found = measured(rows)
    assert list(found) == sorted(mine)
    for user_id, events in mine.items():
        row = found[user_id]
        inside = [(at, e) for at, e in events if at >= as_of - timedelta(weeks=4)]
        bought = [(at, e) for at, e in inside if e["event_type"] == "purchase"]
        ever = [at for at, e in events if e["event_type"] == "purchase"]
        assert row["num_events"] == len(inside)
        assert row["num_views"] == sum(e["event_type"] == "view_item" for _, e in inside)
        assert row["num_orders"] == len({at.replace(second=0, microsecond=0) for at, _ in bought})
        spend = sum(
            e["value"] if e["value"] is not None else (e["price"] or 0.0) * (e["quantity"] or 1)
            for _, e in bought
        )
        assert row["spend"] == pytest.approx(spend)
        recency = (as_of - max(ever)).total_seconds() / 86_400 if ever else None
        assert row["recency_days"] == pytest.approx(recency)
        dayparts = Counter(DAYPARTS[at.astimezone(UTC).hour // 6] for at, _ in inside)
        for daypart in DAYPARTS:
            share = dayparts[daypart] / len(inside) if inside else None
            assert row[f"{daypart}_share"] == pytest.approx(share)
        devices = Counter(e["device"] for _, e in inside if e["device"])
        best = min(devices, key=lambda d: (-devices[d], d)) if devices else None
        assert row["preferred_device"] == best
        assert row["last_event_at"] == max(at for at, _ in events)
