"""Which items each user already had, as rows of one compact array."""

# U users, P pairs

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perso.data.prepared import Interactions


@dataclass(frozen=True, kw_only=True)
class SeenItems:
    """Item indices by user_index: 8 bytes a user and 4 a pair, memory-mapped when loaded."""

    indptr_U1: NDArray[np.int64]
    """Where each user's items begin, and the end, shape (U + 1,)."""
    item_indices: NDArray[np.int32]
    """Items of all users, each user's in ascending order, shape (P,)."""

    @classmethod
    def from_interactions(cls, interactions: Interactions) -> "SeenItems":
        """The items of each user in one period."""
        counts_U = np.bincount(interactions.user_indices, minlength=interactions.num_users)
        return cls(
            indptr_U1=np.concatenate([[0], np.cumsum(counts_U)]).astype(np.int64),
            item_indices=interactions.item_indices.astype(np.int32),
        )

    @property
    def num_users(self) -> int:
        """Rows of the user vocabulary."""
        return len(self.indptr_U1) - 1

    def of(self, user_index: int) -> NDArray[np.int32]:
        """Items of one user, ascending; none for a stranger (-1)."""
        if not 0 <= user_index < self.num_users:
            return np.empty(0, np.int32)
        start, end = self.indptr_U1[user_index], self.indptr_U1[user_index + 1]
        items: NDArray[np.int32] = self.item_indices[start:end]
        return items

    def save(self, folder: Path) -> None:
        """Write two arrays into the folder."""
        np.save(folder / "indptr.npy", self.indptr_U1)
        np.save(folder / "item_indices.npy", self.item_indices)

    @classmethod
    def load(cls, folder: Path) -> "SeenItems":
        """The items in a folder that :meth:`save` wrote; memory-mapped, read-only.

        Raises:
            OSError: If a file is missing.
            ValueError: If a file is no array, or the two disagree.
        """
        seen = cls(
            indptr_U1=np.load(folder / "indptr.npy", mmap_mode="r"),
            item_indices=np.load(folder / "item_indices.npy", mmap_mode="r"),
        )
        if seen.indptr_U1[-1] != len(seen.item_indices):
            raise ValueError(
                f"rows end at {seen.indptr_U1[-1]}, but there are {len(seen.item_indices)} items"
            )
        return seen
