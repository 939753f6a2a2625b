"""One model's lists for every user of a held-out period, and what each list is worth.

The one pass over users behind everything that is said of a model: its report
(:mod:`perso.evaluation.report`) takes means of these values, a comparison with another model
(:mod:`perso.evaluation.comparison`) their differences. Memory: 9 bytes a place of the lists, and
8 bytes a user, metric and list length.
"""

# B users that count, K list length

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perso.data.groups import UserGroups
from perso.data.prepared import Interactions
from perso.evaluation.hits import find_hits, ranking_metrics
from perso.evaluation.lists import Profiles, recommend
from perso.evaluation.measured_users import MeasuredUsers
from perso.models.protocol import Scorer

NEWCOMERS: Final = "(newcomers)"
"""The slice of users without an interaction before the period; no part of the overall figures."""
NO_SEGMENT: Final = "(no segment)"


@dataclass(frozen=True, kw_only=True)
class PerUser:
    """What one model did for each user that counts."""

    users: MeasuredUsers
    profiles: Profiles
    """What each of them had before the period."""
    lists_BK: NDArray[np.int64]
    """Item indices, best first; -1 pads short rows."""
    hits_BK: NDArray[np.bool_]
    """Which places hold a relevant item."""
    by_metric: Mapping[str, NDArray[np.float64]]
    """Every ranking metric, by names such as ``recall@20``, shape (B,)."""
    slices: Mapping[str, NDArray[np.bool_]]
    """Masks, shape (B,), of each segment, of users without one, and of newcomers; none is empty,
    and no user is in two."""

    @property
    def segments(self) -> list[str]:
        """Names of the segments that have users here."""
        return [name for name in self.slices if name not in (NO_SEGMENT, NEWCOMERS)]

    @property
    def is_known_B(self) -> NDArray[np.bool_]:
        """The users behind overall figures: those with an earlier interaction."""
        return ~self.users.is_newcomer_B


def measure_per_user(
    model: Scorer,
    *,
    train: Interactions,
    held_out: Interactions,
    ks: Sequence[int] = (10, 20),
    segments: UserGroups | None = None,
    min_rating: float = 4.0,
    batch_size: int = 1024,
    device: str = "cpu",
) -> PerUser:
    """Ask a model once for every user that counts; see :func:`perso.evaluation.report.evaluate`.

    Args:
        model: What to measure.
        train: All that the model has learned from.
        held_out: The period after it, over the same vocabularies.
        ks: List lengths, 1 or more.
        segments: Each user's segment as of the end of ``train``; also told to the model.
        min_rating: Least rating of a relevant item, where there is one.
        batch_size: Users scored at once by models without factors; changes no result.
        device: Where products of factors are computed: ``cpu`` or a CUDA device.

    Raises:
        ValueError: If a list length is below 1.
    """
    users = MeasuredUsers.from_interactions(train, held_out, min_rating=min_rating)
    profiles = Profiles.of(train, users.user_indices_B)
    lists_BK = recommend(
        model,
        users,
        profiles,
        max(ks),
        segments=segments,
        batch_size=batch_size,
        device=device,
    )
    hits_BK = find_hits(lists_BK, users.indptr_B1, users.items_P)
    return PerUser(
        users=users,
        profiles=profiles,
        lists_BK=lists_BK,
        hits_BK=hits_BK,
        by_metric=ranking_metrics(hits_BK, users.num_relevant_B, ks),
        slices=_slices(users, segments),
    )


def _slices(users: MeasuredUsers, segments: UserGroups | None) -> dict[str, NDArray[np.bool_]]:
    slices: dict[str, NDArray[np.bool_]] = {}
    if segments is not None:
        codes_B = np.where(
            users.is_newcomer_B, len(segments.names), segments.codes_U[users.user_indices_B]
        )
        slices = {name: codes_B == code for code, name in enumerate(segments.names)}
        slices[NO_SEGMENT] = codes_B == -1
    slices[NEWCOMERS] = users.is_newcomer_B
    return {name: inside_B for name, inside_B in slices.items() if inside_B.any()}
