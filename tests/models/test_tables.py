import numpy as np
import pytest
import torch

from perso.models.tables import AdagradTable, AdamTable, make_table


def test_adagrad_follows_the_written_rule_and_leaves_other_rows_alone():
    start = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    table = AdagradTable(start.clone(), learning_rate=0.5)
    squares = 0.0
    expected = np.array([3.0, 4.0])
    for gradient in ([3.0, -4.0], [1.0, 1.0]):
        table.descend(torch.tensor([1]), torch.tensor([gradient]))
        squares += np.mean(np.square(gradient))
        expected = expected - 0.5 * np.array(gradient) / np.sqrt(squares)
    np.testing.assert_allclose(table.values[1].numpy(), expected, rtol=1e-6)
    torch.testing.assert_close(table.values[[0, 2]], start[[0, 2]])


@pytest.mark.parametrize("optimizer", ["adagrad", "adam"])
def test_a_row_without_slope_does_not_move(optimizer):
    table = make_table(torch.ones(2), optimizer, learning_rate=0.5)
    table.descend(torch.tensor([0]), torch.tensor([0.0]))
    assert table.values.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("shape", [(6, 3), (6,)])
def test_adam_is_pytorchs_where_every_step_meets_all_rows(shape):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    reference = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([reference], lr=0.05)
    table = AdamTable(start.clone(), learning_rate=0.05)
    for _ in range(25):
        gradient = torch.randn(shape, generator=generator)
        reference.grad = gradient.clone()
        optimizer.step()
        order = torch.randperm(6, generator=generator)
        table.descend(order, gradient[order])
    torch.testing.assert_close(table.values, reference.detach(), rtol=1e-3, atol=1e-5)


def test_adam_of_a_row_knows_nothing_of_steps_that_did_not_meet_it():
    gradients = torch.tensor([[0.3, -2.0], [1.0, 0.5], [-0.7, 0.1]])
    often, rarely = (AdamTable(torch.zeros(2, 2), learning_rate=0.1) for _ in range(2))
    for gradient in gradients:
        often.descend(torch.tensor([0]), torch.ones(1, 2))  # the other row moves in between
        often.descend(torch.tensor([1]), gradient[None])
        rarely.descend(torch.tensor([1]), gradient[None])
    torch.testing.assert_close(often.values[1], rarely.values[1])
    assert rarely.values[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("optimizer", ["adagrad", "adam"])
def test_the_first_step_is_about_the_learning_rate_whatever_the_slope(optimizer):
    for scale in (1e-3, 1e3):
        table = make_table(torch.zeros(1, 4), optimizer, learning_rate=0.1)
        table.descend(torch.tensor([0]), torch.full((1, 4), scale))
        np.testing.assert_allclose(table.values, -0.1, rtol=1e-3)


@pytest.mark.parametrize("optimizer", ["adagrad", "adam"])
def test_a_table_finds_the_bottom_of_a_bowl(optimizer):
    bottom = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    table = make_table(torch.zeros(2, 2), optimizer, learning_rate=0.3)
    rows = torch.arange(2)
    for step in range(400):
        table.learning_rate = 0.3 * (1 - step / 400)
        table.descend(rows, 2 * (table.values - bottom))
    torch.testing.assert_close(table.values, bottom, atol=0.01, rtol=0)
