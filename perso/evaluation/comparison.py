"""Two models on the same users: by how much one is better, and whether chance could say so."""

# B users that count

import numpy as np
from numpy.typing import NDArray

from perso.evaluation.bootstrap import Difference, bootstrap_difference
from perso.evaluation.per_user import PerUser


def compare(
    first: PerUser,
    second: PerUser,
    metric: str,
    *,
    inside_B: NDArray[np.bool_] | None = None,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """How much higher one ranking metric of the first model is, with a paired interval.

    Args:
        first: A model's values.
        second: Those of what it is compared with, on the same period.
        metric: Named like ``recall@20``, measured of both.
        inside_B: The users that count; those behind overall figures if not given.
        num_resamples: How often users are drawn anew.
        confidence: Share of resampled means inside the interval.
        seed: Start of the random numbers.

    Returns:
        The difference; ``nan`` without users.

    Raises:
        ValueError: If the two were not measured on the same users, or as
            :func:`perso.evaluation.bootstrap.bootstrap_intervals`.
        KeyError: If one of the two was not measured at that list length.
    """
    if not np.array_equal(first.users.user_indices_B, second.users.user_indices_B):
        raise ValueError("the two models were measured on different users; use one period for both")
    chosen_B = first.is_known_B if inside_B is None else inside_B
    return bootstrap_difference(
        first.by_metric[metric][chosen_B],
        second.by_metric[metric][chosen_B],
        num_resamples=num_resamples,
        confidence=confidence,
        seed=seed,
    )
