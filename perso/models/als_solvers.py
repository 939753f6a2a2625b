"""Compiled solvers of one side of ALS: many small least-squares problems, one per row.

Row r has N pairs with the fixed vectors v_n and confidences c_n, and wants the x that minimizes

    sum_n c_n (1 - x · v_n)^2 + x^T diag(m) x,    m = gram_D + l2_M[r]

The quadratic form of all pairs together is diagonal because the caller has rotated the vectors
into its eigenbasis (:mod:`perso.models.als_side`). So a row's matrix is a diagonal and N outer
products: no step costs D², conjugate gradients preconditioned with m are exact after N steps,
and the exact solution of N < D pairs takes N equations in place of D.

A row's vectors are copied side by side into a panel, once, and every step reads them there: 27
pairs of 64 factors fit the processor's first cache. Solvers work on a range of rows, hold no lock
while they run, and give a row the same bytes whatever rows stand beside it: threads share the rows
as they like.

Compiled code is kept beside this file or in ``$NUMBA_CACHE_DIR`` (10 s to compile, 0.4 s to load).
Compiled functions that call each other are in this one file because Numba looks for changes only
in the file of the one that is called first.

References:
    Takács et al., Applications of the conjugate gradient method for implicit feedback
    collaborative filtering, RecSys 2011. Rendle et al., iALS++: speeding up matrix factorization
    with subspace optimization, 2021.
"""

# M rows, N pairs of one row or rows of the fixed side, P pairs of all rows, R pairs in the panel,
# D factors, B factors of a block, S equations

from typing import Final, NamedTuple

import numpy as np

from perso.models.als_problem import Floats, Problem, compiled

_MOST_PAIRS: Final = 1024
"""Of one panel, 1 MB at 256 factors; longer rows are copied part by part for each pass."""

_LANES: Final = 4
"""Sums that run side by side; one alone would wait for itself. A panel holds multiples of it."""

_LEAST_PIVOT: Final = np.float32(1e-6)
"""Of the diagonal: below, a pivot is what rounding has left of it."""


class _Panel(NamedTuple):
    """Pairs of one row side by side, and zero vectors that pad them to full lanes."""

    vectors_RD: Floats
    confidence_R: Floats


@compiled
def solve_by_cg(  # noqa: PLR0912 - loops over factors, each one vector instruction
    problem: Problem, start: int, stop: int, rows_MD: Floats, steps: int
) -> None:
    """Improve rows ``start`` to ``stop`` of ``rows_MD`` by at most so many CG steps each.

    A row of N pairs costs 4 · N · D operations a step; a row without pairs becomes zero.
    """
    num_factors = problem.fixed_ND.shape[1]
    longest = np.diff(problem.indptr_M1[start : stop + 1]).max()
    panel = _new_panel(longest, num_factors)
    size = len(panel.confidence_R)
    diagonal_D = np.empty(num_factors, np.float32)
    inverse_D = np.empty(num_factors, np.float32)
    residual_D = np.empty(num_factors, np.float32)
    direction_D = np.empty(num_factors, np.float32)
    image_D = np.empty(num_factors, np.float32)
    for row in range(start, stop):
        first, end = problem.indptr_M1[row], problem.indptr_M1[row + 1]
        x_D = rows_MD[row]
        if first == end:
            x_D[:] = 0
            continue
        for d in range(num_factors):
            diagonal_D[d] = problem.gram_D[d] + problem.l2_M[row]
            inverse_D[d] = np.float32(1) / diagonal_D[d]
            residual_D[d] = -diagonal_D[d] * x_D[d]
        count = 0
        for at in range(first, end, size):
            count = _fill_panel(panel, problem, at, end, 0)
            _add_pull(panel, count, np.float32(1), x_D, residual_D)
        energy = np.float32(0)
        for d in range(num_factors):
            direction_D[d] = residual_D[d] * inverse_D[d]
            energy += residual_D[d] * direction_D[d]
        negligible = np.float32(1e-12) * energy
        for _ in range(steps):
            if energy <= negligible:
                break
            for d in range(num_factors):
                image_D[d] = -diagonal_D[d] * direction_D[d]
            for at in range(first, end, size):
                if end - first > size:
                    count = _fill_panel(panel, problem, at, end, 0)
                _add_pull(panel, count, np.float32(0), direction_D, image_D)
            curvature = np.float32(0)  # image_D is minus the matrix times the direction
            for d in range(num_factors):
                curvature -= direction_D[d] * image_D[d]
            length = energy / curvature
            last_energy, energy = energy, np.float32(0)
            for d in range(num_factors):
                x_D[d] += length * direction_D[d]
                residual_D[d] += length * image_D[d]
                energy += residual_D[d] * residual_D[d] * inverse_D[d]
            turn = energy / last_energy
            for d in range(num_factors):
                direction_D[d] = residual_D[d] * inverse_D[d] + turn * direction_D[d]


