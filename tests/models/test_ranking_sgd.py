"""The engine's steps: their gradients on whole small problems, and worlds with known answers."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from perso.models.protocol import UserBatch
from perso.models.ranking_sgd import RankingTrainer
from perso.models.sgd import SgdConfig, fit_sgd
from perso.models.top_k import top_k

CPU = torch.device("cpu")


class RecordingTable:
    """A table that remembers the gradients of one step and stays where it is."""

    def __init__(self, values):
        self.values = values
        self.learning_rate = 1.0
        self.gradient = torch.zeros_like(values)

    def descend(self, rows, gradient):
        self.gradient[rows] = gradient


def recorded(interactions, config):
    """Tables with the gradients of one epoch of one step, and the loss that it reported."""
    trainer = RankingTrainer(interactions, config, device=CPU)
    tables = {}
    for name in ("users", "items", "bias"):
        side = getattr(trainer, name)
        generator = torch.Generator().manual_seed(len(name))
        start = torch.randn(side.own.values.shape, generator=generator)
        tables[name] = side.own = RecordingTable(start)
    trainer.run_epoch()
    return tables, trainer.loss()


@pytest.mark.parametrize("loss", ["softmax", "contrasted", "logistic"])
@pytest.mark.parametrize(
    ("similarity", "history_weight"), [("dot", 0.0), ("cosine", 0.0), ("cosine", 0.8)]
)
def test_a_step_on_the_whole_catalogue_descends_the_stated_loss(
    two_tastes, loss, similarity, history_weight
):
    """All users and items at once: nothing is sampled, so autograd of the plain loss is exact."""
    config = SgdConfig(
        loss=loss,
        similarity=similarity,
        history_weight=history_weight,
        temperature=0.5,
        num_factors=3,
        epochs=1,
        batch_size=10_000,
        l2=0.2,
        negative_weight=1.3,
    )
    tables, reported = recorded(two_tastes, config)
    user_UD, item_ID, bias_I1 = (
        tables[name].values.clone().requires_grad_() for name in ("users", "items", "bias")
    )
    weight_UI = torch.zeros(41, 24)
    pairs = (two_tastes.user_indices.astype(int), two_tastes.item_indices.astype(int))
    weight_UI[pairs] = torch.from_numpy(two_tastes.weights / two_tastes.weights.mean())
    active_U, mass_U1 = weight_UI.sum(1) > 0, weight_UI.sum(1, keepdim=True)
    touched_UI = weight_UI > 0
    if similarity == "cosine":
        items, users = normalize(item_ID, dim=1), user_UD
        if history_weight:
            users = users + history_weight * (weight_UI / mass_U1.clamp(min=1e-9)) @ items
        logits_UI = normalize(users, dim=1) @ items.T / 0.5
    else:
        logits_UI = user_UD @ item_ID.T + bias_I1.T
    if loss == "softmax":
        lost_UI = logits_UI.logsumexp(1, keepdim=True) - logits_UI
    elif loss == "contrasted":
        rest_U1 = logits_UI.masked_fill(touched_UI, -math.inf).logsumexp(1, keepdim=True)
        lost_UI = torch.logaddexp(logits_UI, rest_U1) - logits_UI
    else:
        lost_UI = -logits_UI.sigmoid().log()
    total = (weight_UI * lost_UI).sum()
    if loss == "logistic":
        away_UI = -(-logits_UI).sigmoid().log() * ~touched_UI
        mean_U1 = away_UI.sum(1, keepdim=True) / (~touched_UI).sum(1, keepdim=True)
        total = total + (1.3 * mass_U1 * mean_U1).sum()
    mass = weight_UI.sum()
    assert reported == pytest.approx(float(total.detach() / mass), rel=1e-4)
    # The penalty: each user once an epoch and each item once a step, here all in one.
    penalty = mass * 0.2 * user_UD[active_U].square().sum() / active_U.sum()
    penalty = penalty + mass * 0.2 * item_ID.square().sum() / 24
    (total + penalty).backward()
    for name, leaf in (("users", user_UD), ("items", item_ID)):
        torch.testing.assert_close(tables[name].gradient, leaf.grad, rtol=1e-3, atol=1e-3)
    if similarity == "dot":
        torch.testing.assert_close(tables["bias"].gradient, bias_I1.grad, rtol=1e-3, atol=1e-3)
    else:
        assert tables["bias"].gradient.abs().max() == 0


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.4, 0.4, 0.4, 0.4]),
        ("linear", [0.4, 0.3, 0.2, 0.1]),
        ("cosine", [0.4 * (1 + math.cos(math.pi * e / 4)) / 2 for e in range(4)]),
    ],
)
def test_the_learning_rate_falls_as_the_schedule_says(two_tastes, schedule, expected):
    config = SgdConfig(
        num_factors=4, epochs=4, batch_size=10_000, learning_rate=0.4, schedule=schedule
    )
    trainer = RankingTrainer(two_tastes, config, device=CPU)
    found = []
    while not trainer.is_over:
        trainer.run_epoch()
        found.append(trainer.items.own.learning_rate)
    assert found == pytest.approx(expected)


def test_a_cosines_learning_rate_is_in_units_of_the_vectors_length(two_tastes):
    config = SgdConfig(num_factors=16, epochs=1, similarity="cosine", learning_rate=0.4)
    trainer = RankingTrainer(two_tastes, config, device=CPU)
    assert trainer.items.own.learning_rate == pytest.approx(0.1)
    lengths_I = trainer.items.own.values.norm(dim=1)
    assert 0.5 < float(lengths_I.mean()) < 1.5


def share_of_own_taste(model, world):
    """How much of the five items that are left for each user is to the user's taste."""
    users = np.arange(40)
    starts = np.searchsorted(world.user_indices, np.arange(42))
    seen = [world.item_indices[starts[u] : starts[u + 1]] for u in users]
    indices, _ = top_k(model.score(UserBatch(user_indices=users)), 5, seen=seen)
    return np.mean(indices % 2 == (users % 2)[:, None])


