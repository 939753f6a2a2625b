"""How far a mean over users would move with other users of the same kind.

Users are drawn anew with replacement, the same draws for every metric, and the percentiles of the
resampled means bound the interval. Cost: a random number per user and resample; memory a few
numbers per user, so 1,000 resamples of a million users take some 15 seconds on one core.
"""

# B users, M metrics, R resamples of one block

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_DRAWS_AT_ONCE: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much higher the first of two measurements is, on the same users."""

    mean: float
    """Mean over users of first less second."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end; an interval that holds 0 does not tell the two apart."""


def bootstrap_intervals(
    values_BM: NDArray[np.floating],
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Percentile intervals of the mean over users of each metric.

    Args:
        values_BM: One value per user and metric; any order of users, but the same for all.
        num_resamples: How often users are drawn anew.
        confidence: Share of resampled means inside the interval.
        seed: Start of the random numbers.

    Returns:
        Lower and upper ends, shape (M, 2); ``nan`` without users.

    Raises:
        ValueError: If a value is ``nan``, ``num_resamples`` is below 1 or ``confidence`` is not
            between 0 and 1.

    References:
        Efron and Tibshirani, An introduction to the bootstrap, 1993, chapter 13.
    """
    if num_resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"num_resamples is {num_resamples} and confidence {confidence}; give 1 or more "
            "resamples and a share between 0 and 1"
        )
    if np.isnan(values_BM).any():
        raise ValueError("some user has no value; leave such users out of every metric")
    if not len(values_BM):
        return np.full((values_BM.shape[1], 2), np.nan)
    means_RM = np.concatenate(list(_resampled_means(values_BM, num_resamples, seed)))
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    ends_M2: NDArray[np.float64] = np.quantile(means_RM, ends, axis=0).T
    return ends_M2


def bootstrap_difference(
    first_B: NDArray[np.floating],
    second_B: NDArray[np.floating],
    *,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Interval of the mean difference of two models that were measured on the same users.

    Pairing removes what makes users differ from each other, so it tells models apart whose own
    intervals overlap.

    Args:
        first_B: The first model's value of each user.
        second_B: The second model's, user by user.
        num_resamples: How often users are drawn anew.
        confidence: Share of resampled means inside the interval.
        seed: Start of the random numbers.

    Raises:
        ValueError: If the two differ in shape, or as :func:`bootstrap_intervals`.

    References:
        Sakai, Evaluating evaluation metrics based on the bootstrap, SIGIR 2006.
    """
    if first_B.shape != second_B.shape:
        raise ValueError(
            f"{first_B.shape} values against {second_B.shape}; give both for the same users"
        )
    difference_B = np.asarray(first_B, np.float64) - second_B
    # The order of users must not move the ends; by size, so that neither does who is first.
    difference_B = difference_B[np.lexsort((difference_B, np.abs(difference_B)))]
    ((low, high),) = bootstrap_intervals(
        difference_B[:, np.newaxis],
        num_resamples=num_resamples,
        confidence=confidence,
        seed=seed,
    )
    mean = float(difference_B.mean()) if len(difference_B) else float("nan")
    return Difference(mean=mean, low=float(low), high=float(high))


def _resampled_means(
    values_BM: NDArray[np.floating], num_resamples: int, seed: int
) -> Iterator[NDArray[np.float64]]:
    """Means of the metrics in each resample, shape (R, M), block by block."""
    rng = np.random.default_rng(seed)
    num_users = len(values_BM)
    block = max(1, _DRAWS_AT_ONCE // num_users)
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        drawn = rng.integers(num_users, size=(size, num_users))
        drawn += np.arange(size)[:, np.newaxis] * num_users
        # How often each user was drawn; a product then makes the means of all metrics.
        times_RB = np.bincount(drawn.ravel(), minlength=size * num_users)
        yield times_RB.reshape(size, num_users) @ values_BM.astype(np.float64) / num_users
