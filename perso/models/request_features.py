"""What is known of a shopper only when the request comes: segment, device, hour, region.

Each value of each column has a vector that is added to the user's own. This file adds; training
learns the vectors (:mod:`perso.models.hybrid`).
"""

# D factors, B users of one call, S values of one column

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

SEGMENT: Final = "segment"
"""The column that :attr:`UserBatch.segment_names` fills; the others come from its context."""


@dataclass(frozen=True, kw_only=True)
class RequestFeatures:
    """Vectors by column and value; a value that training has not seen adds nothing."""

    num_factors: int
    """D."""
    columns: Mapping[str, tuple[tuple[str, ...], NDArray[np.float32]]] = field(default_factory=dict)
    """Per column its values and their vectors, shape (S, D)."""

    def __post_init__(self) -> None:
        for column, (names, vectors_SD) in self.columns.items():
            if vectors_SD.shape != (len(names), self.num_factors):
                raise ValueError(
                    f"vectors of {column!r} have shape {vectors_SD.shape}, "
                    f"but {len(names)} values of {self.num_factors} factors ask for "
                    f"{(len(names), self.num_factors)}"
                )

    @cached_property
    def _rows(self) -> dict[str, dict[str, int]]:
        """Row of each value by column; a shop may name thousands of regions."""
        return {
            column: {name: row for row, name in enumerate(names)}
            for column, (names, _) in self.columns.items()
        }

    def vector(self, values: Mapping[str, str | None]) -> NDArray[np.float32]:
        """What one shopper's values add up to, shape (D,)."""
        sum_1D = self.vectors({column: [value] for column, value in values.items()}, 1)
        sum_D: NDArray[np.float32] = sum_1D[0]
        return sum_D

    def vectors(
        self, values: Mapping[str, Sequence[str | None]], num_users: int
    ) -> NDArray[np.float32]:
        """What each user's values add up to, shape (B, D)."""
        sum_BD = np.zeros((num_users, self.num_factors), np.float32)
        for column, (_, vectors_SD) in self.columns.items():
            if column in values:
                row_of = self._rows[column]
                rows_B = np.array(
                    [-1 if v is None else row_of.get(v, -1) for v in values[column]], np.int64
                )
                known_B = rows_B >= 0
                sum_BD[known_B] += vectors_SD[rows_B[known_B]]
        return sum_BD

    def save(self, folder: Path) -> None:
        """Write an array per column and ``request_features.json`` into the folder."""
        names = {}
        for place, (column, (values, vectors_SD)) in enumerate(sorted(self.columns.items())):
            np.save(folder / f"request_feature_{place}.npy", vectors_SD)
            names[column] = list(values)
        text = json.dumps(
            {"num_factors": self.num_factors, "columns": names}, ensure_ascii=False, sort_keys=True
        )
        (folder / "request_features.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "RequestFeatures":
        """The features in a folder that :meth:`save` wrote; memory-mapped, read-only.

        Raises:
            OSError: If a file is missing.
            ValueError: If a file is no array or no JSON, or the shapes disagree.
            KeyError: If the names are missing.
        """
        document = json.loads((folder / "request_features.json").read_text(encoding="utf-8"))
        return cls(
            num_factors=int(document["num_factors"]),
            columns={
                column: (
                    tuple(values),
                    np.load(folder / f"request_feature_{place}.npy", mmap_mode="r"),
                )
                for place, (column, values) in enumerate(sorted(document["columns"].items()))
            },
        )
