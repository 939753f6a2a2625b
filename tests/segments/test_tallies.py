import numpy as np
import pyarrow as pa
import pytest

from perso.segments.tallies import Ragged, Tally

NAMES = pa.array(["b", "a", "c"])


def tally(*rows):
    users, labels, weights = zip(*rows, strict=True)
    return Tally.of(np.array(users), np.array(labels), np.array(weights, float), NAMES)


def test_weights_of_one_user_and_label_add_up_and_zeros_vanish():
    found = tally((1, 0, 2.0), (0, 2, 1.0), (1, 0, 3.0), (1, 1, 0.0))
    rows = list(zip(found.users, found.labels, found.weights, strict=True))
    assert rows == [(0, 2, 1.0), (1, 0, 5.0)]


def test_the_best_come_first_and_ties_go_by_the_alphabet():
    best, shares = tally((0, 0, 1.0), (0, 1, 1.0), (0, 2, 2.0), (2, 0, 4.0)).best(3, 2)
    assert best.to_pylist() == [["c", "a"], [], ["b"]]
    assert shares.to_pylist() == [[0.5, 0.25], [], [1.0]]


def test_the_most_is_one_label_or_none():
    found = tally((0, 0, 1.0), (0, 1, 1.0), (2, 2, 4.0)).most(4)
    assert found.to_pylist() == ["a", None, "c", None]


def test_entropy_is_none_for_nobody_zero_for_one_label_and_a_bit_for_two():
    bits = tally((0, 0, 3.0), (2, 0, 1.0), (2, 1, 1.0)).entropy_bits(3)
    assert bits[0] == 0.0
    assert np.isnan(bits[1])
    assert bits[2] == pytest.approx(1.0)


def test_an_items_weight_is_divided_over_its_labels():
    lists = Ragged.of_lists(pa.array([["x", "y"], None, ["y"], []]))
    found = lists.spread(
        np.array([0, 0, 1, 1]), np.array([0, 2, 1, 3]), np.array([2.0, 5.0, 7.0, 7.0])
    )
    by_name = {
        lists.names[int(code)].as_py(): w
        for code, w in zip(found.labels, found.weights, strict=True)
    }
    assert by_name == {"x": 1.0, "y": 6.0}
    assert found.users.tolist() == [0, 0]


def test_single_values_are_lists_of_one():
    values = Ragged.of_values(pa.array(["x", None, "x"]))
    found = values.spread(np.arange(3), np.arange(3), np.ones(3))
    assert found.most(3).to_pylist() == ["x", None, "x"]


def test_nothing_at_all_is_no_error():
    empty = Tally.of(np.array([], int), np.array([], int), np.array([]), pa.array([], pa.string()))
    assert empty.most(2).to_pylist() == [None, None]
    assert np.isnan(empty.entropy_bits(2)).all()
