"""A whole search on Ray: tested, judged and registered, and resumed to the same end."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from perso.data.groups import UserGroups
from perso.data.prepared import PreparedData
from perso.distributed.tuning import run_search
from perso.errors import InputError, SearchError
from perso.models.bundle import load_bundle
from perso.models.item_knn import ItemKnnModel
from perso.models.side_data import SideData
from perso.online.live import LiveRecommender, Question
from perso.registry import Registry
from perso.stream.event_log import EventLog
from perso.tuning.gate import Verdict
from perso.tuning.grid import GridSpec
from perso.tuning.spec import SearchSpec
from perso.tuning.trial import measure
from perso.workspace import Workspace

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("registry")]


@pytest.fixture(scope="module")
def search_spec():
    return SearchSpec(
        name="small",
        grids=(GridSpec(fixed={"epochs": 6, "num_factors": 16}, grid={"l2": (0.1,)}),),
        k=(5, 20),
        max_concurrent=1,
    )


def test_a_search_ends_in_a_tested_version_and_only_a_better_one_becomes_champion(
    prepared, search_spec, workspace, monkeypatch
):
    registry = Registry(workspace)
    codes_U = np.arange(len(prepared.users), dtype=np.int32) % 2
    side = SideData(segments=UserGroups(names=("even", "odd"), codes_U=codes_U))
    result = run_search(search_spec, prepared, workspace, before_validation=side, before_test=side)
    assert result.verdict.promoted, result.verdict
    assert result.champion is None
    popularity = result.test_baseline.report
    assert result.tested.overall["ndcg@20"] > popularity.overall["ndcg@20"]
    assert set(result.tested.per_segment) == set(popularity.per_segment)
    champion = registry.champion()
    assert champion.version == result.version
    assert champion.metrics["ndcg@20"] == pytest.approx(result.tested.overall["ndcg@20"])
    assert champion.tags["data_key"] == prepared.key
    assert Verdict.from_json(champion.tags["gate"]) == result.verdict
    assert not list(workspace.bundles.iterdir())
    (report,) = workspace.searches.glob("*/report/*.html")
    assert "ndcg@20" in report.read_text()

    bundle = load_bundle(champion.folder, verify=True)
    assert bundle.manifest["metrics"]["model"] == result.tested.to_dict()
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
    assert again.to_dict() == result.tested.to_dict()
    everything = prepared.interactions("train", "validation", "test")
    assert len(everything) > len(known)
    for user in range(len(prepared.users)):  # also what was bought in the test period
        had = everything.item_indices[everything.user_indices == user]
        np.testing.assert_array_equal(bundle.seen.of(user), had)
    assert "segment" in bundle.popularity.slices

    run = registry._client.get_run(champion.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["popularity/ndcg_at_20"] == pytest.approx(popularity.overall["ndcg@20"])
    assert run.data.tags["popularity"] == result.test_baseline.kind
    assert run.data.tags["verdict"] == result.verdict.reason

    # The same model again: nobody can beat themselves.
    second = run_search(search_spec, prepared, workspace, before_validation=side, before_test=side)
    assert not second.verdict.promoted
    assert second.champion.version == result.version
    assert second.champion.report.overall == result.tested.overall
    assert registry.version(second.version).aliases == ("challenger",)
    assert registry.champion().version == result.version


def test_an_interrupted_search_is_resumed_to_the_same_end(prepared, search_spec, workspace):
    side = SideData()
    straight = run_search(search_spec, prepared, workspace, before_validation=side)
    with pytest.raises(InputError, match="no unfinished search"):
        run_search(search_spec, prepared, workspace, before_validation=side, resume=True)
    (folder,) = workspace.searches.iterdir()
    head = json.loads((folder / "search.json").read_text())
    (folder / "search.json").write_text(json.dumps(head | {"ended_at": None}))
    again = run_search(search_spec, prepared, workspace, before_validation=side, resume=True)
    assert again.trials == straight.trials
    assert again.version == straight.version  # it had been registered already
    assert len(Registry(workspace).versions()) == 1


@pytest.mark.slow
def test_the_best_family_is_registered_promoted_and_served(prepared, workspace, tmp_path):
    """The sgd has no time to learn: item k-NN wins by construction."""
    stuck = {"epochs": 1, "num_factors": 1, "learning_rate": 1e-6}
    spec = SearchSpec(
        grids=(GridSpec(fixed=stuck), GridSpec(family="item_knn")),
        k=(20,),
        max_concurrent=1,
    )
    result = run_search(spec, prepared, workspace)
    assert [trial.error for trial in result.trials] == [None, None]
    assert result.winner.settings == {"family": "item_knn"}
    assert result.verdict.promoted
    registry = Registry(workspace)
    champion = registry.champion()
    assert champion.version == result.version
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
        run_search(search_spec, PreparedData(tmp_path / "dataset"), Workspace(tmp_path / "unused"))
    assert not (tmp_path / "unused").exists()


@pytest.mark.slow
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
