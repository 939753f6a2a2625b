import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.models.histories import Histories

CPU = torch.device("cpu")
pair_sets = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=1)


@given(
    pairs=pair_sets,
    users=st.lists(st.integers(0, 5), unique=True),
    by_visit=st.booleans(),
    seed=st.integers(0, 100),
)
@settings(deadline=None)
def test_a_step_has_the_pairs_of_its_users_in_their_order(build, pairs, users, by_visit, seed):
    rng = np.random.default_rng(seed)
    world = build(pairs, num_users=6, num_items=8, weights=rng.uniform(0.5, 4.0, len(pairs)))
    visits = rng.integers(0, 9, len(pairs)) if by_visit else None
    step = Histories(world, device=CPU, visit_of_pair=visits).of(
        torch.tensor(users, dtype=torch.int64)
    )
    unit = world.weights.mean(dtype=np.float64)
    expected = [
        (
            place,
            int(visits[pair]) if by_visit else user,
            int(world.item_indices[pair]),
            np.float32(world.weights[pair] / unit),
        )
        for place, user in enumerate(users)
        for pair in np.flatnonzero(world.user_indices == user)
    ]
    found = list(zip(*(part.tolist() for part in step), strict=True))
    assert [pair[:3] for pair in found] == [pair[:3] for pair in expected]
    np.testing.assert_allclose(
        [pair[3] for pair in found], [pair[3] for pair in expected], rtol=1e-6
    )


def test_counts_and_masses_are_sums_by_user_and_item(two_tastes):
    histories = Histories(two_tastes, device=CPU)
    assert histories.counts_U.tolist() == [7] * 40 + [0]
    assert histories.active_U.tolist() == list(range(40))
    assert float(histories.weights.mean()) == pytest.approx(1.0)
    for user in (0, 17, 40):
        mine = two_tastes.user_indices == user
        mass = two_tastes.weights[mine].sum() / two_tastes.weights.mean(dtype=np.float64)
        np.testing.assert_allclose(float(histories.mass_U[user]), mass, rtol=1e-5)
    for item in (0, 23):
        mine = two_tastes.item_indices == item
        assert int(histories.counts_I[item]) == mine.sum()
        mass = two_tastes.weights[mine].sum() / two_tastes.weights.mean(dtype=np.float64)
        np.testing.assert_allclose(float(histories.mass_I[item]), mass, rtol=1e-5)
