"""The one number that decides, and limits of the others."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.tuning.objective import (
    LOWER_IS_BETTER,
    Bound,
    Objective,
    Term,
    default_mode,
    measured_metrics,
)

WORST = Term(metric="ndcg@5", over="worst_segment")
SEGMENTS = {
    "large": {"ndcg@5": 0.4},
    "small": {"ndcg@5": 0.1},
    "unmeasured": {},
    "(newcomers)": {"ndcg@5": 0.0},
    "(no segment)": {"ndcg@5": 0.05},
}
USERS = {"large": 50, "small": 29, "unmeasured": 70, "(newcomers)": 900, "(no segment)": 900}


def objective(*terms, mode="max", min_segment_users=30):
    return Objective(terms=terms, mode=mode, min_segment_users=min_segment_users)


def test_the_worst_segment_is_one_of_enough_users_and_no_slice_in_brackets():
    assert objective(WORST).value({}, SEGMENTS, USERS) == 0.4
    assert objective(WORST, min_segment_users=29).value({}, SEGMENTS, USERS) == 0.1


def test_without_a_segment_of_enough_users_there_is_no_worst_one():
    assert math.isnan(objective(WORST, min_segment_users=51).value({}, SEGMENTS, USERS))
    assert math.isnan(objective(WORST).value({"ndcg@5": 0.3}, {}, {}))


def test_the_whole_shop_does_not_look_at_segments():
    assert objective(Term(metric="ndcg@5")).value({"ndcg@5": 0.3}, SEGMENTS, USERS) == 0.3


def test_terms_add_up_by_their_weights():
    whole, worst = Term(metric="ndcg@5", weight=2), Term(metric="ndcg@5", over="worst_segment")
    gini = Term(metric="gini@5", weight=-0.5)
    value = objective(whole, worst, gini).value({"ndcg@5": 0.3, "gini@5": 0.6}, SEGMENTS, USERS)
    assert value == pytest.approx(2 * 0.3 + 0.4 - 0.5 * 0.6)


@given(st.permutations([("a", 0.3, 40), ("b", 0.2, 40), ("c", 0.1, 10), ("(new)", 0.0, 99)]))
def test_the_order_of_segments_does_not_matter(slices):
    per_segment = {name: {"ndcg@5": value} for name, value, _ in slices}
    users = {name: count for name, _, count in slices}
    assert objective(WORST).value({}, per_segment, users) == 0.2


@pytest.mark.parametrize("metrics", [{}, {"ndcg@5": 0.3}, {"ndcg@5": 0.3, "mrr@5": math.nan}])
def test_a_sum_of_which_a_part_was_not_measured_is_not_a_number(metrics):
    both = objective(Term(metric="ndcg@5"), Term(metric="mrr@5"))
    assert math.isnan(both.value(metrics, {}, {}))


@pytest.mark.parametrize(
    ("terms", "mode"),
    [
        ([("ndcg@5", 1)], "max"),
        ([("rmse", 1)], "min"),
        ([("gini@5", 2)], "min"),
        ([("rmse", -1)], "max"),
        ([("ndcg@5", -1)], "min"),
        ([("rmse", 0.5), ("mae", 0.5)], "min"),
        ([("ndcg@5", 0.8), ("coverage@5", 0.2)], "max"),
        ([("ndcg@5", 0.8), ("gini@5", -0.2)], "max"),
    ],
)
def test_the_mode_follows_from_what_is_better(terms, mode):
    assert default_mode(tuple(Term(metric=name, weight=weight) for name, weight in terms)) == mode


def test_terms_that_pull_both_ways_are_refused_with_the_weight_to_give():
    terms = (Term(metric="ndcg@5", weight=0.8), Term(metric="gini@5", weight=0.2))
    with pytest.raises(ValueError, match=r"gini@5 is better when low .* weight -0\.2"):
        default_mode(terms)


def test_the_product_with_the_sign_is_to_be_high():
    assert objective(WORST).sign == 1
    assert objective(Term(metric="rmse"), mode="min").sign == -1


@pytest.mark.parametrize(
    ("terms", "name"),
    [
        ([Term(metric="ndcg@20")], "ndcg@20"),
        ([WORST], "worst segment's ndcg@5"),
        ([Term(metric="rmse", weight=-1)], "-1 rmse"),
        ([Term(metric="ndcg@20", weight=0.8), WORST], "0.8 ndcg@20 + 1 worst segment's ndcg@5"),
    ],
)
def test_tables_name_the_objective(terms, name):
    assert objective(*terms).name == name


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"metric": "ndcg@5", "weight": 0.0}, "weight of ndcg@5 is 0"),
        ({"metric": "ndcg@5", "weight": math.nan}, "weight of ndcg@5 is nan"),
        ({"metric": "ndcg@5", "weight": math.inf}, "weight of ndcg@5 is inf"),
        ({"metric": "coverage@5", "over": "worst_segment"}, "coverage@5 is not measured per seg"),
        ({"metric": "rmse", "over": "worst_segment"}, "rmse is not measured per segment"),
    ],
)
def test_a_wrong_term_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        Term(**wrong)


@given(
    low=st.none() | st.floats(-9, 9),
    high=st.none() | st.floats(-9, 9),
    value=st.floats(-20, 20),
)
def test_a_bound_allows_what_is_between_its_ends(low, high, value):
    if low is None and high is None:
        with pytest.raises(ValueError, match="allows everything"):
            Bound(at_least=low, at_most=high)
    elif low is not None and high is not None and low > high:
        with pytest.raises(ValueError, match="no value is at least"):
            Bound(at_least=low, at_most=high)
    else:
        bound = Bound(at_least=low, at_most=high)
        above, below = low is None or value >= low, high is None or value <= high
        assert bound.allows(value) == (above and below)
        assert all(bound.allows(end) for end in (low, high) if end is not None)
        assert not bound.allows(math.nan)


def test_a_bound_says_its_ends():
    assert str(Bound(at_least=0.2)) == "at least 0.2"
    assert str(Bound(at_least=0.2, at_most=1)) == "at least 0.2 and at most 1"


def test_every_metric_has_a_list_length_but_the_errors():
    names = measured_metrics((5, 10))
    assert len(set(names)) == len(names)
    assert {"ndcg@5", "ndcg@10", "calibration@10", "rmse", "mae"} <= set(names)
    assert {name.split("@")[0] for name in names} > LOWER_IS_BETTER