@compiled
def solve_by_blocks(  # noqa: PLR0912 - parts of long rows, and one of two normal equations
    problem: Problem, start: int, stop: int, rows_MD: Floats, block: int
) -> None:
    """Solve rows ``start`` to ``stop`` of ``rows_MD``, ``block`` factors at a time.

    One block of all factors is the exact solution, whatever stood there before; smaller ones are
    one round of block coordinate descent from there. A block of B factors costs
    min(N, B)² · max(N, B) + min(N, B)³ / 3 operations; a row without pairs becomes zero.
    """
    num_factors = problem.fixed_ND.shape[1]
    block = min(block, num_factors)
    longest = np.diff(problem.indptr_M1[start : stop + 1]).max()
    panel = _new_panel(longest, block)
    size = len(panel.confidence_R)
    matrix_SS = np.zeros((block + _LANES, block + _LANES), np.float32)
    sum_S = np.zeros(block + _LANES, np.float32)
    diagonal_D = np.empty(num_factors, np.float32)
    left_N = np.empty(longest, np.float32)
    for row in range(start, stop):
        first, end = problem.indptr_M1[row], problem.indptr_M1[row + 1]
        x_D = rows_MD[row]
        if first == end or block == num_factors:
            x_D[:] = 0
        if first == end:
            continue
        for d in range(num_factors):
            diagonal_D[d] = problem.gram_D[d] + problem.l2_M[row]
        # What is left for a block to explain: 1 less what all other blocks do.
        left_N[: end - first] = 1
        if block < num_factors:
            for low in range(0, num_factors, block):
                x_B = x_D[low : low + block]
                for at in range(first, end, size):
                    _fill_panel(panel, problem, at, end, low)
                    part = left_N[at - first : min(at + size, end) - first]
                    _subtract_products(panel, x_B, np.float32(1), part)
        for low in range(0, num_factors, block):
            x_B, diagonal_B = x_D[low : low + block], diagonal_D[low : low + block]
            width = len(x_B)
            few = end - first < width
            if not few:
                matrix_SS[:width, :width] = 0
                sum_S[:width] = 0
            count = 0
            for at in range(first, end, size):
                count = _fill_panel(panel, problem, at, end, low)
                part = left_N[at - first : min(at + size, end) - first]
                if block < num_factors:
                    _subtract_products(panel, x_B, np.float32(-1), part)
                if not few:
                    _add_squares(panel, count, part, matrix_SS, sum_S[:width])
            if few:
                _solve_few(panel, count, diagonal_B, left_N[: end - first], matrix_SS, sum_S, x_B)
            else:
                for b in range(width):
                    matrix_SS[b, b] += diagonal_B[b]
                _solve_cholesky(matrix_SS, sum_S, width)
                x_B[:] = sum_S[:width]
            if low + block < num_factors:
                for at in range(first, end, size):
                    _fill_panel(panel, problem, at, end, low)
                    part = left_N[at - first : min(at + size, end) - first]
                    _subtract_products(panel, x_B, np.float32(1), part)


