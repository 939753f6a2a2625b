import numpy as np
import pytest
import torch

from perso.evaluation.metrics import rmse
from perso.models.protocol import WeightedItems
from perso.models.sgd import SgdConfig, fit_sgd
from perso.models.squared import squared_gradients


@pytest.mark.parametrize("seed", range(3))
def test_the_slopes_are_those_of_the_loss(seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tables = (draw(4, 3), draw(5, 3), draw(4), draw(5))
    row_P = torch.randint(4, (12,), generator=generator)
    column_P = torch.randint(5, (12,), generator=generator)
    target_P = draw(12)
    leaves = [table.clone().requires_grad_() for table in tables]
    user, item, user_bias, item_bias = leaves
    error = torch.zeros((), dtype=torch.float64)
    penalty = torch.zeros((), dtype=torch.float64)
    for row, column, target in zip(row_P, column_P, target_P, strict=True):
        predicted = user[row] @ item[column] + user_bias[row] + item_bias[column]
        error = error + (predicted - target) ** 2
        squares = (user[row] ** 2).sum() + (item[column] ** 2).sum()
        penalty = penalty + 0.3 * (squares + user_bias[row] ** 2 + item_bias[column] ** 2)
    (error + penalty).backward()
    found = squared_gradients(*tables, row_P=row_P, column_P=column_P, target_P=target_P, l2=0.3)
    torch.testing.assert_close(found.loss, error.detach())
    for slope, leaf in zip(found[1:], leaves, strict=True):
        torch.testing.assert_close(slope, leaf.grad)


@pytest.fixture(scope="module")
def trained(stars):
    train, _ = stars
    return fit_sgd(
        train, SgdConfig(loss="squared", num_factors=4, epochs=30, batch_size=512, l2=0.03)
    )


@pytest.mark.parametrize(("optimizer", "learning_rate"), [("adagrad", 0.1), ("adam", 0.01)])
def test_planted_ratings_are_predicted_close_to_their_noise(stars, optimizer, learning_rate):
    train, held_out = stars
    config = SgdConfig(
        loss="squared",
        num_factors=4,
        epochs=30,
        batch_size=512,
        l2=0.03,
        optimizer=optimizer,
        learning_rate=learning_rate,
    )
    model = fit_sgd(train, config)
    error = rmse(model.predict(held_out.user_indices, held_out.item_indices), held_out.ratings)
    spread = rmse(np.full(len(held_out), train.ratings.mean()), held_out.ratings)
    assert spread > 0.8
    assert error < 0.42  # the noise is 0.3


def test_a_rating_model_knows_the_mean_and_a_liked_rating(stars, trained):
    ratings = stars[0].ratings
    assert trained.predicts == "ratings"
    assert trained.global_bias == pytest.approx(ratings.mean(), abs=1e-4)
    liked = ratings[ratings >= ratings.mean()].mean()
    assert trained.encoder.positive_rating == pytest.approx(liked, abs=1e-4)


def history_of(interactions, user):
    mine = interactions.user_indices == user
    return WeightedItems(
        item_indices=interactions.item_indices[mine].astype(np.int64),
        weights=interactions.weights[mine].astype(np.float64),
        ratings=interactions.ratings[mine].astype(np.float64),
    )


def test_folding_in_a_history_predicts_almost_as_well_as_training_on_it(stars, trained):
    train, held_out = stars
    nothing_D = np.zeros(trained.num_factors, np.float32)
    folded = np.stack(
        [
            trained.encoder.solve(trained, -1, history_of(train, user), nothing_D)
            for user in range(train.num_users)
        ]
    )
    users, items = held_out.user_indices, held_out.item_indices
    without = trained.predict(users, items) - np.einsum(
        "pd,pd->p", trained.user_factors_UD[users], trained.item_factors_ID[items]
    )
    predicted = without + np.einsum("pd,pd->p", folded[users], trained.item_factors_ID[items])
    trained_error = rmse(trained.predict(users, items), held_out.ratings)
    folded_error = rmse(predicted, held_out.ratings)
    assert folded_error < trained_error + 0.25 * (rmse(without, held_out.ratings) - trained_error)


def test_pairs_without_a_rating_are_left_out(build):
    pairs = [(0, 0), (0, 1), (1, 0), (2, 2)]
    shape = {"num_users": 3, "num_items": 3}
    config = SgdConfig(loss="squared", num_factors=2, epochs=3)
    some = fit_sgd(build(pairs, ratings=[5, 1, 4, np.nan], **shape), config)
    rated_only = fit_sgd(build(pairs[:3], ratings=[5, 1, 4], **shape), config)
    np.testing.assert_array_equal(some.item_factors_ID, rated_only.item_factors_ID)
    assert some.user_factors_UD[2].tolist() == [0.0, 0.0]
    assert some.item_factors_ID[2].tolist() == [0.0, 0.0]


def test_no_ratings_at_all_is_one_clear_sentence(two_tastes):
    with pytest.raises(ValueError, match=r"none of 280 interactions carries a rating.*softmax"):
        fit_sgd(two_tastes, SgdConfig(loss="squared"))


def test_weights_as_targets_are_learned_like_ratings(build, stars):
    """The same numbers, once as stars and once as weights, make the same predictions."""
    train, _ = stars
    positive = np.maximum(train.ratings, 0.1)
    pairs = np.stack([train.user_indices, train.item_indices], 1)
    shape = {"num_users": 120, "num_items": 80}
    config = {"loss": "squared", "num_factors": 3, "epochs": 5, "batch_size": 512}
    rated = fit_sgd(build(pairs, ratings=positive, **shape), SgdConfig(**config))
    weighed = fit_sgd(
        build(pairs, weights=positive, **shape), SgdConfig(target="weights", **config)
    )
    assert weighed.predicts == "weights"
    np.testing.assert_array_equal(rated.item_factors_ID, weighed.item_factors_ID)
    users, items = pairs[:50].T
    np.testing.assert_array_equal(rated.predict(users, items), weighed.predict(users, items))


def test_where_weights_are_predicted_recent_weights_are_what_is_folded_in(build, stars):
    """Stars are on another scale: they say nothing here."""
    train, _ = stars
    pairs = np.stack([train.user_indices, train.item_indices], 1)
    world = build(pairs, weights=np.maximum(train.ratings, 0.1), num_users=120, num_items=80)
    config = SgdConfig(
        loss="squared", target="weights", num_factors=4, epochs=30, batch_size=512, l2=0.03
    )
    model = fit_sgd(world, config)
    nothing_D = np.zeros(4, np.float32)
    recent = history_of(world, 3)
    starred = WeightedItems(
        item_indices=recent.item_indices,
        weights=recent.weights,
        ratings=np.full(len(recent), 50.0),
    )
    folded_D = model.encoder.solve(model, -1, recent, nothing_D)
    np.testing.assert_array_equal(folded_D, model.encoder.solve(model, -1, starred, nothing_D))
    trained_I = model.item_factors_ID @ model.user_factors_UD[3]
    assert np.corrcoef(model.item_factors_ID @ folded_D, trained_I)[0, 1] > 0.9
