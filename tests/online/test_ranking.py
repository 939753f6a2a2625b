"""Lists of the two-taste shop: the ladder, the conditions, the neighbours."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.online.ranking import LADDER, ItemFilter, Query, Ranker
from perso.online.session import Session

ANN, BOB, ZOE, STRANGER = 0, 1, 2, -1


@pytest.fixture(scope="module")
def ranker(world):
    return Ranker(world)


def ids(ranker, ranked):
    return [ranker.bundle.items.id_of(item.item_index) for item in ranked]


def sources(ranked):
    return [item.source for item in ranked]


def session_on(ranker, *item_ids, weight=10.0):
    indices = np.sort(ranker.bundle.items.indices_of(item_ids))
    return Session(
        item_indices=indices,
        weights=np.full(len(indices), weight),
        ratings=np.full(len(indices), np.nan),
        known_items=indices,
        num_events=len(indices),
    )


def test_known_shoppers_get_their_taste(ranker):
    assert ids(ranker, ranker.recommend(Query(k=4, user_index=ANN))) == ["m1", "m2", "m3", "m4"]
    lamps = ranker.recommend(Query(k=5, user_index=BOB))
    assert {item_id[0] for item_id in ids(ranker, lamps)} == {"l"}
    assert set(sources(lamps)) == {"personal"}


def test_scores_fall_within_one_source(ranker):
    ranked = ranker.recommend(Query(k=11, user_index=ANN, segment="loyal"))
    for rung in LADDER:
        scores = [item.score for item in ranked if item.source == rung]
        assert scores == sorted(scores, reverse=True)


def test_clicks_of_a_stranger_raise_their_category(ranker):
    before = ids(ranker, ranker.recommend(Query(k=4)))
    assert before == ["l0", "l1", "l2", "l3"]
    after = ranker.recommend(Query(k=4, session=session_on(ranker, "m0")))
    assert set(ids(ranker, after)) == {"m1", "m2", "m3", "m4"}
    assert set(sources(after)) == {"personal"}


def test_clicks_turn_a_known_shopper_around(ranker):
    after = ranker.recommend(
        Query(k=3, user_index=ANN, session=session_on(ranker, "l0", "l1", weight=50.0))
    )
    assert {item_id[0] for item_id in ids(ranker, after)} == {"l"}


def test_every_rung_of_the_ladder_is_taken_in_turn(ranker):
    context = {"device": "mobile", "region": "DE"}
    full = Query(k=11, segment="loyal", context=context)
    ranked = ranker.recommend(full)
    assert ids(ranker, ranked) == [
        *("m3", "m1"),  # segment
        *("l3", "m2", "l2"),  # context: mean share 1/2, 2/5, 1/10
        *("l0", "l1", "l4", "m0", "m4", "new"),
    ]
    assert (
        sources(ranked)
        == ["segment_popular"] * 2 + ["context_popular"] * 3 + ["global_popular"] * 6
    )


@pytest.mark.parametrize(
    ("query", "rung"),
    [
        (Query(k=1, user_index=ANN, segment="loyal"), "personal"),
        (Query(k=1, user_index=ZOE, segment="loyal"), "segment_popular"),
        (Query(k=1, user_index=ZOE, segment="unheard of"), "global_popular"),
        (Query(k=1, context={"device": "mobile"}), "context_popular"),
        (Query(k=1, context={"device": "unheard of"}), "global_popular"),
        (Query(k=1), "global_popular"),
    ],
)
def test_the_first_rung_that_knows_something_answers(ranker, query, rung):
    assert sources(ranker.recommend(query)) == [rung]


def test_items_without_a_factor_come_from_a_lower_rung(ranker):
    ranked = ranker.recommend(Query(k=20, user_index=ANN))
    assert len(ranked) == 10  # all but the seen one
    assert [(ids(ranker, [i])[0], i.source) for i in ranked][-1] == ("new", "global_popular")
    assert set(sources(ranked[:-1])) == {"personal"}


def test_seen_items_are_never_recommended_unless_asked_for(ranker):
    query = {"k": 11, "user_index": ANN, "session": session_on(ranker, "m1")}
    assert not {"m0", "m1"} & set(ids(ranker, ranker.recommend(Query(**query))))
    every = ids(ranker, ranker.recommend(Query(**query, exclude_seen=False)))
    assert {"m0", "m1"} <= set(every)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (ItemFilter(categories=("mugs",)), {"m0", "m1", "m2", "m3", "m4", "new"}),
        (ItemFilter(categories=("mugs", "lamps"), price_max=10.0), {"m0"}),
        (ItemFilter(categories=("unheard of",)), set()),
        (ItemFilter(price_min=95.0), {"l4"}),
        (ItemFilter(price_min=85.0, in_stock=True), {"l3"}),
        (ItemFilter(categories=("mugs",), exclude_items=(0, 1, 2, 3)), {"m4", "new"}),
    ],
)
@pytest.mark.parametrize("user_index", [BOB, STRANGER])
def test_filters_hold_on_every_rung(ranker, filters, expected, user_index):
    ranked = ranker.recommend(Query(k=11, user_index=user_index, filters=filters))
    assert set(ids(ranker, ranked)) == expected


def test_neighbours_are_of_the_same_kind(ranker):
    ranked = ranker.similar(ranker.bundle.items.index_of("m0"), k=4)
    assert ids(ranker, ranked) == ["m1", "m2", "m3", "m4"]
    assert set(sources(ranked)) == {"similar"}
    assert all(0.99 < item.score <= 1.0 + 1e-6 for item in ranked)


def test_a_new_item_shows_the_popular_ones_of_its_category(ranker):
    ranked = ranker.similar(ranker.bundle.items.index_of("new"), k=7)
    assert ids(ranker, ranked) == ["m0", "m1", "m2", "m3", "m4", "l0", "l1"]
    assert sources(ranked) == ["category_popular"] * 5 + ["global_popular"] * 2


def test_neighbours_meet_the_conditions_too(ranker):
    ranked = ranker.similar(0, k=10, filters=ItemFilter(categories=("lamps",), in_stock=True))
    assert set(ids(ranker, ranked)) == {"l0", "l1", "l2", "l3"}


@settings(deadline=None)
@given(
    k=st.integers(1, 15),
    user_index=st.sampled_from([ANN, BOB, ZOE, STRANGER]),
    clicked=st.sets(st.sampled_from(["m0", "m3", "l1", "new"])),
    segment=st.sampled_from([None, "loyal"]),
    exclude_seen=st.booleans(),
    excluded=st.sets(st.integers(0, 10)),
)
def test_a_list_is_distinct_allowed_and_as_long_as_it_can_be(
    world, k, user_index, clicked, segment, exclude_seen, excluded
):
    ranker = Ranker(world)
    query = Query(
        k=k,
        user_index=user_index,
        session=session_on(ranker, *clicked),
        segment=segment,
        exclude_seen=exclude_seen,
        filters=ItemFilter(exclude_items=tuple(excluded)),
    )
    ranked = ranker.recommend(query)
    found = [item.item_index for item in ranked]
    hidden = set(excluded)
    if exclude_seen:
        hidden |= set(query.session.known_items) | ({0} if user_index == ANN else set())
    assert len(set(found)) == len(found) == min(k, 11 - len(hidden))
    assert not set(found) & hidden
    rungs = [LADDER.index(item.source) for item in ranked]
    assert rungs == sorted(rungs)
    assert ranker.recommend(query) == ranked
