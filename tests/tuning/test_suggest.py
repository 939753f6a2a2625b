"""Points chosen by what was good before, on landscapes whose top is known; nothing is trained."""

import json
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from perso.tuning.grid import GridSpec
from perso.tuning.points import planned_points
from perso.tuning.space import Distribution
from perso.tuning.spec import BudgetSpec, SearchSpec
from perso.tuning.suggest import Suggester
from perso.tuning.trial import Trial

WIDE = GridSpec(
    fixed={"optimizer": "adam"},
    grid={"loss": ("softmax", "bpr", "contrasted", "logistic")},
    sample={
        "learning_rate": Distribution(loguniform=(1e-4, 1.0)),
        "l2": Distribution(uniform=(0.0, 1.0)),
        "num_factors": Distribution(quantized=(8, 256, 8)),
    },
)
KNN = GridSpec(family="item_knn", sample={"num_neighbors": Distribution(quantized=(10, 500, 10))})
TWO_BY_THREE = GridSpec(grid={"num_factors": (8, 16), "l2": (0.1, 0.2, 0.3)})


def tpe(*grids, trials, **settings):
    return SearchSpec(
        **{"grids": grids, "searcher": "tpe", "budget": BudgetSpec(trials=trials)} | settings
    )


def height(point):
    """Highest, at 1, for bpr with learning_rate 0.03, l2 0.8 and 64 factors."""
    if "num_neighbors" in point.searched:
        return 0.3
    rate = math.log10(point.searched["learning_rate"] / 0.03) / 4
    factors = (point.searched["num_factors"] - 64) / 248
    away = rate**2 + (point.searched["l2"] - 0.8) ** 2 + factors**2
    return 1.0 - away - 0.2 * (point.searched["loss"] != "bpr")


def trial(point, spec, value, **others):
    metrics = {} if value is None else {"ndcg@20": value}
    ended = {"status": "finished", "metrics": metrics} | others
    return replace(Trial.begin(point, spec), **ended)


def search(spec, value=height, known=(), trials=None):
    """The trials of a search on a landscape, one after the other."""
    suggester, found = Suggester(spec, known), []
    while (trials is None or len(found) < trials) and (point := suggester.suggest()) is not None:
        found.append(trial(point, spec, value(point)))
        suggester.tell(found[-1])
    return found


def again(trials):
    """As the journal gives them back."""
    return [Trial.of(json.loads(json.dumps(each.to_dict()))) for each in trials]


def best(trials):
    return max(each.metrics["ndcg@20"] for each in trials)


def test_at_the_same_budget_it_comes_nearer_to_the_top_than_chance():
    ours, by_chance = [], []
    for seed in range(5):
        spec = tpe(WIDE, trials=40, seeds=(seed,))
        ours.append(best(search(spec)))
        drawn = planned_points(replace(spec, searcher="random"))
        by_chance.append(max(map(height, drawn)))
    assert np.mean(ours) > 0.95
    assert np.mean(ours) > np.mean(by_chance) + 0.03
    assert sum(one > other for one, other in zip(ours, by_chance, strict=True)) >= 4


def test_it_goes_down_where_the_lowest_wins():
    spec = tpe(WIDE, trials=40, mode="min")
    values = [each.metrics["ndcg@20"] for each in search(spec, lambda point: -height(point))]
    assert min(values[20:]) < min(values[:10])
    assert np.mean(values[20:]) < np.mean(values[:10]) - 0.1


def test_it_comes_back_to_the_better_family():
    found = search(tpe(KNN, WIDE, trials=40))
    families = Counter(each.settings["family"] for each in found[15:])
    assert families["sgd"] > families["item_knn"]
    assert {each.settings["family"] for each in found} == {"sgd", "item_knn"}
    for each in found:
        searched = {"num_neighbors"} if each.grid == 0 else set(WIDE.space)
        assert set(each.point.searched) == searched


def test_every_point_is_in_its_space_and_a_config_of_its_family():
    spec = tpe(WIDE, KNN, trials=30, seeds=(3,))
    for each in search(spec):
        config = each.point.config(spec)
        assert config.family == each.settings["family"]
        for name, space in spec.grids[each.grid].space.items():
            value = each.point.searched[name]
            assert space.nearest(value) == value == getattr(config, name)


def test_numbers_count_up_without_a_gap_and_no_combination_comes_twice():
    found = search(tpe(WIDE, KNN, trials=40))
    assert [each.number for each in found] == list(range(40))
    assert len({json.dumps(each.settings) for each in found}) == 40


def test_the_same_spec_and_results_give_the_same_points():
    spec = tpe(WIDE, KNN, trials=15)
    assert search(spec) == search(spec)
    other = search(replace(spec, seeds=(1,)))
    assert other[0].settings != search(spec)[0].settings


@pytest.mark.parametrize("told", [True, False], ids=["one by one", "all at once"])
def test_a_used_up_space_ends_the_search_after_every_combination(told):
    spec = tpe(TWO_BY_THREE, trials=50)
    suggester, points = Suggester(spec), []
    while (point := suggester.suggest()) is not None:
        points.append(point)
        if told:
            value = point.searched["l2"]  # one end is much better
            suggester.tell(trial(point, spec, value))
    tried = {json.dumps(point.searched) for point in points}
    assert len(points) == len(tried) == 6


