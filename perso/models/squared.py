"""Training on numbers: the stars, or the weight, of a pair from its user, its item and biases.

The objective is the mean squared error of ``global bias + user bias + item bias + user factor ·
item factor`` over the pairs that carry a number, plus ``l2`` times the squared norms of a pair's
parameters. Every rating counts once, whatever the weight of its events: RMSE counts it so too.

Cost: 12 · D multiplications a rating and epoch, 4 · D bytes a user and item and 20 a rating of
memory; 100 million ratings at D = 64 are 8 · 10^10 operations and 2 GB an epoch.

References:
    Koren et al., Matrix factorization techniques for recommender systems, Computer 2009.
"""

# U users, I items, P ratings of a step, B distinct users and C distinct items in them, D factors

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from perso.data.prepared import Interactions
from perso.models.factors import FactorModel
from perso.models.newton_encoder import MIN_PRIOR, NewtonEncoder
from perso.models.request_features import RequestFeatures
from perso.models.sgd_config import SgdConfig
from perso.models.tables import Table, make_table


class Gradients(NamedTuple):
    """The summed squared error of a step, and the slopes of error and penalty."""

    loss: torch.Tensor
    user_BD: torch.Tensor
    item_CD: torch.Tensor
    user_bias_B: torch.Tensor
    item_bias_C: torch.Tensor


def squared_gradients(
    user_BD: torch.Tensor,
    item_CD: torch.Tensor,
    user_bias_B: torch.Tensor,
    item_bias_C: torch.Tensor,
    *,
    row_P: torch.Tensor,
    column_P: torch.Tensor,
    target_P: torch.Tensor,
    l2: float,
) -> Gradients:
    """Squared error and penalty of some ratings.

    Args:
        user_BD: User vectors.
        item_CD: Item vectors.
        user_bias_B: User biases.
        item_bias_C: Item biases.
        row_P: Row in ``user_BD`` of each rating.
        column_P: Row in ``item_CD`` of each rating.
        target_P: Ratings less the global mean.
        l2: Penalty of each rating on the squares of its parameters.
    """
    user_PD, item_PD = user_BD[row_P], item_CD[column_P]
    predicted_P = (user_PD * item_PD).sum(1) + user_bias_B[row_P] + item_bias_C[column_P]
    error_P = predicted_P - target_P
    weighted = 2 * error_P[:, None]
    counts_B = torch.zeros_like(user_bias_B).index_add_(0, row_P, torch.ones_like(error_P))
    counts_C = torch.zeros_like(item_bias_C).index_add_(0, column_P, torch.ones_like(error_P))
    return Gradients(
        error_P.square().sum(),
        (2 * l2 * counts_B[:, None] * user_BD).index_add_(0, row_P, weighted * item_PD),
        (2 * l2 * counts_C[:, None] * item_CD).index_add_(0, column_P, weighted * user_PD),
        (2 * l2 * counts_B * user_bias_B).index_add_(0, row_P, weighted[:, 0]),
        (2 * l2 * counts_C * item_bias_C).index_add_(0, column_P, weighted[:, 0]),
    )


def fit_squared(
    interactions: Interactions,
    config: SgdConfig,
    *,
    device: torch.device,
    on_epoch: Callable[[int, float], None],
) -> FactorModel:
    """Factors trained on ratings; see :func:`perso.models.sgd.fit_sgd`."""
    by_rating = config.target == "ratings"
    targets = interactions.ratings if by_rating else interactions.weights
    rated = ~np.isnan(targets)
    if not rated.any():
        raise ValueError(
            f"none of {len(interactions)} interactions carries a rating; "
            "train with loss 'softmax', which needs none, or with target 'weights'"
        )
    user_P = torch.from_numpy(interactions.user_indices[rated]).to(device)
    item_P = torch.from_numpy(interactions.item_indices[rated]).to(device)
    ratings = targets[rated]
    mean = float(ratings.mean(dtype=np.float64))
    target_P = torch.from_numpy(ratings - np.float32(mean)).to(device)
    num_users, num_items = interactions.num_users, interactions.num_items
    generator = torch.Generator().manual_seed(config.seed)

    def table(values: torch.Tensor) -> Table:
        return make_table(values.to(device), config.optimizer, learning_rate=config.learning_rate)

    users = table(torch.randn(num_users, config.num_factors, generator=generator) * 0.1)
    items = table(torch.randn(num_items, config.num_factors, generator=generator) * 0.1)
    user_bias, item_bias = table(torch.zeros(num_users)), table(torch.zeros(num_items))
    for epoch in range(config.epochs):
        loss_sum = torch.zeros((), device=device, dtype=torch.float64)
        shuffled = torch.randperm(len(target_P), generator=generator).to(device)
        for picked in shuffled.split(config.batch_size):
            users_B, row_P = torch.unique(user_P[picked].long(), return_inverse=True)
            items_C, column_P = torch.unique(item_P[picked].long(), return_inverse=True)
            step = squared_gradients(
                users.values[users_B],
                items.values[items_C],
                user_bias.values[users_B],
                item_bias.values[items_C],
                row_P=row_P,
                column_P=column_P,
                target_P=target_P[picked],
                l2=config.l2,
            )
            users.descend(users_B, step.user_BD)
            items.descend(items_C, step.item_CD)
            user_bias.descend(users_B, step.user_bias_B)
            item_bias.descend(items_C, step.item_bias_C)
            loss_sum += step.loss
        on_epoch(epoch + 1, float(loss_sum) / len(target_P))
    count_U = np.bincount(interactions.user_indices[rated], minlength=num_users)
    count_I = np.bincount(interactions.item_indices[rated], minlength=num_items)
    # Who was not in any rating still stands where the random start put it.
    user_UD = users.values.cpu().numpy() * (count_U > 0)[:, None].astype(np.float32)
    item_ID = items.values.cpu().numpy() * (count_I > 0)[:, None].astype(np.float32)
    shares_I = count_I / count_I.sum()
    encoder = NewtonEncoder(
        loss="squared",
        weight_unit=float(interactions.weights.mean(dtype=np.float64)),
        # Twice the penalty of an average user's ratings: C is an average as well. On planted
        # ratings RMSE .906 folded in from nothing, .904 trained, .902 by each user's own ridge.
        l2=max(2 * config.l2, MIN_PRIOR) * len(ratings) / int((count_U > 0).sum()),
        center_D=np.zeros(config.num_factors, np.float32),
        curvature_DD=((item_ID.T * shares_I) @ item_ID).astype(np.float32),
        recent_boost=1.0,
        positive_rating=float(ratings[ratings >= mean].mean(dtype=np.float64)),
    )
    return FactorModel(
        user_factors_UD=user_UD,
        user_bias_U=user_bias.values.cpu().numpy(),
        user_weight_U=count_U.astype(np.float32),
        item_factors_ID=item_ID,
        item_bias_I=item_bias.values.cpu().numpy(),
        global_bias=mean,
        encoder=encoder,
        request_features=RequestFeatures(num_factors=config.num_factors),
        predicts=config.target,
    )
