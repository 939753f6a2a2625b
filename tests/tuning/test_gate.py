"""What a model owes before it may serve, in worlds where every value is a share of users."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.data.groups import UserGroups
from perso.evaluation.per_user import measure_per_user
from perso.tuning.checks import check_floors, check_gain, check_segments
from perso.tuning.gate import Check, GateSpec, Verdict

NUM_USERS = 100
METRIC = "recall@1"


class RightFor:
    """Puts the one relevant item first for some users, and an irrelevant one for the others."""

    num_items = 3

    def __init__(self, users):
        self.is_right_U = np.isin(np.arange(NUM_USERS), users)

    def score(self, batch):
        is_right_B = self.is_right_U[batch.user_indices]
        return np.where(is_right_B[:, np.newaxis], [0, 2, 1], [0, 1, 2]).astype(np.float32)


@pytest.fixture(scope="module")
def right_for(build):
    """Makes the values of a model that is right for some of 100 users; everyone had item 0."""
    shape = {"num_users": NUM_USERS, "num_items": 3}
    known = build({(user, 0) for user in range(NUM_USERS)}, **shape)
    held_out = build({(user, 1) for user in range(NUM_USERS)}, **shape)

    def right_for(users, segments=None):
        groups = None if segments is None else UserGroups.from_names(segments)
        return measure_per_user(
            RightFor(list(users)), train=known, held_out=held_out, ks=(1,), segments=groups
        )

    return right_for


def gain(ours, theirs, **gate):
    return check_gain(GateSpec(**gate), METRIC, ours, theirs, rival="version 3")


def test_a_clear_gain_passes_and_its_sentence_has_the_values(right_for):
    check = gain(right_for(range(60)), right_for(range(40)))
    assert check.passed
    assert check.name == "beats version 3"
    for value in ("recall@1 0.6000", "version 3's 0.4000", "+50.0%", "100 test users"):
        assert value in check.reason


def test_a_gain_that_chance_explains_does_not_pass(right_for):
    ours, theirs = right_for(range(42)), right_for([*range(39), 99])  # 42 against 40
    check = gain(ours, theirs)
    assert not check.passed
    assert "not clearly above 0" in check.reason
    assert gain(ours, theirs, confidence=0.3).passed  # who asks for less gets it


def test_a_gain_has_to_be_as_large_as_is_asked(right_for):
    ours, theirs = right_for(range(60)), right_for(range(40))
    assert gain(ours, theirs, min_gain=0.2).passed
    refused = gain(ours, theirs, min_gain=0.6)
    assert not refused.passed
    assert "not clearly above the asked +0.2400 (+60.0%)" in refused.reason


@given(st.sets(st.integers(0, NUM_USERS - 1)))
@settings(max_examples=20, deadline=None)
def test_no_model_beats_itself(right_for, users):
    assert not gain(right_for(users), right_for(users), num_resamples=50).passed


@given(st.permutations(range(NUM_USERS)), st.integers(0, 60))
@settings(max_examples=20, deadline=None)
def test_the_order_of_users_changes_nothing(right_for, order, num_right):
    ours, theirs = range(20, 20 + num_right), range(40)
    shuffled = ([order[user] for user in users] for users in (ours, theirs))
    assert gain(right_for(ours), right_for(theirs), num_resamples=50) == gain(
        *map(right_for, shuffled), num_resamples=50
    )


def test_what_nobody_could_be_asked_is_not_passed(build):
    nobody = build(set(), num_users=NUM_USERS, num_items=3)
    newcomers = build({(0, 1)}, num_users=NUM_USERS, num_items=3)
    figures = measure_per_user(RightFor([0]), train=nobody, held_out=newcomers, ks=(1,))
    check = gain(figures, figures)
    assert not check.passed
    assert "could not be measured" in check.reason


SEGMENTS = ["loyal"] * 40 + ["new"] * 30 + ["asleep"] * 20 + [None] * 10


def segments_kept(right_for, ours, theirs, **gate):
    gate = {"min_segment_users": 20, "max_segment_loss": 0.1} | gate
    figures = (right_for(users, SEGMENTS) for users in (ours, theirs))
    return check_segments(GateSpec(**gate), METRIC, *figures, rival="version 3")


def test_a_segment_that_loses_too_much_is_named_though_all_others_gain(right_for):
    ours = [*range(40), *range(40, 50), *range(70, 90)]  # of new ones 10 instead of 20
    theirs = [*range(20), *range(40, 60), *range(70, 80)]
    check = segments_kept(right_for, ours, theirs)
    assert not check.passed
    assert "new -50.0% (recall@1 0.3333 against 0.6667, difference -" in check.reason
    assert "30 test users): at most 10.0% may be lost against version 3" in check.reason
    assert "loyal" not in check.reason
    assert segments_kept(right_for, ours, theirs, max_segment_loss=0.5).passed


def test_a_segment_of_few_users_is_not_held_to_it(right_for):
    ours, theirs = range(70), range(90)  # those asleep lose everything
    assert "asleep -100.0%" in segments_kept(right_for, ours, theirs).reason
    kept = segments_kept(right_for, ours, theirs, min_segment_users=21)
    assert kept.passed
    assert "the worst of 2" in kept.reason
    none = segments_kept(right_for, ours, theirs, min_segment_users=41)
    assert none.passed
    assert "no segment has 41 test users" in none.reason


def test_users_without_a_segment_are_a_segment_too(right_for):
    check = segments_kept(right_for, range(90), range(100), min_segment_users=10)
    assert "(no segment) -100.0%" in check.reason


def test_a_floor_is_the_least_value_that_passes():
    gate = GateSpec(floors={"coverage@20": 0.1, "novelty@20": 3.0})
    held, missed = check_floors(gate, {"coverage@20": 0.1, "novelty@20": 2.5})
    assert held.passed
    assert (missed.name, missed.passed) == ("floor of novelty@20", False)
    assert "2.5000, asked is at least 3" in missed.reason


def test_a_floor_of_what_cannot_be_measured_is_not_reached():
    gate = GateSpec(floors={"intra_list_diversity@20": 0.1})
    (check,) = check_floors(gate, {"coverage@20": 0.1})
    assert not check.passed
    assert "categories" in check.reason
    with pytest.raises(ValueError, match="'coverage@50' is not measured"):
        check_floors(GateSpec(floors={"coverage@50": 0.1}), {"coverage@20": 0.1})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"min_gain": -0.1}, "min_gain is -0.1"),
        ({"confidence": 95}, "confidence is 95"),
        ({"num_resamples": 0}, "num_resamples is 0"),
        ({"max_segment_loss": 10}, "max_segment_loss is 10"),
        ({"min_segment_users": 0}, "min_segment_users is 0"),
        ({"floors": {"gini@20": 0.1}}, "'gini@20' cannot have a floor"),
        ({"floors": {"coverage@20": float("nan")}}, "the floor of coverage@20 is nan"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        GateSpec(**wrong)


def test_a_verdict_survives_the_registry():
    checks = (Check(name="beats", passed=False, reason="„né“ 0.1 < 0.2"),)
    verdict = Verdict(promoted=False, reason="no", checks=checks)
    assert Verdict.from_json(verdict.to_json()) == verdict
    for foreign in ("[]", "{}", "nonsense", '{"checks": [1]}'):
        with pytest.raises(ValueError):
            Verdict.from_json(foreign)
