"""Exposure, novelty and surprise of lists, by hand and against naive code."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from perso.evaluation.exposure import (
    average_popularity,
    catalog_coverage,
    gini_of_exposure,
    novelty,
    popularity_lift,
    serendipity_at_k,
)


def test_coverage_counts_distinct_items_and_no_padding():
    lists = np.array([[0, 3, -1], [3, 5, 0]])
    assert catalog_coverage(lists, num_items=10) == 0.3
    assert catalog_coverage(lists[:0], num_items=10) == 0.0


@pytest.mark.parametrize("figure", [catalog_coverage, gini_of_exposure])
def test_a_catalogue_of_nothing_is_refused(figure):
    with pytest.raises(ValueError, match="num_items is 0"):
        figure(np.array([[0]]), num_items=0)


@pytest.mark.parametrize(
    ("lists", "num_items", "expected"),
    [
        ([[0, 1], [2, 3]], 4, 0.0),  # each item once
        ([[2], [2], [2]], 4, 1.0),  # one item has it all
        ([[0, 1], [1, -1]], 3, (-2 * 0 + 0 * (1 / 3) + 2 * (2 / 3)) / 2),
        ([[0], [0]], 1, 0.0),
        ([[-1]], 3, math.nan),
    ],
)
def test_gini_by_hand(lists, num_items, expected):
    found = gini_of_exposure(np.array(lists), num_items=num_items)
    assert found == pytest.approx(expected, nan_ok=True)


def test_gini_and_coverage_are_those_of_irspack():
    """Up to the last factor: irspack divides by the number of items, the handbook by one less."""
    core = pytest.importorskip("irspack.evaluation._core_evaluator")
    rng = np.random.default_rng(0)
    scores_BI = rng.normal(size=(20, 30)) + np.linspace(0, 2, 30)
    evaluator = core.EvaluatorCore(sp.csr_matrix(np.ones((20, 30))), [])
    theirs = evaluator.get_metrics_f64(scores_BI, 4, 0, 1, False).as_dict()
    lists = np.argsort(-scores_BI, axis=1)[:, :4]
    found = gini_of_exposure(lists, num_items=30)
    assert found * 29 / 30 == pytest.approx(theirs["gini_index"])
    assert catalog_coverage(lists, num_items=30) * 30 == theirs["appeared_item"]


list_worlds = st.integers(1, 9).flatmap(
    lambda num_items: st.tuples(
        st.just(num_items),
        st.lists(
            st.lists(st.integers(-1, num_items - 1), min_size=3, max_size=3),
            min_size=0,
            max_size=5,
        ).map(lambda rows: np.array(rows, np.int64).reshape(-1, 3)),
        st.lists(st.integers(0, 6), min_size=num_items, max_size=num_items).map(np.array),
    )
)


@given(list_worlds)
def test_gini_is_the_mean_absolute_difference_and_stays_within_its_bounds(world):
    num_items, lists, _ = world
    found = gini_of_exposure(lists, num_items=num_items)
    exposure = [int((lists == item).sum()) for item in range(num_items)]
    if not sum(exposure):
        assert math.isnan(found)
        return
    differences = sum(abs(a - b) for a in exposure for b in exposure)
    expected = differences / (2 * num_items * sum(exposure)) * num_items / max(num_items - 1, 1)
    assert found == pytest.approx(expected, abs=1e-12)
    assert -1e-12 <= found <= 1 + 1e-12


def test_novelty_counts_bits():
    item_users = np.array([8, 4, 1, 0])
    found = novelty(np.array([[0, 1], [2, -1], [3, -1], [-1, -1]]), item_users, num_users=8)
    np.testing.assert_allclose(found, [0.5, 3.0, 3.0, np.nan])  # nobody's item: as if one had it
    with pytest.raises(ValueError, match="an item has 8 users, but there are 7"):
        novelty(np.array([[0]]), item_users, num_users=7)


@given(list_worlds)
def test_novelty_and_popularity_stay_within_their_bounds(world):
    _, lists, item_users = world
    listed = (lists >= 0).any(1)
    bits = novelty(lists, item_users, num_users=6)
    popularity = average_popularity(lists, item_users)
    for values in (bits, popularity):
        np.testing.assert_array_equal(np.isfinite(values), listed)
    assert ((bits[listed] >= 0) & (bits[listed] <= math.log2(6) + 1e-12)).all()
    expected = [np.mean([item_users[i] for i in row if i >= 0]) for row in lists[listed].tolist()]
    np.testing.assert_allclose(popularity[listed], expected)


def test_lists_twice_as_popular_as_the_histories_have_a_lift_of_one():
    listed, had = np.array([30.0, 10.0, np.nan]), np.array([10.0, 10.0, 99.0])
    assert popularity_lift(listed, had) == pytest.approx(1.0)
    assert popularity_lift(had[:2], had[:2]) == 0.0
    assert math.isnan(popularity_lift(listed[2:], had[2:]))


def naive_serendipity(row, hits, item_users, seen, k):
    unseen = [item for item in range(len(item_users)) if item not in seen]
    popular = sorted(unseen, key=lambda item: (-item_users[item], item))[:k]
    useful = [item for item, hit in zip(row[:k], hits[:k], strict=True) if hit]
    return sum(item not in popular for item in useful) / k


def test_a_hit_that_popularity_has_too_is_no_surprise():
    item_users = np.array([9, 8, 7, 1])
    lists, hits = np.array([[1, 3]]), np.array([[True, True]])
    had_nothing = {"seen_indptr_B1": np.array([0, 0]), "seen_items_P": np.array([], int)}
    assert serendipity_at_k(lists, hits, item_users, k=2, **had_nothing) == [0.5]
    # Who had the most popular one is shown 1 and 2 by popularity, and 3 is still a surprise.
    had_first = {"seen_indptr_B1": np.array([0, 1]), "seen_items_P": np.array([0])}
    assert serendipity_at_k(lists, hits, item_users, k=2, **had_first) == [0.5]
    # Who had the first and the third is shown 1 and 3.
    had_two = {"seen_indptr_B1": np.array([0, 2]), "seen_items_P": np.array([0, 2])}
    assert serendipity_at_k(lists, hits, item_users, k=2, **had_two) == [0.0]


@given(data=st.data(), num_items=st.integers(1, 9), num_users=st.integers(0, 4))
def test_serendipity_equals_a_popularity_list_per_user(data, num_items, num_users):
    counts = st.lists(st.integers(0, 3), min_size=num_items, max_size=num_items)
    item_users = np.array(data.draw(counts))
    rows, hits, seen = [], [], []
    for _ in range(num_users):
        had = data.draw(st.sets(st.integers(0, num_items - 1)))
        order = data.draw(st.permutations([i for i in range(num_items) if i not in had]))
        row = (order + [-1] * num_items)[:num_items]
        rows.append(row)
        hits.append([item >= 0 and data.draw(st.booleans()) for item in row])
        seen.append(had)
    k = data.draw(st.integers(1, num_items))
    found = serendipity_at_k(
        np.array(rows, np.int64).reshape(num_users, num_items),
        np.array(hits, bool).reshape(num_users, num_items),
        item_users,
        k=k,
        seen_indptr_B1=np.cumsum([0, *map(len, seen)]),
        seen_items_P=np.array([item for had in seen for item in had], int),
    )
    expected = [
        naive_serendipity(row, hit, item_users, had, k)
        for row, hit, had in zip(rows, hits, seen, strict=True)
    ]
    assert found.tolist() == pytest.approx(expected)


def test_serendipity_refuses_a_cut_off_beyond_the_lists():
    with pytest.raises(ValueError, match="k is 2; lists have 1 to 1 places"):
        serendipity_at_k(
            np.array([[0]]),
            np.array([[True]]),
            np.array([1]),
            k=2,
            seen_indptr_B1=np.array([0, 0]),
            seen_items_P=np.array([], int),
        )
