"""What each user did in training, for models whose answer needs more than one vector of it."""

# U users, P pairs

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perso.data.prepared import Interactions


@dataclass(frozen=True, kw_only=True)
class History:
    """Weighted items by user_index: 8 bytes a user and a pair, memory-mapped when loaded."""

    indptr_U1: NDArray[np.int64]
    """Where each user's items begin, and the end, shape (U + 1,)."""
    item_indices: NDArray[np.int32]
    """Items of all users, each user's in ascending order, shape (P,)."""
    weights: NDArray[np.float32]
    """Weight of each pair, shape (P,)."""

    @classmethod
    def from_interactions(cls, interactions: Interactions) -> "History":
        """The weighted items of each user in one period."""
        counts_U = np.bincount(interactions.user_indices, minlength=interactions.num_users)
        return cls(
            indptr_U1=np.concatenate([[0], np.cumsum(counts_U)]).astype(np.int64),
            item_indices=interactions.item_indices,
            weights=interactions.weights,
        )

    @property
    def num_users(self) -> int:
        """Rows of the user vocabulary."""
        return len(self.indptr_U1) - 1

    def of(self, user_index: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Items and weights of one user; none for a stranger (-1)."""
        if not 0 <= user_index < self.num_users:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        part = slice(self.indptr_U1[user_index], self.indptr_U1[user_index + 1])
        return self.item_indices[part], self.weights[part]

    def save(self, folder: Path) -> None:
        """Write three arrays into the folder."""
        np.save(folder / "history_indptr.npy", self.indptr_U1)
        np.save(folder / "history_items.npy", self.item_indices)
        np.save(folder / "history_weights.npy", self.weights)

    @classmethod
    def load(cls, folder: Path) -> "History":
        """The history in a folder that :meth:`save` wrote; memory-mapped, read-only.

        Raises:
            OSError: If a file is missing.
            ValueError: If a file is no array, or the arrays disagree.
        """
        history = cls(
            indptr_U1=np.load(folder / "history_indptr.npy", mmap_mode="r"),
            item_indices=np.load(folder / "history_items.npy", mmap_mode="r"),
            weights=np.load(folder / "history_weights.npy", mmap_mode="r"),
        )
        ends = {int(history.indptr_U1[-1]), len(history.item_indices), len(history.weights)}
        if len(ends) > 1:
            raise ValueError(f"rows, items and weights of the history end at {sorted(ends)}")
        return history
