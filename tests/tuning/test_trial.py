"""One trial: trained, measured on the validation period, and what makes it the best."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.data.groups import UserGroups
from perso.errors import SearchError
from perso.models.side_data import SideData
from perso.tuning.spec import RANKING_OBJECTIVES, GridSpec, SearchSpec
from perso.tuning.trial import Trial, best_trial, run_trial

SEGMENTS = UserGroups.from_names(["even" if user % 2 == 0 else "odd" for user in range(40)])


def test_every_objective_is_a_metric_that_a_trial_measures(search, two_tastes):
    train, held_out = two_tastes
    trial = run_trial(search(), 0, train=train, validation=held_out)
    assert {f"{name}@{k}" for name in RANKING_OBJECTIVES for k in (5, 10)} <= set(trial.metrics)


def test_a_trial_learns_two_tastes_and_reports_overall_and_per_segment(search, two_tastes):
    train, held_out = two_tastes
    side = SideData(segments=SEGMENTS)
    trial = run_trial(search(), 3, train=train, validation=held_out, side=side)
    assert trial.error is None
    assert trial.settings == {"family": "sgd", "num_factors": 8, "learning_rate": 0.1, "l2": 0.1}
    assert trial.metrics["recall@5"] > 0.9  # 3 of the 13 unseen items are each user's
    assert {"even", "odd"} <= set(trial.per_segment)
    assert len(trial.losses) == 8
    assert trial.losses[-1] < trial.losses[0]
    assert trial.train_s > 0
    assert trial.evaluate_s > 0


def test_a_family_without_epochs_has_no_curve(search, two_tastes):
    train, held_out = two_tastes
    spec = search(family="item_knn", fixed={}, grid={"num_neighbors": (3, 9)})
    trial = run_trial(spec, 1, train=train, validation=held_out)
    assert (trial.error, trial.losses) == (None, ())
    assert trial.settings == {"family": "item_knn", "num_neighbors": 9}
    assert trial.metrics["recall@5"] > 0.9


def test_the_same_seed_gives_the_same_trial(search, two_tastes):
    train, held_out = two_tastes
    first, second = (run_trial(search(), 1, train=train, validation=held_out) for _ in range(2))
    assert first.metrics == second.metrics
    assert first.losses == second.losses


def test_a_longer_tuple_of_k_changes_no_metric_of_the_others(search, two_tastes):
    train, held_out = two_tastes
    short = run_trial(search(k=(5,)), 0, train=train, validation=held_out).metrics
    longer = run_trial(search(k=(3, 5, 10)), 0, train=train, validation=held_out).metrics
    assert "ndcg@5" in short
    shared = {name: value for name, value in short.items() if name in longer}
    assert {name: longer[name] for name in shared} == shared


def test_a_trial_that_breaks_is_a_result_with_its_error(monkeypatch, search, two_tastes):
    def refuse(*args, **kwargs):
        raise MemoryError("no room for 8 factors")

    monkeypatch.setattr("perso.models.sgd.fit_sgd", refuse)
    train, held_out = two_tastes
    trial = run_trial(search(), 2, train=train, validation=held_out)
    assert trial.error == "MemoryError: no room for 8 factors"
    assert trial.settings["num_factors"] == 8
    assert trial.metrics == {}


def test_a_hybrid_trial_sees_the_features_of_items_that_nobody_has_touched(build):
    """Items 20 to 29 are new; only their category says whose taste they are."""
    rng = np.random.default_rng(0)
    train = {(u, i) for u in range(40) for i in rng.permutation(np.arange(u % 2, 20, 2))[:7]}
    later = {(user, item) for user in range(40) for item in range(20 + user % 2, 30, 2)}
    shape = {"num_users": 40, "num_items": 30}
    train, later = build(train, **shape), build(later, **shape)
    catalog = pa.table({"categories": [[("even", "odd")[item % 2]] for item in range(30)]})
    spec = SearchSpec(
        grids=(
            GridSpec(
                family="hybrid",
                fixed={"epochs": 20, "batch_size": 64, "num_factors": 8, "device": "cpu"},
            ),
        ),
        k=(10,),
        objective="recall@10",
    )

    def trial(side):
        return run_trial(spec, 0, train=train, validation=later, side=side)

    informed, blind = trial(SideData(item_features=catalog)), trial(SideData())
    assert (informed.error, blind.error) == (None, None)
    # First come the 3 unseen old items and the 5 new ones of the own taste.
    assert informed.metrics["recall@10"] > 0.95
    assert blind.metrics["recall@10"] < 0.75


def test_an_error_objective_takes_the_trial_with_the_least_error(build):
    rng = np.random.default_rng(0)
    pairs = {(user, item) for user in range(40) for item in range(20) if rng.random() < 0.7}
    stars = {(user, item): 1.0 + 2 * ((user + item) % 2) for user, item in pairs}
    aside = {pair for pair in pairs if rng.random() < 0.2}
    train, held_out = build(pairs - aside, ratings=stars), build(aside, ratings=stars)
    for objective in ("rmse", "mae"):
        spec = SearchSpec(
            grids=(
                GridSpec(
                    fixed={"loss": "squared", "num_factors": 4, "epochs": 30, "device": "cpu"},
                    grid={"l2": (100.0, 0.01)},  # the first is held at the mean
                ),
            ),
            objective=objective,
        )
        trials = [run_trial(spec, n, train=train, validation=held_out) for n in (0, 1)]
        stuck, learned = (trial.metrics[objective] for trial in trials)
        assert stuck == pytest.approx(1.0, abs=0.15)
        assert learned < stuck / 2
        assert best_trial(trials, spec) == trials[1]


def trial(number, value=None, error=None, metric="ndcg@5"):
    metrics = {} if value is None else {metric: value}
    return Trial(number=number, settings={}, metrics=metrics, error=error)


@given(st.permutations([trial(0, 0.2), trial(1, 0.4), trial(2, 0.4), trial(3, error="boom")]))
def test_the_best_finished_trial_wins_and_the_earlier_one_on_a_tie(search, trials):
    assert best_trial(trials, search()).number == 1


@given(st.permutations([(0, 0.9), (1, 0.4), (2, 0.4), (3, math.nan)]))
def test_the_least_error_wins_and_the_earlier_one_on_a_tie(search, values):
    spec = search(fixed={"loss": "squared"}, objective="rmse")
    trials = [trial(number, value, metric="rmse") for number, value in values]
    assert best_trial(trials, spec).number == 1


def test_a_trial_that_is_not_a_number_never_wins(search):
    assert best_trial([trial(0, math.nan), trial(1, 0.1)], search()).number == 1


def test_a_search_without_a_finished_trial_says_the_first_error(search):
    with pytest.raises(SearchError, match="none of 2 trials finished; the first: boom"):
        best_trial([trial(0, error="boom"), trial(1, error="bang")], search())
