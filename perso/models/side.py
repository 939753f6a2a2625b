"""One side of the dot product while it is trained: rows with own vectors, and with features.

A row's vector is its own plus the weighted vectors of its feature values. A gathered batch is a
small graph from the touched rows of the tables to the vectors; the loss hands its slopes to the
vectors and the graph brings them back to the tables, so what makes up a vector is written once.
"""

# B rows of a batch, D factors, S feature values, E feature entries of a batch

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from perso.models.feature_matrix import FeatureMatrix
from perso.models.tables import Table


class Leaf(NamedTuple):
    """Distinct rows of a table, and their gathered vectors that gradients come to."""

    table: Table
    rows: Tensor
    vectors: Tensor


class Move(NamedTuple):
    """Distinct rows of a table, and the gradient that they are to move against."""

    table: Table
    rows: Tensor
    gradient: Tensor


class Uses(NamedTuple):
    """Which row of a batch uses which feature value, and how much."""

    row_E: Tensor
    place_E: Tensor
    """Place of the value among the batch's feature values."""
    weight_E: Tensor


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The vectors of a batch, tied to the table rows that they are made of."""

    vectors_BD: Tensor
    own: Leaf | None
    """The batch's own vectors."""
    features: Leaf | None
    """The feature values that the batch has."""
    uses: Uses | None
    """Who has them."""

    def moves(self, l2_B: Tensor | float) -> list[Move]:
        """What the gradients that have come back, and the penalty, do to the tables.

        Args:
            l2_B: Penalty on the squares of each row's parts, already doubled. A feature value is
                held wherever it is used: as tightly, for what it has to explain, as own vectors.
        """
        moves = []
        if self.own is not None:
            of_each = l2_B[:, None] if isinstance(l2_B, Tensor) else l2_B
            moves += _moves(self.own, of_each)
        if self.features is not None and self.uses is not None:
            row_E, place_E, weight_E = self.uses
            of_use_E = (l2_B[row_E] if isinstance(l2_B, Tensor) else l2_B) * weight_E.square()
            of_value = torch.zeros_like(self.features.vectors[:, 0]).index_add_(
                0, place_E, of_use_E
            )
            moves += _moves(self.features, of_value[:, None])
        return moves


def _moves(leaf: Leaf, penalty: Tensor | float) -> list[Move]:
    if leaf.vectors.grad is None:
        return []
    pull = penalty * leaf.vectors.detach()
    return [Move(leaf.table, leaf.rows, leaf.vectors.grad + pull)]


class Side:
    """Own vectors and feature vectors of all users, or of all items."""

    def __init__(
        self,
        own: Table | None,
        *,
        features: FeatureMatrix | None = None,
        feature_vectors: Table | None = None,
        from_history: frozenset[str] = frozenset(),
    ) -> None:
        """Hold tables that share the number of factors; at least one of the two.

        Args:
            own: A vector per row; none where rows are nothing but their features.
            features: Feature values of each row.
            feature_vectors: A vector per feature value.
            from_history: Columns whose values are dropped where own vectors are.
        """
        self.own = own
        self.feature_vectors = feature_vectors
        present = {"own": own, "features": feature_vectors}
        self.tables = {name: table for name, table in present.items() if table is not None}
        values = next(iter(self.tables.values())).values
        device, self._width = values.device, values.shape[1]
        self._indptr: Tensor | None = None
        self._value: Tensor | None = None
        self._weight: Tensor | None = None
        self._is_history_S: Tensor | None = None
        if features is not None:
            history = [name for name in features.starts if name in from_history]
            if history:
                is_history_S = torch.zeros(features.num_values, dtype=torch.bool)
                for name in history:
                    is_history_S[features.span(name)] = True
                self._is_history_S = is_history_S.to(device)
            self._indptr = torch.from_numpy(features.indptr_N1.copy()).to(device)
            self._value = torch.from_numpy(features.value_E.copy()).to(device).long()
            self._weight = torch.from_numpy(features.weight_E.copy()).to(device)

    def gather(self, rows_B: Tensor, *, keep_own_B: Tensor | None = None) -> Gathered:
        """The vectors of distinct rows, ready for gradients.

        Args:
            rows_B: Rows of the side.
            keep_own_B: 0 where the own vector and what follows from the history are dropped, so
                that the other features learn to stand alone.
        """
        own = features = uses = None
        vectors_BD = torch.zeros(len(rows_B), self._width, device=rows_B.device)
        if self.own is not None:
            own_BD = self.own.values[rows_B].requires_grad_(torch.is_grad_enabled())
            own = Leaf(self.own, rows_B, own_BD)
            vectors_BD = own_BD if keep_own_B is None else own_BD * keep_own_B[:, None]
        if self.feature_vectors is not None:
            row_E, value_E, weight_E = self._entries(rows_B)
            if keep_own_B is not None and self._is_history_S is not None:
                kept_E = keep_own_B[row_E]
                weight_E = torch.where(self._is_history_S[value_E], weight_E * kept_E, weight_E)
            used, place_E = torch.unique(value_E, return_inverse=True)
            value_SD = self.feature_vectors.values[used].requires_grad_(torch.is_grad_enabled())
            features = Leaf(self.feature_vectors, used, value_SD)
            uses = Uses(row_E, place_E, weight_E)
            # Selected, not indexed: the slopes of indexing add up in any order on two threads.
            value_ED = value_SD.index_select(0, place_E)
            vectors_BD = vectors_BD.index_add(0, row_E, value_ED * weight_E[:, None])
        return Gathered(vectors_BD=vectors_BD, own=own, features=features, uses=uses)

    def feature_part(self, rows_B: Tensor) -> Tensor:
        """What features alone say of some rows, shape (B, D)."""
        part_BD = torch.zeros(len(rows_B), self._width, device=rows_B.device)
        if self.feature_vectors is None:
            return part_BD
        row_E, value_E, weight_E = self._entries(rows_B)
        return part_BD.index_add_(
            0, row_E, self.feature_vectors.values[value_E] * weight_E[:, None]
        )

    def _entries(self, rows_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Place in the batch, value and weight of each feature entry."""
        assert self._indptr is not None and self._value is not None and self._weight is not None
        counts_B = self._indptr[rows_B + 1] - self._indptr[rows_B]
        row_E = torch.repeat_interleave(counts_B)
        first_B = self._indptr[rows_B] - (counts_B.cumsum(0) - counts_B)
        entry_E = first_B[row_E] + torch.arange(len(row_E), device=row_E.device)
        return row_E, self._value[entry_E], self._weight[entry_E]
