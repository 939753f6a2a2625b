import numpy as np
import pytest
import torch

from perso.evaluation.metrics import rmse
from perso.models.rating import rating_gradients
from perso.models.sgd import SgdConfig, fit_sgd


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
    found = rating_gradients(*tables, row_P=row_P, column_P=column_P, target_P=target_P, l2=0.3)
    torch.testing.assert_close(found.loss, error.detach())
    for slope, leaf in zip(found[1:], leaves, strict=True):
        torch.testing.assert_close(slope, leaf.grad)


@pytest.fixture(scope="module")
def trained(stars):
    train, _ = stars
    return fit_sgd(
        train, SgdConfig(loss="rating", num_factors=4, epochs=30, batch_size=512, l2=0.03)
    )


def test_planted_ratings_are_predicted_close_to_their_noise(stars, trained):
    train, held_out = stars
    error = rmse(trained.predict(held_out.user_indices, held_out.item_indices), held_out.ratings)
    spread = rmse(np.full(len(held_out), train.ratings.mean()), held_out.ratings)
    assert spread > 0.8
    assert error < 0.42  # the noise is 0.3


def test_a_rating_model_knows_the_mean_and_a_liked_rating(stars, trained):
    ratings = stars[0].ratings
    assert trained.global_bias == pytest.approx(ratings.mean(), abs=1e-4)
    liked = ratings[ratings >= ratings.mean()].mean()
    assert trained.fold_in.positive_rating == pytest.approx(liked, abs=1e-4)


def test_folding_in_a_history_predicts_almost_as_well_as_training_on_it(stars, trained):
    train, held_out = stars
    params, folded = trained.fold_in, np.zeros_like(trained.user_factors_UD)
    for user in range(train.num_users):
        mine = train.user_indices == user
        items = train.item_indices[mine]
        residuals = (
            train.ratings[mine]
            - trained.global_bias
            - trained.item_bias_I[items]
            - trained.user_bias_U[user]
        )
        slope = mine.sum() * params.curvature_DD + params.l2 * np.eye(len(params.center_D))
        folded[user] = np.linalg.solve(slope, residuals @ trained.item_factors_ID[items])
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
    config = SgdConfig(loss="rating", num_factors=2, epochs=3)
    some = fit_sgd(build(pairs, ratings=[5, 1, 4, np.nan], **shape), config)
    rated_only = fit_sgd(build(pairs[:3], ratings=[5, 1, 4], **shape), config)
    np.testing.assert_array_equal(some.item_factors_ID, rated_only.item_factors_ID)
    assert some.user_factors_UD[2].tolist() == [0.0, 0.0]
    assert some.item_factors_ID[2].tolist() == [0.0, 0.0]


def test_no_ratings_at_all_is_one_clear_sentence(two_tastes):
    with pytest.raises(ValueError, match=r"none of 280 interactions carries a rating.*softmax"):
        fit_sgd(two_tastes, SgdConfig(loss="rating"))
