"""The search on Ray: the same trials as a plain loop, one run each, and a champion at the end."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from perso.data.groups import UserGroups
from perso.data.prepared import Interactions, PreparedData
from perso.distributed import trials as trials_module
from perso.distributed.trials import run_trials
from perso.distributed.tuning import run_search
from perso.errors import InputError, SearchError
from perso.models.bundle import load_bundle
from perso.models.item_knn import ItemKnnModel
from perso.models.side_data import SideData
from perso.online.live import LiveRecommender, Question
from perso.registry import Registry
from perso.stream.event_log import EventLog
from perso.tuning.spec import GridSpec, SearchSpec
from perso.tuning.trial import measure, run_trial
from perso.tuning.verdict import Verdict
from perso.workspace import Workspace

pytestmark = pytest.mark.ray

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


@pytest.fixture(scope="module")
def empty_root(tmp_path_factory):
    """A workspace whose MLflow database is made: that takes seconds, and tests copy it."""
    root = tmp_path_factory.mktemp("template")
    from mlflow import MlflowClient

    Workspace(root).mlflow.mkdir()
    MlflowClient(tracking_uri=f"sqlite:///{Workspace(root).mlflow / 'mlflow.db'}")
    return root


@pytest.fixture
def workspace(empty_root, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(empty_root, tmp_path / "root")
    return Workspace(tmp_path / "root")


def trials_of(spec, periods, side, workspace):
    registry = Registry(workspace)
    run_id = registry.open_run("search")
    trials = run_trials(
        spec,
        *periods,
        side,
        registry=registry,
        parent_run_id=run_id,
        storage=workspace.searches,
    )
    children = registry._client.search_runs(
        [registry._experiment_id], filter_string=f"tags.`mlflow.parentRunId` = '{run_id}'"
    )
    return trials, {child.info.run_name: child for child in children}


@pytest.fixture
def one_thread():
    """As a trial with one core has: how many threads add up a sum shows in its last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def outcome(trial):
    return replace(trial, train_s=0.0, evaluate_s=0.0)


def test_ray_runs_the_trials_that_a_plain_loop_runs(
    ray_cluster, one_thread, periods, side, workspace
):
    train, validation = periods
    by_ray, runs = trials_of(SPEC, periods, side, workspace)
    by_loop = [
        run_trial(SPEC, n, train=train, validation=validation, side=side)
        for n in range(len(SPEC.points()))
    ]
    assert [t.error for t in by_ray] == [None] * 6
    for ours, theirs in zip(by_ray, by_loop, strict=True):
        assert outcome(ours) == outcome(theirs)
    # Blind to categories and segments, the hybrid would be another model.
    assert by_ray[5].losses != run_trial(SPEC, 5, train=train, validation=validation).losses

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


def test_a_failing_trial_and_a_dying_worker_do_not_end_the_search(
    ray_cluster, periods, side, workspace, monkeypatch
):
    class DyingWorker(trials_module._TrialWorker):  # local, so Ray ships it by value
        def step(self):
            if self._number == 1:
                os._exit(1)
            return super().step()

    monkeypatch.setattr(trials_module, "_TrialWorker", DyingWorker)
    too_large = replace(
        SPEC, grids=(GridSpec(fixed=QUICK, grid={"num_factors": (10**13, 4, 6, 8)}),)
    )
    trials, runs = trials_of(too_large, periods, side, workspace)
    assert [t.error is None for t in trials] == [False, False, True, True]
    assert [t.number for t in trials] == [0, 1, 2, 3]
    assert {r.info.status for r in runs.values()} == {"FINISHED", "FAILED"}
    assert sum(r.info.status == "FAILED" for r in runs.values()) == 2
    assert all(r.data.tags["error"] for r in runs.values() if r.info.status == "FAILED")


@pytest.fixture(scope="module")
def search_spec():
    return SearchSpec(
        name="small",
        grids=(GridSpec(fixed={"epochs": 6, "num_factors": 16}, grid={"l2": (0.1,)}),),
        k=(5, 20),
    )


