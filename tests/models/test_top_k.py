"""Lists against a full sort, whichever way they are found."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import perso.models.top_k as module
import perso.models.top_k_kernel as kernel_module
import perso.models.top_k_torch as torch_module
from perso.models.left_out import LeftOut
from perso.models.top_k import top_k, top_k_factors

no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(params=["rows", "kernel"])
def few_users(request, monkeypatch):
    """Both ways of selecting, whatever the number of users."""
    monkeypatch.setattr(module, "_FEW_USERS", 10**9 if request.param == "rows" else -1)


def naive(scores, k, seen, allowed):
    rows = []
    for scores_I, seen_items in zip(scores, seen, strict=True):
        candidates = [
            item
            for item in range(len(scores_I))
            if allowed[item]
            and item not in seen_items
            and not np.isnan(scores_I[item])
            and scores_I[item] > -np.inf
        ]
        ranked = sorted(candidates, key=lambda item: (-scores_I[item], item))[:k]
        rows.append(ranked + [-1] * (k - len(ranked)))
    return rows


few_values = st.sampled_from([0.0, -0.0, 1.0, -2.5, 7.0, float("inf"), float("-inf"), float("nan")])


@pytest.mark.usefixtures("few_users")
@given(
    scores=hnp.arrays(
        np.float32, st.tuples(st.integers(0, 4), st.integers(0, 9)), elements=few_values
    ),
    k=st.integers(1, 12),
    data=st.data(),
)
@settings(deadline=None)
def test_lists_equal_those_of_a_full_sort(scores, k, data):
    num_users, num_items = scores.shape
    item = st.integers(0, max(num_items - 1, 0))
    chosen = st.sets(item) if num_items else st.just(set())
    seen = [np.array(sorted(data.draw(chosen)), np.int32) for _ in range(num_users)]
    allowed = np.array(
        data.draw(st.lists(st.booleans(), min_size=num_items, max_size=num_items)), bool
    )
    before = scores.copy()
    indices, best = top_k(scores, k, seen=seen, allowed=allowed)
    assert indices.shape == best.shape == (num_users, k)
    assert indices.tolist() == naive(scores, k, [set(s.tolist()) for s in seen], allowed)
    for row in range(num_users):
        found = indices[row] >= 0
        np.testing.assert_array_equal(best[row, found], scores[row, indices[row, found]])
        assert np.isneginf(best[row, ~found]).all()
    np.testing.assert_array_equal(scores, before)


@pytest.mark.usefixtures("few_users")
@given(
    num_items=st.integers(1, 700),
    k=st.integers(1, 25),
    num_values=st.sampled_from([1, 3, 100, 10**6]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=50)
def test_lists_of_a_large_catalogue_equal_those_of_a_full_sort(num_items, k, num_values, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(num_values, size=(3, num_items)).astype(np.float32)
    indices, best = top_k(scores, k)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices[:, : expected.shape[1]], expected)
    np.testing.assert_array_equal(
        best[:, : expected.shape[1]], np.take_along_axis(scores, expected, 1)
    )


@pytest.mark.usefixtures("few_users")
def test_ties_keep_the_lower_item_index():
    indices, _ = top_k(np.zeros((2, 1000), np.float32), 5)
    assert indices.tolist() == [[0, 1, 2, 3, 4]] * 2


def small_whole_numbers(num_users, num_items, num_factors=4, seed=0):
    """Vectors whose products are exact in float32, with many ties, and masks for them."""
    rng = np.random.default_rng(seed)
    user = rng.integers(-3, 4, (num_users, num_factors)).astype(np.float32)
    item = rng.integers(-3, 4, (num_items, num_factors)).astype(np.float32)
    bias = rng.integers(-2, 3, num_items).astype(np.float32)
    seen = [rng.permutation(num_items)[: rng.integers(num_items)] for _ in range(num_users)]
    masks = {
        "seen_indptr": np.cumsum([0, *map(len, seen)]),
        "seen_indices": np.concatenate([np.empty(0, int), *seen]),
        "allowed": rng.random(num_items) < 0.9,
    }
    return user, item, bias, seen, masks


def on_torch(user, item, bias, k, *, seen_indptr, seen_indices, allowed, device="cpu"):
    left_out = LeftOut.of_rows(
        seen_indptr, seen_indices, allowed, num_users=len(user), num_items=len(item)
    )
    return torch_module.select_on_device(
        user, item, left_out.mask(bias), k, left_out, device=device
    )


WAYS = [
    pytest.param(top_k_factors, id="cpu"),
    pytest.param(on_torch, id="torch"),
    pytest.param(partial(on_torch, device="cuda"), id="cuda", marks=[pytest.mark.gpu, no_cuda]),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("num_users", [1, 40])
@given(num_items=st.integers(1, 300), k=st.integers(1, 40), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=40)
def test_lists_of_factors_equal_those_of_their_scores(way, num_users, num_items, k, seed):
    user, item, bias, seen, masks = small_whole_numbers(num_users, num_items, seed=seed)
    scores = user @ item.T + bias
    indices, best = way(user, item, bias, k, **masks)
    expected = naive(scores, k, [set(s.tolist()) for s in seen], masks["allowed"])
    assert indices.tolist() == expected
    assert indices.dtype == np.int64
    assert best.dtype == np.float32
    found = indices >= 0
    rows = np.nonzero(found)[0]
    np.testing.assert_array_equal(best[found], scores[rows, indices[found]])
    assert np.isneginf(best[~found]).all()


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("way", WAYS)
def test_scores_that_are_no_numbers_are_never_recommended(way):
    user = np.float32([[1, 0], [np.inf, 1], [np.nan, 1]] * 5)
    item = np.float32([[1, 0], [0, 1], [2, 0]])
    masks = {"seen_indptr": np.zeros(16, int), "seen_indices": np.empty(0), "allowed": None}
    indices, best = way(user, item, np.float32([0, 0, -np.inf]), 3, **masks)
    assert indices[:3].tolist() == [[0, 1, -1], [0, -1, -1], [-1, -1, -1]]
    assert best[:2].tolist() == [[1, 0, -np.inf], [np.inf, -np.inf, -np.inf]]


@pytest.mark.parametrize(
    ("way", "module"),
    [(top_k_factors, kernel_module), (on_torch, torch_module)],
)
def test_blocks_of_users_and_items_change_no_list(way, module, monkeypatch):
    user, item, bias, _, masks = small_whole_numbers(37, 300)
    whole = way(user, item, bias, 6, **masks)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * 130 * 3)
    if module is kernel_module:
        monkeypatch.setattr(module, "_MOST_ITEMS", 130)
    for blocked, expected in zip(way(user, item, bias, 6, **masks), whole, strict=True):
        np.testing.assert_array_equal(blocked, expected)


@pytest.mark.parametrize("threads", ["1", "3", "16"])
def test_threads_change_no_list(threads, monkeypatch):
    user, item, bias, _, masks = small_whole_numbers(37, 300)
    expected = on_torch(user, item, bias, 6, **masks)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    for found, other in zip(top_k_factors(user, item, bias, 6, **masks), expected, strict=True):
        np.testing.assert_array_equal(found, other)


def test_a_request_loads_no_compiler():
    code = """
