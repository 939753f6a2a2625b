"""One side of ALS solved with the other fixed, by the threads that the process was given.

Before a side is solved, the fixed vectors are rotated into the eigenbasis of their Gram matrix,
and the others with them. Scores and objective stay what they are, and the sum over all unobserved
pairs becomes a diagonal: one product of D² operations a vector, where each step of each row would
take one.

Rows are cut into ranges by the data alone, and a range is solved alike by whichever thread: the
number of threads changes no byte.
"""

# M rows to solve, N rows of the fixed side, P pairs, D factors

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from perso.data.prepared import Interactions
from perso.models.als_config import AlsConfig, Solver
from perso.models.als_encoder import AlsObjective
from perso.models.als_problem import Floats, Problem, sort_by_column, sum_observed_errors
from perso.models.als_solvers import solve_by_blocks, solve_by_cg

_Scalar = TypeVar("_Scalar", bound=np.generic)
_Kernel = Callable[[Problem, int, int, Floats, int], None]

_PAIRS_AT_ONCE: Final = 1 << 15
_COST_OF_A_ROW: Final = 8
"""In pairs, for ranges of about equal work."""
_VECTORS_AT_ONCE: Final = 4096


@contextmanager
def open_threads(num_threads: int | None) -> Iterator[ThreadPoolExecutor]:
    """Threads to share ranges between; BLAS has one thread in each until they are closed.

    Args:
        num_threads: At least 1; as many as PyTorch was given (``OMP_NUM_THREADS``,
            ``torch.set_num_threads``) if None.

    Raises:
        ValueError: If the number is below 1.
    """
    if num_threads is not None and num_threads < 1:
        raise ValueError(f"num_threads is {num_threads}; give 1 or more")
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(num_threads or torch.get_num_threads()) as threads,
    ):
        yield threads


@dataclass(frozen=True, kw_only=True)
class Side:
    """The rows of one side: their pairs, and what the objective makes of them."""

    indptr_M1: NDArray[np.int64]
    """Where each row's pairs begin, and the end."""
    indices: NDArray[np.int32]
    """Row of the other side of each pair, shape (P,)."""
    weights: Floats
    """Shape (P,)."""
    num_others: int
    """Rows of the other side that have a vector."""
    objective: AlsObjective

    @classmethod
    def users(cls, interactions: Interactions, objective: AlsObjective, num_others: int) -> "Side":
        """Users as rows; the pairs are not copied."""
        return cls(
            indptr_M1=_indptr(interactions.user_indices, interactions.num_users),
            indices=interactions.item_indices,
            weights=interactions.weights,
            num_others=num_others,
            objective=objective,
        )

    @classmethod
    def items(cls, interactions: Interactions, objective: AlsObjective, num_others: int) -> "Side":
        """Items as rows; 8 bytes a pair."""
        indptr_M1 = _indptr(interactions.item_indices, interactions.num_items)
        indices = np.empty(len(interactions), np.int32)
        weights = np.empty(len(interactions), np.float32)
        sort_by_column(
            _constant(interactions.user_indices),
            _constant(interactions.item_indices),
            _constant(interactions.weights),
            _constant(indptr_M1),
            indices,
            weights,
        )
        return cls(
            indptr_M1=indptr_M1,
            indices=indices,
            weights=weights,
            num_others=num_others,
            objective=objective,
        )

    @cached_property
    def penalty_M(self) -> Floats:
        """How strongly each row is pulled to zero."""
        return self.objective.penalty(np.diff(self.indptr_M1), self.num_others).astype(np.float32)

    @property
    def work_M1(self) -> NDArray[np.int64]:
        """What all rows before each one cost, in pairs, and all together."""
        return self.indptr_M1 + _COST_OF_A_ROW * np.arange(len(self.indptr_M1))

    @cached_property
    def _ranges(self) -> list[tuple[int, int]]:
        """Rows of about equal work each, none empty."""
        work_M1 = self.work_M1
        cuts = np.searchsorted(work_M1, np.arange(0, work_M1[-1], _PAIRS_AT_ONCE))
        ends = np.unique(np.append(cuts, len(work_M1) - 1)).tolist()
        return list(pairwise(ends))

    def improve(
        self,
        threads: ThreadPoolExecutor,
        config: AlsConfig,
        fixed_ND: Floats,
        gram_D: Floats,
        rows_MD: Floats,
    ) -> None:
        """One run of the configured solver over every row, in place.

        Args:
            threads: Share the work.
            config: Names the solver.
            fixed_ND: Vectors of the other side, rotated.
            gram_D: What :func:`rotate` has returned of them.
            rows_MD: What to improve, rotated alike.
        """
        kernels: dict[Solver, tuple[_Kernel, int]] = {
            "cholesky": (solve_by_blocks, config.num_factors),
            "cg": (solve_by_cg, config.cg_steps),
            "subspace": (solve_by_blocks, config.block_size),
        }
        self._run(threads, *kernels[config.solver], fixed_ND, gram_D, rows_MD)

    def solve(
        self, threads: ThreadPoolExecutor, fixed_ND: Floats, gram_D: Floats, rows_MD: Floats
    ) -> None:
        """Every row's exact solution, whatever stood there; arguments as in :meth:`improve`."""
        self._run(threads, solve_by_blocks, len(gram_D), fixed_ND, gram_D, rows_MD)

    def _run(
        self,
        threads: ThreadPoolExecutor,
        kernel: _Kernel,
        amount: int,
        fixed_ND: Floats,
        gram_D: Floats,
        rows_MD: Floats,
    ) -> None:
        problem = self._problem(fixed_ND, gram_D)
        jobs = [threads.submit(kernel, problem, *rows, rows_MD, amount) for rows in self._ranges]
        for job in jobs:
            job.result()

    def loss(self, threads: ThreadPoolExecutor, fixed_ND: Floats, rows_MD: Floats) -> float:
        """The objective without the other side's penalty: O(P D + (M + N) D²), not O(M N)."""
        products = gram(threads, fixed_ND) * gram(threads, rows_MD)
        unobserved = self.objective.unobserved_weight * float(products.sum())
        return self.observed(threads, fixed_ND, rows_MD) + unobserved + self.penalty(rows_MD)

    def observed(self, threads: ThreadPoolExecutor, fixed_ND: Floats, rows_MD: Floats) -> float:
        """What the pairs of all rows add to the objective."""
        problem = self._problem(fixed_ND, np.empty(0, np.float32))
        rows_MD = _constant(rows_MD)
        errors = threads.map(
            lambda rows: sum_observed_errors(problem, rows[0], rows[1], rows_MD), self._ranges
        )
        return sum(errors)

    def penalty(self, rows_MD: Floats) -> float:
        """The penalty of all rows."""
        squares_M = np.einsum("md,md->m", rows_MD, rows_MD)
        return float(self.penalty_M @ squares_M.astype(np.float64))

    def _problem(self, fixed_ND: Floats, gram_D: Floats) -> Problem:
        base, scale = self.objective.confidence_line
        return Problem(
            indptr_M1=_constant(self.indptr_M1),
            indices=_constant(self.indices),
            weights=_constant(self.weights),
            base=np.float32(base),
            scale=np.float32(scale),
            fixed_ND=_constant(fixed_ND),
            gram_D=_constant(np.float32(self.objective.unobserved_weight) * gram_D),
            l2_M=_constant(self.penalty_M),
        )


