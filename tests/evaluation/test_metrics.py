"""Metrics against hand-made cases, their definitions written naively, and other libraries."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from perso.evaluation import hits
from perso.evaluation.metrics import (
    average_precision_at_k,
    hit_rate_at_k,
    mae,
    ndcg_at_k,
    precision_at_k,
    recall_at_k,
    reciprocal_rank_at_k,
    rmse,
)


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


def naive_precision(ranked, relevant, k):
    return len(set(ranked[:k]) & relevant) / k


def naive_hit_rate(ranked, relevant, k):
    return float(any(item in relevant for item in ranked[:k]))


RANKED = {
    "recall": (recall_at_k, naive_recall),
    "ndcg": (ndcg_at_k, naive_ndcg),
    "map": (average_precision_at_k, naive_average_precision),
    "mrr": (reciprocal_rank_at_k, naive_reciprocal_rank),
    "precision": (precision_at_k, naive_precision),
    "hit_rate": (hit_rate_at_k, naive_hit_rate),
}
every_metric = pytest.mark.parametrize("metric", [metric for metric, _ in RANKED.values()])


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (recall_at_k, 2 / 3),
        (ndcg_at_k, (1 / math.log2(3) + 1 / math.log2(4)) / (1 + 1 / math.log2(3) + 1 / 2)),
        (average_precision_at_k, (1 / 2 + 2 / 3) / 3),
        (reciprocal_rank_at_k, 1 / 2),
        (precision_at_k, 2 / 4),
        (hit_rate_at_k, 1),
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
    assert precision_at_k(lists, relevant, k=2) == pytest.approx([1.0])


def test_an_empty_place_costs_precision():
    assert precision_at_k(np.array([[3, -1, -1, -1]]), [{3}], k=4) == pytest.approx([0.25])


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


@pytest.mark.parametrize("name", RANKED)
@given(world=worlds(), as_arrays=st.booleans(), data=st.data())
def test_fast_metrics_equal_naive_ones(name, world, as_arrays, data):
    metric, naive = RANKED[name]
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


@given(world=worlds(), data=st.data())
def test_all_metrics_from_one_look_at_the_hits_are_those_of_each(world, data):
    lists, relevant, length = world
    ks = data.draw(st.lists(st.integers(1, length), min_size=1, max_size=3, unique=True))
    num_relevant = np.array([len(r) for r in relevant], np.int64)
    items = np.array([item for wanted in relevant for item in wanted], int)
    found = hits.find_hits(lists, np.concatenate([[0], num_relevant.cumsum()]), items)
    together = hits.ranking_metrics(found, num_relevant, ks)
    assert together.keys() == {f"{name}@{k}" for name in RANKED for k in ks}
    for name, (metric, _) in RANKED.items():
        for k in ks:
            np.testing.assert_array_equal(together[f"{name}@{k}"], metric(lists, relevant, k=k))


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


@pytest.fixture(scope="module")
def scored():
    """Random scores and relevant items; one user has none, one more than a list holds."""
    rng = np.random.default_rng(0)
    scores_BI = rng.normal(size=(60, 30))
    is_relevant_BI = rng.random((60, 30)) < 0.12
    is_relevant_BI[0] = False
    is_relevant_BI[1, :9] = True
    lists = np.argsort(-scores_BI, axis=1)
    return scores_BI, is_relevant_BI, lists, [np.flatnonzero(row) for row in is_relevant_BI]


@pytest.mark.parametrize("k", [1, 5])
def test_recall_ndcg_precision_and_hit_rate_are_those_of_irspack(scored, k):
    core = pytest.importorskip("irspack.evaluation._core_evaluator")
    scores_BI, is_relevant_BI, lists, relevant = scored
    evaluator = core.EvaluatorCore(sp.csr_matrix(is_relevant_BI.astype(float)), [])
    theirs = evaluator.get_metrics_f64(scores_BI, k, 0, 1, False).as_dict()
    for name, other in {"recall": "recall", "ndcg": "ndcg", "hit_rate": "hit"}.items():
        ours = np.nanmean(RANKED[name][0](lists, relevant, k=k))
        assert ours == pytest.approx(theirs[other], rel=1e-12)
    assert np.nanmean(precision_at_k(lists, relevant, k=k)) == pytest.approx(theirs["precision"])


@pytest.mark.parametrize("k", [1, 5])
def test_map_and_ndcg_are_those_of_implicit(scored, k):
    evaluation = pytest.importorskip("implicit.evaluation")
    scores_BI, is_relevant_BI, lists, relevant = scored

    class Model:
        def recommend(self, users, user_items, N=10, **_):
            best = lists[users][:, :N].astype(np.int32)
            return best, np.take_along_axis(scores_BI[users], best, 1).astype(np.float32)

    theirs = evaluation.ranking_metrics_at_k(
        Model(),
        sp.csr_matrix(is_relevant_BI.shape, dtype=np.float32),
        sp.csr_matrix(is_relevant_BI.astype(np.float32)),
        K=k,
        show_progress=False,
        num_threads=1,
    )
    ours = np.nanmean(average_precision_at_k(lists, relevant, k=k))
    assert ours == pytest.approx(theirs["map"], rel=1e-6)
    assert np.nanmean(ndcg_at_k(lists, relevant, k=k)) == pytest.approx(theirs["ndcg"], rel=1e-6)


def test_reciprocal_rank_of_one_relevant_item_is_scikit_learns_average_precision(scored):
    scores_BI, is_relevant_BI, lists, _ = scored
    one = np.zeros_like(is_relevant_BI)
    one[np.arange(60), np.arange(60) % 30] = True
    found = reciprocal_rank_at_k(lists, [np.flatnonzero(row) for row in one], k=30)
    assert found.mean() == pytest.approx(label_ranking_average_precision_score(one, scores_BI))


@every_metric
@given(world=worlds())
def test_the_order_of_users_does_not_matter(metric, world):
    lists, relevant, length = world
    found = metric(lists, relevant, k=length)
    again = metric(lists[::-1], relevant[::-1], k=length)
    np.testing.assert_allclose(again, found[::-1], rtol=1e-12)


@every_metric
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


def test_a_cut_off_beyond_the_lists_is_refused_for_all_metrics_at_once():
    with pytest.raises(ValueError, match="k is 3; lists have 1 to 2 places"):
        hits.ranking_metrics(np.zeros((1, 2), bool), np.ones(1, int), [1, 3])


def test_errors_of_predictions_by_hand():
    predicted, actual = np.array([3.0, 5.0]), np.array([4.0, 3.0])
    assert rmse(predicted, actual) == pytest.approx(math.sqrt(2.5))
    assert mae(predicted, actual) == pytest.approx(1.5)


@pytest.mark.parametrize("error", [rmse, mae])
def test_errors_without_predictions_are_not_a_number_and_shapes_must_agree(error):
    assert math.isnan(error(np.array([]), np.array([])))
    with pytest.raises(ValueError, match=r"\(2,\) predictions for \(1,\) ratings"):
        error(np.zeros(2), np.zeros(1))


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=9))
def test_the_mean_absolute_error_never_exceeds_the_root_mean_square(errors):
    predicted = np.array(errors)
    actual = np.zeros(len(errors))
    assert 0 <= mae(predicted, actual) <= rmse(predicted, actual) + 1e-12
