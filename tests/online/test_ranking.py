"""Lists of the two-taste shop: the ladder, the conditions, the neighbours."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.models.feature_columns import FeatureColumn, FittedColumn, FittedColumns
from perso.models.feature_encoder import FeatureEncoder
from perso.models.history import History
from perso.models.item_knn import ItemKnnModel
from perso.models.nearest_items import NearestItems
from perso.models.protocol import WeightedItems
from perso.models.request_features import RequestFeatures
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
        items=WeightedItems(
            item_indices=indices,
            weights=np.full(len(indices), weight),
            ratings=np.full(len(indices), np.nan),
        ),
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


@pytest.fixture(scope="module")
def knowing(world):
    """The shop with a model that has learned from requests: FR likes mugs, mobiles like lamps.

    Zoe did nothing, but her features say mugs.
    """
    features = RequestFeatures(
        num_factors=2,
        columns={
            "segment": (("loyal", "silent"), np.array([[0, 3], [0, 0]], np.float32)),
            "region": (("FR",), np.array([[3, 0]], np.float32)),
            "device": (("mobile",), np.array([[0, 3]], np.float32)),
        },
    )
    users_UD = world.model.user_factors_UD.copy()
    users_UD[ZOE] = [2, -1]
    model = dataclasses.replace(world.model, request_features=features, user_factors_UD=users_UD)
    return Ranker(dataclasses.replace(world, model=model))


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        (Query(k=4, context={"region": "FR"}), "m"),
        (Query(k=5, context={"device": "mobile"}), "l"),
        (Query(k=5, segment="loyal"), "l"),
        (Query(k=5, user_index=ZOE), "m"),
    ],
)
def test_a_request_or_features_that_the_model_knows_make_a_list_personal(knowing, query, kind):
    ranked = knowing.recommend(query)
    assert set(sources(ranked)) == {"personal"}
    assert {item_id[0] for item_id in ids(knowing, ranked)} == {kind}


@pytest.mark.parametrize(
    "query",
    [
        Query(k=3),
        Query(k=3, context={"region": "DE"}),
        Query(k=3, context={"campaign": "FR"}),
        Query(k=3, segment="silent"),
        Query(k=3, segment="unheard of"),
    ],
)
def test_a_stranger_of_whom_the_request_says_nothing_goes_down_the_ladder(knowing, ranker, query):
    ranked = knowing.recommend(query)
    assert "personal" not in sources(ranked)
    assert ranked == ranker.recommend(query)


@pytest.fixture(scope="module")
def reading(world):
    """The shop with a model that has learned what a customer's cluster says: c01 likes mugs."""
    clusters = FittedColumn(
        spec=FeatureColumn(column="cluster", kind="category"), values=("c01", "c02")
    )
    encoder = FeatureEncoder(
        columns=FittedColumns(columns=(clusters,)),
        vectors_SD=np.array([[3, 0], [0, 3]], np.float32),
        bias_S=np.zeros(2, np.float32),
        base_bias=0.0,
        unknown_bias=0.0,
    )
    model = dataclasses.replace(world.model, user_encoder=encoder)
    return Ranker(dataclasses.replace(world, model=model))


def test_what_the_feature_store_knows_makes_the_list_of_a_user_the_model_does_not(reading, ranker):
    row = {"cluster": "c01", "segment": "loyal", "top_categories": None, "event_timestamp": None}
    ranked = reading.recommend(Query(k=4, attributes=row))
    assert set(sources(ranked)) == {"personal"}
    assert {item_id[0] for item_id in ids(reading, ranked)} == {"m"}
    for unsaying in (None, {}, {"cluster": None}, {"cluster": "unheard of"}):
        assert reading.recommend(Query(k=4, attributes=unsaying)) == ranker.recommend(Query(k=4))


def test_of_a_user_the_model_knows_the_feature_store_tells_it_nothing_new(reading):
    bob = Query(k=5, user_index=BOB)
    assert reading.recommend(dataclasses.replace(bob, attributes={"cluster": "c01"})) == (
        reading.recommend(bob)
    )