import sys
import numpy as np
from perso.models.top_k import top_k, top_k_factors
items = np.eye(70, dtype=np.float32)
top_k(items[:1], 3)
top_k_factors(items[:1], items, items[0], 3)
assert not {"numba", "torch"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_read_only_inputs_are_enough_and_stay_as_they_are():
    user, item, bias, _, masks = small_whole_numbers(20, 50)
    for array in (user, item, bias, *masks.values()):
        array.flags.writeable = False
    for way in (top_k_factors, on_torch):
        way(user, item, bias, 5, **masks)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": 2, "seen": [np.array([0])]}, "seen has 1 rows, scores have 2"),
        ({"k": 2, "seen": [np.array([0]), np.array([4])]}, "seen items reach from 0 to 4"),
        ({"k": 2, "allowed": np.ones(3, bool)}, r"allowed has shape \(3,\), scores have 4"),
    ],
)
def test_wrong_arguments_are_named(arguments, says):
    with pytest.raises(ValueError, match=says):
        top_k(np.zeros((2, 4), np.float32), **arguments)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"k": 0}, "k is 0"),
        ({"item_ID": np.ones((4, 3))}, "disagree on factors"),
        ({"item_bias_I": np.ones(3)}, r"biases \(3,\)"),
        ({"seen_indptr": np.zeros(3)}, "or neither"),
        ({"seen_indptr": np.zeros(2), "seen_indices": np.empty(0)}, "seen has 1 rows"),
        ({"seen_indptr": [0, 0, 1], "seen_indices": np.array([-1])}, "reach from -1"),
    ],
)
def test_wrong_arguments_for_factors_are_named(changes, says):
    good = {"user_BD": np.ones((2, 2)), "item_ID": np.ones((4, 2)), "item_bias_I": np.ones(4)}
    with pytest.raises(ValueError, match=says):
        top_k_factors(**(good | {"k": 1} | changes))
