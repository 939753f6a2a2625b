"""Ranking losses of whole users against one shared set of candidate items.

A step scores B users (rows) on C candidates: all that the step's users touched, and drawn ones.
Each loss returns its sum over the step's pairs and the slope of every logit, from which one
matrix product gives the gradients of both sides; no graph of B × C numbers is kept. A pair's
weight is how often it counts. Where a candidate is drawn by chance, it counts by the inverse of
that chance, so that the candidates' sum estimates the catalogue's without bias (log Q).

Cost: three matrix products of B · C · D and a few passes over B · C numbers.

References:
    Softmax: Liang et al., Variational autoencoders for collaborative filtering, WWW 2018 (the
    multinomial likelihood over a user's items); Yi et al., Sampling-bias-corrected neural
    modeling, RecSys 2019 (log Q); Wu et al., On the effectiveness of sampled softmax loss for
    item recommendation, TOIS 2023 (temperature). BPR: Rendle et al., UAI 2009. Logistic: Johnson,
    Logistic matrix factorization for implicit feedback data, 2014. Cosine contrastive: Mao et
    al., SimpleX, CIKM 2021.
"""

# B rows of a step (users, or users in a context), C candidates, P pairs of a step

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


class Pairs(NamedTuple):
    """The observed pairs of a step; a (row, column) occurs once."""

    row_P: Tensor
    """Row of the logits."""
    column_P: Tensor
    """Candidate of the logits."""
    weight_P: Tensor
    """Weight of each pair."""


class Slopes(NamedTuple):
    """A summed loss and how it changes with each logit."""

    loss: Tensor
    slope_BC: Tensor


def softmax_loss(logits_BC: Tensor, pairs: Pairs, log_chance_C: Tensor) -> Slopes:
    """Cross-entropy of each pair's item among the row's items and the other candidates.

    Args:
        logits_BC: Scores; overwritten.
        pairs: What was observed.
        log_chance_C: Log of the chance that a candidate is among the candidates of a row that has
            not touched it; a row's own items are always there.
    """
    row_P, column_P, weight_P = pairs
    own_P = logits_BC[row_P, column_P]
    logits_BC -= log_chance_C
    logits_BC[row_P, column_P] = own_P
    mass_B = _mass(logits_BC, pairs)
    log_sum_B = logits_BC.logsumexp(1)
    loss = mass_B @ log_sum_B - weight_P @ own_P
    slope_BC = logits_BC.sub_(log_sum_B[:, None]).exp_().mul_(mass_B[:, None])
    slope_BC[row_P, column_P] -= weight_P
    return Slopes(loss, slope_BC)


def contrasted_softmax_loss(logits_BC: Tensor, pairs: Pairs, log_chance_C: Tensor) -> Slopes:
    """Cross-entropy of each pair's item among the untouched candidates and itself.

    The row's other items are no negatives: they too will be left out of the list. Arguments as in
    :func:`softmax_loss`; a row that has touched every candidate costs nothing.
    """
    row_P, column_P, weight_P = pairs
    own_P = logits_BC[row_P, column_P]
    logits_BC -= log_chance_C
    logits_BC[row_P, column_P] = -torch.inf
    log_rest_B = logits_BC.logsumexp(1)
    gap_P = own_P - log_rest_B[row_P]
    loss = -(weight_P @ logsigmoid(gap_P))
    missed_P = weight_P * torch.sigmoid(-gap_P)
    missed_B = torch.zeros_like(log_rest_B).index_add_(0, row_P, missed_P)
    slope_BC = logits_BC.sub_(log_rest_B[:, None]).exp_().mul_(missed_B[:, None])
    slope_BC[row_P, column_P] = -missed_P
    return Slopes(loss, slope_BC)


