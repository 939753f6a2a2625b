"""Rules of the shop: whom they concern, what they move, and by how much."""

import numpy as np
import pytest

from perso.errors import InputError
from perso.online.item_groups import ItemGroups
from perso.online.ranking import Query, Ranker
from perso.online.strategies import (
    MAX_BOOST,
    Boost,
    Strategies,
    StrategyRule,
    StrategySpec,
    boosted_scores,
)
from perso.spec import load_spec, parse_spec
from serve_app.deploy import CONFIG_FILE

ANN = 0


def rule(**changes):
    fields = {"name": "r", "segments": ("loyal",), "categories": ("lamps",), "boost": 0.5}
    return StrategyRule(**{**fields, **changes})


def items_moved(world, one, segment="loyal", features=None):
    strategies = Strategies(StrategySpec(rules=(one,)), world, ItemGroups(world.catalog))
    (found,) = strategies.boosts(segment, features) or [None]
    return [] if found is None else world.items.ids.take(np.flatnonzero(found.items_I)).to_pylist()


LAMPS = ["l0", "l1", "l2", "l3", "l4"]


@pytest.mark.parametrize(
    ("changes", "items"),
    [
        ({}, LAMPS),
        ({"categories": (), "price": "higher", "price_quantile": 0.8}, ["l3", "l4"]),
        ({"categories": (), "price": "lower", "price_quantile": 0.1}, ["m0"]),
        ({"price": "higher", "price_quantile": 0.8}, ["l3", "l4"]),
        ({"categories": (), "item_ids": ("m1", "unknown")}, ["m1"]),
        ({"categories": ("nothing",)}, []),
    ],
)
def test_a_rule_moves_the_items_that_meet_all_its_conditions(world, changes, items):
    assert items_moved(world, rule(**changes)) == items


def test_a_rule_is_for_its_segments_and_clusters(world):
    assert items_moved(world, rule(), segment="new") == []
    assert items_moved(world, rule(), segment=None) == []
    both = rule(clusters=("c02",))
    assert items_moved(world, both, features={"cluster": "c01"}) == []
    assert items_moved(world, both, features={"cluster": "c02"}) == LAMPS
    only_cluster = rule(segments=(), clusters=("c02",))
    assert items_moved(world, only_cluster, segment=None, features={"cluster": "c02"}) == LAMPS


def test_win_back_picks_are_from_the_shoppers_own_categories(world):
    own = rule(categories=(), top_categories=True)
    assert items_moved(world, own, features={"top_categories": ["lamps", "gone"]}) == LAMPS
    assert items_moved(world, own, features={"top_categories": None}) == []
    assert items_moved(world, own) == []


def test_a_boost_counts_in_deviations_of_the_shoppers_own_scores():
    scores = np.array([-4.0, -2.0, 0.0, 2.0], np.float32)
    first = np.array([True, False, False, False])
    boosts = [Boost(rule="a", boost=0.5, items_I=first)]
    eligible = np.arange(4)
    moved = boosted_scores(scores, boosts, eligible)
    assert moved.tolist() == pytest.approx([-4 + 0.5 * np.std(scores), -2, 0, 2])
    # Another scale, the same order.
    again = boosted_scores(10 * scores, boosts, eligible)
    assert again.tolist() == pytest.approx((10 * moved).tolist())
    many = [Boost(rule=str(n), boost=2.0, items_I=first) for n in range(5)]
    capped = boosted_scores(scores, many, eligible)
    assert capped[0] == pytest.approx(-4 + MAX_BOOST * np.std(scores))
    assert boosted_scores(scores, [], eligible) is scores


def test_a_strong_rule_brings_its_items_to_the_top_of_their_rung_and_is_named(world):
    plain = Ranker(world).recommend(Query(k=11, user_index=ANN, segment="loyal"))
    spec = StrategySpec(rules=(rule(boost=3.0),))
    ranked = Ranker(world, strategies=spec).recommend(Query(k=11, user_index=ANN, segment="loyal"))
    assert {item.item_index for item in plain} == {item.item_index for item in ranked}
    personal = [item for item in ranked if item.source == "personal"]
    moved = [item for item in personal if item.boosted_by]
    assert moved == personal[: len(moved)]
    assert all(item.boosted_by == ("r",) for item in moved)
    # The rungs keep their order: a rule never lifts a popular item over a personal one.
    assert [i.source for i in ranked] == [i.source for i in plain]


def test_rules_move_a_popular_list_too(world):
    one = rule(categories=(), item_ids=("m1",), boost=3.0)
    query = Query(k=2, segment="loyal")  # the segment bought m3 twice as often as m1
    before = Ranker(world).recommend(query)
    after = Ranker(world, strategies=StrategySpec(rules=(one,))).recommend(query)
    m1, m3 = world.items.indices_of(["m1", "m3"])
    assert [(i.item_index, i.boosted_by) for i in before] == [(m3, ()), (m1, ())]
    assert [(i.item_index, i.boosted_by) for i in after] == [(m1, ("r",)), (m3, ())]
    assert {item.source for item in after} == {"segment_popular"}
    assert after[0].score == pytest.approx(before[1].score + 3 * np.std([2.0, 1.0]))


def test_a_negative_boost_lowers(world):
    spec = StrategySpec(rules=(rule(categories=("mugs",), boost=-3.0),))
    query = Query(k=11, user_index=ANN, segment="loyal")
    before, after = (Ranker(world, strategies=s).recommend(query) for s in (None, spec))
    mugs = set(range(5))
    place = [[item.item_index in mugs for item in ranked].index(True) for ranked in (before, after)]
    assert place[0] < place[1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": ""}, "no name"),
        ({"segments": ()}, "for nobody"),
        ({"categories": ()}, "names no items"),
        ({"price_quantile": 1.0}, "price_quantile"),
        ({"boost": 0.0}, "boost of rule 'r' is 0.0"),
        ({"boost": 4.0}, "from -3 to 3"),
        ({"boost": float("nan")}, "boost of rule"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        rule(**changes)


def test_two_rules_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two rules are called 'r'"):
        StrategySpec(rules=(rule(), rule()))


def test_a_misspelt_key_is_an_error():
    with pytest.raises(InputError, match="segmnets"):
        parse_spec(StrategySpec, {"rules": [{"name": "a", "segmnets": ["new"], "boost": 1}]})


def test_the_packaged_rules_are_rules():
    spec = load_spec(StrategySpec, CONFIG_FILE.with_name("strategies.yaml"))
    assert {"champions", "at_risk"} <= spec.segments
