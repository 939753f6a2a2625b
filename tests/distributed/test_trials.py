"""Trials on Ray: those of a plain loop, one run each, whoever is lost on the way."""

import json
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
import torch

from perso.data.groups import UserGroups
from perso.data.prepared import Interactions
from perso.distributed import trials as trials_module
from perso.distributed.trials import run_trials
from perso.errors import InputError
from perso.models.side_data import SideData
from perso.registry import Registry
from perso.spec import parse_spec
from perso.tuning.grid import GridSpec
from perso.tuning.journal import SearchJournal
from perso.tuning.points import planned_points
from perso.tuning.spec import BudgetSpec, SearchSpec
from perso.tuning.trial import run_trial

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("registry")]

NUM_USERS, NUM_ITEMS = 40, 20
QUICK = {"epochs": 4, "batch_size": 64}
SPEC = SearchSpec(
    grids=(
        GridSpec(fixed=QUICK, grid={"num_factors": (4, 8), "l2": (0.03, 0.1)}),
        GridSpec(family="item_knn", grid={"num_neighbors": (5,)}),
        GridSpec(
            family="hybrid", fixed=QUICK | {"num_factors": 4}, grid={"feature_dropout": (0.5,)}
        ),
    ),
    k=(5, 10),
    objective="ndcg@5",
)


def interactions(pairs):
    users, items = np.array(sorted(pairs), np.int32).T
    return Interactions(
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
        user_indices=np.ascontiguousarray(users),
        item_indices=np.ascontiguousarray(items),
        weights=np.ones(len(pairs), np.float32),
        ratings=np.full(len(pairs), np.nan, np.float32),
        last_at=np.zeros(len(pairs), np.int64),
        context_names={},
        context_codes={},
    )


@pytest.fixture(scope="module")
def periods():
    """Even users like even items, odd users odd ones; each meets the rest of its own later."""
    rng = np.random.default_rng(0)
    liked = {u: rng.permutation(np.arange(u % 2, NUM_ITEMS, 2)).tolist() for u in range(NUM_USERS)}
    train = interactions({(u, i) for u, items in liked.items() for i in items[:7]})
    held_out = interactions({(u, i) for u, items in liked.items() for i in items[7:]})
    return train, held_out


@pytest.fixture(scope="module")
def side():
    catalog = pa.table({"categories": [[("even", "odd")[i % 2]] for i in range(NUM_ITEMS)]})
    segments = UserGroups.from_names([("even", "odd")[u % 2] for u in range(NUM_USERS)])
    return SideData(segments=segments, item_features=catalog)


def begin(spec, workspace):
    registry = Registry(workspace)
    run_id = registry.open_run("search")
    return registry, SearchJournal.begin(
        workspace.searches, spec, key="key", run_id=run_id, now=datetime.now(UTC)
    )


def trials_of(spec, periods, side, workspace):
    registry, journal = begin(spec, workspace)
    trials = run_trials(spec, *periods, side, registry=registry, journal=journal)
    return trials, runs_below(registry, journal)


def runs_below(registry, journal):
    children = registry._client.search_runs(
        [registry._experiment_id],
        filter_string=f"tags.`mlflow.parentRunId` = '{journal.run_id}'",
    )
    return {child.info.run_name: child for child in children}


