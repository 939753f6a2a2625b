import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.models.history import History


@given(st.dictionaries(st.tuples(st.integers(0, 5), st.integers(0, 7)), st.floats(0.5, 9.0)))
def test_each_user_has_exactly_their_weighted_items(build, weight_of):
    pairs = sorted(weight_of)
    world = build(pairs, num_users=6, num_items=8, weights=[weight_of[pair] for pair in pairs])
    history = History.from_interactions(world)
    assert history.num_users == 6
    for user in range(6):
        items, weights = history.of(user)
        expected = {item: np.float32(weight_of[u, item]) for u, item in pairs if u == user}
        assert dict(zip(items.tolist(), weights, strict=True)) == expected
        assert items.tolist() == sorted(items)


@pytest.mark.parametrize("user_index", [-1, 2, 10_000])
def test_strangers_have_done_nothing(build, user_index):
    history = History.from_interactions(build([(0, 0), (1, 1)], num_users=2, num_items=2))
    items, weights = history.of(user_index)
    assert len(items) == len(weights) == 0


@pytest.mark.parametrize("pairs", [[(0, 1), (2, 0)], []])
def test_a_saved_history_loads_again(build, tmp_path, pairs):
    history = History.from_interactions(build(pairs, num_users=3, num_items=2))
    history.save(tmp_path)
    loaded = History.load(tmp_path)
    for user in range(3):
        for found, expected in zip(loaded.of(user), history.of(user), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("file", ["history_items.npy", "history_weights.npy"])
def test_arrays_of_two_different_saves_are_refused(build, tmp_path, file):
    History.from_interactions(build([(0, 1)], num_users=1, num_items=2)).save(tmp_path)
    np.save(tmp_path / file, np.zeros(5, np.float32))
    with pytest.raises(ValueError, match=r"history end at \[1, 5\]"):
        History.load(tmp_path)
