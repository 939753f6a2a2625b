"""Matrix factorization by mini-batch SGD in PyTorch: one entry for every loss."""

# U users, I items, D factors

import numpy as np
import torch

from perso.data.prepared import Interactions
from perso.models.device import find_device
from perso.models.factors import FactorModel, popularity_bias
from perso.models.newton_encoder import MIN_PRIOR
from perso.models.progress import OnEpoch, TrainingState, train
from perso.models.ranking_sgd import RankingTrainer
from perso.models.ranks import ALONE, Ranks
from perso.models.request_features import RequestFeatures
from perso.models.sgd_config import SgdConfig
from perso.models.squared import SquaredTraining
from perso.models.user_solve import ItemSide, newton_encoder, solve_users

__all__ = ["SgdConfig", "fit_sgd"]


def fit_sgd(
    interactions: Interactions,
    config: SgdConfig,
    *,
    on_epoch: OnEpoch | None = None,
    resume: TrainingState | None = None,
    ranks: Ranks = ALONE,
) -> FactorModel:
    """Train a factor model.

    The same interactions, config and number of threads give the same model on the same CPU;
    CUDA adds in any order, so its models agree to rounding only. No global seed is read or
    set, and threads are those that the process was given (``torch.set_num_threads``): more of
    them than free cores make a run of 2 s take a minute.

    Args:
        interactions: What to learn from; not changed.
        config: Loss, sizes and seed.
        on_epoch: Called after each epoch; what it raises ends the training.
        resume: State of an earlier training of the same data, sizes and optimizer, to go on from
            under this config's pace and penalties.
        ranks: Who takes part; each with the same arguments. The result is that of one process to
            rounding, and the same on all.

    Raises:
        ValueError: If there are no interactions, if the loss is ``squared`` on ratings and none
            carries one, if CUDA is asked for and absent, if training diverged, or if the state does
            not fit.
    """
    if not len(interactions):
        raise ValueError("there are no interactions to train on; widen the training period")
    device = find_device(config.device)
    if config.loss == "squared":
        training = SquaredTraining(interactions, config, device=device, ranks=ranks)
        return train(training, training.model, on_epoch=on_epoch, resume=resume)
    trainer = RankingTrainer(interactions, config, device=device, ranks=ranks)

    def model() -> FactorModel:
        with trainer.ended():
            return _close(trainer, interactions, config)

    return train(trainer, model, on_epoch=on_epoch, resume=resume)


def _close(trainer: RankingTrainer, interactions: Interactions, config: SgdConfig) -> FactorModel:
    """The trained items, and all users as the request path would solve them."""
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
