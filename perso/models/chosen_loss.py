"""The loss that a config names, with its settings and what it draws."""

# R visits of a step, C candidates, P pairs, N rivals of a pair

import torch
from torch import Tensor

from perso.models import losses
from perso.models.sgd_config import SgdConfig


class ChosenLoss:
    """One of :mod:`perso.models.losses`."""

    def __init__(self, config: SgdConfig, generator: torch.Generator) -> None:
        """Draw from the training's generator, of the CPU."""
        self._config = config
        self._generator = generator

    def draw_rivals(self, num_pairs: int, num_candidates: int) -> Tensor | None:
        """Candidates that each pair of a step is told apart from, shape (P, N), on the CPU.

        None for all losses but ``bpr``: they tell it apart from every candidate.
        """
        if self._config.loss != "bpr":
            return None
        shape = (num_pairs, self._config.negatives_per_pair)
        return torch.randint(num_candidates, shape, generator=self._generator)

    def slopes(
        self,
        logits_RC: Tensor,
        pairs: losses.Pairs,
        log_chance_C: Tensor,
        rivals_PN: Tensor | None,
    ) -> losses.Slopes:
        """The loss and its slopes.

        Args:
            logits_RC: Scores; overwritten.
            pairs: What was observed.
            log_chance_C: Log of each candidate's chance to be one.
            rivals_PN: Rivals of these pairs, if any were drawn.
        """
        config = self._config
        if rivals_PN is not None:
            return losses.bpr_loss(logits_RC, pairs, rivals_PN)
        if config.loss == "softmax":
            return losses.softmax_loss(logits_RC, pairs, log_chance_C)
        if config.loss == "contrasted":
            return losses.contrasted_softmax_loss(logits_RC, pairs, log_chance_C)
        if config.loss == "logistic":
            return losses.logistic_loss(
                logits_RC, pairs, log_chance_C, negative_weight=config.negative_weight
            )
        return losses.contrastive_loss(
            logits_RC,
            pairs,
            log_chance_C,
            negative_weight=config.negative_weight,
            margin=config.margin,
        )
