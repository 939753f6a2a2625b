"""Two models on the same users: by how much one is better, and whether chance could say so."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perso.data.groups import UserGroups
from perso.data.prepared import Interactions
from perso.evaluation.bootstrap import Difference, bootstrap_difference
from perso.evaluation.hits import find_hits, ranking_metrics
from perso.evaluation.lists import Profiles, recommend
from perso.evaluation.measured_users import MeasuredUsers
from perso.models.protocol import Recommender


def compare(
    first: Recommender,
    second: Recommender,
    *,
    train: Interactions,
    held_out: Interactions,
    ks: Sequence[int] = (10, 20),
    segments: UserGroups | None = None,
    min_rating: float = 4.0,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Difference]:
    """How much higher each ranking metric of the first model is, with paired 95 % intervals.

    Users are those behind ``overall`` of :func:`perso.evaluation.report.evaluate`: with an
    earlier interaction and something relevant left.

    Args:
        first: A model.
        second: What it is compared with.
        train: All that the two have learned from.
        held_out: The period after it, over the same vocabularies.
        ks: List lengths, 1 or more.
        segments: Each user's segment as of the end of ``train``, told to the models.
        min_rating: Least rating of a relevant item, where there is one.
        num_resamples: How often users are drawn anew.
        seed: Start of the random numbers.

    Returns:
        Differences by metric, named like ``recall@20``; ``nan`` without users.

    Raises:
        ValueError: As :func:`perso.evaluation.bootstrap.bootstrap_intervals`, or if a list length
            is below 1.
    """
    users = MeasuredUsers.from_interactions(train, held_out, min_rating=min_rating)
    profiles = Profiles.of(train, users.user_indices_B)

    def measure(model: Recommender) -> dict[str, NDArray[np.float64]]:
        lists_BK = recommend(model, users, profiles, max(ks), segments=segments)
        hits_BK = find_hits(lists_BK, users.indptr_B1, users.items_P)
        return ranking_metrics(hits_BK, users.num_relevant_B, ks)

    is_known_B = ~users.is_newcomer_B
    ours, theirs = measure(first), measure(second)
    return {
        name: bootstrap_difference(
            ours[name][is_known_B],
            theirs[name][is_known_B],
            num_resamples=num_resamples,
            seed=seed,
        )
        for name in ours
    }
