"""What recent events say, by known answers."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.data.vocabulary import Vocabulary
from perso.online.session import SessionSpec, summarize_events
from perso.stream.event import Event

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LONG_AGO = NOON - timedelta(days=900)
ITEMS = Vocabulary(pa.array(["a", "b", "c"]))
SPEC = SessionSpec(
    half_life_hours=2.0,
    event_weights={"view_item": 1.0, "add_to_cart": 3.0, "purchase": 5.0},
    value_weights={"rate_item": 1.0, "dwell": 0.1},
)


def did(event_type, item_id="a", *, hours_ago=0.0, value=None, consent=None):
    return Event(
        event_id=f"{event_type}{item_id}{hours_ago}",
        event_type=event_type,
        session_id="s",
        item_id=item_id,
        timestamp=NOON - timedelta(hours=hours_ago),
        value=value,
        consent=consent,
    )


def summarize(events, *, boost=1.0, trained_until=LONG_AGO):
    return summarize_events(
        events, ITEMS, as_of=NOON, trained_until=trained_until, boost=boost, spec=SPEC
    )


def weights_of(*events, **options):
    session = summarize(events, **options)
    return {
        ITEMS.id_of(index): pytest.approx(weight)
        for index, weight in zip(session.items.item_indices, session.items.weights, strict=True)
    }


def known_items(*events):
    session = summarize(events)
    return [ITEMS.id_of(index) for index in session.known_items]


def test_weights_of_one_item_add_up():
    assert weights_of(did("view_item"), did("add_to_cart"), did("view_item", "b")) == {
        "a": 4.0,
        "b": 1.0,
    }


def test_the_boost_of_the_present_halves_with_every_half_life():
    events = [did("purchase", "a"), did("purchase", "b", hours_ago=2), did("view_item", "c")]
    assert weights_of(*events, boost=9.0) == {"a": 45.0, "b": 25.0, "c": 9.0}
    assert weights_of(did("purchase", hours_ago=1000), boost=9.0) == {"a": 5.0}


def test_an_event_from_a_clock_ahead_counts_as_of_this_moment():
    assert weights_of(did("view_item", hours_ago=-0.1), boost=9.0) == {"a": 9.0}


def test_an_event_that_training_has_seen_only_makes_its_item_known():
    events = [did("view_item", "a", hours_ago=3), did("view_item", "b", hours_ago=1)]
    trained_until = NOON - timedelta(hours=2)
    assert weights_of(*events, trained_until=trained_until) == {"b": 1.0}
    assert known_items(*events) == ["a", "b"]


def test_taking_an_item_out_of_the_cart_cancels_putting_it_in():
    put, took = did("add_to_cart", hours_ago=2), did("remove_from_cart", hours_ago=1)
    assert weights_of(put, took) == {}
    assert known_items(put, took) == ["a"]
    assert weights_of(put, took, did("add_to_cart")) == {"a": 3.0}
    assert weights_of(did("view_item"), put, took) == {"a": 1.0}


def test_a_refund_cancels_the_purchase():
    assert weights_of(did("purchase", hours_ago=2), did("refund")) == {}


def test_the_newest_rating_replaces_the_older_one():
    ratings = [did("rate_item", value=5.0, hours_ago=2), did("rate_item", value=2.0)]
    assert weights_of(*ratings) == {"a": 2.0}
    views = [did("view_item", "b")]
    np.testing.assert_array_equal(summarize([*ratings, *views]).items.ratings, [2.0, np.nan])


def test_a_long_dwell_is_capped():
    assert weights_of(did("dwell", value=20.0), did("dwell", "b", value=1e6)) == {
        "a": 2.0,
        "b": SPEC.max_value_weight,
    }
    assert weights_of(did("dwell", value=-5.0), did("dwell", "b")) == {}


def test_impressions_unknown_items_and_unlisted_types_say_nothing():
    events = [did("impression"), did("view_item", "new"), did("compare", "b")]
    assert weights_of(*events) == {}
    assert known_items(*events) == ["b"]


def test_events_without_consent_are_not_used_at_all():
    refused = [did("purchase", "a", consent=False), did("rate_item", "b", value=5.0, consent=False)]
    agreed = [did("view_item", "b", consent=True), did("view_item", "c")]
    assert weights_of(*refused, *agreed) == {"b": 1.0, "c": 1.0}
    assert known_items(*refused, *agreed) == ["b", "c"]
    assert np.isnan(summarize([*refused, *agreed]).items.ratings).all()
    assert summarize([*refused, *agreed]).num_events == 2


def test_no_events_make_an_empty_session():
    session = summarize([])
    assert len(session.items) == len(session.items.weights) == len(session.known_items) == 0


event = st.builds(
    did,
    st.sampled_from(["view_item", "add_to_cart", "remove_from_cart", "purchase", "dwell"]),
    st.sampled_from(["a", "b", "c", "new"]),
    hours_ago=st.integers(0, 50).map(lambda n: n / 7),
    value=st.floats(0, 100),
)
distinct_moments = st.lists(event, max_size=12, unique_by=lambda e: e.timestamp)


@given(events=distinct_moments, seed=st.integers(0, 99))
def test_the_order_of_the_rows_does_not_matter(events, seed):
    shuffled = list(np.random.default_rng(seed).permutation(np.array(events, object)))
    assert weights_of(*events) == weights_of(*shuffled)


@given(events=distinct_moments)
def test_weights_are_positive_and_items_distinct_and_known(events):
    session = summarize(events)
    assert (session.items.weights > 0).all()
    assert (np.diff(session.items.item_indices) > 0).all()
    assert set(session.items.item_indices) <= set(session.known_items)


@pytest.mark.parametrize(
    "wrong",
    [
        {"half_life_hours": 0.0},
        {"num_events": 0},
        {"event_weights": {"remove_from_cart": -1.0}},
        {"event_weights": {"dwell": 1.0}, "value_weights": {"dwell": 1.0}},
    ],
)
def test_a_wrong_spec_is_refused(wrong):
    with pytest.raises(ValueError, match=r"give|keep"):
        SessionSpec(**wrong)
