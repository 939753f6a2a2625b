"""What the compiled solvers of ALS work on: the weighted pairs of one side and its objective."""

# M rows to solve, N rows of the fixed side, P pairs, D factors

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Problem(NamedTuple):
    """All rows of one side, to be solved with the other side fixed."""

    indptr_M1: NDArray[np.int64]
    """Where each row's pairs begin, and the end."""
    indices: NDArray[np.int32]
    """Row in ``fixed_ND`` of each pair, shape (P,)."""
    weights: Floats
    """Weight of each pair, shape (P,); its confidence is ``base + scale * weight``."""
    base: np.float32
    """See ``weights``."""
    scale: np.float32
    """See ``weights``."""
    fixed_ND: Floats
    """The other side's vectors, in the eigenbasis of their Gram matrix."""
    gram_D: Floats
    """Its diagonal, times the weight of an unobserved pair."""
    l2_M: Floats
    """Penalty of each row."""


def compiled(function: _Function) -> _Function:
    """Machine code that holds no lock and is kept on disk between processes."""
    # Sums may be reordered for vector registers; nan and inf keep their meaning.
    fastmath = {"reassoc", "contract", "nsz", "arcp"}
    return cast(_Function, numba.njit(nogil=True, cache=True, fastmath=fastmath)(function))


@compiled
def sort_by_column(
    rows_P: NDArray[np.int32],
    columns_P: NDArray[np.int32],
    weights_P: Floats,
    indptr_N1: NDArray[np.int64],
    sorted_rows_P: NDArray[np.int32],
    sorted_weights_P: Floats,
) -> None:
    """Write pairs sorted by column, the order within a column as it was."""
    place_N = indptr_N1[:-1].copy()
    for pair in range(len(columns_P)):
        place = place_N[columns_P[pair]]
        sorted_rows_P[place] = rows_P[pair]
        sorted_weights_P[place] = weights_P[pair]
        place_N[columns_P[pair]] = place + 1


@compiled
def sum_observed_errors(problem: Problem, start: int, stop: int, rows_MD: Floats) -> float:
    """``sum c (1 - x · v)^2`` over the pairs of some rows."""
    total = 0.0
    for row in range(start, stop):
        for pair in range(problem.indptr_M1[row], problem.indptr_M1[row + 1]):
            vector_D = problem.fixed_ND[problem.indices[pair]]
            product = np.float32(0)
            for d in range(len(vector_D)):
                product += rows_MD[row, d] * vector_D[d]
            confidence = problem.base + problem.scale * problem.weights[pair]
            total += confidence * (1.0 - product) ** 2
    return total
