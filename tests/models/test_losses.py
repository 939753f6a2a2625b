"""Every loss: its value and slopes against autograd of a loop over pairs, and what it promises."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid, softplus

from perso.models.losses import (
    Pairs,
    bpr_loss,
    contrasted_softmax_loss,
    contrastive_loss,
    logistic_loss,
    softmax_loss,
)

NEGATIVE_WEIGHT, MARGIN = 1.7, 0.2


def random_step(seed, num_rows=5, num_candidates=9, share=0.4):
    """Logits, pairs and chances; the first row has touched nothing, the last everything."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_rows, num_candidates)
    touched = torch.rand(shape, generator=generator) < share
    touched[0], touched[-1] = False, True
    row_P, column_P = torch.nonzero(touched, as_tuple=True)
    shuffled = torch.randperm(len(row_P), generator=generator)
    weight_P = torch.rand(len(row_P), generator=generator, dtype=torch.float64) + 0.1
    logits_BC = torch.randn(shape, generator=generator, dtype=torch.float64)
    log_chance_C = torch.rand(num_candidates, generator=generator, dtype=torch.float64).log()
    return logits_BC, Pairs(row_P[shuffled], column_P[shuffled], weight_P), log_chance_C


def by_row(pairs):
    """Per row its (column, weight) list."""
    rows = {}
    for row, column, weight in zip(*(part.tolist() for part in pairs), strict=True):
        rows.setdefault(row, []).append((column, weight))
    return rows


def naive_softmax(logits_BC, pairs, log_chance_C):
    loss = torch.zeros((), dtype=torch.float64)
    for row, touched in by_row(pairs).items():
        own = {column for column, _ in touched}
        total = sum(
            logit.exp() / (1.0 if column in own else log_chance_C[column].exp())
            for column, logit in enumerate(logits_BC[row])
        )
        for column, weight in touched:
            loss = loss + weight * (total.log() - logits_BC[row, column])
    return loss


def naive_contrasted(logits_BC, pairs, log_chance_C):
    loss = torch.zeros((), dtype=torch.float64)
    for row, touched in by_row(pairs).items():
        own = {column for column, _ in touched}
        others = [
            logit.exp() / log_chance_C[column].exp()
            for column, logit in enumerate(logits_BC[row])
            if column not in own
        ]
        for column, weight in touched:
            mine = logits_BC[row, column].exp()
            loss = loss - weight * (mine / (mine + sum(others))).log()
    return loss


def negatives_of(logits_BC, row, touched, log_chance_C):
    """Logits of what the row has not touched, and weights that sum to 1."""
    own = {column for column, _ in touched}
    columns = [column for column in range(logits_BC.shape[1]) if column not in own]
    inverse = (-log_chance_C[columns]).exp()
    return logits_BC[row, columns], inverse / inverse.sum() if columns else inverse


def naive_logistic(logits_BC, pairs, log_chance_C):
    loss = torch.zeros((), dtype=torch.float64)
    for row, touched in by_row(pairs).items():
        mass = sum(weight for _, weight in touched)
        for column, weight in touched:
            loss = loss + weight * softplus(-logits_BC[row, column])
        logits, shares = negatives_of(logits_BC, row, touched, log_chance_C)
        loss = loss + NEGATIVE_WEIGHT * mass * (shares * softplus(logits)).sum()
    return loss


def naive_contrastive(logits_BC, pairs, log_chance_C):
    loss = torch.zeros((), dtype=torch.float64)
    for row, touched in by_row(pairs).items():
        logits, shares = negatives_of(logits_BC, row, touched, log_chance_C)
        for column, weight in touched:
            over = (logits - MARGIN).clamp(min=0)
            cost = (1 - logits_BC[row, column]) + NEGATIVE_WEIGHT * (shares * over).sum()
            loss = loss + weight * cost
    return loss


DRAWN_PN = torch.randint(9, (60, 6), generator=torch.Generator().manual_seed(9))


def naive_bpr(logits_BC, pairs, _):
    loss = torch.zeros((), dtype=torch.float64)
    own = {row: {column for column, _ in touched} for row, touched in by_row(pairs).items()}
    for place, (row, column, weight) in enumerate(zip(*(p.tolist() for p in pairs), strict=True)):
        drawn = [other for other in DRAWN_PN[place].tolist() if other not in own[row]]
        for other in drawn:
            gap = logits_BC[row, column] - logits_BC[row, other]
            loss = loss - weight / len(drawn) * logsigmoid(gap)
    return loss


def logistic(logits_BC, pairs, log_chance_C):
    return logistic_loss(logits_BC, pairs, log_chance_C, negative_weight=NEGATIVE_WEIGHT)


def contrastive(logits_BC, pairs, log_chance_C):
    return contrastive_loss(
        logits_BC, pairs, log_chance_C, negative_weight=NEGATIVE_WEIGHT, margin=MARGIN
    )


def bpr(logits_BC, pairs, _):
    return bpr_loss(logits_BC, pairs, DRAWN_PN[: len(pairs.row_P)])


LOSSES = {
    "softmax": (softmax_loss, naive_softmax),
    "contrasted": (contrasted_softmax_loss, naive_contrasted),
    "logistic": (logistic, naive_logistic),
    "contrastive": (contrastive, naive_contrastive),
    "bpr": (bpr, naive_bpr),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(4))
