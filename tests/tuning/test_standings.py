"""Who is ahead of whom, and what is said where nobody can win."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.errors import SearchError
from perso.tuning.objective import Bound, Term
from perso.tuning.standings import best_trial, standings
from perso.tuning.trial import Trial


def trial(number, value=None, error=None, metric="ndcg@5", status=None, seed=0, **others):
    metrics = {} if value is None else {metric: value}
    status = status or ("failed" if error else "finished")
    return Trial(
        number=number,
        grid=0,
        settings={"family": "sgd"},
        seed=seed,
        status=status,
        metrics=metrics | others,
        error=error,
    )


def order(trials, spec):
    return [standing.first.number for standing in standings(trials, spec)]


@given(st.permutations([trial(0, 0.2), trial(1, 0.4), trial(2, 0.4), trial(3, error="boom")]))
def test_the_best_finished_trial_wins_and_the_earlier_one_on_a_tie(search, trials):
    assert best_trial(trials, search()).number == 1
    assert order(trials, search()) == [1, 2, 0, 3]


@given(st.permutations([(0, 0.9), (1, 0.4), (2, 0.4), (3, math.nan)]))
def test_the_least_error_wins_and_the_earlier_one_on_a_tie(search, values):
    spec = search(fixed={"loss": "squared"}, objective="rmse")
    trials = [trial(number, value, metric="rmse") for number, value in values]
    assert best_trial(trials, spec).number == 1
    assert order(trials, spec) == [1, 2, 0, 3]


def test_the_mode_turns_the_order(search):
    trials = [trial(0, 0.2), trial(1, 0.4), trial(2)]
    assert order(trials, search(mode="min")) == [0, 1, 2]


def test_a_trial_that_is_not_a_number_never_wins(search):
    assert best_trial([trial(0, math.nan), trial(1, 0.1)], search()).number == 1


def test_a_search_without_a_finished_trial_says_the_first_error(search):
    with pytest.raises(SearchError, match="none of 2 trials finished; the first: boom"):
        best_trial([trial(0, error="boom"), trial(1, error="bang")], search())


def test_a_search_whose_objective_was_never_measured_says_so(search):
    spec = search(objective=Term(metric="ndcg@5", over="worst_segment"))
    with pytest.raises(SearchError, match="the first: worst segment's ndcg@5 was not measured"):
        best_trial([trial(0, 0.3)], spec)


def test_a_trial_that_was_stopped_comes_after_all_that_were_trained_to_their_end(search):
    trials = [trial(0, 0.9, status="stopped"), trial(1, 0.1), trial(2, 0.8, status="stopped")]
    assert order(trials, search()) == [1, 0, 2]
    assert [s.is_finished for s in standings(trials, search())] == [True, False, False]
    assert best_trial(trials[:1], search()).number == 0  # the budget may have stopped all


def test_whoever_keeps_the_constraints_comes_before_whoever_does_not(search):
    spec = search(constraints={"coverage@5": Bound(at_least=0.2), "gini@5": Bound(at_most=0.9)})
    trials = [
        trial(0, 0.9, **{"coverage@5": 0.1, "gini@5": 0.95}),
        trial(1, 0.2, **{"coverage@5": 0.2, "gini@5": 0.9}),
        trial(2, 0.1, status="stopped", **{"coverage@5": 0.5, "gini@5": 0.5}),
        trial(3, 0.8, **{"gini@5": 0.5}),
        trial(4, error="boom"),
    ]
    ranked = standings(trials, spec)
    assert [standing.first.number for standing in ranked] == [1, 2, 0, 3, 4]
    assert best_trial(trials, spec).number == 1
    assert ranked[2].violations == (
        "coverage@5 is 0.1000, allowed is at least 0.2",
        "gini@5 is 0.9500, allowed is at most 0.9",
    )
    assert ranked[3].violations == ("coverage@5 is nan, allowed is at least 0.2",)
    assert ranked[0].violations == ranked[1].violations == ()


def test_where_nobody_keeps_the_constraints_the_error_says_how_far_the_best_is(search):
    spec = search(constraints={"coverage@5": Bound(at_least=0.2)})
    trials = [trial(0, 0.3, **{"coverage@5": 0.19}), trial(1, 0.4, **{"coverage@5": 0.1})]
    with pytest.raises(
        SearchError,
        match=r"none of 2 measured points .* by ndcg@5: coverage@5 is 0\.1000, allowed is at least",
    ):
        best_trial(trials, spec)


def test_seeds_of_a_point_decide_by_their_mean_and_the_first_stands_for_it(search):
    spec = search(seeds=(4, 7))
    lucky = [trial(0, 0.9, seed=4), trial(1, 0.1, seed=7)]
    steady = [trial(2, 0.6, seed=4), trial(3, 0.5, seed=7)]
    ranked = standings([*lucky, *steady][::-1], spec)
    assert [standing.first.number for standing in ranked] == [2, 0]
    assert [standing.value for standing in ranked] == pytest.approx([0.55, 0.5])
    assert [standing.spread for standing in ranked] == pytest.approx([0.1, 0.8])
    assert [len(standing.trials) for standing in ranked] == [2, 2]
    assert best_trial([*lucky, *steady], spec) == steady[0]


def test_constraints_are_held_against_the_mean_of_the_seeds(search):
    spec = search(seeds=(4, 7), constraints={"coverage@5": Bound(at_least=0.2)})
    just = [trial(n, 0.3, seed=s, **{"coverage@5": c}) for n, s, c in ((0, 4, 0.15), (1, 7, 0.25))]
    below = [trial(n, 0.9, seed=s, **{"coverage@5": 0.19}) for n, s in ((2, 4), (3, 7))]
    assert best_trial(just + below, spec).number == 0


@pytest.mark.parametrize("second", [[], [trial(1, error="boom", seed=7)]], ids=["none", "failed"])
def test_a_point_with_a_seed_that_was_not_measured_cannot_win(search, second):
    spec = search(seeds=(4, 7))
    trials = [trial(0, 0.9, seed=4), *second, trial(2, 0.1, seed=4), trial(3, 0.1, seed=7)]
    ranked = standings(trials, spec)
    assert [standing.first.number for standing in ranked] == [2, 0]
    assert math.isnan(ranked[1].value)
    assert math.isnan(ranked[1].spread)


def test_a_point_of_which_one_seed_was_stopped_is_not_finished(search):
    spec = search(seeds=(4, 7))
    trials = [trial(0, 0.9, seed=4), trial(1, 0.9, seed=7, status="stopped")]
    assert not standings(trials, spec)[0].is_finished


def test_two_trials_that_ended_with_the_same_settings_are_two_points(search):
    """As of a population, whose settings change on the way."""
    assert len(standings([trial(0, 0.2), trial(1, 0.4)], search())) == 2


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1) | st.just(math.nan),
            st.sampled_from(["finished", "stopped"]),
            st.floats(0, 1),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_the_winner_is_the_highest_of_the_best_kind_that_there_is(search, found):
    spec = search(constraints={"coverage@5": Bound(at_least=0.5)})
    trials = [
        trial(number, value, status=status, **{"coverage@5": coverage})
        for number, (value, status, coverage) in enumerate(found)
    ]
    kept = [t for t in trials if t.metrics["coverage@5"] >= 0.5 and t.value(spec) >= 0]
    kind = [t for t in kept if t.status == "finished"] or kept
    if not kind:
        with pytest.raises(SearchError):
            best_trial(trials, spec)
    else:
        winner = best_trial(trials, spec)
        assert winner in kind
        assert all(winner.value(spec) >= other.value(spec) for other in kind)
