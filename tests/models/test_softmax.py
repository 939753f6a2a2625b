"""The softmax: its slopes against autograd, its estimate against the full sum, its closed form."""

import math

import numpy as np
import pytest
import torch

from perso.models.protocol import UserBatch
from perso.models.sgd import SgdConfig, fit_sgd
from perso.models.softmax import softmax_gradients
from perso.models.top_k import top_k


def random_step(seed, num_users=5, num_candidates=9, num_factors=3):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    touched = torch.rand(num_users, num_candidates, generator=generator) < 0.4
    row_P, column_P = torch.nonzero(touched, as_tuple=True)
    return (
        draw(num_users, num_factors),
        draw(num_candidates, num_factors),
        draw(num_candidates),
    ), {
        "row_P": row_P,
        "column_P": column_P,
        "weight_P": torch.rand(len(row_P), generator=generator, dtype=torch.float64) + 0.1,
        "log_chance_C": torch.rand(num_candidates, generator=generator, dtype=torch.float64).log(),
    }


@pytest.mark.parametrize("seed", range(5))
def test_the_slopes_are_those_of_the_loss_pair_by_pair(seed):
    tables, pairs = random_step(seed)
    leaves = [table.clone().requires_grad_() for table in tables]
    user_BD, item_CD, bias_C = leaves
    expected = torch.zeros((), dtype=torch.float64)
    touched = set(zip(pairs["row_P"].tolist(), pairs["column_P"].tolist(), strict=True))
    for (row, column), weight in zip(
        zip(pairs["row_P"].tolist(), pairs["column_P"].tolist(), strict=True),
        pairs["weight_P"],
        strict=True,
    ):
        logits = [user_BD[row] @ item_CD[c] + bias_C[c] for c in range(len(item_CD))]
        total = sum(
            logit.exp() / (1.0 if (row, c) in touched else pairs["log_chance_C"][c].exp())
            for c, logit in enumerate(logits)
        )
        expected = expected + weight * (total.log() - logits[column])
    expected.backward()
    found = softmax_gradients(*tables, **pairs)
    torch.testing.assert_close(found.loss, expected.detach())
    for slope, leaf in zip(found[1:], leaves, strict=True):
        torch.testing.assert_close(slope, leaf.grad)


def test_sampled_candidates_estimate_the_sum_over_the_catalogue_without_bias():
    generator = torch.Generator().manual_seed(0)
    logits_I = torch.randn(40, generator=generator, dtype=torch.float64)
    chance_I = torch.rand(40, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    sums = []
    for _ in range(4000):
        drawn = torch.rand(40, generator=generator, dtype=torch.float64) < chance_I
        drawn[7] = True  # the user's own item
        items_C = torch.nonzero(drawn).squeeze(1)
        step = softmax_gradients(
            torch.zeros(1, 2, dtype=torch.float64),
            torch.zeros(len(items_C), 2, dtype=torch.float64),
            logits_I[items_C],
            row_P=torch.tensor([0]),
            column_P=torch.nonzero(items_C == 7).squeeze(1),
            weight_P=torch.ones(1, dtype=torch.float64),
            log_chance_C=chance_I[items_C].log(),
        )
        sums.append(math.exp(float(step.loss + logits_I[7])))
    truth = float(logits_I.exp().sum())
    standard_error = np.std(sums) / math.sqrt(len(sums))
    assert abs(np.mean(sums) - truth) < 4 * standard_error
    assert standard_error < 0.02 * truth


@pytest.mark.parametrize("num_negatives", [4, 1024])
def test_two_tastes_are_told_apart(two_tastes, num_negatives):
    config = SgdConfig(num_factors=4, batch_size=64, num_negatives=num_negatives, l2=0.05)
    model = fit_sgd(two_tastes, config)
    users = np.arange(40)
    starts = np.searchsorted(two_tastes.user_indices, np.arange(42))
    seen = [two_tastes.item_indices[starts[u] : starts[u + 1]] for u in users]
    indices, _ = top_k(model.score(UserBatch(user_indices=users)), 5, seen=seen)
    assert np.mean(indices % 2 == (users % 2)[:, None]) > 0.99  # all five items that are left


def test_every_user_vector_solves_its_own_normal_equation(two_tastes):
    """Folding in a history from nothing gives the trained vector: agreement by construction."""
    model = fit_sgd(two_tastes, SgdConfig(num_factors=5, epochs=3, batch_size=64))
    params = model.fold_in
    for user in range(41):
        mine = two_tastes.user_indices == user
        weights = two_tastes.weights[mine] / params.weight_unit
        vectors = model.item_factors_ID[two_tastes.item_indices[mine]] - params.center_D
        slope = weights.sum() * params.curvature_DD + params.l2 * np.eye(5)
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
    np.testing.assert_allclose(model.fold_in.center_D, slope, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.fold_in.curvature_DD, hessian, rtol=1e-4, atol=1e-6)


def test_the_scale_of_weights_does_not_matter(build, two_tastes):
    pairs = np.stack([two_tastes.user_indices, two_tastes.item_indices], 1)
    shape = {"num_users": 41, "num_items": 24}
    config = SgdConfig(num_factors=4, epochs=3, batch_size=64)
    small, large = (
        fit_sgd(build(pairs, weights=two_tastes.weights * factor, **shape), config)
        for factor in (1.0, 64.0)
    )
    np.testing.assert_allclose(small.item_factors_ID, large.item_factors_ID, atol=1e-4)
    assert large.fold_in.weight_unit == pytest.approx(64 * small.fold_in.weight_unit)


def test_an_item_that_nobody_touched_has_no_vector_and_the_least_bias(build):
    world = build([(0, 0), (1, 1), (2, 0), (2, 1)], num_users=3, num_items=3)
    model = fit_sgd(world, SgdConfig(num_factors=2, epochs=3))
    assert model.item_factors_ID[2].tolist() == [0.0, 0.0]
    assert model.item_bias_I.argmin() == 2


def test_heavier_interactions_pull_harder(build):
    pairs = [(user, item) for user in range(20) for item in (0, 1)]
    weights = [5.0 if item == 1 else 0.5 for _, item in pairs]
    world = build(pairs, num_users=20, num_items=3, weights=weights)
    model = fit_sgd(world, SgdConfig(num_factors=2, epochs=20, batch_size=8))
    scores = model.score(UserBatch(user_indices=np.arange(20)))
    assert (scores[:, 1] > scores[:, 0]).all()
