from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.data.interactions import (
    PrepareSpec,
    aggregate_pairs,
    count_item_users,
    keep_items,
    keep_users,
)
from perso.data.partition import partition_of, settle_partition
from perso.data.refunds import net_refunds
from perso.data.split import SplitEnds
from perso.data.vocabulary import Vocabulary
from perso.schema import CHECKED_SCHEMA

START = datetime(2026, 1, 1, tzinfo=UTC)
ENDS = SplitEnds(
    train=START + timedelta(days=60),
    validation=START + timedelta(days=80),
    test=START + timedelta(days=100),
)


def checked(*rows: dict) -> pa.Table:
    """Valid events; what a row leaves out is a view of item i by user u at the start."""
    defaults = {"event_type": "view_item", "user_id": "u", "item_id": "i", "timestamp": START}
    filled = [{"event_id": f"e{n}"} | defaults | row for n, row in enumerate(rows)]
    return pa.Table.from_pylist(filled, schema=CHECKED_SCHEMA)


def pairs_of(table: pa.Table, spec: PrepareSpec | None = None) -> dict[str, list[dict]]:
    spec = spec or PrepareSpec()
    events = settle_partition(table).events
    items, _ = keep_items([count_item_users(events, spec)], spec)
    users = keep_users(events, items, spec)
    done = aggregate_pairs(
        events, users=users, first_user_index=0, items=items, ends=ENDS, spec=spec
    )
    return {
        split: [
            {"user": users.id_of(row["user_index"]), "item": items.id_of(row["item_index"])} | row
            for row in pairs.to_pylist()
        ]
        for split, pairs in done.by_split.items()
    }


def test_an_event_counts_half_after_one_half_life():
    spec = PrepareSpec(half_life_days=10)
    table = checked(
        {"timestamp": ENDS.train - timedelta(days=10), "event_type": "purchase"},
        {"timestamp": ENDS.train - timedelta(days=20), "event_type": "add_to_cart"},
    )
    (pair,) = pairs_of(table, spec)["train"]
    assert pair["weight"] == pytest.approx(5 / 2 + 3 / 4, rel=1e-6)
    assert pair["num_events"] == 2


def test_each_split_decays_to_its_own_end():
    spec = PrepareSpec(half_life_days=10)
    found = pairs_of(
        checked(
            {"timestamp": ENDS.train - timedelta(days=10)},
            {"timestamp": ENDS.validation - timedelta(days=10)},
            {"timestamp": ENDS.test - timedelta(days=10)},
        ),
        spec,
    )
    assert {s: [p["weight"] for p in pairs] for s, pairs in found.items()} == {
        "train": [0.5],
        "validation": [0.5],
        "test": [0.5],
    }


def test_an_event_at_a_cut_belongs_to_the_later_period():
    found = pairs_of(checked({"timestamp": ENDS.train}))
    assert not found["train"]
    assert len(found["validation"]) == 1


def test_the_same_event_id_counts_once_and_is_counted_as_dropped():
    again = {"event_id": "same", "timestamp": START + timedelta(hours=1)}
    done = settle_partition(checked({"event_id": "same"}, again, again))
    assert done.events.num_rows == 1
    assert done.events["timestamp"][0].as_py() == START
    assert done.counts == {"read": 3, "duplicate_event_id": 2, "kept": 1}


def test_an_event_id_is_folded_within_its_shopper_whatever_the_partitions():
    table = checked(
        {"event_id": "e", "user_id": "u"},
        {"event_id": "e", "user_id": "v"},
        {"event_id": "e", "user_id": None, "session_id": "s"},
        {"event_id": "e", "user_id": None, "session_id": "s"},
    )
    for num_partitions in (1, 16):
        dealt = partition_of(table, num_partitions)
        settled = [
            settle_partition(table.filter(pc.equal(dealt, partition)))
            for partition in range(num_partitions)
        ]
        assert sum(done.events.num_rows for done in settled) == 3


def test_a_later_refund_changes_no_earlier_period():
    bought = {"event_type": "purchase", "timestamp": START, "quantity": 1}
    other = {"item_id": "j", "timestamp": ENDS.train}
    refund = {"event_type": "refund", "timestamp": ENDS.validation, "quantity": 1}
    without, with_refund = (pairs_of(checked(bought, other, *more)) for more in ([], [refund]))
    assert with_refund["train"] == without["train"] != []
    assert with_refund["validation"] == without["validation"]


def test_a_refund_takes_back_a_purchase_of_its_own_period():
    bought = {"event_type": "purchase", "timestamp": START, "quantity": 1}
    refund = {"event_type": "refund", "timestamp": START + timedelta(days=1), "quantity": 1}
    assert not pairs_of(checked(bought, refund))["train"]


def test_who_refused_personalization_makes_no_pair():
    assert not pairs_of(checked({"consent": False}))["train"]
    assert pairs_of(checked({"consent": True}, {"consent": None, "item_id": "j"}))["train"]


def test_a_weight_that_decayed_away_stays_positive():
    (pair,) = pairs_of(checked({}), PrepareSpec(half_life_days=0.1))["train"]
    assert pair["weight"] > 0


