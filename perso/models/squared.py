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

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from perso.data.prepared import Interactions
from perso.models.factors import FactorModel
from perso.models.newton_encoder import MIN_PRIOR, NewtonEncoder
from perso.models.progress import TrainingState
from perso.models.ranks import ALONE, Ranks
from perso.models.request_features import RequestFeatures
from perso.models.sgd_config import SgdConfig
from perso.models.sgd_state import SgdState, copied, refuse_divergence
from perso.models.tables import Table, make_table


class Gradients(NamedTuple):
    """The summed squared error of a step, and the slopes of error and penalty."""

    loss: Tensor
    user_BD: Tensor
    item_CD: Tensor
    user_bias_B: Tensor
    item_bias_C: Tensor


def squared_gradients(
    user_BD: Tensor,
    item_CD: Tensor,
    user_bias_B: Tensor,
    item_bias_C: Tensor,
    *,
    row_P: Tensor,
    column_P: Tensor,
    target_P: Tensor,
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


class SquaredTraining:
    """The tables of one training on numbers, and the steps that move them."""

    def __init__(
        self,
        interactions: Interactions,
        config: SgdConfig,
        *,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        """Draw the starting vectors.

        Args:
            interactions: What to learn from; not changed.
            config: Sizes, pace and seed.
            device: Where tables and ratings stay.
            ranks: Who takes part; each has the same data and config.

        Raises:
            ValueError: If ratings are to be learned and no interaction carries one.
        """
        targets = interactions.ratings if config.target == "ratings" else interactions.weights
        self._rated_P = ~np.isnan(targets)
        if not self._rated_P.any():
            raise ValueError(
                f"none of {len(interactions)} interactions carries a rating; "
                "train with loss 'softmax', which needs none, or with target 'weights'"
            )
        self._interactions, self._config, self._ranks = interactions, config, ranks
        rated_P = self._rated_P
        self._user_P = torch.from_numpy(interactions.user_indices[rated_P]).to(device)
        self._item_P = torch.from_numpy(interactions.item_indices[rated_P]).to(device)
        self._ratings = targets[rated_P]
        self._mean = float(self._ratings.mean(dtype=np.float64))
        self._target_P = torch.from_numpy(self._ratings - np.float32(self._mean)).to(device)
        self._generator = torch.Generator().manual_seed(config.seed)
        num_users, num_items = interactions.num_users, interactions.num_items

        def table(values: Tensor) -> Table:
            rate = config.learning_rate
            return make_table(values.to(device), config.optimizer, learning_rate=rate)

        def drawn(num_rows: int) -> Table:
            return table(torch.randn(num_rows, config.num_factors, generator=self._generator) * 0.1)

        self._users, self._items = drawn(num_users), drawn(num_items)
        self._user_bias = table(torch.zeros(num_users))
        self._item_bias = table(torch.zeros(num_items))
        tables = {
            "users": self._users,
            "items": self._items,
            "user_bias": self._user_bias,
            "item_bias": self._item_bias,
        }
        self._state = SgdState(tables=tables, generator=self._generator)
        self._loss = math.nan
        ranks.align_([table.values for table in tables.values()])

    @property
    def epoch(self) -> int:
        """Epochs that have been run."""
        return self._state.epoch

    @property
    def is_over(self) -> bool:
        """Whether all epochs have been run."""
        return self.epoch >= self._config.epochs

    def run_epoch(self) -> None:
        """One pass over all ratings.

        Raises:
            ValueError: If training diverged.
        """
        target_P = self._target_P
        loss_sum = torch.zeros((), device=target_P.device, dtype=torch.float64)
        shuffled = torch.randperm(len(target_P), generator=self._generator).to(target_P.device)
        for picked in shuffled.split(self._config.batch_size):
            users_B, row_P = torch.unique(self._user_P[picked].long(), return_inverse=True)
            items_C, column_P = torch.unique(self._item_P[picked].long(), return_inverse=True)
            mine = self._ranks.share(len(picked))
            step = squared_gradients(
                self._users.values[users_B],
                self._items.values[items_C],
                self._user_bias.values[users_B],
                self._item_bias.values[items_C],
                row_P=row_P[mine],
                column_P=column_P[mine],
                target_P=target_P[picked[mine]],
                l2=self._config.l2,
            )
            self._ranks.sum_(step)
            self._users.descend(users_B, step.user_BD)
            self._items.descend(items_C, step.item_CD)
            self._user_bias.descend(users_B, step.user_bias_B)
            self._item_bias.descend(items_C, step.item_bias_C)
            loss_sum += step.loss
        self._state.epoch += 1
        self._loss = float(loss_sum) / len(target_P)
        refuse_divergence(self._loss, self.epoch, self._config)

    def loss(self) -> float:
        """Mean squared error in the last epoch."""
        return self._loss

    def state(self) -> TrainingState:
        """Copies of tables, accumulators and random state."""
        return self._state.arrays()

    def resume(self, state: TrainingState) -> None:
        """Stand where the training stood whose state this is.

        Raises:
            ValueError: If the state has other arrays, or arrays of other shapes.
        """
        self._state.resume(state, more={})

    def model(self) -> FactorModel:
        """The factors as they stand."""
        interactions, config, ratings = self._interactions, self._config, self._ratings
        users_P = interactions.user_indices[self._rated_P]
        items_P = interactions.item_indices[self._rated_P]
        count_U = np.bincount(users_P, minlength=interactions.num_users)
        count_I = np.bincount(items_P, minlength=interactions.num_items)
        # Who was not in any rating still stands where the random start put it.
        user_UD = copied(self._users.values) * (count_U > 0)[:, None].astype(np.float32)
        item_ID = copied(self._items.values) * (count_I > 0)[:, None].astype(np.float32)
        shares_I = count_I / count_I.sum()
        encoder = NewtonEncoder(
            loss="squared",
            weight_unit=float(interactions.weights.mean(dtype=np.float64)),
            # Twice the penalty of an average user's ratings: C is an average as well. On planted
            # ratings RMSE .906 folded in from nothing, .904 trained, .902 by each user's own
            # ridge.
            l2=max(2 * config.l2, MIN_PRIOR) * len(ratings) / int((count_U > 0).sum()),
            center_D=np.zeros(config.num_factors, np.float32),
            curvature_DD=((item_ID.T * shares_I) @ item_ID).astype(np.float32),
            recent_boost=1.0,
            positive_rating=float(ratings[ratings >= self._mean].mean(dtype=np.float64)),
        )
        return FactorModel(
            user_factors_UD=user_UD,
            user_bias_U=copied(self._user_bias.values),
            user_weight_U=count_U.astype(np.float32),
            item_factors_ID=item_ID,
            item_bias_I=copied(self._item_bias.values),
            global_bias=self._mean,
            encoder=encoder,
            request_features=RequestFeatures(num_factors=config.num_factors),
            predicts=config.target,
        )
