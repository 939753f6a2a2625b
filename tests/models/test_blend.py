import dataclasses

import numpy as np
import pytest

from perso.models.als import fit_als
from perso.models.als_config import AlsConfig
from perso.models.blend import blend_models, fit_blend
from perso.models.blend_config import BlendConfig
from perso.models.factors import popularity_bias
from perso.models.protocol import UserBatch
from perso.models.sgd import fit_sgd
from perso.models.sgd_config import SgdConfig
from perso.models.spectral import fit_spectral
from perso.models.spectral_config import SpectralConfig
from perso.models.top_k import top_k

CONFIG = BlendConfig(
    spectral=SpectralConfig(num_factors=3, device="cpu"),
    learned=SgdConfig(
        similarity="cosine",
        loss="contrasted",
        num_factors=4,
        epochs=6,
        batch_size=64,
        learning_rate=0.5,
        temperature=0.5,
        l2=0.0,
        device="cpu",
    ),
    als=AlsConfig(num_factors=2, epochs=4),
    spectral_weight=0.4,
    als_weight=0.3,
)
WEIGHTS = (0.4, 1.0, 0.3)


@pytest.fixture(scope="module")
def parts(two_tastes):
    return (
        fit_spectral(two_tastes, CONFIG.spectral),
        fit_sgd(two_tastes, CONFIG.learned),
        fit_als(two_tastes, CONFIG.als),
    )


@pytest.fixture(scope="module")
def blend(two_tastes):
    return fit_blend(two_tastes, CONFIG)


def test_scores_are_the_weighted_sum_of_the_parts_scores_of_unit_users(two_tastes, parts, blend):
    """Item vectors of both parts are brought to a mean square length of 1."""
    expected_UI = popularity_bias(two_tastes)[None].astype(np.float64)
    for part, weight in zip(parts, WEIGHTS, strict=True):
        lengths_U = np.linalg.norm(part.user_factors_UD, axis=1)
        users_UD = part.user_factors_UD / np.where(lengths_U > 0, lengths_U, 1.0)[:, None]
        scale = np.sqrt((part.item_factors_ID**2).sum(1).mean())
        expected_UI = expected_UI + weight * users_UD @ part.item_factors_ID.T / scale
    scores = blend.score(UserBatch(user_indices=np.arange(41)))
    np.testing.assert_allclose(scores, expected_UI, rtol=1e-4, atol=1e-5)
    assert blend.num_factors == 9


def test_items_without_a_vector_do_not_shrink_the_scale(build, two_tastes, parts):
    """Only the vectors that are there make the mean length."""
    pairs = np.stack([two_tastes.user_indices, two_tastes.item_indices], 1)
    wide = build(pairs, num_users=41, num_items=48, weights=two_tastes.weights)
    padded = tuple(
        dataclasses.replace(
            part,
            item_factors_ID=np.pad(part.item_factors_ID, ((0, 24), (0, 0))),
            item_bias_I=np.pad(part.item_bias_I, (0, 24)),
        )
        for part in parts
    )
    users = UserBatch(user_indices=np.arange(41))
    narrow_UI = blend_models(parts, WEIGHTS, two_tastes).score(users)
    wide_UI = blend_models(padded, WEIGHTS, wide).score(users)
    np.testing.assert_allclose(wide_UI[:, :24], narrow_UI, rtol=1e-5, atol=1e-6)


def test_more_weight_brings_the_blend_closer_to_a_part(two_tastes, parts):
    users = UserBatch(user_indices=np.arange(40))
    spectral_UI = blend_models(parts[:1], (1.0,), two_tastes).score(users)
    alike = [
        np.corrcoef(
            blend_models(parts[:2], (weight, 1.0), two_tastes).score(users).ravel(),
            spectral_UI.ravel(),
        )[0, 1]
        for weight in (0.1, 1.0, 100.0)
    ]
    assert alike[0] < alike[1] < alike[2]
    assert alike[2] > 0.999


def test_two_tastes_are_told_apart(two_tastes, blend):
    users = np.arange(40)
    starts = np.searchsorted(two_tastes.user_indices, np.arange(42))
    seen = [two_tastes.item_indices[starts[u] : starts[u + 1]] for u in users]
    indices, _ = top_k(blend.score(UserBatch(user_indices=users)), 5, seen=seen)
    assert np.mean(indices % 2 == (users % 2)[:, None]) > 0.9


def test_epochs_of_the_learned_part_are_reported(two_tastes):
    reports = []
    fit_blend(two_tastes, CONFIG, on_epoch=lambda p: reports.append(p.epoch))
    assert reports == list(range(1, 7))


def test_parts_of_different_shops_are_refused(build, two_tastes, parts):
    other = fit_spectral(build([(0, 0)], num_users=1, num_items=1), CONFIG.spectral)
    with pytest.raises(ValueError, match=r"disagree on users and items: \[\(1, 1\), \(41, 24\)\]"):
        blend_models((other, parts[1]), (1.0, 1.0), two_tastes)
