"""Metrics against hand-made cases and against their definitions written naively."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from perso.evaluation.metrics import (
    average_precision_at_k,
    catalog_coverage,
    ndcg_at_k,
    recall_at_k,
    reciprocal_rank_at_k,
    rmse,
)

RANKED = [recall_at_k, ndcg_at_k, average_precision_at_k, reciprocal_rank_at_k]


def naive_recall(ranked, relevant, k):
    return len(set(ranked[:k]) & relevant) / len(relevant)


def naive_ndcg(ranked, relevant, k):
    gained = sum(1 / math.log2(place + 2) for place, i in enumerate(ranked[:k]) if i in relevant)
    return gained / sum(1 / math.log2(place + 2) for place in range(min(k, len(relevant))))


def naive_average_precision(ranked, relevant, k):
    total = 0.0
    for place, item in enumerate(ranked[:k], start=1):
        if item in relevant:
            total += len(set(ranked[:place]) & relevant) / place
    return total / min(k, len(relevant))


def naive_reciprocal_rank(ranked, relevant, k):
    return next((1 / p for p, item in enumerate(ranked[:k], start=1) if item in relevant), 0.0)


NAIVE = [naive_recall, naive_ndcg, naive_average_precision, naive_reciprocal_rank]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (recall_at_k, 2 / 3),
        (ndcg_at_k, (1 / math.log2(3) + 1 / math.log2(4)) / (1 + 1 / math.log2(3) + 1 / 2)),
        (average_precision_at_k, (1 / 2 + 2 / 3) / 3),
        (reciprocal_rank_at_k, 1 / 2),
    ],
)
def test_a_list_scored_by_hand(metric, expected):
    found = metric(np.array([[9, 4, 7, 1]]), [{4, 7, 0}], k=4)
    assert found == pytest.approx([expected])


def test_recall_divides_by_all_relevant_items_and_the_others_by_what_fits():
    lists, relevant = np.array([[0, 1]]), [set(range(10))]
    assert recall_at_k(lists, relevant, k=2) == pytest.approx([0.2])
    assert ndcg_at_k(lists, relevant, k=2) == pytest.approx([1.0])
    assert average_precision_at_k(lists, relevant, k=2) == pytest.approx([1.0])


@st.composite
def worlds(draw):
    num_items = draw(st.integers(1, 12))
    num_users = draw(st.integers(0, 4))
    length = draw(st.integers(1, 14))
    rows, relevant = [], []
    for _ in range(num_users):
        row = draw(st.permutations(range(num_items)))[: draw(st.integers(0, num_items))][:length]
        rows.append(row + [-1] * (length - len(row)))
        relevant.append(draw(st.sets(st.integers(0, num_items - 1))))
    return np.array(rows, np.int64).reshape(num_users, length), relevant, length


@pytest.mark.parametrize(("metric", "naive"), list(zip(RANKED, NAIVE, strict=True)))
@given(world=worlds(), as_arrays=st.booleans(), data=st.data())
def test_fast_metrics_equal_naive_ones(metric, naive, world, as_arrays, data):
    lists, relevant, length = world
    k = data.draw(st.integers(1, length))
    given_as = [np.array(sorted(r), np.int32) for r in relevant] if as_arrays else relevant
    found = metric(lists, given_as, k=k)
    assert found.shape == (len(relevant),)
    for value, row, wanted in zip(found, lists.tolist(), relevant, strict=True):
        if wanted:
            assert value == pytest.approx(naive([i for i in row if i >= 0], wanted, k))
            assert 0 <= value <= 1 + 1e-12
        else:
            assert math.isnan(value)


@given(data=st.data(), num_items=st.integers(2, 12), num_users=st.integers(1, 4))
def test_ndcg_is_that_of_scikit_learn(data, num_items, num_users):
    """Where both are defined; scikit-learn has 0, not nan, for a user without relevant items,
    refuses a catalogue of one, and fills a list shorter than k with the items left out."""
    lists = np.array([data.draw(st.permutations(range(num_items))) for _ in range(num_users)])
    some = st.sets(st.integers(0, num_items - 1), min_size=1)
    relevant = [data.draw(some) for _ in range(num_users)]
    k = data.draw(st.integers(1, num_items))
    gains_BI = np.array([[item in wanted for item in range(num_items)] for wanted in relevant])
    scores_BI = -np.argsort(lists, axis=1)  # minus each item's place
    expected = ndcg_score(gains_BI.astype(float), scores_BI, k=k)
    assert ndcg_at_k(lists[:, :k], relevant, k=k).mean() == pytest.approx(expected)


@pytest.mark.parametrize("metric", RANKED)
@given(world=worlds())
def test_the_order_of_users_does_not_matter(metric, world):
    lists, relevant, length = world
    found = metric(lists, relevant, k=length)
    again = metric(lists[::-1], relevant[::-1], k=length)
    np.testing.assert_allclose(again, found[::-1], rtol=1e-12)


@pytest.mark.parametrize("metric", RANKED)
@pytest.mark.parametrize(
    ("k", "relevant", "says"),
    [
        (0, [{1}], "k is 0; lists have 1 to 2 places"),
        (3, [{1}], "k is 3; lists have 1 to 2 places"),
        (1, [{1}, {2}], "2 users have relevant items, 1 have lists"),
    ],
)
def test_wrong_arguments_are_named(metric, k, relevant, says):
    with pytest.raises(ValueError, match=says):
        metric(np.array([[0, 1]]), relevant, k=k)


def test_coverage_counts_distinct_items_and_no_padding():
    lists = np.array([[0, 3, -1], [3, 5, 0]])
    assert catalog_coverage(lists, num_items=10) == 0.3
    assert catalog_coverage(lists[:0], num_items=10) == 0.0
    with pytest.raises(ValueError, match="num_items is 0"):
        catalog_coverage(lists, num_items=0)


def test_rmse_by_hand():
    assert rmse(np.array([3.0, 5.0]), np.array([4.0, 3.0])) == pytest.approx(math.sqrt(2.5))
    assert math.isnan(rmse(np.array([]), np.array([])))
    with pytest.raises(ValueError, match=r"\(2,\) predictions for \(1,\) ratings"):
        rmse(np.zeros(2), np.zeros(1))
