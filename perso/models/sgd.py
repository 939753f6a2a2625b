"""Matrix factorization by mini-batch SGD in PyTorch: one entry for every loss."""

# U users, I items, D factors

import math
from collections.abc import Callable

import numpy as np
import torch

from perso.data.prepared import Interactions
from perso.models.device import find_device
from perso.models.factors import FactorModel, popularity_bias
from perso.models.newton_encoder import MIN_PRIOR
from perso.models.ranking_sgd import RankingTrainer
from perso.models.request_features import RequestFeatures
from perso.models.sgd_config import SgdConfig
from perso.models.squared import fit_squared
from perso.models.user_solve import ItemSide, newton_encoder, solve_users

__all__ = ["SgdConfig", "fit_sgd"]

OnEpoch = Callable[[int, float], None]


def fit_sgd(
    interactions: Interactions, config: SgdConfig, *, on_epoch: OnEpoch | None = None
) -> FactorModel:
    """Train a factor model.

    The same interactions, config and number of threads give the same model on the same CPU;
    CUDA adds in any order, so its models agree to rounding only. No global seed is read or
    set, and threads are those that the process was given (``torch.set_num_threads``): more of
    them than free cores make a run of 2 s take a minute.

    Args:
        interactions: What to learn from; not changed.
        config: Loss, sizes and seed.
        on_epoch: Called with the epoch (from 1) and its mean loss per interaction.

    Raises:
        ValueError: If there are no interactions, if the loss is ``squared`` on ratings and none
            carries one, if CUDA is asked for and absent, or if training diverged.
    """
    if not len(interactions):
        raise ValueError("there are no interactions to train on; widen the training period")
    device = find_device(config.device)
    report = checked(on_epoch, config)
    if config.loss == "squared":
        return fit_squared(interactions, config, device=device, on_epoch=report)
    trainer = RankingTrainer(interactions, config, device=device)
    trainer.run(report)
    whole = trainer.histories_of(interactions)
    user_UD, item_ID, bias_I = trainer.factors()
    untouched_I = trainer.histories.counts_I == 0
    item_ID[untouched_I] = 0.0  # it has learned only what it is not
    mean_mass = float(whole.mass_U.double().sum()) / len(whole.active_U)
    if config.similarity == "cosine":
        # Unit vectors over the temperature are the logits' scale. On Gowalla the closed form
        # alone has Recall@20 .197 where the trained direction has .201, so it gives the length.
        item_ID /= 1.0 if config.loss == "contrastive" else config.temperature
        side = ItemSide.under(item_ID, (~untouched_I).double() / (~untouched_I).sum())
        prior = mean_mass * float(side.curvature_DD.diagonal().mean()) + MIN_PRIOR
        length_U1 = solve_users(whole, side, prior).norm(dim=1, keepdim=True)
        user_UD = user_UD * length_U1
        item_bias_I = popularity_bias(interactions)
    else:
        side = ItemSide.under(item_ID, torch.softmax(bias_I.double(), 0))
        prior = max(2 * config.l2, MIN_PRIOR) * mean_mass
        user_UD = solve_users(whole, side, prior)
        item_bias_I = bias_I.cpu().numpy()
    return FactorModel(
        user_factors_UD=user_UD.cpu().numpy(),
        user_bias_U=np.zeros(len(user_UD), np.float32),
        user_weight_U=whole.mass_U.cpu().numpy(),
        item_factors_ID=item_ID.cpu().numpy(),
        item_bias_I=item_bias_I,
        global_bias=0.0,
        encoder=newton_encoder(side, prior, weight_unit=whole.weight_unit),
        request_features=RequestFeatures(num_factors=config.num_factors),
    )


def checked(on_epoch: OnEpoch | None, config: SgdConfig) -> OnEpoch:
    """The report of an epoch, which refuses a loss that is no number."""

    def check(epoch: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise ValueError(
                f"training diverged in epoch {epoch} with learning_rate {config.learning_rate} "
                f"and l2 {config.l2}; lower the learning rate"
            )
        if on_epoch is not None:
            on_epoch(epoch, loss)

    return check
