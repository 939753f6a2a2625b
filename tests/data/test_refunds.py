from collections import Counter
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.data.refunds import PURCHASE_REDUCED, REASONS, net_refunds
from perso.schema import EVENT_SCHEMA

START = datetime(2024, 1, 1, tzinfo=UTC)


def event(day: float, event_type: str, quantity: int | None, **fields) -> dict:
    row = dict.fromkeys(EVENT_SCHEMA.names) | {
        "event_id": f"{event_type}-{day}-{quantity}",
        "event_type": event_type,
        "user_id": "u1",
        "item_id": "i1",
        "timestamp": START + timedelta(days=day),
        "quantity": quantity,
        "value": None if quantity is None else 2.0 * quantity,
    }
    return row | fields


def buy(day: float, quantity: int | None, **fields) -> dict:
    return event(day, "purchase", quantity, **fields)


def refund(day: float, quantity: int | None, **fields) -> dict:
    return event(day, "refund", quantity, **fields)


def net(*rows: dict) -> tuple[list[tuple], dict[str, int]]:
    kept, counts = net_refunds(pa.Table.from_pylist(list(rows), schema=EVENT_SCHEMA))
    assert kept.schema.equals(EVENT_SCHEMA)
    named = [
        ((row["timestamp"] - START).days, row["event_type"], row["quantity"], row["value"])
        for row in kept.to_pylist()
    ]
    return named, counts


def test_events_without_refunds_come_back_untouched():
    events = pa.Table.from_pylist([buy(1, 2), buy(2, 1)], schema=EVENT_SCHEMA)
    assert net_refunds(events) == (events, {})
    assert net_refunds(EVENT_SCHEMA.empty_table()) == (EVENT_SCHEMA.empty_table(), {})


def test_a_refund_takes_back_the_latest_earlier_purchase_of_the_same_quantity():
    kept, counts = net(buy(1, 3), buy(2, 3), buy(3, 5), refund(4, 3), buy(5, 3))
    assert [row[0] for row in kept] == [1, 3, 5]
    assert counts == {"refund_matched": 1, "refunded_purchase": 1}


def test_a_partial_refund_reduces_quantity_and_value_of_the_latest_purchase():
    kept, counts = net(buy(1, 10), buy(2, 8), refund(3, 2))
    assert kept == [(1, "purchase", 10, 20.0), (2, "purchase", 6, 12.0)]
    assert counts == {"refund_matched": 1, PURCHASE_REDUCED: 1}


def test_exact_matches_are_made_before_partial_ones():
    kept, _ = net(buy(1, 4), buy(2, 6), refund(3, 5), refund(4, 6))
    assert kept == []  # 6 takes back 6; 5 takes all four that are left
    kept, counts = net(buy(1, 7), buy(2, 6), refund(3, 5), refund(4, 6))
    assert kept == [(1, "purchase", 2, 4.0)]
    assert counts == {"refund_matched": 2, "refunded_purchase": 1, PURCHASE_REDUCED: 1}


def test_a_refund_of_more_than_was_bought_is_partly_matched():
    kept, counts = net(buy(1, 2), refund(2, 5))
    assert kept == []
    assert counts == {"refund_partly_matched": 1, "refunded_purchase": 1}


def test_a_refund_before_its_purchase_or_of_another_pair_matches_nothing():
    kept, counts = net(
        refund(0, 1),
        buy(1, 1),
        refund(2, 1, user_id="u2"),
        refund(2, 1, item_id="i2", event_id="x"),
        refund(2, 1, user_id=None, session_id="u1", event_id="y"),
    )
    assert kept == [(1, "purchase", 1, 2.0)]
    assert counts == {"refund_unmatched": 4}


def test_anonymous_shoppers_are_matched_by_session():
    anonymous = {"user_id": None, "session_id": "s1"}
    kept, counts = net(buy(1, 1, **anonymous), refund(2, 1, **anonymous))
    assert kept == []
    assert counts == {"refund_matched": 1, "refunded_purchase": 1}


def test_a_user_is_matched_across_sessions():
    assert net(buy(1, 1, session_id="s1"), refund(2, 1, session_id="s2"))[0] == []


def test_without_quantities_a_refund_takes_back_a_whole_purchase():
    assert net(buy(1, 5), buy(2, None), refund(3, None))[0] == [(1, "purchase", 5, 10.0)]
    assert net(buy(1, 5), refund(3, None))[0] == []


LINES = st.lists(
    st.tuples(
        st.integers(0, 6),
        st.sampled_from(["purchase", "refund", "view_item"]),
        st.one_of(st.none(), st.integers(1, 4)),
        st.sampled_from(["u1", "u2"]),
        st.sampled_from(["i1", "i2"]),
    ),
    max_size=14,
)


@settings(max_examples=150, deadline=None)
@given(LINES, st.randoms(use_true_random=False))
def test_any_refunds_keep_the_books_straight_in_any_row_order(lines, random):
    rows = [
        event(day, kind, n, event_id=str(i), user_id=user, item_id=item)
        for i, (day, kind, n, user, item) in enumerate(lines)
    ]
    events = pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)
    kept, counts = net_refunds(events)
    after = {row["event_id"]: row for row in kept.to_pylist()}

    assert events.num_rows - kept.num_rows == sum(counts.get(reason, 0) for reason in REASONS)
    before = Counter(row["event_type"] for row in rows)
    assert before["refund"] == sum(n for name, n in counts.items() if name.startswith("refund_"))
    pieces = dict.fromkeys(((u, i) for *_, u, i in lines), 0)
    for row in rows:
        pair = row["user_id"], row["item_id"]
        if row["event_type"] == "purchase":
            left = after.get(row["event_id"], {"quantity": 0})["quantity"]
            taken = (row["quantity"] or 1) - (1 if left is None else left)
            assert taken >= 0
            pieces[pair] += taken
        elif row["event_type"] == "refund":
            pieces[pair] -= row["quantity"] if row["quantity"] else 4
        else:
            assert after[row["event_id"]] == row
    assert all(n <= 0 for n in pieces.values())  # never more taken back than was refunded
    for row in after.values():
        assert row["event_type"] != "refund"
        assert (
            row["quantity"] is None
            or row["value"] is None
            or (abs(row["value"] - 2.0 * row["quantity"]) < 1e-9)
        )

    random.shuffle(rows)
    again, counts_again = net_refunds(pa.Table.from_pylist(rows, schema=EVENT_SCHEMA))
    assert counts_again == counts
    assert {row["event_id"]: row for row in again.to_pylist()} == after