@compiled
def _solve_few(
    panel: _Panel,
    count: int,
    diagonal_B: Floats,
    left_N: Floats,
    matrix_SS: Floats,
    sum_S: Floats,
    x_B: Floats,
) -> None:
    """Fewer pairs than factors, so one equation per pair; the panel is overwritten.

    x = diag(m)^-1 V^T s with (V diag(m)^-1 V^T + diag(c)^-1) s = left.
    """
    scale_B = (np.float32(1) / np.sqrt(diagonal_B)).astype(np.float32)
    _fill_products(panel, count, scale_B, matrix_SS)
    for n in range(len(left_N)):
        matrix_SS[n, n] += np.float32(1) / panel.confidence_R[n]
        sum_S[n] = left_N[n]
    _solve_cholesky(matrix_SS, sum_S, len(left_N))
    x_B[:] = 0
    for n in range(len(left_N)):
        for b in range(len(x_B)):
            x_B[b] += sum_S[n] * panel.vectors_RD[n, b]
    x_B *= scale_B


@compiled
def _new_panel(num_pairs: int, width: int) -> _Panel:
    """Room for rows of so many pairs, or for a part of them; never less than for ``width``."""
    size = min(num_pairs, max(_MOST_PAIRS, width))
    size = (size + _LANES - 1) // _LANES * _LANES
    return _Panel(np.zeros((size, width), np.float32), np.zeros(size, np.float32))


@compiled
def _fill_panel(panel: _Panel, problem: Problem, first: int, end: int, low: int) -> int:
    """Copy the pairs from ``first`` on, to ``end`` or the panel's; how many, of full lanes.

    Of each vector come the factors from ``low`` on, as many as the panel is wide or there are.
    """
    size, width = panel.vectors_RD.shape
    count = min(end - first, size)
    for r in range(count):
        part_D = problem.fixed_ND[problem.indices[first + r], low : low + width]
        for d in range(len(part_D)):
            panel.vectors_RD[r, d] = part_D[d]
        panel.confidence_R[r] = problem.base + problem.scale * problem.weights[first + r]
    padded: int = (count + _LANES - 1) // _LANES * _LANES
    panel.vectors_RD[count:padded] = 0
    return padded


@compiled
def _add_pull(panel: _Panel, count: int, target: np.float32, x_D: Floats, sum_D: Floats) -> None:
    """Add ``sum_n c_n (target - x · v_n) v_n`` to ``sum_D``."""
    vectors_RD, confidence_R = panel
    for r in range(0, count, _LANES):
        product_0 = product_1 = product_2 = product_3 = np.float32(0)
        for d in range(len(x_D)):
            x = x_D[d]
            product_0 += vectors_RD[r, d] * x
            product_1 += vectors_RD[r + 1, d] * x
            product_2 += vectors_RD[r + 2, d] * x
            product_3 += vectors_RD[r + 3, d] * x
        pull_0 = confidence_R[r] * (target - product_0)
        pull_1 = confidence_R[r + 1] * (target - product_1)
        pull_2 = confidence_R[r + 2] * (target - product_2)
        pull_3 = confidence_R[r + 3] * (target - product_3)
        for d in range(len(x_D)):
            sum_D[d] += (
                pull_0 * vectors_RD[r, d]
                + pull_1 * vectors_RD[r + 1, d]
                + pull_2 * vectors_RD[r + 2, d]
                + pull_3 * vectors_RD[r + 3, d]
            )


@compiled
def _subtract_products(panel: _Panel, x_D: Floats, factor: np.float32, left_R: Floats) -> None:
    """Subtract ``factor * x · v_n`` from ``left_R``."""
    for r in range(len(left_R)):
        left_R[r] -= factor * _dot(panel.vectors_RD[r], x_D, len(x_D))


@compiled
def _add_squares(
    panel: _Panel, count: int, left_R: Floats, matrix_SS: Floats, sum_S: Floats
) -> None:
    """Add ``sum_n c_n v_n v_n^T`` below the diagonal, and ``sum_n c_n left_n v_n``."""
    vectors_RD, confidence_R = panel
    width = len(sum_S)
    for r in range(0, count, _LANES):
        for b in range(width):
            weighted_0 = confidence_R[r] * vectors_RD[r, b]
            weighted_1 = confidence_R[r + 1] * vectors_RD[r + 1, b]
            weighted_2 = confidence_R[r + 2] * vectors_RD[r + 2, b]
            weighted_3 = confidence_R[r + 3] * vectors_RD[r + 3, b]
            for d in range(b + 1):
                matrix_SS[b, d] += (
                    weighted_0 * vectors_RD[r, d]
                    + weighted_1 * vectors_RD[r + 1, d]
                    + weighted_2 * vectors_RD[r + 2, d]
                    + weighted_3 * vectors_RD[r + 3, d]
                )
    for r in range(len(left_R)):
        pull = confidence_R[r] * left_R[r]
        for d in range(width):
            sum_S[d] += pull * vectors_RD[r, d]


