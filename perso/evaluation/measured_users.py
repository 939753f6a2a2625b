"""What a held-out period asks of every model: which users, for which items, in which context.

A user counts if an item is left that the user had not before the period; an item is relevant if
the user touched it in the period and did not rate it below a limit. Memory: 16 bytes a pair of
either period and a few a user.
"""

# U users, B users that count, P relevant items of all of them

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from perso.data.groups import UserGroups
from perso.data.prepared import Interactions
from perso.models.protocol import UserBatch


@dataclass(frozen=True, kw_only=True)
class MeasuredUsers:
    """The users that count, and what each of them should be shown."""

    user_indices_B: NDArray[np.int64]
    """Ascending."""
    is_newcomer_B: NDArray[np.bool_]
    """Whether the user has no interaction before the period."""
    indptr_B1: NDArray[np.int64]
    """Where each user's relevant items begin, and the end."""
    items_P: NDArray[np.int32]
    """Relevant items, user after user."""
    is_new_item_P: NDArray[np.bool_]
    """Whether nobody had the item before the period."""
    context_names: Mapping[str, tuple[str, ...]]
    """Per context column, its values in code order."""
    context_codes_B: Mapping[str, NDArray[np.int32]]
    """Per context column, the code at the user's first event of the period; -1 where unknown."""

    @classmethod
    def from_interactions(
        cls, train: Interactions, held_out: Interactions, *, min_rating: float
    ) -> "MeasuredUsers":
        """What ``held_out`` asks of a model of ``train``."""
        had = _pair_keys(train)
        asked = _pair_keys(held_out)
        nearest = np.minimum(np.searchsorted(had, asked), max(len(had) - 1, 0))
        known = had[nearest] == asked if len(had) else np.zeros(len(asked), bool)
        kept = ~known & ~(held_out.ratings < min_rating)  # no rating: nan, not below anything
        counts_U = np.bincount(held_out.user_indices[kept], minlength=held_out.num_users)
        users_B = np.flatnonzero(counts_U)
        items_P = held_out.item_indices[kept]
        had_users_U = np.bincount(train.user_indices, minlength=train.num_users)
        had_items_I = np.bincount(train.item_indices, minlength=train.num_items)
        first_U = _first_rows(held_out)
        return cls(
            user_indices_B=users_B,
            is_newcomer_B=had_users_U[users_B] == 0,
            indptr_B1=np.concatenate([[0], counts_U[users_B].cumsum()]).astype(np.int64),
            items_P=items_P,
            is_new_item_P=had_items_I[items_P] == 0,
            context_names=held_out.context_names,
            context_codes_B={
                column: codes[first_U[users_B]] for column, codes in held_out.context_codes.items()
            },
        )

    @cached_property
    def num_relevant_B(self) -> NDArray[np.int64]:
        """How many items are relevant for each user."""
        return np.diff(self.indptr_B1)

    def only_new_items(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Relevant items that nobody had, as (where each user's begin and the end, items)."""
        rows_P = np.repeat(np.arange(len(self.user_indices_B)), self.num_relevant_B)
        counts_B = np.bincount(rows_P[self.is_new_item_P], minlength=len(self.user_indices_B))
        return np.concatenate([[0], counts_B.cumsum()]), self.items_P[self.is_new_item_P]

    def batch(self, rows: slice, segments: UserGroups | None) -> UserBatch:
        """Some of the users, with what a request of theirs would tell."""
        users = self.user_indices_B[rows]
        return UserBatch(
            user_indices=users,
            segment_names=(
                None if segments is None else _names(segments.names, segments.codes_U[users])
            ),
            context={
                column: _names(self.context_names[column], codes_B[rows])
                for column, codes_B in self.context_codes_B.items()
            },
        )


def _names(names: tuple[str, ...], codes_B: NDArray[np.int32]) -> tuple[str | None, ...]:
    return tuple(np.array([*names, None], object)[codes_B])  # code -1 is the last


def _pair_keys(interactions: Interactions) -> NDArray[np.int64]:
    """Ascending, as the rows of interactions are sorted by user, then item."""
    return interactions.user_indices.astype(np.int64) * interactions.num_items + (
        interactions.item_indices
    )


def _first_rows(interactions: Interactions) -> NDArray[np.int64]:
    """The row of each user's earliest pair, of equals the lower item, shape (U,); -1 without."""
    order = np.lexsort((interactions.last_at, interactions.user_indices))
    users, places = np.unique(interactions.user_indices[order], return_index=True)
    first_U = np.full(interactions.num_users, -1, np.int64)
    first_U[users] = order[places]
    return first_U