def test_a_space_that_is_just_large_enough_is_tried_whole():
    grid = GridSpec(grid={"num_factors": (8, 16, 32, 64), "l2": (0.1, 0.2, 0.3)})
    found = search(tpe(grid, trials=12), lambda point: point.searched["l2"])
    assert len({json.dumps(each.settings) for each in found}) == 12


def test_a_grid_without_anything_to_search_is_one_point():
    assert len(search(tpe(GridSpec(family="item_knn"), trials=9), lambda _: 0.5)) == 1


def test_with_several_seeds_a_point_is_its_trials_and_their_mean_is_told():
    spec = tpe(WIDE, trials=30, seeds=(5, 2))

    def noisy(point):
        luck = (-1) ** (point.number // 2)  # of the first seed at every other point
        return height(point) + (luck if point.seed == 5 else -luck)

    found = search(spec, noisy)
    assert [(each.number, each.seed) for each in found[:4]] == [(0, 5), (1, 2), (2, 5), (3, 2)]
    assert len(found) == spec.num_trials == 60
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert first.settings == second.settings
    # Without the mean there would be nothing to see but luck.
    single = search(tpe(WIDE, trials=30, seeds=(5,)))
    assert [each.settings for each in found[::2]] == [each.settings for each in single]


def test_a_resumed_search_repeats_no_trial_and_goes_on_as_well():
    spec = tpe(WIDE, KNN, trials=40)
    before = search(spec, trials=25)
    after = search(spec, known=again(before))
    assert [each.number for each in after] == list(range(25, 40))
    tried = {json.dumps(each.settings) for each in before + after}
    assert len(tried) == 40
    # It knows where it was good: by chance a point has 0.4 on average.
    assert np.mean([each.metrics["ndcg@20"] for each in after]) > 0.6


def test_a_resumed_search_knows_what_it_has_learned():
    """The first suggestions are by chance; with that many results known the next one is not."""
    spec = tpe(WIDE, trials=200)
    firsts = []
    for seed in range(4):
        seeded = replace(spec, seeds=(seed,))
        known = again(search(seeded, trials=40))
        firsts.append(search(seeded, known=known, trials=1)[0].metrics["ndcg@20"])
    assert np.mean(firsts) > 0.75


def test_trials_that_were_running_come_first_with_their_numbers_and_settings():
    spec = tpe(WIDE, KNN, trials=12)
    before = search(spec, trials=8)
    known = [
        replace(each, status="running", metrics={}) if each.number in (3, 6) else each
        for each in again(before)
    ]
    after = search(spec, known=known[::-1])
    assert [each.number for each in after] == [3, 6, 8, 9, 10, 11]
    assert [each.settings for each in after[:2]] == [before[3].settings, before[6].settings]
    tried = {json.dumps(each.settings) for each in before + after}
    assert len(tried) == 12


def test_of_a_point_only_the_seeds_that_are_not_done_come_again():
    spec = tpe(WIDE, trials=4, seeds=(5, 2))
    before = search(spec, trials=4)
    known = [before[0], replace(before[1], status="running", metrics={}), before[2]]
    after = search(spec, known=again(known))
    assert [(each.number, each.seed) for each in after] == [
        (1, 2),
        (3, 2),
        *[(4, 5), (5, 2), (6, 5), (7, 2)],
    ]
    assert after[0].settings == before[0].settings
    assert after[1].settings == before[2].settings


def test_a_number_that_was_never_begun_is_made_up_for():
    spec = tpe(WIDE, trials=4)
    before = search(spec, trials=3)
    after = search(spec, known=again([before[0], before[2]]))
    assert [each.number for each in after] == [1, 3]


def test_values_that_are_lists_or_words_are_told_apart_after_json():
    values = ({"num_factors": 8}, {"num_factors": 16})
    grid = GridSpec(family="blend", grid={"learned": values, "spectral_weight": (0.25, 0.5)})
    spec = tpe(grid, trials=4)
    before = search(spec, lambda _: 0.5, trials=2)
    after = search(spec, lambda _: 0.5, known=again(before))
    assert len({json.dumps(each.settings) for each in before + after}) == 4


@pytest.mark.parametrize("status", ["failed", "stopped"])
def test_a_trial_without_a_number_teaches_nothing_and_does_not_come_again(status):
    spec = tpe(TWO_BY_THREE, trials=6)
    suggester, points = Suggester(spec), []
    while (point := suggester.suggest()) is not None:
        points.append(point)
        suggester.tell(trial(point, spec, None, status=status))
    assert len({json.dumps(point.searched) for point in points}) == len(points) == 6
    failed = [trial(point, spec, None, status=status) for point in points[:3]]
    left = search(spec, lambda _: 0.5, known=again(failed))
    assert {json.dumps(each.point.searched) for each in left} == {
        json.dumps(point.searched) for point in points[3:]
    }
