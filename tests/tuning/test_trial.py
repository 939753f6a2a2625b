"""One trial: trained, measured on the validation period, watched, ended and taken up again."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from perso.data.groups import UserGroups
from perso.models.progress import Progress
from perso.models.side_data import SideData
from perso.tuning.grid import GridSpec
from perso.tuning.objective import ERROR_METRICS, LIST_METRICS, Term, measured_metrics
from perso.tuning.points import Point, planned_points
from perso.tuning.scheduling import AshaSpec, PbtSpec
from perso.tuning.spec import SearchSpec
from perso.tuning.standings import best_trial
from perso.tuning.trial import Trial, run_trial

SEGMENTS = UserGroups.from_names(["even" if user % 2 == 0 else "odd" for user in range(40)])


def run(spec, number, data, **settings):
    """Trial ``number`` of a search that is planned."""
    train, validation = data
    point = planned_points(spec)[number]
    return run_trial(spec, point, train=train, validation=validation, **settings)


def test_every_objective_is_a_metric_that_a_trial_measures(search, two_tastes):
    cards = pa.table({"categories": [[("even", "odd")[item % 2]] for item in range(20)]})
    trial = run(search(), 0, two_tastes, side=SideData(item_features=cards))
    assert set(measured_metrics((5, 10))) - {*ERROR_METRICS} == set(trial.metrics)
    without = run(search(), 0, two_tastes)
    missing = {name.split("@")[0] for name in set(trial.metrics) - set(without.metrics)}
    assert missing == {"intra_list_diversity", "calibration"} < {*LIST_METRICS}


def test_a_trial_learns_two_tastes_and_reports_overall_and_per_segment(search, two_tastes):
    side = SideData(segments=SEGMENTS)
    trial = run(search(), 3, two_tastes, side=side)
    assert trial.error is None
    assert trial.settings == {"family": "sgd", "num_factors": 8, "learning_rate": 0.1, "l2": 0.1}
    assert trial.metrics["recall@5"] > 0.9  # 3 of the 13 unseen items are each user's
    assert {"even", "odd"} <= set(trial.per_segment)
    assert len(trial.losses) == 8
    assert trial.losses[-1] < trial.losses[0]
    assert trial.train_s > 0
    assert trial.evaluate_s > 0


def test_a_family_without_epochs_has_no_curve(search, two_tastes):
    spec = search(family="item_knn", fixed={}, grid={"num_neighbors": (3, 9)})
    trial = run(spec, 1, two_tastes)
    assert (trial.error, trial.losses) == (None, ())
    assert trial.settings == {"family": "item_knn", "num_neighbors": 9}
    assert trial.metrics["recall@5"] > 0.9


def test_the_same_seed_gives_the_same_trial(search, two_tastes):
    first, second = (run(search(), 1, two_tastes) for _ in range(2))
    assert first.metrics == second.metrics
    assert first.losses == second.losses


def test_a_longer_tuple_of_k_changes_no_metric_of_the_others(search, two_tastes):
    short = run(search(k=(5,)), 0, two_tastes).metrics
    longer = run(search(k=(3, 5, 10)), 0, two_tastes).metrics
    assert "ndcg@5" in short
    shared = {name: value for name, value in short.items() if name in longer}
    assert {name: longer[name] for name in shared} == shared


def failing(error):
    def fit(*given, **named):
        raise error

    return fit


def test_what_a_family_refuses_is_the_trials_result_with_its_error(search, two_tastes):
    trial = run(search(), 2, two_tastes, fit=failing(ValueError("8 factors are no good")))
    assert (trial.status, trial.error) == ("failed", "ValueError: 8 factors are no good")
    assert trial.settings["num_factors"] == 8
    assert trial.metrics == {}


@pytest.mark.parametrize("error", [MemoryError("no room"), OSError("no disk"), RuntimeError("?")])
def test_what_may_go_well_elsewhere_is_raised(search, two_tastes, error):
    with pytest.raises(type(error)):
        run(search(), 2, two_tastes, fit=failing(error))


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
        return run(spec, 0, (train, later), side=side)

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
        trials = [run(spec, n, (train, held_out)) for n in (0, 1)]
        stuck, learned = (trial.metrics[objective] for trial in trials)
        assert stuck == pytest.approx(1.0, abs=0.15)
        assert learned < stuck / 2
        assert best_trial(trials, spec) == trials[1]


def test_a_trial_survives_json(search, two_tastes):
    worst = Term(metric="ndcg@5", over="worst_segment")
    spec = search(scheduler="asha", objective=worst, min_segment_users=20)
    trial = run(spec, 1, two_tastes, side=SideData(segments=SEGMENTS))
    again = Trial.of(json.loads(json.dumps(trial.to_dict())))
    np.testing.assert_equal(again.to_dict(), trial.to_dict())  # a slice without users has nan
    assert type(again.curve[0]) is tuple
    assert again.value(spec) == trial.value(spec) > 0
    assert again.point == planned_points(spec)[1]


@pytest.mark.parametrize("document", [{}, {"curve": 1, "losses": []}, {"curve": [], "losses": []}])
def test_another_document_is_no_trial(document):
    with pytest.raises(ValueError, match="no trial"):
        Trial.of(document)


class Notes:
    """A watcher that keeps everything."""

    def __init__(self, *, stop_at=None):
        self.told, self.snapshots, self.measured, self.stop_at = [], [], [], stop_at

    def __call__(self, so_far, snapshot, *, measured):
        self.told.append(so_far)
        self.snapshots.append(snapshot())
        if measured:
            self.measured.append(so_far.epochs)
        if so_far.epochs == self.stop_at:
            raise StoppedHereError


class StoppedHereError(Exception):
    """As a scheduler ends a trial."""


TIMES = {"train_s": 0.0, "evaluate_s": 0.0, "peak_memory_mib": 0.0}

SGD = {"family": "sgd", "fixed": {"epochs": 5, "batch_size": 64, "device": "cpu"}}
ALS = {
    "family": "als",
    "fixed": {"epochs": 5, "num_factors": 4},
    "grid": {"l2": (0.01, 0.1)},
}


@pytest.mark.parametrize("family", [SGD, ALS], ids=["sgd", "als"])
def test_a_trial_taken_up_at_any_epoch_is_the_one_that_was_never_stopped(
    search, two_tastes, family
):
    spec = search(**family, scheduler="asha", asha=AshaSpec(reduction=2.0))
    notes = Notes()
    whole = run(spec, 1, two_tastes, watch=notes)
    assert [so_far.epochs for so_far in notes.told] == [1, 2, 3, 4, 5]
    assert [epoch for epoch, _ in whole.curve] == [1, 2, 4, 5]
    assert len(set(whole.losses)) == 5
    for snapshot in notes.snapshots:
        resumed = run(spec, 1, two_tastes, resume=snapshot)
        assert replace(resumed, **TIMES) == replace(whole, **TIMES)
        assert resumed.train_s >= snapshot.so_far.train_s  # what went before counts


def test_a_trial_that_takes_over_another_ones_vectors_keeps_its_own_name(search, two_tastes):
    spec = search(fixed=SGD["fixed"], grid={"l2": (0.03, 0.3)})
    notes = Notes()
    run(spec, 0, two_tastes, watch=notes)
    second = run(spec, 1, two_tastes, resume=notes.snapshots[2])
    alone = run(spec, 1, two_tastes)
    assert (second.number, second.settings) == (1, alone.settings)
    assert second.losses[:3] == notes.told[2].losses
    assert second.losses[3:] != alone.losses[3:]


@pytest.mark.parametrize(
    ("scheduler", "rungs"),
    [
        ({"scheduler": "none"}, []),
        ({"scheduler": "asha", "asha": AshaSpec(first_epoch=2, reduction=2.0)}, [2, 4]),
        ({"scheduler": "asha", "asha": AshaSpec(first_epoch=8)}, []),
        ({"scheduler": "asha", "asha": AshaSpec(reduction=1.5)}, [1, 2, 3, 4, 6]),
    ],
)
def test_a_trial_is_measured_at_the_rungs_and_at_its_end(search, two_tastes, scheduler, rungs):
    spec = search(**scheduler)
    notes = Notes()
    trial = run(spec, 0, two_tastes, watch=notes)
    assert spec.rungs("sgd", 8) == notes.measured == rungs
    assert [epoch for epoch, _ in trial.curve] == [*rungs, 8]
    assert trial.curve[-1][1] == trial.metrics["ndcg@5"] == trial.value(spec)


def test_measuring_midway_does_not_change_the_training(search, two_tastes):
    measured = run(search(scheduler="asha", asha=AshaSpec(reduction=2.0)), 0, two_tastes)
    alone = run(search(), 0, two_tastes)
    assert (measured.losses, measured.metrics) == (alone.losses, alone.metrics)


def test_a_population_is_measured_every_so_many_epochs():
    assert PbtSpec(every_epochs=3).rungs(10) == [3, 6, 9]
    assert PbtSpec(every_epochs=3).rungs(9) == [3, 6]
    assert PbtSpec(every_epochs=9).rungs(9) == []


def test_families_without_epochs_are_never_measured_midway(search, two_tastes):
    spec = search(family="item_knn", fixed={}, grid={"num_neighbors": (3, 9)}, scheduler="asha")
    notes = Notes()
    trial = run(spec, 0, two_tastes, watch=notes)
    assert (notes.told, [epoch for epoch, _ in trial.curve]) == ([], [1])


def test_what_a_watcher_raises_ends_the_trial(search, two_tastes):
    notes = Notes(stop_at=3)
    with pytest.raises(StoppedHereError):
        run(search(), 0, two_tastes, watch=notes)
    assert [so_far.epochs for so_far in notes.told] == [1, 2, 3]


def test_a_stopped_trials_record_is_what_it_measured(search, two_tastes):
    spec = search(scheduler="asha", asha=AshaSpec(first_epoch=3))
    notes = Notes()
    run(spec, 0, two_tastes, watch=notes)
    assert {so_far.status for so_far in notes.told} == {"stopped"}
    before, stopped, later = notes.told[1], notes.told[2], notes.told[3]
    assert (before.metrics, before.curve) == ({}, ())
    assert np.isnan(before.value(spec))
    three = search(fixed=spec.grids[0].fixed | {"epochs": 3})
    short = run(three, 0, two_tastes)
    assert stopped.metrics == later.metrics == short.metrics  # no schedule looks at the end
    assert stopped.curve == ((3, short.value(three)),)
    assert (stopped.epochs, later.epochs) == (3, 4)
    assert stopped.losses == short.losses


def test_training_that_fails_after_a_measurement_has_no_metrics(search, two_tastes):
    worst = Term(metric="ndcg@5", over="worst_segment")
    spec = search(scheduler="asha", objective=worst, min_segment_users=20)
    notes, side = Notes(), SideData(segments=SEGMENTS)
    run(spec, 0, two_tastes, watch=notes, side=side)
    snapshot = notes.snapshots[3]
    assert snapshot.so_far.value(spec) > 0
    refuse = failing(ValueError("diverged"))
    trial = run(spec, 0, two_tastes, side=side, resume=snapshot, fit=refuse)
    assert (trial.status, trial.error) == ("failed", "ValueError: diverged")
    assert np.isnan(trial.value(spec))


def test_training_that_diverges_keeps_what_it_took_until_then(search, two_tastes):
    def diverging(*given, on_epoch, **named):
        on_epoch(Progress(epoch=1, loss=0.5, model=None, state=None))
        raise ValueError("diverged")

    trial = run(search(), 0, two_tastes, fit=diverging)
    assert (trial.status, trial.epochs, trial.losses) == ("failed", 1, (0.5,))
    assert trial.train_s > 0


def test_a_state_of_another_shape_is_the_trials_failure(search, two_tastes):
    notes = Notes()
    run(search(), 0, two_tastes, watch=notes)
    trial = run(search(), 2, two_tastes, resume=notes.snapshots[0])
    assert trial.status == "failed"
    assert "shapes differ" in trial.error


def test_the_seed_of_the_point_is_the_one_that_trains(search, two_tastes):
    spec = search(seeds=(0, 7))
    first, second = (run(spec, number, two_tastes) for number in (0, 1))
    assert (first.seed, second.seed) == (0, 7)
    assert first.settings == second.settings
    assert first.losses != second.losses


def test_a_trial_knows_what_was_set_aside_for_all_of_its_processes(search):
    spec = search(workers_per_trial=3, cpus_per_trial=2.0, gpus_per_trial=1.0)
    trial = Trial.begin(Point(number=0, grid=0, searched={}, seed=0), spec)
    assert (trial.status, trial.cpus, trial.gpus) == ("running", 6.0, 3.0)
