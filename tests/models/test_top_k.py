import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import perso.models.top_k as module
from perso.models.top_k import top_k


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


@given(
    scores=hnp.arrays(
        np.float32, st.tuples(st.integers(0, 4), st.integers(0, 9)), elements=few_values
    ),
    k=st.integers(1, 12),
    data=st.data(),
)
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


def test_ties_keep_the_lower_item_index():
    indices, _ = top_k(np.zeros((2, 1000), np.float32), 5)
    assert indices.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_blocks_change_no_list(monkeypatch):
    scores = np.random.default_rng(0).normal(size=(37, 20)).astype(np.float32)
    seen = [np.array([row % 20]) for row in range(37)]
    whole = top_k(scores, 6, seen=seen)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * 20 * 5)
    for blocked, expected in zip(top_k(scores, 6, seen=seen), whole, strict=True):
        np.testing.assert_array_equal(blocked, expected)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": 2, "seen": [np.array([0])]}, "seen has 1 rows, scores have 2"),
        ({"k": 2, "allowed": np.ones(3, bool)}, r"allowed has shape \(3,\), scores have 4"),
    ],
)
def test_wrong_arguments_are_named(arguments, says):
    with pytest.raises(ValueError, match=says):
        top_k(np.zeros((2, 4), np.float32), **arguments)
