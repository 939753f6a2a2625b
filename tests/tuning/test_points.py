"""The points of a search: numbered, drawn the same again, none of them twice."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.spec import spec_to_dict
from perso.tuning.grid import GridSpec
from perso.tuning.points import Point, planned_points
from perso.tuning.space import Distribution
from perso.tuning.spec import BudgetSpec, SearchSpec

RATES = {"learning_rate": Distribution(loguniform=(0.01, 0.3)), "l2": Distribution(uniform=(0, 1))}
SGD = GridSpec(grid={"num_factors": (8, 16)}, sample=RATES)
KNN = GridSpec(family="item_knn", sample={"num_neighbors": Distribution(quantized=(10, 500, 10))})
ALS = GridSpec(family="als", sample={"l2": Distribution(loguniform=(1e-4, 0.1))})


def random_search(*grids, trials, **settings):
    return SearchSpec(grids=grids, searcher="random", budget=BudgetSpec(trials=trials), **settings)


def test_a_grid_is_every_combination_with_every_seed_one_number_after_the_other():
    spec = SearchSpec(
        grids=(GridSpec(grid={"l2": (0.1, 0.2)}), GridSpec(family="item_knn")), seeds=(5, 3)
    )
    points = planned_points(spec)
    assert [point.number for point in points] == list(range(6))
    assert [(point.grid, point.searched.get("l2"), point.seed) for point in points] == [
        (0, 0.1, 5),
        (0, 0.1, 3),
        (0, 0.2, 5),
        (0, 0.2, 3),
        (1, None, 5),
        (1, None, 3),
    ]
    assert len(points) == spec.num_trials
    assert [getattr(point.config(spec), "seed", None) for point in points[:2]] == [5, 3]


seeds = st.lists(st.integers(0, 2**40), min_size=1, max_size=3, unique=True).map(tuple)


@given(trials=st.integers(1, 12), seeds=seeds)
def test_drawn_points_are_the_same_for_the_same_spec_and_different_from_each_other(trials, seeds):
    spec = random_search(SGD, KNN, ALS, trials=trials, seeds=seeds)
    points = planned_points(spec)
    assert points == planned_points(spec)
    assert [point.number for point in points] == list(range(spec.num_trials))
    assert [point.seed for point in points] == list(seeds) * trials
    first = points[:: len(seeds)]
    for place, point in enumerate(points):
        assert (point.grid, point.searched) == (
            first[place // len(seeds)].grid,
            first[place // len(seeds)].searched,
        )
    told = [json.dumps([point.grid, point.searched]) for point in first]
    assert len(set(told)) == trials


@given(st.integers(1, 12))
def test_families_take_turns(trials):
    points = planned_points(random_search(SGD, KNN, ALS, trials=trials))
    assert [point.grid for point in points] == [place % 3 for place in range(trials)]


def test_every_drawn_setting_is_in_its_range_and_the_family_takes_it():
    spec = random_search(SGD, KNN, trials=40)
    for point in planned_points(spec):
        config = point.config(spec)
        if point.grid == 0:
            assert config.num_factors in (8, 16)
            assert 0.01 <= config.learning_rate <= 0.3
        else:
            assert config.num_neighbors in range(10, 501, 10)
        assert {name: getattr(config, name) for name in point.searched} == point.searched


def test_another_first_seed_draws_other_points():
    drawn = [
        [point.searched for point in planned_points(random_search(SGD, trials=5, seeds=(seed,)))]
        for seed in (0, 1)
    ]
    assert not any(searched in drawn[1] for searched in drawn[0])


def test_a_longer_budget_goes_on_where_the_shorter_one_ended():
    short, long = (planned_points(random_search(SGD, KNN, trials=n)) for n in (5, 20))
    assert long[:5] == short


def test_a_used_up_space_leaves_the_budget_to_the_other_families():
    small = GridSpec(family="item_knn", grid={"num_neighbors": (10, 20)})
    points = planned_points(random_search(small, SGD, trials=10))
    assert [point.grid for point in points] == [0, 1, 0, 1, 1, 1, 1, 1, 1, 1]


def test_when_every_space_is_used_up_there_are_fewer_points_than_the_budget():
    fixed = GridSpec(family="item_knn")
    small = GridSpec(family="als", grid={"num_factors": (8, 16), "l2": (0.01, 0.1)})
    points = planned_points(random_search(fixed, small, trials=50, seeds=(0, 1)))
    assert [point.number for point in points] == list(range(10))
    assert len({json.dumps([point.grid, point.searched]) for point in points}) == 5


def test_a_searcher_that_waits_for_results_plans_nothing():
    spec = SearchSpec(grids=(SGD,), searcher="tpe", budget=BudgetSpec(trials=3))
    with pytest.raises(ValueError, match="tpe plans nothing"):
        planned_points(spec)


def test_a_point_survives_json_and_is_told_by_family_and_searched_settings():
    spec = random_search(KNN, SGD, trials=4)
    for point in planned_points(spec):
        assert Point.of(json.loads(json.dumps(point.to_dict()))) == point
    assert planned_points(spec)[0].settings(spec).keys() == {"family", "num_neighbors"}


def test_a_point_is_a_whole_config_of_its_family():
    spec = random_search(GridSpec(fixed={"epochs": 3}, sample=RATES), trials=1, seeds=(9,))
    (point,) = planned_points(spec)
    config = spec_to_dict(point.config(spec))
    assert (config["family"], config["epochs"], config["seed"]) == ("sgd", 3, 9)
