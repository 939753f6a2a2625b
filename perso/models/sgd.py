"""Matrix factorization by mini-batch SGD in PyTorch: one entry for both losses."""

import math
from collections.abc import Callable

import torch

from perso.data.prepared import Interactions
from perso.models.factors import FactorModel
from perso.models.rating import fit_rating
from perso.models.sgd_config import SgdConfig
from perso.models.softmax import fit_softmax

__all__ = ["SgdConfig", "fit_sgd"]


def fit_sgd(
    interactions: Interactions,
    config: SgdConfig,
    *,
    on_epoch: Callable[[int, float], None] | None = None,
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
        ValueError: If there are no interactions, if the loss is ``rating`` and none carries a
            rating, if CUDA is asked for and absent, or if training diverged.
    """
    if not len(interactions):
        raise ValueError("there are no interactions to train on; widen the training period")

    def check(epoch: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise ValueError(
                f"training diverged in epoch {epoch} with learning_rate {config.learning_rate} "
                f"and l2 {config.l2}; lower the learning rate"
            )
        if on_epoch is not None:
            on_epoch(epoch, loss)

    fit = {"softmax": fit_softmax, "rating": fit_rating}[config.loss]
    return fit(interactions, config, device=_device(config.device), on_epoch=check)


def _device(name: str) -> torch.device:
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ValueError("device is 'cuda', but PyTorch sees no CUDA device; give 'auto' or 'cpu'")
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")
