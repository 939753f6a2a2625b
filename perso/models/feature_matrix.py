"""Which feature values each row has, as one sparse matrix over the values of all columns."""

# N rows (users, contexts or items), S values of all columns, E entries

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]


@dataclass(frozen=True, kw_only=True)
class FeatureMatrix:
    """Values by row in compressed rows.

    Where a row has many values of a column (tags, words), their squared weights add up to 1, so
    that a long title says no more than a short one.
    """

    indptr_N1: NDArray[np.int64]
    """Where each row's entries begin, and the end, shape (N + 1,)."""
    value_E: NDArray[np.int32]
    """Value of each entry, from 0 to S - 1."""
    weight_E: NDArray[np.float32]
    """Weight of each entry."""
    starts: Mapping[str, int]
    """First value of each column; columns lie one after the other in this order."""
    num_values: int
    """S."""

    def __len__(self) -> int:
        return len(self.indptr_N1) - 1

    def take(self, rows_B: NDArray[np.int64]) -> "FeatureMatrix":
        """Some rows, in the order given."""
        counts_B = np.diff(self.indptr_N1)[rows_B]
        ends_B = counts_B.cumsum()
        entry_E = np.repeat(self.indptr_N1[rows_B] - (ends_B - counts_B), counts_B)
        entry_E += np.arange(len(entry_E))
        return replace(
            self,
            indptr_N1=np.concatenate([[0], ends_B]).astype(np.int64),
            value_E=self.value_E[entry_E],
            weight_E=self.weight_E[entry_E],
        )

    def sums(self, vectors_SD: NDArray[np.float32]) -> NDArray[np.float32]:
        """Every row's weighted vectors added up, shape (N, D)."""
        return np.asarray(self.csr @ vectors_SD, np.float32)

    @property
    def csr(self) -> sparse.csr_array:
        """The same as a scipy matrix, shape (N, S)."""
        return sparse.csr_array(
            (self.weight_E, self.value_E, self.indptr_N1), shape=(len(self), self.num_values)
        )

    def span(self, column: str) -> slice:
        """The values of one column."""
        names = list(self.starts)
        ends = [*self.starts.values(), self.num_values][1:]
        return slice(self.starts[column], ends[names.index(column)])


def matrix_from_columns(
    columns: Mapping[str, tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]],
    num_rows: int,
) -> FeatureMatrix:
    """One matrix of several columns.

    Args:
        columns: Per column its number of values, and the row, value and weight of each entry.
        num_rows: N.
    """
    starts: dict[str, int] = {}
    num_values = 0
    rows, values, weights = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    for column, (size, row_E, value_E, weight_E) in columns.items():
        starts[column] = num_values
        rows.append(row_E)
        values.append(value_E + num_values)
        weights.append(weight_E.astype(np.float64))
        num_values += size
    row_E = np.concatenate(rows)
    order = np.argsort(row_E, kind="stable")
    counts_N = np.bincount(row_E, minlength=num_rows)
    return FeatureMatrix(
        indptr_N1=np.concatenate([[0], counts_N.cumsum()]).astype(np.int64),
        value_E=np.concatenate(values)[order].astype(np.int32),
        weight_E=np.concatenate(weights)[order].astype(np.float32),
        starts=starts,
        num_values=num_values,
    )


def side_by_side(matrices: Sequence[FeatureMatrix]) -> FeatureMatrix:
    """One matrix of the columns of several over the same rows.

    Args:
        matrices: At least one; column names differ.
    """
    starts: dict[str, int] = {}
    num_values = 0
    for matrix in matrices:
        starts |= {name: start + num_values for name, start in matrix.starts.items()}
        num_values += matrix.num_values
    joined = sparse.hstack([matrix.csr for matrix in matrices], format="csr")
    return FeatureMatrix(
        indptr_N1=joined.indptr.astype(np.int64),
        value_E=joined.indices.astype(np.int32),
        weight_E=joined.data.astype(np.float32),
        starts=starts,
        num_values=num_values,
    )