def logistic_loss(
    logits_BC: Tensor, pairs: Pairs, log_chance_C: Tensor, *, negative_weight: float
) -> Slopes:
    """Binary cross-entropy: pairs are 1, everything else 0.

    All that a row has not touched weighs ``negative_weight`` times all that it has.
    """
    row_P, column_P, weight_P = pairs
    own_P = logits_BC[row_P, column_P]
    negative_BC = _negative_weights(logits_BC, pairs, log_chance_C, negative_weight)
    loss = -(weight_P @ logsigmoid(own_P)) - (negative_BC * logsigmoid(-logits_BC)).sum()
    slope_BC = negative_BC.mul_(logits_BC.sigmoid_())
    slope_BC[row_P, column_P] = -weight_P * torch.sigmoid(-own_P)
    return Slopes(loss, slope_BC)


def contrastive_loss(
    logits_BC: Tensor,
    pairs: Pairs,
    log_chance_C: Tensor,
    *,
    negative_weight: float,
    margin: float,
) -> Slopes:
    """Cosine contrastive: pairs go to 1, everything else is only held below the margin.

    Args:
        logits_BC: Cosines.
        pairs: What was observed.
        log_chance_C: As in :func:`softmax_loss`.
        negative_weight: Weight of the mean over what a row has not touched, per pair.
        margin: Cosine below which a negative costs nothing.
    """
    row_P, column_P, weight_P = pairs
    own_P = logits_BC[row_P, column_P]
    negative_BC = _negative_weights(logits_BC, pairs, log_chance_C, negative_weight)
    over_BC = logits_BC.sub_(margin).clamp_(min=0)
    loss = weight_P @ (1 - own_P) + (negative_BC * over_BC).sum()
    slope_BC = negative_BC.mul_(over_BC > 0)
    slope_BC[row_P, column_P] = -weight_P
    return Slopes(loss, slope_BC)


def bpr_loss(logits_BC: Tensor, pairs: Pairs, drawn_PN: Tensor) -> Slopes:
    """Mean over the untouched of N drawn candidates of ``-log sigmoid(own - drawn)``.

    Args:
        logits_BC: Scores; overwritten.
        pairs: What was observed.
        drawn_PN: Candidates drawn for each pair; those that the row has touched count nothing.
    """
    row_P, column_P, weight_P = pairs
    own_P = logits_BC[row_P, column_P]
    gap_PN = own_P[:, None] - logits_BC[row_P[:, None], drawn_PN]
    touched_BC = torch.zeros_like(logits_BC, dtype=torch.bool)
    touched_BC[row_P, column_P] = True
    share_PN = (~touched_BC[row_P[:, None], drawn_PN]).to(gap_PN.dtype)
    share_PN *= weight_P[:, None] / share_PN.sum(1, keepdim=True).clamp(min=1)
    loss = -(share_PN * logsigmoid(gap_PN)).sum()
    push_PN = share_PN * torch.sigmoid(-gap_PN)
    width = logits_BC.shape[1]
    slope_BC = logits_BC.zero_()
    places_PN = row_P[:, None] * width + drawn_PN
    slope_BC.view(-1).index_add_(0, places_PN.flatten(), push_PN.flatten())
    slope_BC[row_P, column_P] -= push_PN.sum(1)
    return Slopes(loss, slope_BC)


def _mass(logits_BC: Tensor, pairs: Pairs) -> Tensor:
    """Weight of each row's pairs, shape (B,)."""
    return torch.zeros_like(logits_BC[:, 0]).index_add_(0, pairs.row_P, pairs.weight_P)


def _negative_weights(
    logits_BC: Tensor, pairs: Pairs, log_chance_C: Tensor, negative_weight: float
) -> Tensor:
    """Weights of untouched candidates: ``negative_weight`` times the row's mass in all."""
    weight_BC = (-log_chance_C).exp().expand_as(logits_BC).clone()
    weight_BC[pairs.row_P, pairs.column_P] = 0.0
    total_B = weight_BC.sum(1)
    scale_B = negative_weight * _mass(logits_BC, pairs) / total_B
    scale_B[total_B == 0] = 0.0  # a row that has touched every candidate
    return weight_BC.mul_(scale_B[:, None])
