"""The closed form of all users, against each user's own normal equation."""

import numpy as np
import pytest
import torch

from perso.models import user_solve
from perso.models.histories import Histories
from perso.models.sgd import SgdConfig, fit_sgd
from perso.models.user_solve import ItemSide, newton_encoder, solve_users

CPU = torch.device("cpu")
NUM_FACTORS, PRIOR = 4, 0.7


@pytest.fixture(scope="module")
def item_side():
    generator = torch.Generator().manual_seed(0)
    share_I = torch.rand(24, generator=generator, dtype=torch.float64)
    return ItemSide.under(
        torch.randn(24, NUM_FACTORS, generator=generator), share_I / share_I.sum()
    ), share_I / share_I.sum()


def test_center_and_curvature_are_mean_and_covariance(item_side):
    side, share_I = item_side
    items_ID = side.item_ID.double().numpy()
    np.testing.assert_allclose(side.center_D, share_I.numpy() @ items_ID)
    expected = np.cov(items_ID.T, aweights=share_I.numpy(), ddof=0)
    np.testing.assert_allclose(side.curvature_DD, expected, atol=1e-12)


@pytest.mark.parametrize("with_static", [False, True])
@pytest.mark.parametrize("with_offset", [False, True])
@pytest.mark.parametrize("pairs_at_once", [13, 1 << 20])
def test_every_user_solves_the_own_normal_equation(
    two_tastes, item_side, with_static, with_offset, pairs_at_once, monkeypatch
):
    monkeypatch.setattr(user_solve, "_PAIRS_AT_ONCE", pairs_at_once)
    side, _ = item_side
    generator = torch.Generator().manual_seed(1)
    visit_of_pair = 2 * two_tastes.user_indices.astype(np.int64) + np.arange(280) % 2
    histories = Histories(two_tastes, device=CPU, visit_of_pair=visit_of_pair)
    static_UD = torch.randn(41, NUM_FACTORS, generator=generator) if with_static else None
    offset_VD = torch.randn(82, NUM_FACTORS, generator=generator)
    weights = two_tastes.weights / two_tastes.weights.mean(dtype=np.float64)
    offset_UD = torch.zeros(41, NUM_FACTORS).index_add_(
        0,
        torch.from_numpy(two_tastes.user_indices.astype(np.int64)),
        offset_VD[visit_of_pair] * torch.from_numpy(weights).float()[:, None],
    )
    found_UD = solve_users(
        histories,
        side,
        PRIOR,
        static_UD=static_UD,
        offset_UD=offset_UD if with_offset else None,
    )
    curvature_DD = side.curvature_DD.numpy()
    for user in range(41):
        slope_DD, pull_D = PRIOR * np.eye(NUM_FACTORS), np.zeros(NUM_FACTORS)
        if with_static:
            pull_D = pull_D + PRIOR * static_UD[user].numpy()
        for pair in np.flatnonzero(two_tastes.user_indices == user):
            item_D = side.item_ID[int(two_tastes.item_indices[pair])].numpy()
            offset_D = np.zeros(NUM_FACTORS)
            if with_offset:
                offset_D = offset_VD[visit_of_pair[pair]].numpy()
            explained_D = item_D - side.center_D.numpy() - curvature_DD @ offset_D
            slope_DD = slope_DD + weights[pair] * curvature_DD
            pull_D = pull_D + weights[pair] * explained_D
        expected_D = np.linalg.solve(slope_DD, pull_D)
        np.testing.assert_allclose(found_UD[user], expected_D, rtol=2e-4, atol=2e-5)


def test_who_has_done_nothing_gets_the_static_part(two_tastes, item_side):
    static_UD = torch.randn(41, NUM_FACTORS, generator=torch.Generator().manual_seed(2))
    histories = Histories(two_tastes, device=CPU)
    found_UD = solve_users(histories, item_side[0], PRIOR, static_UD=static_UD)
    torch.testing.assert_close(found_UD[40], static_UD[40])
    assert solve_users(histories, item_side[0], PRIOR)[40].abs().max() == 0


def test_the_encoder_carries_the_same_rule(item_side):
    encoder = newton_encoder(item_side[0], PRIOR, weight_unit=2.5)
    assert (encoder.loss, encoder.weight_unit, encoder.l2) == ("softmax", 2.5, PRIOR)
    np.testing.assert_allclose(encoder.center_D, item_side[0].center_D, rtol=1e-6)
    np.testing.assert_allclose(encoder.curvature_DD, item_side[0].curvature_DD, rtol=1e-6)


def test_a_trained_models_users_solve_their_normal_equations(two_tastes):
    """Folding in a history from nothing gives the trained vector: agreement by construction."""
    model = fit_sgd(two_tastes, SgdConfig(num_factors=5, epochs=3, batch_size=64))
    encoder = model.encoder
    for user in range(41):
        mine = two_tastes.user_indices == user
        weights = two_tastes.weights[mine] / encoder.weight_unit
        vectors = model.item_factors_ID[two_tastes.item_indices[mine]] - encoder.center_D
        slope = weights.sum() * encoder.curvature_DD + encoder.l2 * np.eye(5)
        expected = np.linalg.solve(slope, weights @ vectors)
        np.testing.assert_allclose(model.user_factors_UD[user], expected, rtol=1e-3, atol=1e-5)
        assert model.user_weight_U[user] == pytest.approx(weights.sum(), rel=1e-5)


def test_curvature_is_that_of_the_softmax_at_the_empty_user(two_tastes):
    model = fit_sgd(two_tastes, SgdConfig(num_factors=3, epochs=2, batch_size=64))
    items = torch.from_numpy(model.item_factors_ID).double()
    bias = torch.from_numpy(model.item_bias_I).double()

    def log_sum(user_D):
        return torch.logsumexp(items @ user_D + bias, 0)

    zero = torch.zeros(3, dtype=torch.float64)
    slope = torch.autograd.functional.jacobian(log_sum, zero)
    hessian = torch.autograd.functional.hessian(log_sum, zero)
    np.testing.assert_allclose(model.encoder.center_D, slope, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.encoder.curvature_DD, hessian, rtol=1e-4, atol=1e-6)