COSINE = {"similarity": "cosine", "learning_rate": 0.5, "l2": 0.0, "temperature": 0.5}


@pytest.mark.parametrize(
    ("least", "setting"),
    [
        (0.99, {"num_negatives": 4}),
        (0.99, {"num_negatives": 1024}),
        (0.99, {"num_negatives": 4, "negatives": "popularity"}),
        (0.99, {"negatives": "in_batch"}),
        (0.99, {"dropout": 0.3, "epochs": 30}),
        (0.9, {"optimizer": "adam", "learning_rate": 0.02}),
        (0.99, {"init": "spectral"}),
        (0.99, {"schedule": "linear"}),
        (0.9, {"loss": "contrasted"}),  # what is left of one's taste are its negatives, too
        (0.99, {"loss": "bpr"}),
        (0.99, {"loss": "logistic"}),
        (0.9, {"loss": "contrasted", **COSINE}),
        (0.9, {"loss": "contrasted", "history_weight": 1.0, **COSINE}),
        (0.9, {"loss": "softmax", "dropout": 0.2, **COSINE}),
        (0.9, {"loss": "contrastive", "negative_weight": 1.0, "margin": 0.2, **COSINE}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_two_tastes_are_told_apart(two_tastes, least, setting):
    settings = {"num_factors": 4, "batch_size": 64, "l2": 0.05, "epochs": 15} | setting
    model = fit_sgd(two_tastes, SgdConfig(**settings))
    assert share_of_own_taste(model, two_tastes) > least


def test_the_scale_of_weights_does_not_matter(build, two_tastes):
    pairs = np.stack([two_tastes.user_indices, two_tastes.item_indices], 1)
    shape = {"num_users": 41, "num_items": 24}
    config = SgdConfig(num_factors=4, epochs=3, batch_size=64)
    small, large = (
        fit_sgd(build(pairs, weights=two_tastes.weights * factor, **shape), config)
        for factor in (1.0, 64.0)
    )
    np.testing.assert_allclose(small.item_factors_ID, large.item_factors_ID, atol=1e-4)
    assert large.encoder.weight_unit == pytest.approx(64 * small.encoder.weight_unit)


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


def test_dropout_leaves_out_its_share_and_keeps_the_mean(two_tastes):
    config = SgdConfig(num_factors=64, dropout=0.25, epochs=1)
    trainer = RankingTrainer(two_tastes, config, device=CPU)
    dropped = trainer._drop(torch.ones(200, 64))
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.03)
    assert sorted(dropped.unique().tolist()) == [0.0, pytest.approx(4 / 3)]


def test_a_users_direction_has_the_history_in_it(two_tastes):
    config = SgdConfig(num_factors=5, epochs=1, history_weight=2.0, loss="contrasted", **COSINE)
    trainer = RankingTrainer(two_tastes, config, device=CPU)
    user_UD, item_ID, bias_I = trainer.factors()
    np.testing.assert_allclose(item_ID.norm(dim=1), 1.0, rtol=1e-5)
    assert bias_I.abs().max() == 0
    for user in (0, 13, 39):
        mine = two_tastes.user_indices == user
        items = item_ID[two_tastes.item_indices[mine].astype(int)].numpy()
        mean_D = np.average(items, axis=0, weights=two_tastes.weights[mine])
        expected_D = trainer.users.own.values[user].numpy() + 2.0 * mean_D
        np.testing.assert_allclose(
            user_UD[user], expected_D / np.linalg.norm(expected_D), rtol=1e-4, atol=1e-6
        )


def test_history_tells_tastes_apart_where_users_have_had_no_time_to_learn(two_tastes):
    """Two epochs of tiny steps on users: only what their items have in common can tell."""
    shares = []
    for history_weight in (0.0, 3.0):
        config = SgdConfig(
            num_factors=16,
            epochs=12,
            batch_size=64,
            history_weight=history_weight,
            loss="contrasted",
            **COSINE | {"learning_rate": 0.15, "temperature": 0.2},
        )
        trainer = RankingTrainer(two_tastes, config, device=CPU)
        while not trainer.is_over:
            trainer.run_epoch()
        user_UD, item_ID, _ = trainer.factors()
        scores = (user_UD @ item_ID.T).numpy()
        scores[two_tastes.user_indices, two_tastes.item_indices] = -np.inf
        best = np.argsort(-scores[:40], axis=1)[:, :5]
        shares.append(np.mean(best % 2 == np.arange(40)[:, None] % 2))
    assert shares[1] > shares[0] + 0.05
    assert shares[1] > 0.9


@pytest.mark.parametrize("negatives", ["uniform", "in_batch"])
def test_the_penalty_of_an_item_is_that_of_an_epoch_whatever_the_steps(two_tastes, negatives):
    """Steps of one user meet rare items seldom; that must not make their penalty explode."""
    norms = []
    for batch_size in (1, 280):
        config = SgdConfig(
            num_factors=3, epochs=15, batch_size=batch_size, negatives=negatives, num_negatives=4
        )
        norms.append(np.linalg.norm(fit_sgd(two_tastes, config).item_factors_ID))
    assert norms[0] > norms[1] / 10


def test_a_spectral_start_is_the_singular_vectors_at_the_starts_scale(two_tastes):
    from perso.models.spectral import spectral_start

    config = SgdConfig(num_factors=3, init="spectral", epochs=1)
    trainer = RankingTrainer(two_tastes, config, device=CPU)
    _, item_ID = spectral_start(two_tastes, 3, seed=0)
    found_ID = trainer.items.own.values.numpy()
    np.testing.assert_allclose(
        found_ID / np.linalg.norm(found_ID), item_ID / np.linalg.norm(item_ID), atol=1e-6
    )
    assert np.sqrt(np.mean(found_ID**2)) == pytest.approx(0.01, rel=1e-4)