@compiled
def _fill_products(panel: _Panel, count: int, scale_D: Floats, matrix_SS: Floats) -> None:
    """Write ``v_n^T diag(scale_D)^2 v_k`` on and below the diagonal; the panel is scaled."""
    vectors_RD = panel.vectors_RD
    width = len(scale_D)
    for r in range(count):
        for d in range(width):
            vectors_RD[r, d] *= scale_D[d]
    for r in range(count):
        for k in range(0, r + 1, _LANES):
            product_0 = product_1 = product_2 = product_3 = np.float32(0)
            for d in range(width):
                x = vectors_RD[r, d]
                product_0 += vectors_RD[k, d] * x
                product_1 += vectors_RD[k + 1, d] * x
                product_2 += vectors_RD[k + 2, d] * x
                product_3 += vectors_RD[k + 3, d] * x
            matrix_SS[r, k] = product_0
            matrix_SS[r, k + 1] = product_1
            matrix_SS[r, k + 2] = product_2
            matrix_SS[r, k + 3] = product_3


@compiled
def _solve_cholesky(matrix_SS: Floats, sum_S: Floats, size: int) -> None:
    """Solve in place the first ``size`` equations of a positive definite matrix's lower part.

    Both arguments have room for full lanes of equations, and are overwritten there. Of the
    triangle, the diagonal keeps the inverse.
    """
    padded = (size + _LANES - 1) // _LANES * _LANES
    matrix_SS[size:padded, :padded] = 0
    sum_S[size:padded] = 0
    for r in range(size, padded):
        matrix_SS[r, r] = 1
    for first in range(0, padded, _LANES):
        for column in range(first):  # four rows at once, as far as they do not need each other
            product_0 = product_1 = product_2 = product_3 = np.float32(0)
            for k in range(column):
                x = matrix_SS[column, k]
                product_0 += matrix_SS[first, k] * x
                product_1 += matrix_SS[first + 1, k] * x
                product_2 += matrix_SS[first + 2, k] * x
                product_3 += matrix_SS[first + 3, k] * x
            inverse = matrix_SS[column, column]
            matrix_SS[first, column] = (matrix_SS[first, column] - product_0) * inverse
            matrix_SS[first + 1, column] = (matrix_SS[first + 1, column] - product_1) * inverse
            matrix_SS[first + 2, column] = (matrix_SS[first + 2, column] - product_2) * inverse
            matrix_SS[first + 3, column] = (matrix_SS[first + 3, column] - product_3) * inverse
        for row in range(first, first + _LANES):
            for column in range(first, row):
                product = _dot(matrix_SS[row], matrix_SS[column], column)
                matrix_SS[row, column] -= product
                matrix_SS[row, column] *= matrix_SS[column, column]
            rest = matrix_SS[row, row] - _dot(matrix_SS[row], matrix_SS[row], row)
            pivot = max(rest, _LEAST_PIVOT * matrix_SS[row, row])
            matrix_SS[row, row] = np.float32(1) / np.sqrt(pivot)
    for row in range(padded):
        sum_S[row] = (sum_S[row] - _dot(matrix_SS[row], sum_S, row)) * matrix_SS[row, row]
    for row in range(padded - 1, -1, -1):
        sum_S[row] *= matrix_SS[row, row]
        for k in range(row):
            sum_S[k] -= sum_S[row] * matrix_SS[row, k]


@compiled
def _dot(left_D: Floats, right_D: Floats, count: int) -> np.float32:
    total = np.float32(0)
    for d in range(count):
        total += left_D[d] * right_D[d]
    return total
