import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.models.feature_matrix import FeatureMatrix, matrix_from_columns

NUM_ROWS = 6


def dense_of(matrix: FeatureMatrix):
    dense_NS = np.zeros((len(matrix), matrix.num_values), np.float32)
    for row in range(len(matrix)):
        for entry in range(matrix.indptr_N1[row], matrix.indptr_N1[row + 1]):
            dense_NS[row, matrix.value_E[entry]] += matrix.weight_E[entry]
    return dense_NS


def column_of(dense_NS):
    """A column's size and entries, in a shuffled order."""
    rows, values = np.nonzero(dense_NS)
    order = np.random.default_rng(0).permutation(len(rows))
    weights = dense_NS[rows, values][order]
    return dense_NS.shape[1], rows[order], values[order], weights


@st.composite
def dense_columns(draw):
    """Per column a matrix of rows by values; columns may have no values, rows none of them."""
    sizes = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return {
        f"column_{place}": np.where(
            rng.random((NUM_ROWS, size)) < 0.4, rng.normal(size=(NUM_ROWS, size)), 0.0
        ).astype(np.float32)
        for place, size in enumerate(sizes)
    }


@given(dense_columns())
@settings(deadline=None)
def test_columns_lie_side_by_side(columns):
    matrix = matrix_from_columns({n: column_of(d) for n, d in columns.items()}, NUM_ROWS)
    expected_NS = np.hstack(list(columns.values()))
    assert len(matrix) == NUM_ROWS
    assert matrix.num_values == expected_NS.shape[1]
    np.testing.assert_array_equal(dense_of(matrix), expected_NS)
    for name, dense_NS in columns.items():
        np.testing.assert_array_equal(dense_of(matrix)[:, matrix.span(name)], dense_NS)


@given(dense_columns(), st.lists(st.integers(0, NUM_ROWS - 1), max_size=8))
@settings(deadline=None)
def test_rows_are_taken_in_the_order_given(columns, rows):
    matrix = matrix_from_columns({n: column_of(d) for n, d in columns.items()}, NUM_ROWS)
    taken = matrix.take(np.array(rows, np.int64))
    np.testing.assert_array_equal(dense_of(taken), dense_of(matrix)[rows])
    assert (taken.starts, taken.num_values) == (matrix.starts, matrix.num_values)


@given(dense_columns())
@settings(deadline=None)
def test_sums_are_a_matrix_product(columns):
    matrix = matrix_from_columns({n: column_of(d) for n, d in columns.items()}, NUM_ROWS)
    vectors_SD = np.random.default_rng(1).normal(size=(matrix.num_values, 3)).astype(np.float32)
    found_ND = matrix.sums(vectors_SD)
    assert found_ND.dtype == np.float32
    np.testing.assert_allclose(found_ND, dense_of(matrix) @ vectors_SD, rtol=1e-4, atol=1e-5)


def test_no_columns_are_a_matrix_without_values():
    matrix = matrix_from_columns({}, 3)
    assert (len(matrix), matrix.num_values) == (3, 0)
    assert matrix.sums(np.empty((0, 2), np.float32)).tolist() == [[0.0, 0.0]] * 3


def test_a_column_that_is_not_there_is_an_error():
    with pytest.raises(KeyError, match="brand"):
        matrix_from_columns({}, 3).span("brand")
