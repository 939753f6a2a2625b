"""What may not be in the lists of one retrieval: items each user had, items nobody may get."""

# B users, I items, K list length, P seen pairs

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Checked masks of B users over I items."""

    seen_indptr_B1: NDArray[np.int64]
    """Where each user's seen items begin, and the end."""
    seen_indices: NDArray[np.int32]
    """Seen items, user after user, shape (P,)."""
    allowed_I: NDArray[np.bool_] | None
    """Items that may be recommended at all; None: all."""

    @classmethod
    def of_lists(
        cls,
        seen: Sequence[NDArray[np.integer]] | None,
        allowed: NDArray[np.bool_] | None,
        *,
        num_users: int,
        num_items: int,
    ) -> "LeftOut":
        """Masks with one array of seen items per user.

        Raises:
            ValueError: As :meth:`of_rows`.
        """
        if seen is None:
            return cls.of_rows(None, None, allowed, num_users=num_users, num_items=num_items)
        return cls.of_rows(
            np.cumsum([0, *map(len, seen)]),
            np.concatenate([np.empty(0, np.int32), *seen]),
            allowed,
            num_users=num_users,
            num_items=num_items,
        )

    @classmethod
    def of_rows(
        cls,
        seen_indptr: NDArray[np.integer] | None,
        seen_indices: NDArray[np.integer] | None,
        allowed: NDArray[np.bool_] | None,
        *,
        num_users: int,
        num_items: int,
    ) -> "LeftOut":
        """Masks with the seen items of all users in one array, or without any.

        Raises:
            ValueError: If only one of the two arrays is given, a size is wrong, or an item is not
                in the catalogue.
        """
        if allowed is not None and allowed.shape != (num_items,):
            raise ValueError(f"allowed has shape {allowed.shape}, scores have {num_items} items")
        if seen_indptr is None and seen_indices is None:
            seen_indptr, seen_indices = np.zeros(num_users + 1, np.int64), np.empty(0, np.int32)
        if seen_indptr is None or seen_indices is None:
            raise ValueError("give both seen_indptr and seen_indices, or neither")
        if len(seen_indptr) != num_users + 1:
            raise ValueError(f"seen has {len(seen_indptr) - 1} rows, scores have {num_users}")
        if len(seen_indices):
            least, most = seen_indices.min(), seen_indices.max()
            if least < 0 or most >= num_items:
                raise ValueError(
                    f"seen items reach from {least} to {most}, the catalogue from 0 to "
                    f"{num_items - 1}; give rows of one item vocabulary"
                )
        return cls(
            seen_indptr_B1=np.ascontiguousarray(seen_indptr, np.int64),
            seen_indices=np.ascontiguousarray(seen_indices, np.int32),
            allowed_I=allowed,
        )

    def of(self, row: int) -> NDArray[np.int32]:
        """Seen items of one user."""
        items: NDArray[np.int32] = self.seen_indices[
            self.seen_indptr_B1[row] : self.seen_indptr_B1[row + 1]
        ]
        return items

    def mask(self, bias_I: NDArray[np.float32]) -> NDArray[np.float32]:
        """The biases, contiguous, ``-inf`` for items that may not be recommended."""
        bias_I = np.ascontiguousarray(bias_I, np.float32)
        if self.allowed_I is None:
            return bias_I
        return np.where(self.allowed_I, bias_I, np.float32(-np.inf))

    def empty_lists(self, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Lists of -1 and ``-inf`` to fill, shape (B, k).

        Raises:
            ValueError: If ``k`` is below 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}; give 1 or more")
        shape = (len(self.seen_indptr_B1) - 1, k)
        return np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
