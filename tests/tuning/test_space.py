"""Distributions: what they hold, what they draw, and which are refused."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from perso.errors import InputError
from perso.spec import parse_spec, spec_to_dict
from perso.tuning.grid import GridSpec
from perso.tuning.space import Distribution
from perso.tuning.spec import BudgetSpec, SearchSpec

finite = st.floats(-1e6, 1e6)
spans = st.tuples(finite, finite).map(sorted).filter(lambda ends: ends[0] < ends[1]).map(tuple)
above_0 = (
    st.tuples(st.floats(1e-9, 1e6), st.floats(1e-9, 1e6))
    .map(sorted)
    .filter(lambda ends: ends[0] < ends[1])
    .map(tuple)
)


@st.composite
def quantized(draw):
    low = draw(st.floats(-1e3, 1e3))
    step = draw(st.floats(1e-3, 1e3))
    high = low + step * draw(st.floats(1, 40))
    assume(step <= high - low)
    return Distribution(quantized=(low, high, step))


numbers = st.one_of(
    spans.map(lambda ends: Distribution(uniform=ends)),
    above_0.map(lambda ends: Distribution(loguniform=ends)),
    quantized(),
)


@given(distribution=numbers, seed=st.integers(0, 2**32))
def test_draws_are_within_and_the_same_for_the_same_generator(distribution, seed):
    low, high = distribution.bounds
    drawn = [distribution.draw(np.random.default_rng(seed)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert low <= drawn[0] <= high
    assert distribution.nearest(drawn[0]) == drawn[0]
    if distribution.quantized:
        assert drawn[0] in distribution.steps


@given(distribution=numbers, value=st.floats(-1e9, 1e9))
def test_the_nearest_can_be_drawn_and_no_end_is_nearer(distribution, value):
    nearest = distribution.nearest(value)
    low, high = distribution.bounds
    assert low <= nearest <= high
    distance = abs(nearest - value)
    assert all(distance <= abs(example - value) for example in distribution.examples())


@given(quantized())
def test_steps_ascend_evenly_from_the_first_and_reach_as_far_as_they_fit(distribution):
    low, high, step = distribution.quantized
    steps = distribution.steps
    assert steps[0] == pytest.approx(low, rel=1e-11, abs=1e-11)
    assert np.diff(steps) == pytest.approx(step, abs=1e-6)
    assert high - step - 1e-6 < steps[-1] <= high


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ((8, 32, 8), (8, 16, 24, 32)),
        ((8, 33, 8), (8, 16, 24, 32)),
        ((0, 0.3, 0.1), (0.0, 0.1, 0.2, 0.3)),  # 3 · 0.1 is above 0.3
        ((0, 0.7, 0.1), (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)),  # 0.7 / 0.1 is below 7
        ((0.5, 2, 1), (0.5, 1.5)),
        ((1, 2.5, 1), (1, 2)),
        ((-1, 1, 1), (-1, 0, 1)),
    ],
)
def test_steps_include_both_ends_and_are_whole_where_they_can_be(arguments, steps):
    found = Distribution(quantized=arguments).steps
    assert found == steps
    assert [type(value) for value in found] == [type(value) for value in steps]


def test_every_choice_and_step_is_drawn_about_as_often_as_the_others():
    rng = np.random.default_rng(0)
    for distribution in (
        Distribution(choice=("a", "b", "c", [1])),
        Distribution(quantized=(1, 4, 1)),
    ):
        values = distribution.choice or distribution.steps
        drawn = [distribution.draw(rng) for _ in range(2000)]
        assert all(abs(drawn.count(value) - 500) < 80 for value in values)


def test_loguniform_gives_each_order_of_magnitude_the_same_chance():
    rng = np.random.default_rng(0)
    drawn = [Distribution(loguniform=(1e-4, 1.0)).draw(rng) for _ in range(2000)]
    orders = np.floor(np.log10(drawn)).astype(int)
    assert all(abs((orders == order).sum() - 500) < 80 for order in (-4, -3, -2, -1))


@pytest.mark.parametrize(
    ("distribution", "value", "nearest"),
    [
        (Distribution(choice=(8, 16, 64)), 20.0, 16),
        (Distribution(choice=(8, 16, 64)), 64, 64),
        (Distribution(choice=("softmax", "bpr")), "bpr", "bpr"),
        (Distribution(choice=("softmax", 1)), 3, 3),  # nothing is near among words
        (Distribution(quantized=(0, 0.5, 0.1)), 0.34, 0.3),
        (Distribution(quantized=(8, 64, 8)), 1000.0, 64),
        (Distribution(uniform=(0, 1)), -0.2, 0.0),
        (Distribution(loguniform=(0.01, 0.1)), 0.12, 0.1),
    ],
)
def test_nearest_of_known_values(distribution, value, nearest):
    found = distribution.nearest(value)
    assert (found, type(found)) == (nearest, type(nearest))


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({}, r"one of choice, uniform, loguniform, quantized, not \[\]"),
        ({"uniform": (0, 1), "choice": (1,)}, r"not \['choice', 'uniform'\]"),
        ({"choice": ()}, "choice is empty"),
        ({"choice": (1, 2, 1)}, "choice repeats a value"),
        ({"choice": ([1], [1])}, "choice repeats a value"),
        ({"uniform": (1, 1)}, "uniform goes from 1.0 to 1.0"),
        ({"uniform": (2, 1)}, "uniform goes from 2.0 to 1.0"),
        ({"uniform": (0, math.inf)}, "uniform goes from 0.0 to inf"),
        ({"uniform": (math.nan, 1)}, "uniform goes from nan"),
        ({"loguniform": (0, 1)}, r"loguniform begins at 0\.0"),
        ({"loguniform": (-1, 1)}, r"loguniform begins at -1\.0"),
        ({"quantized": (0, 1, 0)}, "steps by 0"),
        ({"quantized": (0, 1, -0.1)}, "steps by -0.1"),
        ({"quantized": (0, 1, 2)}, "steps by 2"),
        ({"quantized": (0, 1, math.nan)}, "steps by nan"),
        ({"quantized": (1, 0, 0.1)}, "quantized goes from 1.0 to 0.0"),
    ],
)
def test_a_wrong_distribution_is_refused(given_, says):
    with pytest.raises(ValueError, match=says):
        Distribution(**given_)


@pytest.mark.parametrize(
    "document", [{"normal": [0, 1]}, {"uniform": [0]}, {"uniform": ["low", "high"]}, 3]
)
def test_a_distribution_that_yaml_cannot_mean_is_an_error_that_names_its_place(document):
    with pytest.raises(InputError, match=r"grids\.0\.sample\.l2"):
        parse_spec(SearchSpec, {"grids": [{"sample": {"l2": document}}]})


def test_a_distribution_survives_its_own_document():
    for document in (
        {"choice": [1, "two", [3]]},
        {"uniform": [0.0, 1.0]},
        {"loguniform": [0.01, 1.0]},
        {"quantized": [8.0, 64.0, 8.0]},
    ):
        told = spec_to_dict(parse_spec(Distribution, document))
        assert {name: value for name, value in told.items() if value is not None} == document


def drawn(**sample):
    grid = GridSpec(sample={name: Distribution(**given_) for name, given_ in sample.items()})
    return SearchSpec(grids=(grid,), searcher="random", budget=BudgetSpec(trials=3))


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        ({"num_factors": {"uniform": (8, 64)}}, "num_factors.*fractional part"),
        ({"num_factors": {"loguniform": (1, 100)}}, "num_factors.*fractional part"),
        ({"num_factors": {"quantized": (0, 64, 8)}}, "num_factors is 0"),
        ({"dropout": {"uniform": (0, 1)}}, r"dropout is 1\.0"),
        ({"loss": {"choice": ("softmax", "sotfmax")}}, "sotfmax"),
        ({"l3": {"uniform": (0, 1)}}, "l3: there is no such key"),
    ],
)
def test_a_distribution_that_the_family_refuses_is_refused_before_anything_is_drawn(sample, says):
    with pytest.raises(ValueError, match=says):
        drawn(**sample)


def test_a_family_is_asked_about_the_ends_of_a_long_range_only():
    spec = drawn(num_factors={"quantized": (1, 100_000, 1)}, l2={"loguniform": (0.01, 1)})
    assert len(spec.extremes()) == 3
    assert {config.num_factors for config in spec.extremes()} == {1, 100_000}