def gram(threads: ThreadPoolExecutor, vectors_ND: Floats) -> NDArray[np.float64]:
    """Sum of the outer products of all vectors, shape (D, D)."""
    parts = threads.map(
        lambda part: (vectors_ND[part].T @ vectors_ND[part]).astype(np.float64), _slices(vectors_ND)
    )
    num_factors = vectors_ND.shape[1]
    return sum(parts, np.zeros((num_factors, num_factors)))


def rotate(threads: ThreadPoolExecutor, fixed_ND: Floats, *others: Floats) -> Floats:
    """Rotate vectors in place into the eigenbasis of the first ones' Gram matrix.

    Returns:
        The Gram matrix of ``fixed_ND`` after it, which is diagonal, descending, shape (D,).
    """
    gram_D, basis_DD = eigenbasis(gram(threads, fixed_ND))
    turn(threads, basis_DD, fixed_ND, *others)
    return gram_D


def eigenbasis(gram_DD: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Eigenvalues of a Gram matrix, shape (D,), descending, and eigenvectors as columns."""
    squares_D, basis_DD = np.linalg.eigh(gram_DD)
    gram_D = np.asarray(np.maximum(squares_D[::-1], 0), np.float32)
    return gram_D, np.ascontiguousarray(basis_DD[:, ::-1], np.float32)


def turn(threads: ThreadPoolExecutor, basis_DD: Floats, *vectors: Floats) -> None:
    """Express vectors, each of shape (N, D), in another basis, in place."""

    def turn_part(part_ND: Floats) -> None:
        part_ND[:] = part_ND @ basis_DD

    parts = [vectors_ND[part] for vectors_ND in vectors for part in _slices(vectors_ND)]
    list(threads.map(turn_part, parts))


def _slices(vectors_ND: Floats) -> list[slice]:
    starts = range(0, len(vectors_ND), _VECTORS_AT_ONCE)
    return [slice(start, start + _VECTORS_AT_ONCE) for start in starts]


def _indptr(rows_P: NDArray[np.int32], num_rows: int) -> NDArray[np.int64]:
    counts_M = np.bincount(rows_P, minlength=num_rows)
    return np.concatenate([[0], np.cumsum(counts_M)]).astype(np.int64)


def _constant(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """A read-only view: memory-mapped or not, there is one compiled signature."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
