"""The approximate index against exact lists, on vectors that lie in clusters as shoppers' do."""

import sys

import numpy as np
import pytest

from perso.errors import PersoError
from perso.models.ann import AnnConfig, AnnIndex
from perso.models.top_k import top_k_factors

faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed")


@pytest.fixture(scope="module", autouse=True)
def one_faiss_thread():
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


@pytest.fixture(scope="module")
def users_and_index():
    """50 tastes; items of very different length, as the popular and the rare ones have."""
    rng = np.random.default_rng(0)
    tastes = rng.normal(size=(50, 16))
    items = tastes[rng.integers(50, size=8000)] + 0.5 * rng.normal(size=(8000, 16))
    items *= rng.lognormal(sigma=0.8, size=(8000, 1))
    users = tastes[rng.integers(50, size=200)] + 0.5 * rng.normal(size=(200, 16))
    bias = rng.normal(size=8000)
    return users.astype(np.float32), AnnIndex.build(items, bias)


def test_a_sixth_of_the_cells_holds_nearly_the_exact_list(users_and_index):
    users, index = users_and_index
    assert index.num_cells == 2 * 89
    assert index.num_probes == 30
    assert index.measured_recall(users, 20) >= 0.95


def test_all_cells_give_the_exact_lists_and_scores(users_and_index):
    users, index = users_and_index
    full = AnnIndex.build(index.item_ID, index.item_bias_I, AnnConfig(num_probes=10**6))
    found, scores = full.search(users, 20)
    exact, best = top_k_factors(users, index.item_ID, index.item_bias_I, 20)
    np.testing.assert_array_equal(found, exact)
    np.testing.assert_allclose(scores, best, rtol=1e-5)


def test_tuning_reads_the_fewest_cells_that_reach_the_recall(users_and_index):
    users, index = users_and_index
    tuned = index.tuned(users, 20, min_recall=0.9)
    assert tuned.measured_recall(users, 20) >= 0.9
    assert tuned.num_probes < index.num_cells / 4
    fewer = index.tuned(users, 20, min_recall=0.5)
    assert fewer.num_probes < tuned.num_probes
    assert index.num_probes == 30  # itself unchanged


def test_the_bias_decides_between_equal_vectors_and_the_lower_index_between_equal_scores():
    items = np.ones((200, 4), np.float32)
    bias = np.zeros(200, np.float32)
    bias[[7, 150]] = 1.0
    config = AnnConfig(num_cells=2, num_probes=2)
    found, scores = AnnIndex.build(items, bias, config).search(np.ones((1, 4), np.float32), 2)
    assert found.tolist() == [[7, 150]]
    assert scores.tolist() == [[5.0, 5.0]]


def test_lists_longer_than_the_catalogue_are_padded():
    index = AnnIndex.build(np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
    found, scores = index.search(np.float32([[3, 2, 1]]), 5)
    assert found.tolist() == [[0, 1, 2, -1, -1]]
    assert scores.tolist() == [[3.0, 2.0, 1.0, -np.inf, -np.inf]]


def test_two_builds_answer_alike(users_and_index):
    users, index = users_and_index
    again = AnnIndex.build(index.item_ID, index.item_bias_I)
    np.testing.assert_array_equal(again.search(users, 10)[0], index.search(users, 10)[0])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda i: AnnIndex.build(np.empty((0, 2)), np.empty(0)), "one or more items"),
        (lambda i: AnnIndex.build(np.ones((3, 2)), np.ones(2)), r"biases \(2,\)"),
        (lambda i: AnnIndex.build(np.ones((1, 2)), np.array([np.inf])), "not finite"),
        (lambda i: i.search(np.ones((1, 3), np.float32), 1), "3 factors"),
        (lambda i: i.search(np.ones((1, 2), np.float32), 0), "k is 0"),
        (lambda i: i.measured_recall(np.ones((0, 2), np.float32), 1), "no user"),
        (lambda i: i.tuned(np.ones((1, 2), np.float32), 1, min_recall=1.5), "min_recall is 1.5"),
        (lambda i: AnnConfig(num_probes=0), "num_probes is 0"),
    ],
)
def test_wrong_arguments_are_named(call, says):
    index = AnnIndex.build(np.ones((3, 2), np.float32), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=says):
        call(index)


def test_without_faiss_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(PersoError, match="pip install faiss-cpu"):
        AnnIndex.build(np.ones((3, 2), np.float32), np.zeros(3, np.float32))