@pytest.fixture
def one_thread():
    """As a trial with one core has: how many threads add up a sum shows in its last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def outcome(trial):
    return replace(trial, train_s=0.0, evaluate_s=0.0, peak_memory_mib=0.0, node="", retries=0)


def test_ray_runs_the_trials_that_a_plain_loop_runs(
    ray_cluster, one_thread, periods, side, workspace
):
    train, validation = periods
    by_ray, runs = trials_of(SPEC, periods, side, workspace)
    points = planned_points(SPEC)
    by_loop = [
        run_trial(SPEC, point, train=train, validation=validation, side=side) for point in points
    ]
    assert [t.status for t in by_ray] == ["finished"] * 6
    assert all(t.node and t.peak_memory_mib > 0 for t in by_ray)
    for ours, theirs in zip(by_ray, by_loop, strict=True):
        assert outcome(ours) == outcome(theirs)
    # Blind to categories and segments, the hybrid would be another model.
    blind = run_trial(SPEC, points[5], train=train, validation=validation)
    assert by_ray[5].losses != blind.losses

    assert set(runs) == {
        *(f"sgd num_factors={n} l2={l2}" for n in (4, 8) for l2 in (0.03, 0.1)),
        "item_knn num_neighbors=5",
        "hybrid feature_dropout=0.5",
    }
    run = runs["sgd num_factors=8 l2=0.1"]
    trial = by_ray[3]
    assert run.info.status == "FINISHED"
    assert run.data.params["family"] == "sgd"
    assert run.data.params["num_factors"] == "8"
    assert run.data.params["epochs"] == "4"
    assert run.data.metrics["ndcg_at_5"] == pytest.approx(trial.metrics["ndcg@5"])
    assert run.data.metrics["segment/odd/recall_at_10"] == pytest.approx(
        trial.per_segment["odd"]["recall@10"]
    )
    assert run.data.metrics["loss"] == pytest.approx(trial.losses[-1])
    assert "loss" not in runs["item_knn num_neighbors=5"].data.metrics


def test_a_trial_that_cannot_be_is_marked_failed_and_the_search_goes_on(
    ray_cluster, periods, side, workspace
):
    too_large = replace(
        SPEC,
        max_concurrent=1,
        retries=0,
        grids=(GridSpec(fixed=QUICK, grid={"num_factors": (10**13, 4)}),),
    )
    trials, runs = trials_of(too_large, periods, side, workspace)
    assert [t.status for t in trials] == ["failed", "finished"]
    assert trials[0].error
    assert {r.info.status for r in runs.values()} == {"FINISHED", "FAILED"}
    (failed,) = (r for r in runs.values() if r.info.status == "FAILED")
    assert failed.data.tags["error"] == trials[0].error


LONG = {"epochs": 6, "batch_size": 64, "num_factors": 4}
ONE_WORKER = replace(SPEC, max_concurrent=1)
"""Each search starts its own workers, which costs seconds."""


def watch_trials_with(watcher, monkeypatch):
    """Workers watch with this class: the function is local, so Ray ships it by value."""
    train = trials_module._train

    def watched(config, **given):
        train.__globals__["_Checkpoints"] = watcher  # shipped by value, too: no module's
        train(config, **given)

    monkeypatch.setattr(trials_module, "_train", watched)


def die_after(epoch, marker):
    """A courier whose worker is killed once, after it has kept that epoch."""

    class Dying(trials_module._Checkpoints):
        def __call__(self, so_far, snapshot, *, measured):
            super().__call__(so_far, snapshot, measured=measured)
            if so_far.epochs == epoch and not marker.exists():
                marker.touch()
                os._exit(1)

    return Dying


def test_a_lost_worker_s_trial_goes_on_from_its_checkpoint(
    ray_cluster, one_thread, periods, side, workspace, tmp_path, monkeypatch
):
    spec = replace(ONE_WORKER, checkpoint_every_s=0.0, grids=(GridSpec(fixed=LONG),))
    seen = tmp_path / "epochs"
    Dying = die_after(4, tmp_path / "died")

    class Counting(Dying):
        def __call__(self, so_far, snapshot, *, measured):
            with seen.open("a") as file:
                file.write(f"{so_far.epochs} ")
            super().__call__(so_far, snapshot, measured=measured)

    watch_trials_with(Counting, monkeypatch)
    (trial,), _ = trials_of(spec, periods, side, workspace)
    assert trial.error is None, trial
    assert seen.read_text().split() == ["1", "2", "3", "4", "5", "6"]
    assert (trial.status, trial.retries) == ("finished", 1)
    (point,) = planned_points(spec)
    undisturbed = run_trial(spec, point, train=periods[0], validation=periods[1], side=side)
    assert outcome(trial) == outcome(undisturbed)


@pytest.mark.slow
def test_a_search_goes_on_after_its_driver_and_repeats_no_finished_trial(
    ray_cluster, one_thread, periods, side, workspace, monkeypatch, tmp_path
):
    """The journal as a killed driver leaves it: one trial done, one midway, one never begun."""
    spec = replace(
        ONE_WORKER,
        checkpoint_every_s=0.0,
        grids=(GridSpec(fixed=LONG, grid={"l2": (0.03, 0.1, 0.3)}),),
    )
    registry, journal = begin(spec, workspace)
    whole = run_trials(spec, *periods, side, registry=registry, journal=journal)
    files = sorted((journal.folder / "trials").iterdir())
    journal.write(replace(whole[1], status="running", metrics={}, curve=()))
    registry.reopen_run(registry.child_runs(journal.run_id)["0"])  # it had not been logged yet
    files[2].unlink()
    shutil.rmtree(journal.folder / "tune-1" / "00002")
    (newest,) = sorted((journal.folder / "tune-1" / "00001").glob("checkpoint_*"))[-1:]
    (newest / "state.npz").write_bytes(b"half")  # what a lost node leaves
    before = files[0].stat().st_mtime_ns, files[0].read_bytes()

    ran = tmp_path / "ran"

    class Counting(trials_module._Checkpoints):
        def __call__(self, so_far, snapshot, *, measured):
            with ran.open("a") as file:
                file.write(f"{so_far.number}:{so_far.epochs} ")
            super().__call__(so_far, snapshot, measured=measured)

    watch_trials_with(Counting, monkeypatch)
    found = SearchJournal.unfinished(workspace.searches, "key")
    assert found == journal
    found.begin_again()
    again = run_trials(spec, *periods, side, registry=registry, journal=found)
    assert [outcome(t) for t in again] == [outcome(t) for t in whole]
    assert (files[0].stat().st_mtime_ns, files[0].read_bytes()) == before
    epochs = ran.read_text().split()
    assert not any(told.startswith("0:") for told in epochs)
    assert [told for told in epochs if told.startswith("1:")] == ["1:6"]
    assert [told for told in epochs if told.startswith("2:")] == [f"2:{n}" for n in range(1, 7)]
    runs = runs_below(registry, journal)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert len(runs) == 3


@pytest.mark.slow
def test_asha_stops_who_is_behind_and_counts_the_rungs_of_an_earlier_attempt(
    ray_cluster, periods, side, workspace
):
    """Rates from good to none at all, one trial at a time: the late ones are behind."""
    spec = SearchSpec(
        grids=(
            GridSpec(
                fixed=QUICK | {"num_factors": 4, "epochs": 8},
                grid={"learning_rate": (0.1, 0.2, 1e-6, 2e-6)},
            ),
        ),
        k=(5,),
        objective="ndcg@5",
        scheduler="asha",
        max_concurrent=1,
    )
    spec = replace(spec, asha=replace(spec.asha, reduction=2.0))
    registry, journal = begin(spec, workspace)
    trials = run_trials(spec, *periods, side, registry=registry, journal=journal)
    assert [t.status for t in trials[2:]] == ["stopped", "stopped"]
    assert trials[0].status == "finished"
    assert [epoch for epoch, _ in trials[0].curve] == [1, 2, 4, 8]
    assert all(t.epochs < 8 and t.metrics for t in trials[2:])

    (journal.folder / "trials" / "00003.json").unlink()
    journal.begin_again()
    again = run_trials(spec, *periods, side, registry=registry, journal=journal)
    assert again[3].status == "stopped"  # alone in a new scheduler it would have gone on
    assert again[:3] == trials[:3]


@pytest.mark.slow
def test_tpe_suggests_within_its_budget_and_goes_on(ray_cluster, periods, side, workspace):
    space = {"learning_rate": {"loguniform": [0.001, 0.5]}, "l2": {"uniform": [0.0, 0.3]}}
    spec = parse_spec(
        SearchSpec,
        {
            "searcher": "tpe",
            "budget": {"trials": 3},
            "max_concurrent": 1,
            "seeds": [0, 1],
            "grids": [{"fixed": QUICK | {"num_factors": 4}, "sample": space}],
            "k": [5],
            "objective": "ndcg@5",
        },
    )
    registry, journal = begin(spec, workspace)
    trials = run_trials(spec, *periods, side, registry=registry, journal=journal)
    assert [t.number for t in trials] == list(range(6))
    assert [t.seed for t in trials] == [0, 1] * 3
    assert len({t.settings["learning_rate"] for t in trials}) == 3
    last = journal.folder / "trials" / "00005.json"
    last.write_text(json.dumps(trials[5].to_dict() | {"status": "running"}))
    journal.begin_again()
    again = run_trials(spec, *periods, side, registry=registry, journal=journal)
    assert [outcome(t) for t in again] == [outcome(t) for t in trials]


@pytest.mark.slow
def test_a_population_takes_over_the_vectors_of_whoever_is_ahead(
    ray_cluster, periods, side, workspace
):
    spec = parse_spec(
        SearchSpec,
        {
            "searcher": "random",
            "scheduler": "pbt",
            "pbt": {"every_epochs": 2, "quantile": 0.5},
            "budget": {"trials": 4},
            "grids": [
                {
                    "fixed": QUICK | {"num_factors": 4, "epochs": 8},
                    "sample": {"learning_rate": {"loguniform": [1e-6, 0.5]}},
                }
            ],
            "k": [5],
            "objective": "ndcg@5",
        },
    )
    trials, _ = trials_of(spec, periods, side, workspace)
    assert [t.status for t in trials] == ["finished"] * 4
    planned = {p.number: p.searched["learning_rate"] for p in planned_points(spec)}
    moved = [t for t in trials if t.settings["learning_rate"] != planned[t.number]]
    assert moved  # somebody was behind
    assert all(1e-6 <= t.settings["learning_rate"] <= 0.5 for t in trials)
    assert all([epoch for epoch, _ in t.curve] == [2, 4, 6, 8] for t in trials)


@pytest.mark.slow
def test_a_model_that_two_workers_train_together_is_the_one_that_one_trains(
    ray_cluster, one_thread, periods, side, workspace
):
    grids = (
        GridSpec(family="als", fixed={"num_factors": 4, "epochs": 3}),
        GridSpec(fixed=QUICK | {"num_factors": 4, "device": "cpu"}),
    )
    spec = replace(SPEC, grids=grids, workers_per_trial=2)
    trials, _ = trials_of(spec, periods, side, workspace)
    assert [t.error for t in trials] == [None] * 2
    assert [t.cpus for t in trials] == [2.0] * 2
    for trial, point in zip(trials, planned_points(spec), strict=True):
        alone = run_trial(spec, point, train=periods[0], validation=periods[1], side=side)
        assert trial.losses == pytest.approx(alone.losses, rel=1e-4)
        assert trial.metrics["ndcg@5"] == pytest.approx(alone.metrics["ndcg@5"], abs=0.02)


@pytest.mark.slow
def test_the_budget_of_minutes_ends_trials_that_were_measured_or_not(
    ray_cluster, periods, side, workspace
):
    slow = GridSpec(fixed=QUICK | {"num_factors": 4, "epochs": 100_000})
    spec = SearchSpec(
        grids=(GridSpec(family="item_knn"), slow),
        k=(5,),
        objective="ndcg@5",
        budget=BudgetSpec(minutes=0.5),
    )
    trials, _ = trials_of(spec, periods, side, workspace)
    assert [t.status for t in trials] == ["finished", "failed"]
    assert "budget" in trials[1].error


def test_a_trial_that_no_node_holds_is_refused_before_anything_starts(
    ray_cluster, periods, side, workspace
):
    spec = replace(SPEC, gpus_per_trial=3.0)
    registry, journal = begin(spec, workspace)
    with pytest.raises(InputError, match="a trial asks for 1 CPU and 3 GPU on one node"):
        run_trials(spec, *periods, side, registry=registry, journal=journal)
    assert journal.trials() == []