def test_value_and_slopes_are_those_of_the_loss_pair_by_pair(name, seed):
    fast, naive = LOSSES[name]
    logits_BC, pairs, log_chance_C = random_step(seed)
    leaf_BC = logits_BC.clone().requires_grad_()
    expected = naive(leaf_BC, pairs, log_chance_C)
    expected.backward()
    found = fast(logits_BC.clone(), pairs, log_chance_C)
    torch.testing.assert_close(found.loss, expected.detach())
    torch.testing.assert_close(found.slope_BC, leaf_BC.grad)


@pytest.mark.parametrize("name", ["softmax", "contrasted", "logistic", "contrastive"])
def test_the_order_of_pairs_does_not_matter(name):
    logits_BC, pairs, log_chance_C = random_step(0)
    order = torch.arange(len(pairs.row_P)).flip(0)
    one = LOSSES[name][0](logits_BC.clone(), pairs, log_chance_C)
    other = LOSSES[name][0](logits_BC.clone(), Pairs(*(p[order] for p in pairs)), log_chance_C)
    torch.testing.assert_close(one.slope_BC, other.slope_BC)


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([1.0, 30.0, 300.0]))
@settings(deadline=None, max_examples=15)
def test_extreme_logits_give_finite_slopes_that_push_pairs_up(name, seed, scale):
    logits_BC, pairs, log_chance_C = random_step(seed)
    logits_BC = logits_BC.float() * scale
    pairs = pairs._replace(weight_P=pairs.weight_P.float())
    found = LOSSES[name][0](logits_BC, pairs, log_chance_C.float())
    assert torch.isfinite(found.loss)
    assert torch.isfinite(found.slope_BC).all()
    if name != "softmax":  # there a row's items also compete with one another
        assert (found.slope_BC[pairs.row_P, pairs.column_P] <= 0).all()
    untouched = torch.ones_like(found.slope_BC, dtype=torch.bool)
    untouched[pairs.row_P, pairs.column_P] = False
    assert (found.slope_BC[untouched] >= 0).all()


def test_a_row_without_pairs_has_no_slope():
    for fast, _ in LOSSES.values():
        logits_BC, pairs, log_chance_C = random_step(3)
        assert fast(logits_BC, pairs, log_chance_C).slope_BC[0].abs().max() == 0


def test_sampled_candidates_estimate_the_sum_over_the_catalogue_without_bias():
    generator = torch.Generator().manual_seed(0)
    logits_I = torch.randn(40, generator=generator, dtype=torch.float64)
    chance_I = torch.rand(40, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    sums = []
    for _ in range(4000):
        drawn = torch.rand(40, generator=generator, dtype=torch.float64) < chance_I
        drawn[7] = True  # the user's own item
        items_C = torch.nonzero(drawn).squeeze(1)
        own = torch.nonzero(items_C == 7).squeeze(1)
        pairs = Pairs(torch.tensor([0]), own, torch.ones(1, dtype=torch.float64))
        step = softmax_loss(logits_I[items_C][None], pairs, chance_I[items_C].log())
        sums.append(math.exp(float(step.loss + logits_I[7])))
    truth = float(logits_I.exp().sum())
    standard_error = np.std(sums) / math.sqrt(len(sums))
    assert abs(np.mean(sums) - truth) < 4 * standard_error
    assert standard_error < 0.02 * truth


def test_contrasted_never_holds_a_rows_items_against_each_other():
    """A second item of the row, however high it scores, changes nothing for the first."""
    slopes = []
    for rival in (-5.0, 50.0):
        logits_BC = torch.tensor([[1.0, rival, 0.5]])
        pairs = Pairs(torch.tensor([0, 0]), torch.tensor([0, 1]), torch.ones(2))
        slopes.append(contrasted_softmax_loss(logits_BC, pairs, torch.zeros(3)).slope_BC)
    assert slopes[0][0, 0] == slopes[1][0, 0] < 0
    assert slopes[1][0, 1] > -1e-6  # it is far above what is left already


def test_a_row_that_has_touched_every_candidate_learns_nothing_from_contrast():
    pairs = Pairs(torch.tensor([0, 0]), torch.tensor([0, 1]), torch.ones(2))
    found = contrasted_softmax_loss(torch.tensor([[1.0, 2.0]]), pairs, torch.zeros(2))
    assert found.loss == 0
    assert found.slope_BC.tolist() == [[0.0, 0.0]]


def test_bpr_counts_nothing_for_a_draw_that_the_row_has_touched():
    pairs = Pairs(torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([1.0, 3.0]))
    logits_BC = torch.tensor([[0.2, 0.1, -0.4]])
    found = bpr_loss(logits_BC.clone(), pairs, torch.tensor([[1, 2], [0, 1]]))
    gap = logits_BC[0, 0] - logits_BC[0, 2]
    torch.testing.assert_close(found.loss, -logsigmoid(gap))  # one draw of one pair is left
    assert found.slope_BC[0, 1] == 0


def test_contrastive_leaves_negatives_below_the_margin_alone():
    pairs = Pairs(torch.tensor([0]), torch.tensor([0]), torch.ones(1))
    logits_BC = torch.tensor([[0.5, MARGIN - 0.01, MARGIN + 0.01]])
    slope_BC = contrastive(logits_BC, pairs, torch.zeros(3)).slope_BC
    assert slope_BC[0, 1] == 0
    assert slope_BC[0, 2] > 0
