import numpy as np
import torch

from perso.models.adagrad import AdagradTable


def test_steps_follow_the_written_rule_and_leave_other_rows_alone():
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


def test_a_row_without_slope_does_not_move():
    table = AdagradTable(torch.ones(2), learning_rate=0.5)
    table.descend(torch.tensor([0]), torch.tensor([0.0]))
    assert table.values.tolist() == [1.0, 1.0]
