"""Folding in is the sum that training ends with."""

import numpy as np
import pytest

from perso.models.encoders import load_encoder
from perso.models.protocol import WeightedItems
from perso.models.spectral import fit_spectral
from perso.models.spectral_config import SpectralConfig
from perso.models.sum_encoder import SumEncoder

NOTHING_D = np.zeros(4, np.float32)


@pytest.fixture(scope="module", params=[0.0, 0.5, 1.0])
def model(request, two_tastes):
    config = SpectralConfig(num_factors=4, weight_exponent=request.param, device="cpu")
    return fit_spectral(two_tastes, config)


def events(items, weights):
    return WeightedItems(
        item_indices=np.asarray(items, np.int64),
        weights=np.asarray(weights, np.float64),
        ratings=np.full(len(items), np.nan),
    )


def history_of(world, user):
    mine = world.user_indices == user
    return events(world.item_indices[mine], world.weights[mine])


def test_a_strangers_whole_history_gives_exactly_the_trained_vector(model, two_tastes):
    for user in range(40):
        found_D = model.encoder.solve(model, -1, history_of(two_tastes, user), NOTHING_D)
        np.testing.assert_allclose(found_D, model.user_factors_UD[user], rtol=1e-4, atol=1e-6)
        assert found_D.dtype == np.float32


def test_new_events_give_what_the_whole_history_gives_at_once(model, two_tastes):
    """The item side stands: only the degrees behind it would move with another training."""
    new_items, new_weights = [1, 20], [2.0, 7.0]
    past = history_of(two_tastes, 0)
    assert not set(new_items) & set(past.item_indices.tolist()) - {20}
    fresh = [item for item in new_items if item not in past.item_indices]
    recent = events(fresh, new_weights[: len(fresh)])
    together = events(
        np.r_[past.item_indices, recent.item_indices], np.r_[past.weights, recent.weights]
    )
    in_turn_D = model.encoder.solve(model, 0, recent, NOTHING_D)
    at_once_D = model.encoder.solve(model, -1, together, NOTHING_D)
    np.testing.assert_allclose(in_turn_D, at_once_D, rtol=1e-4, atol=1e-6)


def test_folding_in_ranks_as_training_on_the_union_does(build):
    """In a shop of 400 users one user's new events hardly change the degrees."""
    rng = np.random.default_rng(0)
    pairs = [
        (user, item)
        for user in range(400)
        for item in rng.permutation(np.arange(user % 4, 40, 4))[:5].tolist()
    ]
    shape = {"num_users": 400, "num_items": 40}
    config = SpectralConfig(num_factors=4, device="cpu", num_iterations=20)
    before = fit_spectral(build(pairs, **shape), config)
    new = [(0, 1), (0, 5), (0, 9)]  # another taste
    after = fit_spectral(build(sorted({*pairs, *new}), **shape), config)
    recent = events([item for _, item in new], np.ones(3))
    folded_I = before.score_recent(0, recent)
    retrained_I = after.score_recent(0, WeightedItems.empty())
    assert np.corrcoef(folded_I, retrained_I)[0, 1] > 0.99


def test_the_scale_of_weights_and_the_offset_change_nothing(model, build, two_tastes):
    recent = events([3, 8], [1.0, 2.0])
    found_D = model.encoder.solve(model, -1, recent, NOTHING_D)
    offset_D = np.ones(4, np.float32)
    np.testing.assert_array_equal(model.encoder.solve(model, -1, recent, offset_D), found_D)
    larger = SumEncoder(
        input_ID=model.encoder.input_ID,
        weight_unit=8.0 * model.encoder.weight_unit,
        weight_exponent=model.encoder.weight_exponent,
        recent_boost=1.0,
    )
    scaled = events([3, 8], [8.0, 16.0])
    np.testing.assert_allclose(larger.solve(model, -1, scaled, NOTHING_D), found_D, rtol=1e-5)


def test_the_rule_survives_saving(model, tmp_path):
    model.encoder.save(tmp_path)
    loaded = load_encoder(tmp_path)
    assert isinstance(loaded, SumEncoder)
    assert isinstance(loaded.input_ID, np.memmap)
    np.testing.assert_array_equal(loaded.input_ID, model.encoder.input_ID)
    for name in ("weight_unit", "weight_exponent", "recent_boost"):
        assert getattr(loaded, name) == getattr(model.encoder, name)
