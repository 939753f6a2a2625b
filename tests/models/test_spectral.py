"""The truncated SVD against numpy's, the score formula against the paper's, word for word."""

import numpy as np
import pytest
import torch

from perso.models.protocol import UserBatch
from perso.models.spectral import fit_spectral, spectral_start, truncated_svd
from perso.models.spectral_config import SpectralConfig
from perso.models.top_k import top_k


def sparse_csr(dense):
    return torch.from_numpy(dense).to_sparse_csr()


def random_matrix(seed, shape):
    rng = np.random.default_rng(seed)
    return ((rng.random(shape) < 0.2) * rng.uniform(0.2, 2.0, shape)).astype(np.float32)


@pytest.mark.parametrize("shape", [(60, 40), (40, 60)])
@pytest.mark.parametrize("num_factors", [1, 6, 20])
def test_values_and_vectors_are_those_of_numpy(shape, num_factors):
    dense = random_matrix(1, shape)
    singular_D, vectors_ID = truncated_svd(
        sparse_csr(dense), num_factors, num_iterations=12, seed=0
    )
    _, expected, expected_VI = np.linalg.svd(dense.astype(np.float64))
    np.testing.assert_allclose(singular_D, expected[:num_factors], rtol=1e-3)
    alignment_D = np.abs((vectors_ID.numpy() * expected_VI[:num_factors].T).sum(0))
    np.testing.assert_allclose(alignment_D, 1.0, atol=1e-2)
    gram_DD = vectors_ID.T @ vectors_ID
    np.testing.assert_allclose(gram_DD, np.eye(num_factors), atol=1e-4)


def test_three_passes_find_the_subspace_of_a_matrix_with_a_gap():
    rng = np.random.default_rng(2)
    planted = rng.normal(size=(80, 5)) @ rng.normal(size=(5, 50))
    dense = (planted + 0.1 * rng.normal(size=(80, 50))).astype(np.float32)
    _, vectors_ID = truncated_svd(sparse_csr(dense), 5, num_iterations=3, seed=0)
    expected_ID = np.linalg.svd(dense)[2][:5].T
    cosines = np.linalg.svd(expected_ID.T @ vectors_ID.numpy())[1]
    np.testing.assert_allclose(cosines, 1.0, atol=1e-5)


@pytest.mark.parametrize(("shape", "rank"), [((50, 30), 3), ((400, 100), 10), ((30, 7), 7)])
def test_no_more_factors_come_back_than_the_rank(shape, rank):
    """Directions that the matrix does not have must not come back as rounding noise."""
    rng = np.random.default_rng(3)
    left, right = (np.linalg.qr(rng.normal(size=(size, rank)))[0] for size in shape)
    values_D = np.linspace(1.0, 0.05, rank)
    planted = ((left * values_D) @ right.T).astype(np.float32)
    singular_D, vectors_ID = truncated_svd(sparse_csr(planted), 25, num_iterations=3, seed=0)
    assert vectors_ID.shape == (shape[1], rank)
    np.testing.assert_allclose(singular_D, values_D, rtol=1e-3)
    np.testing.assert_allclose(vectors_ID.norm(dim=0), 1.0, rtol=1e-4)


def test_fewer_users_than_factors_are_no_error():
    dense = sparse_csr(random_matrix(4, (7, 30)))
    singular_D, vectors_ID = truncated_svd(dense, 20, num_iterations=3, seed=0)
    assert vectors_ID.shape == (30, len(singular_D))
    assert len(singular_D) <= 7


def test_signs_do_not_depend_on_the_seed():
    dense = sparse_csr(random_matrix(5, (60, 40)))
    one, two = (truncated_svd(dense, 4, num_iterations=30, seed=seed)[1] for seed in (0, 9))
    np.testing.assert_allclose(one, two, atol=1e-3)


