"""Intervals against their theory and against drawing users in a loop."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import perso.evaluation.bootstrap as module
from perso.evaluation.bootstrap import bootstrap_difference, bootstrap_intervals


def test_the_interval_is_that_of_the_normal_distribution_for_many_users():
    values = np.random.default_rng(0).normal(3.0, 2.0, (2000, 1))
    ((low, high),) = bootstrap_intervals(values, num_resamples=4000)
    half_width = 1.96 * values.std() / math.sqrt(2000)
    assert low == pytest.approx(values.mean() - half_width, abs=0.06 * half_width)
    assert high == pytest.approx(values.mean() + half_width, abs=0.06 * half_width)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    worlds = [rng.exponential(1.0, (80, 1)) for _ in range(200)]
    inside = [
        low <= 1.0 <= high
        for ((low, high),) in (bootstrap_intervals(w, num_resamples=300) for w in worlds)
    ]
    assert 0.88 <= np.mean(inside) <= 0.99


def test_the_same_draws_serve_every_metric_and_equal_a_loop(monkeypatch):
    values = np.random.default_rng(2).random((7, 3))
    expected = [
        values[np.random.default_rng(5).integers(7, size=(50, 7))[row]].mean(0) for row in range(50)
    ]
    ends = np.quantile(expected, [0.05, 0.95], axis=0).T
    found = bootstrap_intervals(values, num_resamples=50, confidence=0.9, seed=5)
    np.testing.assert_allclose(found, ends)
    monkeypatch.setattr(module, "_DRAWS_AT_ONCE", 30)  # four resamples at a time
    blocked = bootstrap_intervals(values, num_resamples=50, confidence=0.9, seed=5)
    np.testing.assert_allclose(blocked, ends)


@given(
    values=st.lists(st.floats(0, 1), min_size=1, max_size=9),
    seed=st.integers(0, 9),
    confidence=st.floats(0.5, 0.99),
)
@settings(deadline=None)
def test_intervals_lie_within_the_values_and_repeat_with_their_seed(values, seed, confidence):
    column = np.array(values)[:, np.newaxis]
    options = {"num_resamples": 20, "seed": seed, "confidence": confidence}
    ((low, high),) = found = bootstrap_intervals(column, **options)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12
    np.testing.assert_array_equal(bootstrap_intervals(column, **options), found)


def test_pairing_tells_models_apart_whose_own_intervals_overlap():
    rng = np.random.default_rng(3)
    second = rng.random(300)
    first = second + 0.02 + 0.01 * rng.normal(size=300)
    own = bootstrap_intervals(np.stack([first, second], 1))
    assert own[0, 0] < own[1, 1]
    found = bootstrap_difference(first, second)
    assert found.mean == pytest.approx((first - second).mean())
    assert 0 < found.low < found.mean < found.high
    turned = bootstrap_difference(second, first)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_equal_models_differ_by_nothing():
    values = np.random.default_rng(4).random(50)
    found = bootstrap_difference(values, values)
    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)


def test_without_users_there_is_no_interval():
    assert np.isnan(bootstrap_intervals(np.empty((0, 2)))).all()
    assert math.isnan(bootstrap_difference(np.empty(0), np.empty(0)).mean)


@pytest.mark.parametrize(
    ("values", "changes", "says"),
    [
        (np.ones((2, 1)), {"num_resamples": 0}, "num_resamples is 0"),
        (np.ones((2, 1)), {"confidence": 1.0}, "confidence 1.0"),
        (np.array([[1.0], [np.nan]]), {}, "some user has no value"),
    ],
)
def test_wrong_arguments_are_named(values, changes, says):
    with pytest.raises(ValueError, match=says):
        bootstrap_intervals(values, **changes)


def test_different_users_cannot_be_paired():
    with pytest.raises(ValueError, match=r"\(2,\) values against \(3,\)"):
        bootstrap_difference(np.ones(2), np.ones(3))
