import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.models.seen import SeenItems


@given(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 7))))
def test_each_user_has_exactly_their_items(build, pairs):
    seen = SeenItems.from_interactions(build(pairs, num_users=6, num_items=8))
    assert seen.num_users == 6
    for user in range(6):
        assert seen.of(user).tolist() == sorted(item for u, item in pairs if u == user)


@pytest.mark.parametrize("user_index", [-1, 2, 10_000])
def test_strangers_have_seen_nothing(build, user_index):
    seen = SeenItems.from_interactions(build([(0, 0), (1, 1)], num_users=2, num_items=2))
    assert seen.of(user_index).tolist() == []


@pytest.mark.parametrize("pairs", [[(0, 1), (2, 0)], []])
def test_saved_rows_load_again(build, tmp_path, pairs):
    seen = SeenItems.from_interactions(build(pairs, num_users=3, num_items=2))
    seen.save(tmp_path)
    loaded = SeenItems.load(tmp_path)
    assert [loaded.of(u).tolist() for u in range(3)] == [seen.of(u).tolist() for u in range(3)]


def test_arrays_of_two_different_saves_are_refused(build, tmp_path):
    SeenItems.from_interactions(build([(0, 1)], num_users=1, num_items=2)).save(tmp_path)
    np.save(tmp_path / "item_indices.npy", np.zeros(5, np.int32))
    with pytest.raises(ValueError, match="rows end at 1, but there are 5 items"):
        SeenItems.load(tmp_path)
