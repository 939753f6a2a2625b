"""The lists that a model gives to the users of a held-out period: full catalogue, seen left out.

One pass in blocks of users. Factor models never hold a matrix of scores; of other models one block
of ``batch_size`` rows exists at a time. Memory beside it: 8 bytes a place of the lists.
"""

# B users that count, U users, K list length, P earlier items of all B users

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perso.data.groups import UserGroups
from perso.data.prepared import Interactions
from perso.evaluation.measured_users import MeasuredUsers
from perso.models.factors import FactorModel
from perso.models.protocol import Scorer
from perso.models.top_k import top_k, top_k_factors

_FACTOR_BATCH: Final = 1 << 14


@dataclass(frozen=True, kw_only=True)
class Profiles:
    """What the users that count had before the period."""

    indptr_B1: NDArray[np.int64]
    """Where each user's items begin, and the end."""
    items_P: NDArray[np.int32]
    """Items, user after user."""
    weights_P: NDArray[np.float32]

    @classmethod
    def of(cls, train: Interactions, users_B: NDArray[np.int64]) -> "Profiles":
        """The rows of some users, given in ascending order."""
        wanted_U = np.zeros(train.num_users, bool)
        wanted_U[users_B] = True
        inside = wanted_U[train.user_indices]
        counts_U = np.bincount(train.user_indices[inside], minlength=train.num_users)
        return cls(
            indptr_B1=np.concatenate([[0], counts_U[users_B].cumsum()]).astype(np.int64),
            items_P=train.item_indices[inside],
            weights_P=train.weights[inside],
        )

    def rows(self, rows: slice) -> "Profiles":
        """Those of consecutive users."""
        part = slice(self.indptr_B1[rows.start], self.indptr_B1[rows.stop])
        return Profiles(
            indptr_B1=self.indptr_B1[rows.start : rows.stop + 1] - self.indptr_B1[rows.start],
            items_P=self.items_P[part],
            weights_P=self.weights_P[part],
        )


def recommend(
    model: Scorer,
    users: MeasuredUsers,
    profiles: Profiles,
    k: int,
    *,
    segments: UserGroups | None = None,
    batch_size: int = 1024,
    device: str = "cpu",
) -> NDArray[np.int64]:
    """Each user's ``k`` best items of the whole catalogue that the user had not, shape (B, k).

    Args:
        model: What to ask.
        users: Whom to ask for, with their contexts.
        profiles: What each of them had.
        k: List length.
        segments: Told to the model, if given.
        batch_size: Users whose scores exist at once, for models without factors.
        device: Where products of factors are computed: ``cpu`` or a CUDA device.

    Returns:
        Item indices, best first; -1 pads short rows.
    """
    num_users = len(users.user_indices_B)
    lists_BK = np.empty((num_users, k), np.int64)
    step = _FACTOR_BATCH if isinstance(model, FactorModel) else batch_size
    for start in range(0, num_users, step):
        rows = slice(start, min(start + step, num_users))
        batch, seen = users.batch(rows, segments), profiles.rows(rows)
        if isinstance(model, FactorModel):
            lists_BK[rows], _ = top_k_factors(
                model.user_vectors(batch),
                model.item_factors_ID,
                model.item_bias_I,
                k,
                seen_indptr=seen.indptr_B1,
                seen_indices=seen.items_P,
                device=device,
            )
        else:
            seen_lists = np.split(seen.items_P, seen.indptr_B1[1:-1])
            lists_BK[rows], _ = top_k(model.score(batch), k, seen=seen_lists)
    return lists_BK
