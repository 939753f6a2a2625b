"""Vectors made of their own part and features, against a dense matrix and autograd."""

import numpy as np
import pytest
import torch
from torch import Tensor

from perso.models.feature_matrix import matrix_from_columns
from perso.models.side import Side

NUM_ROWS, NUM_VALUES, NUM_FACTORS = 6, 5, 3


class RecordingTable:
    """A table that remembers the gradients that it was to move by."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.learning_rate = 1.0
        self.gradient = torch.zeros_like(values)

    def descend(self, rows: Tensor, gradient: Tensor) -> None:
        assert len(rows.unique()) == len(rows)
        self.gradient[rows] = gradient


@pytest.fixture
def entries():
    """Row, value and weight: row 2 has no feature, rows 0 and 1 share one, row 5 has three."""
    return np.array([0, 1, 1, 3, 4, 5, 5, 5]), np.array([1, 1, 4, 0, 2, 0, 2, 4])


@pytest.fixture
def weights():
    return np.array([1.0, 0.6, 0.8, 1.0, 1.0, 0.5, -0.5, 0.7], np.float32)


@pytest.fixture
def matrix(entries, weights):
    rows, values = entries
    return matrix_from_columns({"tags": (NUM_VALUES, rows, values, weights)}, NUM_ROWS)


@pytest.fixture
def dense(entries, weights):
    dense_NS = torch.zeros(NUM_ROWS, NUM_VALUES)
    dense_NS[tuple(torch.from_numpy(e) for e in entries)] = torch.from_numpy(weights)
    return dense_NS


def descend(moves):
    for table, rows, gradient in moves:
        table.descend(rows, gradient)


def tables():
    generator = torch.Generator().manual_seed(0)
    return (
        RecordingTable(torch.randn(NUM_ROWS, NUM_FACTORS, generator=generator)),
        RecordingTable(torch.randn(NUM_VALUES, NUM_FACTORS, generator=generator)),
    )


def test_a_vector_is_its_own_plus_its_weighted_features(matrix, dense):
    own, values = tables()
    side = Side(own, features=matrix, feature_vectors=values)
    rows_B = torch.tensor([5, 2, 0])
    expected = own.values[rows_B] + dense[rows_B] @ values.values
    torch.testing.assert_close(side.gather(rows_B).vectors_BD.detach(), expected)
    torch.testing.assert_close(side.feature_part(rows_B), dense[rows_B] @ values.values)


def test_a_row_may_be_nothing_but_its_features(matrix, dense):
    _, values = tables()
    side = Side(None, features=matrix, feature_vectors=values)
    rows_B = torch.tensor([2, 1])
    torch.testing.assert_close(
        side.gather(rows_B).vectors_BD.detach(), dense[rows_B] @ values.values
    )


def test_a_side_without_features_is_its_own_vectors():
    own, _ = tables()
    side = Side(own)
    gathered = side.gather(torch.tensor([3, 1]))
    torch.testing.assert_close(gathered.vectors_BD.detach(), own.values[[3, 1]])
    assert side.feature_part(torch.tensor([3, 1])).abs().max() == 0
    assert side.tables == {"own": own}


@pytest.mark.parametrize("dropped", [False, True])
def test_gradients_are_those_of_autograd_on_the_dense_version(matrix, dense, dropped):
    own, values = tables()
    side = Side(own, features=matrix, feature_vectors=values)
    rows_B = torch.tensor([5, 2, 0, 1])
    keep_B = torch.tensor([1.0, 0.0, 0.0, 1.0]) if dropped else torch.ones(4)
    slope_BD = torch.randn(4, NUM_FACTORS, generator=torch.Generator().manual_seed(1))

    leaves = [own.values.clone().requires_grad_(), values.values.clone().requires_grad_()]
    expected_BD = leaves[0][rows_B] * keep_B[:, None] + dense[rows_B] @ leaves[1]
    expected_BD.backward(slope_BD)

    gathered = side.gather(rows_B, keep_own_B=keep_B if dropped else None)
    torch.testing.assert_close(gathered.vectors_BD, expected_BD)
    gathered.vectors_BD.backward(slope_BD)
    descend(gathered.moves(0.0))
    torch.testing.assert_close(own.gradient, leaves[0].grad)
    torch.testing.assert_close(values.gradient, leaves[1].grad)


@pytest.mark.parametrize("has_own", [True, False])
@pytest.mark.parametrize("l2", [[0.5, 1.5, 2.0], 0.7])
def test_a_value_is_held_by_every_row_that_uses_it(matrix, dense, has_own, l2):
    """Half the slope of ``sum of l2 times weight squared times vector squared`` over the uses."""
    own, values = tables()
    side = Side(own if has_own else None, features=matrix, feature_vectors=values)
    rows_B = torch.tensor([5, 0, 1])
    gathered = side.gather(rows_B)
    gathered.vectors_BD.backward(torch.zeros(3, NUM_FACTORS))
    descend(gathered.moves(torch.tensor(l2) if isinstance(l2, list) else l2))
    l2_B1 = torch.tensor(l2).expand(3)[:, None]
    if has_own:
        torch.testing.assert_close(own.gradient[rows_B], l2_B1 * own.values[rows_B])
    of_value_S1 = (l2_B1 * dense[rows_B].square()).sum(0)[:, None]
    torch.testing.assert_close(values.gradient, of_value_S1 * values.values)


def test_two_threads_bring_the_same_slopes_back():
    """Many rows share few values: their slopes must add up in one order."""
    generator = torch.Generator().manual_seed(0)
    num_rows, num_values = 50_000, 200
    value_E = torch.randint(num_values, (num_rows,), generator=generator).numpy()
    matrix = matrix_from_columns(
        {"brand": (num_values, np.arange(num_rows), value_E, np.ones(num_rows, np.float32))},
        num_rows,
    )
    slope_BD = torch.randn(num_rows, 32, generator=generator)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = []
        for _ in range(3):
            values = RecordingTable(torch.zeros(num_values, 32))
            gathered = Side(None, features=matrix, feature_vectors=values).gather(
                torch.arange(num_rows)
            )
            gathered.vectors_BD.backward(slope_BD)
            descend(gathered.moves(0.0))
            found.append(values.gradient)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_gathering_without_gradients_makes_no_graph(matrix):
    own, values = tables()
    side = Side(own, features=matrix, feature_vectors=values)
    with torch.no_grad():
        assert not side.gather(torch.tensor([0])).vectors_BD.requires_grad


def test_no_rows_give_no_vectors(matrix):
    own, values = tables()
    side = Side(own, features=matrix, feature_vectors=values)
    none_B = torch.empty(0, dtype=torch.int64)
    assert side.gather(none_B).vectors_BD.shape == (0, NUM_FACTORS)
