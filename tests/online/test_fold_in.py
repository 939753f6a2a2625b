"""The folded-in vector, against the trained one and against its own objective."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.data.prepared import Interactions
from perso.models.factors import FactorModel
from perso.models.fold_in_params import FoldInParams
from perso.models.sgd import fit_sgd
from perso.models.sgd_config import SgdConfig
from perso.online.fold_in import FoldIn
from perso.online.session import Session

NUM_ITEMS, NUM_FACTORS = 12, 4


def session_of(weights, ratings=None):
    indices = np.array(sorted(weights), np.int64)
    stars = [(ratings or {}).get(index, np.nan) for index in sorted(weights)]
    return Session(
        item_indices=indices,
        weights=np.array([weights[index] for index in sorted(weights)], float),
        ratings=np.array(stars, float),
        known_items=indices,
        num_events=len(indices),
    )


def random_model(seed, *, loss="softmax"):
    rng = np.random.default_rng(seed)
    items_ID = rng.normal(size=(NUM_ITEMS, NUM_FACTORS)).astype(np.float32)
    bias_I = rng.normal(size=NUM_ITEMS).astype(np.float32)
    shares_I = np.exp(bias_I) / np.exp(bias_I).sum()
    center_D = shares_I @ items_ID if loss == "softmax" else np.zeros(NUM_FACTORS, np.float32)
    spread_ID = items_ID - center_D
    params = FoldInParams(
        loss=loss,
        weight_unit=2.0,
        l2=0.3,
        center_D=center_D.astype(np.float32),
        curvature_DD=((spread_ID.T * shares_I) @ spread_ID).astype(np.float32),
        positive_rating=4.0,
        recent_boost=10.0,
    )
    factors = FactorModel(
        user_factors_UD=rng.normal(size=(3, NUM_FACTORS)).astype(np.float32),
        user_bias_U=rng.normal(size=3).astype(np.float32),
        user_weight_U=np.array([6.0, 1.0, 0.0], np.float32),
        item_factors_ID=items_ID,
        item_bias_I=bias_I,
        global_bias=3.5,
        fold_in=params,
    )
    return factors, params


seeds = st.integers(0, 10_000)
weights_by_item = st.dictionaries(
    st.integers(0, NUM_ITEMS - 1), st.floats(0.1, 30.0), min_size=1, max_size=5
)


@pytest.mark.parametrize("loss", ["softmax", "rating"])
@given(seed=seeds, weights=weights_by_item, user=st.sampled_from([-1, 0, 1, 2]))
@settings(deadline=None)
def test_the_vector_minimizes_the_stated_objective(loss, seed, weights, user):
    factors, params = random_model(seed, loss=loss)
    session = session_of(weights, {min(weights): 1.0})
    found_D = FoldIn(factors).user_vector(user, session).astype(float)

    trained_D = factors.user_factors_UD[user].astype(float) if user >= 0 else np.zeros(NUM_FACTORS)
    history = float(factors.user_weight_U[user]) if user >= 0 else 0.0
    own_bias = float(factors.user_bias_U[user]) if user >= 0 else 0.0
    curvature_DD = params.curvature_DD.astype(float)

    def slope_at(user_D):  # of the objective, event by event
        total_D = (history * curvature_DD + params.l2 * np.eye(NUM_FACTORS)) @ (user_D - trained_D)
        for item, weight in weights.items():
            stars = 1.0 if item == min(weights) else params.positive_rating
            wanted = stars - factors.global_bias - factors.item_bias_I[item] - own_bias
            target = 1.0 if loss == "softmax" else float(wanted)
            item_D = (factors.item_factors_ID[item] - params.center_D).astype(float)
            total_D += weight / params.weight_unit * (curvature_DD @ user_D - target * item_D)
        return total_D

    scale = np.abs(slope_at(np.zeros(NUM_FACTORS))).max() + 1.0
    np.testing.assert_allclose(slope_at(found_D) / scale, 0.0, atol=2e-5)


@pytest.mark.parametrize("user", [-1, 0, 2])
def test_without_recent_events_the_vector_is_the_trained_one(user):
    factors, _ = random_model(1)
    expected_D = factors.user_factors_UD[user] if user >= 0 else np.zeros(NUM_FACTORS)
    found_D = FoldIn(factors).user_vector(user, Session.empty())
    np.testing.assert_array_equal(found_D, expected_D)


@given(seed=seeds, weights=weights_by_item)
@settings(deadline=None)
def test_folding_a_history_into_a_stranger_then_more_equals_folding_in_all_at_once(seed, weights):
    factors, params = random_model(seed)
    first = dict([max(weights.items())])
    rest = {item: weight for item, weight in weights.items() if item not in first}
    at_once_D = FoldIn(factors).user_vector(-1, session_of(weights))

    users_UD, history_U = factors.user_factors_UD.copy(), factors.user_weight_U.copy()
    users_UD[0] = FoldIn(factors).user_vector(-1, session_of(first))
    history_U[0] = sum(first.values()) / params.weight_unit
    trained = FactorModel(
        user_factors_UD=users_UD,
        user_bias_U=factors.user_bias_U,
        user_weight_U=history_U,
        item_factors_ID=factors.item_factors_ID,
        item_bias_I=factors.item_bias_I,
        global_bias=factors.global_bias,
        fold_in=params,
    )
    in_turn_D = FoldIn(trained).user_vector(0, session_of(rest))
    np.testing.assert_allclose(in_turn_D, at_once_D, rtol=1e-3, atol=1e-4)


@given(seed=seeds, weights=weights_by_item)
@settings(deadline=None)
def test_a_session_raises_its_own_items_over_the_average(seed, weights):
    factors, params = random_model(seed)
    session = session_of(weights)
    user_D = FoldIn(factors).user_vector(-1, session).astype(float)
    gains_N = (factors.item_factors_ID[session.item_indices] - params.center_D) @ user_D
    assert session.weights @ gains_N >= 0


def test_who_has_no_history_is_not_known():
    factors, _ = random_model(0)
    fold_in = FoldIn(factors)
    assert [fold_in.knows(user) for user in (-1, 0, 1, 2)] == [False, True, True, False]


def test_folding_a_whole_history_into_a_stranger_gives_the_trained_vector():
    rng = np.random.default_rng(5)
    num_users, num_items = 40, 30
    users, items = np.nonzero(rng.random((num_users, num_items)) < 0.2)
    weights = rng.choice([1.0, 3.0, 5.0], len(users)).astype(np.float32)
    interactions = Interactions(
        num_users=num_users,
        num_items=num_items,
        user_indices=users.astype(np.int32),
        item_indices=items.astype(np.int32),
        weights=weights,
        ratings=np.full(len(users), np.nan, np.float32),
        last_at=np.zeros(len(users), np.int64),
        context_names={},
        context_codes={},
    )
    model = fit_sgd(interactions, SgdConfig(num_factors=6, epochs=4, device="cpu"))
    fold_in = FoldIn(model)
    for user in range(num_users):
        mine = users == user
        history = session_of(dict(zip(items[mine].tolist(), weights[mine], strict=True)))
        np.testing.assert_allclose(
            fold_in.user_vector(-1, history), model.user_factors_UD[user], rtol=2e-3, atol=2e-4
        )