def test_a_search_ends_in_a_tested_version_and_only_a_better_one_becomes_champion(
    prepared, search_spec, workspace, monkeypatch
):
    registry = Registry(workspace)
    codes_U = np.arange(len(prepared.users), dtype=np.int32) % 2
    side = SideData(segments=UserGroups(names=("even", "odd"), codes_U=codes_U))
    result = run_search(search_spec, prepared, workspace, before_validation=side, before_test=side)
    assert result.promoted
    popularity = result.test_baseline.report
    assert result.test_model.overall["ndcg@20"] > popularity.overall["ndcg@20"]
    assert set(result.test_model.per_segment) == set(popularity.per_segment)
    assert registry.champion() == result.version
    assert result.version.metrics["ndcg@20"] == pytest.approx(result.test_model.overall["ndcg@20"])
    assert result.version.tags["data_key"] == prepared.key
    assert not list(workspace.bundles.iterdir())

    bundle = load_bundle(result.version.folder, verify=True)
    assert bundle.manifest["metrics"]["model"] == result.test_model.to_dict()
    assert bundle.manifest["metrics"]["popularity"]["kind"] == result.test_baseline.kind
    assert bundle.manifest["spec"]["search"]["name"] == "small"
    known = prepared.interactions("train", "validation")
    again = measure(
        bundle.model,
        search_spec,
        known=known,
        held_out=prepared.interactions("test"),
        side=replace(side, item_features=prepared.catalog()),
    )
    assert again.to_dict() == result.test_model.to_dict()
    everything = prepared.interactions("train", "validation", "test")
    assert len(everything) > len(known)
    for user in range(len(prepared.users)):  # also what was bought in the test period
        had = everything.item_indices[everything.user_indices == user]
        np.testing.assert_array_equal(bundle.seen.of(user), had)
    assert "segment" in bundle.popularity.slices

    run = registry._client.get_run(result.version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["popularity/ndcg_at_20"] == pytest.approx(popularity.overall["ndcg@20"])
    assert run.data.tags["popularity"] == result.test_baseline.kind
    assert run.data.tags["verdict"] == result.reason

    refusal = Verdict(promoted=False, reason="not better")
    monkeypatch.setattr("perso.distributed.tuning.judge", lambda *args, **metrics: refusal)
    second = run_search(search_spec, prepared, workspace)
    assert not second.promoted
    assert second.version.aliases == ()
    assert registry.champion() == result.version


def test_the_best_family_is_registered_promoted_and_served(prepared, workspace, tmp_path):
    """The sgd has no time to learn: item k-NN wins by construction."""
    stuck = {"epochs": 1, "num_factors": 1, "learning_rate": 1e-6}
    spec = SearchSpec(
        grids=(GridSpec(fixed=stuck), GridSpec(family="item_knn")),
        k=(20,),
    )
    result = run_search(spec, prepared, workspace)
    assert [trial.error for trial in result.trials] == [None, None]
    assert result.winner.settings == {"family": "item_knn"}
    assert result.promoted
    registry = Registry(workspace)
    champion = registry.champion()
    assert champion == result.version
    run = registry._client.get_run(champion.run_id)
    assert run.data.tags["winner"] == "item_knn"
    assert run.data.params["grids.1.family"] == "item_knn"

    live = LiveRecommender(EventLog(tmp_path / "log.sqlite"))
    live.load(champion.version, champion.folder)
    _, bundle = live.served()
    assert isinstance(bundle.model, ItemKnnModel)
    known = prepared.interactions("train", "validation").user_indices
    now = prepared.split_end("test")
    answer = live.recommend(Question(user_id=prepared.users.id_of(int(known[0])), k=10), now=now)
    assert (answer.rung, len(answer.items)) == ("personal", 10)
    best_seller = int(bundle.popularity.global_scores_I.argmax())
    alike = live.similar(prepared.items.id_of(best_seller), k=5)
    assert {item.source for item in alike.items} == {"similar"}


def test_an_empty_period_is_refused_before_anything_starts(prepared, search_spec, tmp_path):
    shutil.copytree(prepared.folder, tmp_path / "dataset")
    for file in (tmp_path / "dataset" / "interactions" / "test").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"the test period of dataset .* has no interactions"):
        run_search(search_spec, PreparedData(tmp_path / "dataset"), Workspace(tmp_path / "root"))
    assert not (tmp_path / "root").exists()


def test_a_search_in_which_every_trial_fails_says_why_and_closes_its_run(
    prepared, search_spec, workspace
):
    hopeless = replace(search_spec, grids=(GridSpec(fixed={"num_factors": 10**13}),))
    with pytest.raises(SearchError, match="none of 1 trials finished; the first: "):
        run_search(hopeless, prepared, workspace)
    registry = Registry(workspace)
    runs = registry._client.search_runs([registry._experiment_id])
    assert {run.info.status for run in runs} == {"FAILED"}
    assert registry.versions() == []
