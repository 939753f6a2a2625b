import numpy as np
import pytest
import torch

from perso.models.candidates import CandidateDraw
from perso.models.histories import Histories

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def histories(build):
    """60 users of 30 items, the first ones far more popular; nobody has the last."""
    rng = np.random.default_rng(3)
    popularity_I = 0.5 / (1 + np.arange(30))
    popularity_I[29] = 0.0
    touched = rng.random((60, 30)) < popularity_I
    touched[:, 4] |= ~touched.any(1)
    return Histories(build(np.argwhere(touched), num_users=60, num_items=30), device=CPU)


@pytest.mark.parametrize("negatives", ["uniform", "popularity"])
def test_a_catalogue_no_larger_than_the_draw_is_used_whole(histories, negatives):
    draw = CandidateDraw(histories, negatives, 30, 5)
    item_P = torch.tensor([3, 29, 3])
    found = draw.draw(item_P, torch.Generator())
    assert draw.is_whole
    assert found.items_C.tolist() == list(range(30))
    assert found.column_P.tolist() == [3, 29, 3]
    assert (draw.chance_I == 1).all()


@pytest.mark.parametrize("negatives", ["uniform", "popularity", "in_batch"])
def test_every_item_of_the_step_is_a_candidate_once(histories, negatives):
    draw = CandidateDraw(histories, negatives, 5, 5)
    generator = torch.Generator().manual_seed(1)
    item_P = torch.tensor([7, 2, 7, 28])
    for _ in range(20):
        found = draw.draw(item_P, generator)
        assert found.items_C[found.column_P].tolist() == item_P.tolist()
        assert len(found.items_C.unique()) == len(found.items_C)


def test_in_batch_candidates_are_the_items_of_the_step_and_no_others(histories):
    draw = CandidateDraw(histories, "in_batch", 1000, 5)
    assert not draw.is_whole
    found = draw.draw(torch.tensor([7, 2, 7]), torch.Generator())
    assert found.items_C.tolist() == [2, 7]


@pytest.mark.parametrize("negatives", ["uniform", "popularity", "in_batch"])
def test_the_stated_chance_is_how_often_an_untouched_item_is_a_candidate(histories, negatives):
    """Counted over steps of 6 users, for each user's untouched items alone."""
    users_per_step, num_steps = 6, 3000
    draw = CandidateDraw(histories, negatives, 8, users_per_step)
    generator = torch.Generator().manual_seed(2)
    touched_UI = torch.zeros(60, 30, dtype=torch.bool)
    touched_UI[histories.users.long(), histories.items.long()] = True
    met_I, asked_I = torch.zeros(30), torch.zeros(30)
    for _ in range(num_steps):
        users_B = torch.randperm(60, generator=generator)[:users_per_step]
        found = draw.draw(histories.of(users_B).item_P, generator)
        is_candidate_I = torch.zeros(30)
        is_candidate_I[found.items_C] = 1.0
        untouched_I = (~touched_UI[users_B]).sum(0)
        met_I += untouched_I * is_candidate_I
        asked_I += untouched_I
    frequency_I = met_I / asked_I
    # The formula draws users with repetition, 6 of 60 do not repeat: .02 between the two at most.
    np.testing.assert_allclose(draw.chance_I, frequency_I, atol=0.05)
    if negatives == "in_batch":
        assert frequency_I[29] == 0
        assert draw.chance_I[29] > 0  # its logarithm is taken


def test_popularity_draws_popular_items_more_often_but_by_its_root(histories):
    draws = {n: CandidateDraw(histories, n, 8, 1).chance_I for n in ("uniform", "popularity")}
    assert draws["popularity"][0] > draws["uniform"][0]
    counts_I = histories.counts_I.double().numpy()
    share_I = np.sqrt(counts_I) / np.sqrt(counts_I).sum()
    np.testing.assert_allclose(draws["popularity"], 1 - (1 - share_I) ** 8, atol=1e-6)


def test_the_same_generator_draws_the_same(histories):
    draw = CandidateDraw(histories, "popularity", 8, 6)
    one, two = (
        draw.draw(torch.tensor([1]), torch.Generator().manual_seed(4)).items_C.tolist()
        for _ in range(2)
    )
    assert one == two
