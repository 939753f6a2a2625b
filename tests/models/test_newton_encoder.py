"""The folded-in vector, against the trained one and against its own objective."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.models.encoders import load_encoder
from perso.models.factors import FactorModel
from perso.models.newton_encoder import NewtonEncoder
from perso.models.protocol import WeightedItems
from perso.models.request_features import RequestFeatures
from perso.models.sgd import fit_sgd
from perso.models.sgd_config import SgdConfig

NUM_ITEMS, NUM_FACTORS = 12, 4
NOTHING_D = np.zeros(NUM_FACTORS, np.float32)


def recent_of(weights, ratings=None):
    stars = [(ratings or {}).get(index, np.nan) for index in sorted(weights)]
    return WeightedItems(
        item_indices=np.array(sorted(weights), np.int64),
        weights=np.array([weights[index] for index in sorted(weights)], float),
        ratings=np.array(stars, float),
    )


def random_model(seed, *, loss="softmax"):
    rng = np.random.default_rng(seed)
    items_ID = rng.normal(size=(NUM_ITEMS, NUM_FACTORS)).astype(np.float32)
    bias_I = rng.normal(size=NUM_ITEMS).astype(np.float32)
    shares_I = np.exp(bias_I) / np.exp(bias_I).sum()
    center_D = shares_I @ items_ID if loss == "softmax" else NOTHING_D
    spread_ID = items_ID - center_D
    encoder = NewtonEncoder(
        loss=loss,
        weight_unit=2.0,
        l2=0.3,
        center_D=center_D.astype(np.float32),
        curvature_DD=((spread_ID.T * shares_I) @ spread_ID).astype(np.float32),
        positive_rating=4.0,
        recent_boost=10.0,
    )
    return FactorModel(
        user_factors_UD=rng.normal(size=(3, NUM_FACTORS)).astype(np.float32),
        user_bias_U=rng.normal(size=3).astype(np.float32),
        user_weight_U=np.array([6.0, 1.0, 0.0], np.float32),
        item_factors_ID=items_ID,
        item_bias_I=bias_I,
        global_bias=3.5,
        encoder=encoder,
        request_features=RequestFeatures(num_factors=NUM_FACTORS),
        predicts="ratings" if loss == "squared" else None,
    )


def solve(model, user, recent, offset_D=NOTHING_D):
    return model.encoder.solve(model, user, recent, offset_D)


seeds = st.integers(0, 10_000)
weights_by_item = st.dictionaries(
    st.integers(0, NUM_ITEMS - 1), st.floats(0.1, 30.0), min_size=1, max_size=5
)


@pytest.mark.parametrize("loss", ["softmax", "squared"])
@given(
    seed=seeds,
    weights=weights_by_item,
    user=st.sampled_from([-1, 0, 1, 2]),
    with_offset=st.booleans(),
)
@settings(deadline=None)
def test_the_vector_minimizes_the_stated_objective(loss, seed, weights, user, with_offset):
    model = random_model(seed, loss=loss)
    encoder = model.encoder
    offset_D = np.random.default_rng(seed + 1).normal(size=NUM_FACTORS) * with_offset
    recent = recent_of(weights, {min(weights): 1.0})
    found_D = solve(model, user, recent, offset_D.astype(np.float32)).astype(float)

    trained_D = model.user_factors_UD[user].astype(float) if user >= 0 else np.zeros(NUM_FACTORS)
    history = float(model.user_weight_U[user]) if user >= 0 else 0.0
    own_bias = float(model.user_bias_U[user]) if user >= 0 else 0.0
    curvature_DD = encoder.curvature_DD.astype(float)

    def slope_at(user_D):  # of the objective, event by event
        total_D = (history * curvature_DD + encoder.l2 * np.eye(NUM_FACTORS)) @ (user_D - trained_D)
        for item, weight in weights.items():
            stars = 1.0 if item == min(weights) else encoder.positive_rating
            wanted = stars - model.global_bias - model.item_bias_I[item] - own_bias
            target = 1.0 if loss == "softmax" else float(wanted)
            item_D = (model.item_factors_ID[item] - encoder.center_D).astype(float)
            explained_D = curvature_DD @ (user_D + offset_D)
            total_D += weight / encoder.weight_unit * (explained_D - target * item_D)
        return total_D

    scale = np.abs(slope_at(np.zeros(NUM_FACTORS))).max() + 1.0
    np.testing.assert_allclose(slope_at(found_D) / scale, 0.0, atol=2e-5)


@given(seed=seeds, weights=weights_by_item)
@settings(deadline=None)
def test_folding_a_history_into_a_stranger_then_more_equals_folding_in_all_at_once(seed, weights):
    model = random_model(seed)
    first = dict([max(weights.items())])
    rest = {item: weight for item, weight in weights.items() if item not in first}
    at_once_D = solve(model, -1, recent_of(weights))

    users_UD, history_U = model.user_factors_UD.copy(), model.user_weight_U.copy()
    users_UD[0] = solve(model, -1, recent_of(first))
    history_U[0] = sum(first.values()) / model.encoder.weight_unit
    trained = dataclasses.replace(model, user_factors_UD=users_UD, user_weight_U=history_U)
    in_turn_D = solve(trained, 0, recent_of(rest)) if rest else trained.own_vector(0)
    np.testing.assert_allclose(in_turn_D, at_once_D, rtol=1e-3, atol=1e-4)


@given(seed=seeds, weights=weights_by_item)
@settings(deadline=None)
def test_a_session_raises_its_own_items_over_the_average(seed, weights):
    model = random_model(seed)
    recent = recent_of(weights)
    user_D = solve(model, -1, recent).astype(float)
    gains_N = (model.item_factors_ID[recent.item_indices] - model.encoder.center_D) @ user_D
    assert recent.weights @ gains_N >= 0


def test_folding_a_whole_history_into_a_stranger_gives_the_trained_vector(build):
    rng = np.random.default_rng(5)
    users, items = np.nonzero(rng.random((40, 30)) < 0.2)
    weights = rng.choice([1.0, 3.0, 5.0], len(users))
    interactions = build(np.stack([users, items], 1), num_users=40, num_items=30, weights=weights)
    model = fit_sgd(interactions, SgdConfig(num_factors=4, epochs=4, device="cpu"))
    for user in range(40):
        mine = users == user
        if mine.any():
            history = recent_of(dict(zip(items[mine].tolist(), weights[mine], strict=True)))
            np.testing.assert_allclose(
                solve(model, -1, history), model.user_factors_UD[user], rtol=2e-3, atol=2e-4
            )


@pytest.mark.parametrize("positive_rating", [4.5, float("nan")])
def test_the_rule_survives_saving(tmp_path, positive_rating):
    encoder = dataclasses.replace(random_model(0).encoder, positive_rating=positive_rating)
    encoder.save(tmp_path)
    loaded = load_encoder(tmp_path)
    assert isinstance(loaded, NewtonEncoder)
    for field in dataclasses.fields(encoder):
        expected, found = getattr(encoder, field.name), getattr(loaded, field.name)
        np.testing.assert_array_equal(found, expected)


def test_an_unknown_rule_is_refused(tmp_path):
    (tmp_path / "encoder.json").write_text('{"kind": "oracle"}')
    with pytest.raises(ValueError, match=r"kind of encoder 'oracle'.*als.*blocks.*newton.*sum"):
        load_encoder(tmp_path)
