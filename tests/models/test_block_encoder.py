import numpy as np
import pytest

from perso.models.blend import blend_models
from perso.models.block_encoder import BlockEncoder
from perso.models.encoders import load_encoder
from perso.models.protocol import WeightedItems
from perso.models.sgd import fit_sgd
from perso.models.sgd_config import SgdConfig
from perso.models.spectral import fit_spectral
from perso.models.spectral_config import SpectralConfig


@pytest.fixture(scope="module")
def parts(two_tastes):
    """Parts whose trained vectors are what folding in the history gives."""
    return (
        fit_spectral(two_tastes, SpectralConfig(num_factors=3, device="cpu")),
        fit_sgd(two_tastes, SgdConfig(num_factors=4, epochs=3, batch_size=64, device="cpu")),
    )


@pytest.fixture(scope="module")
def blend(two_tastes, parts):
    return blend_models(parts, (0.5, 1.0), two_tastes)


def events(items, weights):
    return WeightedItems(
        item_indices=np.asarray(items, np.int64),
        weights=np.asarray(weights, np.float64),
        ratings=np.full(len(items), np.nan),
    )


def test_a_strangers_whole_history_gives_the_blended_vector(two_tastes, blend):
    for user in range(40):
        mine = two_tastes.user_indices == user
        history = events(two_tastes.item_indices[mine], two_tastes.weights[mine])
        folded_I = blend.score_recent(-1, history)
        trained_I = blend.score_recent(user, WeightedItems.empty())
        np.testing.assert_allclose(folded_I, trained_I, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("user", [-1, 0])
def test_each_part_folds_in_by_its_own_rule_and_to_unit_length(parts, blend, user):
    recent = events([2, 5], [3.0, 1.0])
    found_D = blend.encoder.solve(blend, user, recent, np.zeros(7, np.float32))
    for part, place in zip(parts, (slice(0, 3), slice(3, 7)), strict=True):
        nothing_D = np.zeros(part.num_factors, np.float32)
        own_D = part.encoder.solve(part, user, recent, nothing_D)
        np.testing.assert_allclose(found_D[place], own_D / np.linalg.norm(own_D), rtol=1e-5)
    assert found_D.dtype == np.float32


def test_the_boost_is_the_parts_mean(parts, blend):
    assert blend.recent_boost == np.mean([part.recent_boost for part in parts])


def test_the_parts_survive_saving(parts, blend, tmp_path):
    blend.encoder.save(tmp_path)
    loaded = load_encoder(tmp_path)
    assert isinstance(loaded, BlockEncoder)
    recent = events([2, 5], [3.0, 1.0])
    nothing_D = np.zeros(7, np.float32)
    for user in (-1, 0):
        np.testing.assert_array_equal(
            loaded.solve(blend, user, recent, nothing_D),
            blend.encoder.solve(blend, user, recent, nothing_D),
        )
    assert isinstance(loaded.parts[0].user_factors_UD, np.memmap)
