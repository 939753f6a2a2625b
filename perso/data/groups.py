"""Users in named groups: the shape in which segments reach models and metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class UserGroups:
    """One group per user, by dense code.

    Example:
        >>> groups = UserGroups.from_names(["loyal", None, "new", "loyal"])
        >>> groups.names, groups.codes_U.tolist()
        (('loyal', 'new'), [0, -1, 1, 0])
    """

    names: tuple[str, ...]
    """Group names, sorted; the code of a group is its place here."""
    codes_U: NDArray[np.int32]
    """Code of each user_index, -1 where the group is unknown, shape (num_users,)."""

    @classmethod
    def from_names(cls, names_by_user: Sequence[str | None]) -> "UserGroups":
        """Groups from one name (or None) per user_index."""
        names = tuple(sorted({name for name in names_by_user if name is not None}))
        code = {name: i for i, name in enumerate(names)}
        codes = [-1 if name is None else code[name] for name in names_by_user]
        return cls(names=names, codes_U=np.array(codes, np.int32))
