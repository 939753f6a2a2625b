"""Gaps between groups of users."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.evaluation.fairness import fairness_gaps

METRICS = {
    "loyal": {"recall@20": 0.5, "ndcg@20": 0.1},
    "new": {"recall@20": 0.2, "ndcg@20": 0.3},
    "rare": {"recall@20": 0.0, "ndcg@20": 0.0},
}


@pytest.mark.parametrize(
    ("min_users", "expected"),
    [
        (1, {"recall@20": 0.5, "ndcg@20": 0.3}),
        (10, {"recall@20": 0.3, "ndcg@20": 0.2}),
        (50, {}),  # one group alone has no gap
        (99, {}),
    ],
)
def test_the_gap_is_between_the_groups_that_are_large_enough(min_users, expected):
    sizes = {"loyal": 60, "new": 10, "rare": 9}
    assert fairness_gaps(METRICS, sizes, min_users=min_users) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_a_gap_is_never_negative_and_nothing_where_all_are_served_alike(values):
    groups = {str(n): {"recall@5": value} for n, value in enumerate(values)}
    found = fairness_gaps(groups, dict.fromkeys(groups, 30))["recall@5"]
    assert 0 <= found <= 1
    assert (found == 0) == (len(set(values)) == 1)
