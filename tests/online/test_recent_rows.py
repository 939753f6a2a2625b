"""What a customer did last, folded event by event."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from perso.dictionary import USER_RECENT_EVENTS
from perso.online.recent_rows import MAX_ITEMS, fold_recent
from perso.stream.event import Event

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def event(minute, item_id="i1", *, user_id="ann", event_type="view_item", consent=None):
    return Event(
        event_id=f"{user_id}-{minute}-{item_id}-{event_type}",
        event_type=event_type,
        user_id=user_id,
        session_id="s",
        item_id=item_id,
        timestamp=NOON + timedelta(minutes=minute),
        consent=consent,
    )


def folded(events, known=None):
    return {row["user_id"]: row for row in fold_recent(events, known or {}).to_pylist()}


def test_the_newest_event_and_the_items_before_it_are_remembered():
    found = folded([event(2, "b"), event(1, "a"), event(3, "a", event_type="purchase")])["ann"]
    assert found["last_event_at"] == found["event_timestamp"] == NOON + timedelta(minutes=3)
    assert (found["last_event_type"], found["last_item_id"]) == ("purchase", "a")
    assert found["recent_item_ids"] == ["a", "b"]


def test_a_known_row_goes_on():
    known = folded([event(1, "a"), event(2, "b")])
    found = folded([event(5, "c"), event(4, "a")], known)["ann"]
    assert found["recent_item_ids"] == ["c", "a", "b"]


def test_what_comes_late_is_remembered_behind_what_is_known():
    known = folded([event(9, "z", event_type="purchase"), event(8, "y")])
    found = folded([event(3, "a"), event(4, "b"), event(2, "y")], known)["ann"]
    assert found["recent_item_ids"] == ["z", "y", "b", "a"]
    assert (found["last_event_at"], found["last_event_type"], found["last_item_id"]) == (
        NOON + timedelta(minutes=9),
        "purchase",
        "z",
    )


def test_a_row_that_stays_as_it_is_is_not_written_again():
    known = folded([event(9, "z"), event(3, "a")])
    assert folded([event(3, "a"), event(9, "z")], known) == {}
    full = folded([event(minute, f"i{minute}") for minute in range(1, MAX_ITEMS + 1)])
    assert folded([event(0, "older than all of them")], full) == {}


def test_what_was_shown_who_is_not_known_and_who_said_no_do_not_count():
    events = [
        event(1, event_type="impression"),
        event(2, user_id=None),
        event(3, user_id="bob", consent=False),
        event(4, user_id="cem", consent=True),
    ]
    assert list(folded(events)) == ["cem"]


def test_nothing_gives_an_empty_table_with_the_right_schema():
    assert fold_recent([], {}).schema == USER_RECENT_EVENTS.schema


EVENTS = st.lists(
    st.builds(
        event,
        st.integers(0, 60),
        st.sampled_from([f"i{n}" for n in range(30)]),
        user_id=st.sampled_from(["ann", "bob", None]),
        event_type=st.sampled_from(["view_item", "purchase", "impression"]),
    ),
    max_size=60,
)


@given(EVENTS, st.randoms(use_true_random=False))
def test_order_and_repetition_of_events_carry_no_meaning(events, random):
    shuffled = [*events, *events[: len(events) // 2]]
    random.shuffle(shuffled)
    assert folded(shuffled) == folded(events)


@given(EVENTS)
def test_rows_hold_what_a_naive_look_finds(events):
    mine = [e for e in events if e.user_id and e.event_type != "impression"]
    found = folded(events)
    assert set(found) == {e.user_id for e in mine}
    for user_id, row in found.items():
        own = [e for e in mine if e.user_id == user_id]
        assert row["last_event_at"] == max(e.timestamp for e in own)
        assert len(row["recent_item_ids"]) == min(MAX_ITEMS, len({e.item_id for e in own}))
        last_touch = {
            i: max(e.timestamp for e in own if e.item_id == i) for i in row["recent_item_ids"]
        }
        assert list(last_touch.values()) == sorted(last_touch.values(), reverse=True)


@given(EVENTS, st.integers(0, 60))
def test_events_that_arrive_in_the_wrong_order_are_not_lost(events, cut):
    few = [e for e in events if e.item_id in {f"i{n}" for n in range(MAX_ITEMS)}]
    late_first = sorted(few, key=lambda e: e.timestamp, reverse=True)
    first = folded(late_first[:cut])
    both = first | folded(late_first[cut:], first)
    whole = folded(few)
    assert set(both) == set(whole)
    for user_id, row in whole.items():
        assert set(both[user_id]["recent_item_ids"]) == set(row["recent_item_ids"])
        assert both[user_id]["last_event_at"] == row["last_event_at"]


@given(EVENTS)
def test_folding_again_what_is_known_changes_nothing(events):
    assert folded(events, folded(events)) == {}


@given(EVENTS, st.integers(0, 60))
def test_folding_in_two_steps_in_time_order_is_folding_at_once(events, cut):
    early = [e for e in events if e.timestamp <= NOON + timedelta(minutes=cut)]
    late = [e for e in events if e.timestamp > NOON + timedelta(minutes=cut)]
    first = folded(early)
    both = first | folded(late, first)
    whole = folded(events)
    assert set(both) == set(whole)
    for user_id, row in whole.items():
        assert both[user_id]["last_event_at"] == row["last_event_at"]
        # Items of one instant have an order of their own; the set of those remembered has not.
        assert both[user_id]["last_item_id"] == row["last_item_id"]


def test_times_are_whole_seconds_as_online_stores_keep_them():
    at = NOON + timedelta(seconds=5, microseconds=700_000)
    found = folded([replace(event(0), timestamp=at)])["ann"]
    assert found["last_event_at"] == found["event_timestamp"] == at.replace(microsecond=0)
