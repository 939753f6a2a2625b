"""How unequally a model serves the groups of its users."""

from collections.abc import Mapping

MIN_USERS = 20
"""Users of a group below which its mean says more of chance than of the model."""


def fairness_gaps(
    metrics_by_group: Mapping[str, Mapping[str, float]],
    num_users_by_group: Mapping[str, int],
    *,
    min_users: int = MIN_USERS,
) -> dict[str, float]:
    """Per metric, the best served group's value less the worst served one's.

    Args:
        metrics_by_group: Means over the users of each group, all of the same metrics.
        num_users_by_group: Users behind them.
        min_users: Users that a group needs to count.

    Returns:
        A gap of 0 or more for each metric; empty if fewer than two groups count.

    References:
        Li et al., User-oriented fairness in recommendation, WWW 2021 (difference between two
        groups; here the two furthest apart of any number).
    """
    counting = [
        metrics
        for name, metrics in metrics_by_group.items()
        if num_users_by_group[name] >= min_users
    ]
    if len(counting) < 2:
        return {}
    return {
        metric: max(group[metric] for group in counting) - min(group[metric] for group in counting)
        for metric in counting[0]
    }
