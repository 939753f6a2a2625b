"""Visits: the pairs of one user in one context, and what is known of each when it begins."""

# P pairs, V visits, U users

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perso.data.groups import UserGroups
from perso.data.prepared import Interactions
from perso.models.feature_matrix import FeatureMatrix, matrix_from_columns
from perso.models.request_features import SEGMENT

_MIN_USERS: Final = 3
"""A segment, region or device with fewer users would be these users, not what they share."""


@dataclass(frozen=True, kw_only=True)
class Visits:
    """Distinct (user, segment, context) rows; one column each for segment and context."""

    features: FeatureMatrix
    of_pair_P: NDArray[np.int64]
    """Visit of each pair."""
    names: Mapping[str, tuple[str, ...]]
    """Per column its values in code order."""

    @classmethod
    def of(
        cls, interactions: Interactions, *, segments: UserGroups | None, context: Sequence[str]
    ) -> "Visits | None":
        """The visits of some interactions; none where nothing is known of any.

        Cost: a sort of the pairs per column, 10 s each at 100 million.

        Args:
            interactions: Sorted by user.
            segments: Each user's segment, if it shall speak.
            context: Context columns that shall speak.

        Raises:
            ValueError: If the interactions lack a context column, or segments are for other users.
        """
        users_P = interactions.user_indices
        columns: dict[str, tuple[tuple[str, ...], NDArray[np.integer]]] = {}
        if segments is not None:
            if len(segments.codes_U) != interactions.num_users:
                raise ValueError(
                    f"{len(segments.codes_U)} users have a segment, "
                    f"but there are {interactions.num_users} users"
                )
            columns[SEGMENT] = segments.names, segments.codes_U[users_P]
        for name in context:
            if name not in interactions.context_codes:
                raise ValueError(
                    f"no context column {name!r} in the interactions; "
                    f"there are {list(interactions.context_codes)}"
                )
            columns[name] = interactions.context_names[name], interactions.context_codes[name]
        columns = {name: _frequent(*column, users_P) for name, column in columns.items()}
        columns = {name: column for name, column in columns.items() if column[0]}
        if not columns:
            return None
        visit_P = users_P.astype(np.int64)
        for names, codes_P in columns.values():
            keys_P = visit_P * (len(names) + 1) + codes_P + 1
            visit_P = np.unique(keys_P, return_inverse=True)[1].astype(np.int64)
        _, first_V = np.unique(visit_P, return_index=True)
        entries = {}
        for name, (names, codes_P) in columns.items():
            known_E = np.flatnonzero(codes_P[first_V] >= 0)
            codes_E = codes_P[first_V][known_E].astype(np.int64)
            entries[name] = (len(names), known_E, codes_E, np.ones(len(known_E), np.float32))
        return cls(
            features=matrix_from_columns(entries, len(first_V)),
            of_pair_P=visit_P,
            names={name: names for name, (names, _) in columns.items()},
        )


def _frequent(
    names: tuple[str, ...], codes_P: NDArray[np.integer], users_P: NDArray[np.int32]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The values with enough users, renumbered; the codes of others become -1."""
    known_P = codes_P >= 0
    keys = np.unique(users_P[known_P].astype(np.int64) * len(names) + codes_P[known_P])
    num_users = np.bincount(keys % max(len(names), 1), minlength=len(names))
    kept = np.flatnonzero(num_users >= _MIN_USERS)
    new_code = np.full(len(names) + 1, -1)  # one more place, for the unknown
    new_code[kept] = np.arange(len(kept))
    return tuple(names[code] for code in kept), new_code[codes_P]
