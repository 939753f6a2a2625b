"""Rows that training has not met, from their features alone: a new item of the catalogue."""

# N rows, S feature values, D factors

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perso.models.feature_columns import FittedColumns
from perso.models.feature_matrix import FeatureMatrix


class EncodedRows(NamedTuple):
    """Vectors and biases of some rows."""

    vectors_ND: NDArray[np.float32]
    bias_N: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class FeatureEncoder:
    """Fitted columns with the vector and the bias of each of their values.

    Raises:
        ValueError: If vectors, biases and columns disagree on the number of values.
    """

    columns: FittedColumns
    vectors_SD: NDArray[np.float32]
    bias_S: NDArray[np.float32]
    base_bias: float
    """Bias to which those of a row's values are added."""
    unknown_bias: float
    """Bias of a row that no column says anything about: there is no reason to list it."""

    def __post_init__(self) -> None:
        size = sum(column.num_values for column in self.columns.columns)
        if len(self.vectors_SD) != size or self.bias_S.shape != (size,):
            raise ValueError(
                f"columns have {size} values, but there are vectors of shape "
                f"{self.vectors_SD.shape} and biases of shape {self.bias_S.shape}"
            )

    def encode(self, table: pa.Table) -> EncodedRows:
        """What features say of each row: on the scale of the model's own vectors and biases.

        Args:
            table: Rows with the columns of training, in any order; others are ignored.

        Raises:
            ValueError: If a column is missing or does not fit its kind.
        """
        return self.encode_matrix(self.columns.encode(table))

    def encode_one(self, features: Mapping[str, Any]) -> NDArray[np.float32]:
        """The vector of one row of plain values, shape (D,); a column it lacks says nothing.

        Raises:
            ValueError: If a value does not fit its column's kind.
        """
        vector_D = np.zeros(self.vectors_SD.shape[1], np.float32)
        start = 0
        for column in self.columns.columns:
            cell = features.get(column.spec.column)
            if cell is not None and cell != []:
                _, values, weights = column.entries(pa.chunked_array([pa.array([cell])]))
                vector_D += weights @ self.vectors_SD[start + values]
            start += column.num_values
        return vector_D

    def encode_matrix(self, matrix: FeatureMatrix) -> EncodedRows:
        """The same for rows that the columns have read already."""
        bias_N = matrix.sums(np.asarray(self.bias_S)[:, np.newaxis])[:, 0]
        bias_N += np.float32(self.base_bias)
        bias_N[np.diff(matrix.indptr_N1) == 0] = self.unknown_bias
        return EncodedRows(vectors_ND=matrix.sums(np.asarray(self.vectors_SD)), bias_N=bias_N)

    def save(self, folder: Path, side: str) -> None:
        """Write ``SIDE_features.json`` and two arrays into the folder."""
        self.columns.save(folder / f"{side}_features.json")
        np.save(folder / f"{side}_feature_vectors.npy", self.vectors_SD)
        biases = np.concatenate([self.bias_S, [self.base_bias, self.unknown_bias]])
        np.save(folder / f"{side}_feature_biases.npy", biases.astype(np.float32))

    @classmethod
    def load(cls, folder: Path, side: str) -> "FeatureEncoder":
        """The encoder that :meth:`save` wrote; its vectors are memory-mapped, read-only.

        Raises:
            OSError: If a file is missing.
            ValueError: If a file is no array or no JSON, or the sizes disagree.
            KeyError: If a field is missing.
        """
        biases = np.load(folder / f"{side}_feature_biases.npy")
        return cls(
            columns=FittedColumns.load(folder / f"{side}_features.json"),
            vectors_SD=np.load(folder / f"{side}_feature_vectors.npy", mmap_mode="r"),
            bias_S=biases[:-2],
            base_bias=float(biases[-2]),
            unknown_bias=float(biases[-1]),
        )