def naive_scores(world, config):
    """``R_u · Di^-c · V S V^T · Di^d`` with numpy's SVD of ``Du^-a R Di^-b``."""
    weights = (world.weights / world.weights.mean(dtype=np.float64)) ** config.weight_exponent
    counts_UI = np.zeros((world.num_users, world.num_items))
    counts_UI[world.user_indices, world.item_indices] = weights

    def powers(mass, exponent):
        return np.array([m**exponent if m else 0.0 for m in mass])

    mass_U, mass_I = counts_UI.sum(1), counts_UI.sum(0)
    scaled_UI = (
        powers(mass_U, -config.user_exponent)[:, None]
        * counts_UI
        * powers(mass_I, -config.item_exponent)
    )
    _, singular, vectors_VI = np.linalg.svd(scaled_UI)
    kept = vectors_VI[: config.num_factors]
    strength = (singular / singular[0])[: config.num_factors] ** config.spectrum_exponent
    input_UI = counts_UI * powers(mass_I, -config.input_exponent)
    scores_UI = (input_UI @ kept.T * strength) @ kept * powers(mass_I, config.output_exponent)
    return scores_UI * powers(mass_U, -0.5)[:, None]  # a user's scale; no ranking depends on it


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"input_exponent": 0.3, "output_exponent": 0.7, "item_exponent": 0.5},
        {"user_exponent": 0.0, "item_exponent": 0.0, "input_exponent": 0.0, "output_exponent": 0.0},
        {"spectrum_exponent": 1.0},
        {"spectrum_exponent": -0.5},
        {"weight_exponent": 0.0},
        {"weight_exponent": 1.0},
    ],
)
def test_scores_follow_the_written_formula(two_tastes, setting):
    config = SpectralConfig(num_factors=4, num_iterations=60, device="cpu", **setting)
    model = fit_spectral(two_tastes, config)
    scores = model.score(UserBatch(user_indices=np.arange(41)))
    expected = naive_scores(two_tastes, config)
    np.testing.assert_allclose(scores, expected, rtol=5e-3, atol=5e-3 * np.abs(expected).max())


def test_two_tastes_are_told_apart(two_tastes):
    model = fit_spectral(two_tastes, SpectralConfig(num_factors=2, device="cpu"))
    users = np.arange(40)
    starts = np.searchsorted(two_tastes.user_indices, np.arange(42))
    seen = [two_tastes.item_indices[starts[u] : starts[u + 1]] for u in users]
    indices, _ = top_k(model.score(UserBatch(user_indices=users)), 5, seen=seen)
    assert (indices % 2 == (users % 2)[:, None]).all()


def test_users_without_interactions_get_what_is_popular(two_tastes):
    model = fit_spectral(two_tastes, SpectralConfig(num_factors=4, device="cpu"))
    scores = model.score(UserBatch(user_indices=np.array([40, -1])))
    demand_I = np.bincount(two_tastes.item_indices, two_tastes.weights, 24)
    for row in scores:
        np.testing.assert_array_equal(np.argsort(-row), np.argsort(-demand_I))


def test_items_that_nobody_touched_have_no_signal(build):
    world = build([(0, 0), (1, 1), (2, 0), (2, 1)], num_users=4, num_items=3)
    model = fit_spectral(world, SpectralConfig(num_factors=2, device="cpu"))
    assert model.has_signal_I.tolist() == [True, True, False]
    assert [model.knows(user) for user in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("spectrum_exponent", [-1.0, 0.0, 1.0])
def test_a_rank_below_the_factors_asked_for_scores_as_the_rank_itself(build, spectrum_exponent):
    """Two blocks of users who have all of their block's items: two directions and no more."""
    pairs = [(user, item) for user in range(20) for item in range(12) if user % 2 == item % 2]
    world = build(pairs, num_users=20, num_items=12)
    scores = [
        fit_spectral(
            world,
            SpectralConfig(
                num_factors=num_factors, spectrum_exponent=spectrum_exponent, device="cpu"
            ),
        ).score(UserBatch(user_indices=np.arange(20)))
        for num_factors in (2, 9)
    ]
    assert np.isfinite(scores[1]).all()
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-3)


def test_a_start_for_another_training_has_the_width_that_was_asked_for(two_tastes):
    user_UD, item_ID = spectral_start(two_tastes, 30, seed=0)
    assert (user_UD.shape, item_ID.shape) == ((41, 30), (24, 30))
    assert not item_ID[:, 24:].any()
    assert not user_UD[40].any()


def test_nothing_to_train_on_is_one_clear_sentence(build):
    with pytest.raises(ValueError, match="no interactions to train on"):
        fit_spectral(build([], num_users=3, num_items=3), SpectralConfig())


def test_the_global_random_state_is_left_alone(two_tastes):
    before = torch.random.get_rng_state()
    fit_spectral(two_tastes, SpectralConfig(num_factors=2))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_finds_what_the_cpu_finds(stars):
    one, two = (
        fit_spectral(
            stars[0], SpectralConfig(num_factors=5, num_iterations=40, device=device)
        ).score(UserBatch(user_indices=np.arange(120)))
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(one, two, atol=1e-2 * np.abs(one).max())