def test_what_the_request_says_and_a_session_add_up(knowing):
    clicks = session_on(knowing, "l0", weight=3.0)
    lamps = Query(k=4, session=clicks)
    assert {item_id[0] for item_id in ids(knowing, knowing.recommend(lamps))} == {"l"}
    scores = {
        region: knowing.bundle.model.score_recent(
            STRANGER, clicks.items, context={} if region is None else {"region": region}
        )
        for region in (None, "FR")
    }
    assert scores["FR"][:5].mean() > scores[None][:5].mean()


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


def test_what_lay_in_one_basket_comes_before_similar_items(ranker):
    ranked = ranker.bought_together(ranker.bundle.items.index_of("m0"), k=5)
    assert ids(ranker, ranked) == ["l3", "m2", "m1", "m3", "m4"]
    assert sources(ranked) == ["bought_together"] * 2 + ["similar"] * 3
    assert [item.score for item in ranked[:2]] == [0.5, 0.25]


@pytest.mark.parametrize("item_id", ["m1", "l0", "new"])
def test_an_item_without_baskets_shows_similar_ones(ranker, item_id):
    index = ranker.bundle.items.index_of(item_id)
    ranked = ranker.bought_together(index, k=11)
    assert ranked == ranker.similar(index, k=11)
    assert ranked[0].source == ("category_popular" if item_id == "new" else "similar")


def test_what_lay_in_one_basket_meets_the_conditions_too(ranker):
    filters = ItemFilter(categories=("mugs",), exclude_items=(1,))
    ranked = ranker.bought_together(0, k=11, filters=filters)
    assert ids(ranker, ranked) == ["m2", "m3", "m4", "new"]
    assert sources(ranked)[:2] == ["bought_together", "similar"]


@pytest.fixture(scope="module")
def by_neighbours(world):
    """The shop with item k-NN: m0, m1 and m2 are bought together, and l0 with l1."""
    pairs = {0: [1, 2], 1: [0, 2], 2: [0, 1], 5: [6], 6: [5]}
    rows = [pairs.get(item, []) for item in range(11)]
    flat = [neighbour for row in rows for neighbour in row]
    model = ItemKnnModel(
        nearest=NearestItems(
            indptr_I1=np.cumsum([0, *map(len, rows)]),
            item_indices=np.array(flat, np.int32),
            similarities=np.full(len(flat), 0.5, np.float32),
        ),
        history=History(
            indptr_U1=np.array([0, 1, 1, 1]),
            item_indices=np.array([0], np.int32),
            weights=np.ones(1, np.float32),
        ),
        popularity_I=world.popularity.global_scores_I / world.popularity.global_scores_I.sum(),
        recent_boost=10.0,
    )
    return Ranker(dataclasses.replace(world, model=model))


def test_neighbours_serve_like_factors(by_neighbours):
    mine = by_neighbours.recommend(Query(k=2, user_index=ANN, segment="loyal"))
    assert (set(ids(by_neighbours, mine)), set(sources(mine))) == ({"m1", "m2"}, {"personal"})
    clicked = by_neighbours.recommend(Query(k=1, session=session_on(by_neighbours, "l0")))
    assert (ids(by_neighbours, clicked), sources(clicked)) == (["l1"], ["personal"])
    stranger = by_neighbours.recommend(Query(k=1, segment="loyal", context={"device": "mobile"}))
    assert sources(stranger) == ["segment_popular"]


def test_only_items_that_the_model_can_compare_count_as_similar(by_neighbours):
    ranked = by_neighbours.similar(0, k=6)
    assert set(ids(by_neighbours, ranked)[:2]) == {"m1", "m2"}
    assert ids(by_neighbours, ranked)[2:] == ["m3", "m4", "new", "l0"]
    assert sources(ranked) == ["similar"] * 2 + ["category_popular"] * 3 + ["global_popular"]


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