def test_ratings_and_dwell_weigh_by_their_value():
    spec = PrepareSpec(half_life_days=None, value_weights={"rate_item": 1.0, "dwell": 0.1})
    found = pairs_of(
        checked(
            {"event_type": "rate_item", "value": 2.0},
            {"event_type": "rate_item", "value": 4.0, "timestamp": START + timedelta(days=1)},
            {"event_type": "dwell", "value": 30.0, "timestamp": START + timedelta(days=2)},
        ),
        spec,
    )
    (pair,) = found["train"]
    assert pair["weight"] == pytest.approx(2 + 4 + 3)
    assert pair["rating"] == 4.0  # the last rating, not the last event


def test_the_last_known_context_is_kept():
    evening = START.replace(hour=20)
    (pair,) = pairs_of(
        checked(
            {"device": "phone", "region": "north"},
            {"device": "desktop", "timestamp": evening},
        )
    )["train"]
    assert (pair["device"], pair["region"], pair["daypart"]) == ("desktop", "north", "evening")


def test_impressions_anonymous_events_and_cart_removals_make_no_pair():
    assert not pairs_of(
        checked(
            {"event_type": "impression"},
            {"event_type": "remove_from_cart"},
            {"user_id": None, "session_id": "s"},
            {"event_type": "my_own_type"},
        )
    )["train"]


def test_minimum_counts_leave_out_rare_items_and_users():
    spec = PrepareSpec(min_item_users=2, min_user_items=2)
    table = checked(
        {"user_id": "a", "item_id": "x"},
        {"user_id": "a", "item_id": "y"},
        {"user_id": "b", "item_id": "x"},
        {"user_id": "b", "item_id": "y"},
        {"user_id": "c", "item_id": "x"},
        {"user_id": "c", "item_id": "rare"},
    )
    assert {(p["user"], p["item"]) for p in pairs_of(table, spec)["train"]} == {
        ("a", "x"),
        ("a", "y"),
        ("b", "x"),
        ("b", "y"),
    }


def test_refused_rows_are_kept_with_their_reason():
    table = pa.concat_tables(
        [
            checked({}),
            pa.Table.from_pylist(
                [{"reject_reason": "bad_timestamp", "reject_row": '{"timestamp": "soon"}'}],
                schema=CHECKED_SCHEMA,
            ),
        ]
    )
    done = settle_partition(table)
    assert done.rejects.to_pylist() == [{"reason": "bad_timestamp", "row": '{"timestamp": "soon"}'}]
    assert done.counts == {"read": 2, "bad_timestamp": 1, "kept": 1}


EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "event_id": st.integers(0, 25).map(str),
            "event_type": st.sampled_from(["view_item", "add_to_cart", "purchase", "refund"]),
            "user_id": st.sampled_from(["u", "v", "w"]),
            "item_id": st.sampled_from(["i", "j"]),
            "timestamp": st.integers(0, 99 * 24).map(lambda h: START + timedelta(hours=h)),
            "quantity": st.integers(1, 3),
            "device": st.sampled_from(["phone", None]),
        }
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.randoms())
def test_row_order_means_nothing(rows, rng):
    shuffled = list(rows)
    rng.shuffle(shuffled)
    one, other = (settle_partition(checked(*r)) for r in (rows, shuffled))
    assert one.counts == other.counts
    assert one.events.equals(other.events)


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_pairs_equal_ten_naive_lines(rows):
    spec = PrepareSpec(half_life_days=7)
    events = settle_partition(checked(*rows)).events
    naive: dict = {}
    start = START
    for split in ("train", "validation", "test"):
        end = ENDS.end_of(split)
        known, _ = net_refunds(events.filter(pc.field("timestamp") < pa.scalar(end)))
        for event in known.to_pylist():
            weight = spec.event_weights.get(event["event_type"], 0)
            days = (end - event["timestamp"]).total_seconds() / 86400
            if weight and event["timestamp"] >= start:
                key = (split, event["user_id"], event["item_id"])
                naive[key] = naive.get(key, 0) + weight * 0.5 ** (days / 7)
        start = end
    found = {
        (split, pair["user"], pair["item"]): pair["weight"]
        for split, pairs in pairs_of(checked(*rows), spec).items()
        for pair in pairs
    }
    assert found.keys() == naive.keys()
    assert all(found[key] == pytest.approx(naive[key], rel=1e-6) for key in naive)


def test_a_user_stays_in_one_partition_whatever_else_is_read():
    users = [f"user-{n}" for n in range(500)]
    table = checked(*({"user_id": user} for user in users))
    together = partition_of(table, 16).to_pylist()
    alone = [partition_of(table.slice(n, 1), 16)[0].as_py() for n in range(0, 500, 50)]
    assert together[::50] == alone
    assert len(set(together)) == 16


def test_an_empty_partition_settles_to_an_empty_one():
    done = settle_partition(CHECKED_SCHEMA.empty_table())
    assert done.events.num_rows == 0
    assert done.counts == {"read": 0, "kept": 0}


def test_users_are_numbered_by_id_inside_a_partition():
    events = settle_partition(checked({"user_id": "b"}, {"user_id": "a"})).events
    users = keep_users(events, Vocabulary(pa.array(["i"])), PrepareSpec())
    assert users.ids.to_pylist() == ["a", "b"]
    done = aggregate_pairs(
        events,
        users=users,
        first_user_index=40,
        items=Vocabulary(pa.array(["i"])),
        ends=ENDS,
        spec=PrepareSpec(),
    )
    assert done.by_split["train"]["user_index"].to_pylist() == [40, 41]
    assert done.by_split["train"]["weight"].to_numpy().dtype == np.float32
