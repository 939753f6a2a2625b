import json
import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from perso.errors import ArtifactError, InputError, NoChampionError
from perso.registry import Registry
from perso.workspace import Workspace


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """MLflow's migrations take seconds; each test starts from a copy of their result."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}")
    return path


@pytest.fixture
def registry(tmp_path, empty_database, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = Workspace(tmp_path / "root")
    workspace.mlflow.mkdir(parents=True)
    shutil.copy(empty_database, workspace.mlflow / "mlflow.db")
    return Registry(workspace)


def register(registry, tmp_path, *, metrics=None, tags=None):
    bundle = tmp_path / "bundle"
    (bundle / "factors").mkdir(parents=True, exist_ok=True)
    (bundle / "manifest.json").write_text(json.dumps({"format": "perso-bundle"}))
    (bundle / "factors" / "items.npy").write_bytes(b"\x00\x01")
    run_id = registry.open_run("search")
    registry.log_metrics(run_id, metrics or {})
    registry.close_run(run_id)
    return registry.register(bundle, run_id=run_id, tags=tags)


def test_reading_an_unused_workspace_answers_none_and_creates_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    registry = Registry(Workspace(tmp_path / "root"))
    assert registry.champion() is None
    assert registry.versions() == []
    assert not (tmp_path / "root").exists()


def test_a_registered_version_is_no_champion_until_it_is_promoted(registry, tmp_path):
    version = register(registry, tmp_path)
    assert registry.champion() is None
    promoted = registry.promote(version.version)
    assert promoted.aliases == ("champion",)
    assert registry.champion() == promoted


def test_the_registry_keeps_its_own_copy_of_the_whole_bundle(registry, tmp_path):
    version = register(registry, tmp_path)
    shutil.rmtree(tmp_path / "bundle")
    assert json.loads((version.folder / "manifest.json").read_text()) == {"format": "perso-bundle"}
    assert (version.folder / "factors" / "items.npy").read_bytes() == b"\x00\x01"


def test_a_folder_without_a_manifest_is_refused(registry, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        registry.register(tmp_path / "empty", run_id=registry.open_run("search"))


def test_promotion_moves_the_old_champion_to_previous_and_rollback_swaps_them(registry, tmp_path):
    first, second = register(registry, tmp_path), register(registry, tmp_path)
    registry.promote(first.version)
    registry.promote(second.version)
    aliases = {v.version: v.aliases for v in registry.versions()}
    assert aliases == {"2": ("champion",), "1": ("previous",)}
    assert registry.rollback().version == first.version
    assert registry.rollback().version == second.version


def test_promoting_the_champion_again_keeps_the_way_back(registry, tmp_path):
    first, second = register(registry, tmp_path), register(registry, tmp_path)
    registry.promote(first.version)
    registry.promote(second.version)
    registry.promote(second.version)
    assert registry.rollback().version == first.version


def test_rollback_without_a_previous_champion_is_an_error(registry, tmp_path):
    registry.promote(register(registry, tmp_path).version)
    with pytest.raises(NoChampionError, match="no previous champion"):
        registry.rollback()


def test_promoting_an_unknown_version_lists_the_known_ones(registry, tmp_path):
    register(registry, tmp_path)
    register(registry, tmp_path)
    with pytest.raises(InputError, match=r"'7'.*there are: 1, 2"):
        registry.promote("7")


def test_versions_come_newest_first_with_tags_and_overall_metrics(registry, tmp_path):
    register(registry, tmp_path, metrics={"ndcg@20": 0.25}, tags={"data_key": "abc"})
    register(registry, tmp_path, metrics={"ndcg@20": 0.5})
    versions = registry.versions()
    assert [v.version for v in versions] == ["2", "1"]
    assert versions[1].metrics == {"ndcg@20": 0.25}
    assert versions[1].tags == {"data_key": "abc"}
    assert versions[1].folder.is_dir()


def test_metric_names_survive_and_unmeasured_values_are_left_out(registry, tmp_path):
    run_id = registry.open_run("search", params={"l2": 0.1})
    registry.log_metrics(run_id, {"recall@10": 0.5, "rmse": float("nan")})
    registry.log_metrics(run_id, {"segment/(newcomers)/recall@10": 0.1})
    registry.log_metrics(run_id, {}, curves={"train/loss": [3.0, 2.0, 1.0]})
    recorded = registry._client.get_run(run_id).data
    assert recorded.params == {"l2": "0.1"}
    assert recorded.metrics == {
        "recall_at_10": 0.5,
        "segment/newcomers/recall_at_10": 0.1,
        "train/loss": 1.0,
    }
    steps = registry._client.get_metric_history(run_id, "train/loss")
    assert [(m.step, m.value) for m in steps] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    version = registry.register(tmp_path / "bundle", run_id=run_id)
    assert version.metrics == {"recall@10": 0.5}


def test_more_metrics_than_one_batch_holds_are_all_logged(registry):
    run_id = registry.open_run("search")
    registry.log_metrics(run_id, {}, curves={"loss": [float(i) for i in range(1005)]})
    assert registry._client.get_run(run_id).data.metrics == {"loss": 1004.0}


def test_a_child_run_stands_under_its_parent_and_ends_with_its_status(registry):
    parent = registry.open_run("search")
    child = registry.open_run("trial 0", parent_run_id=parent)
    registry.close_run(child, status="FAILED", tags={"error": "boom"})
    run = registry._client.get_run(child)
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["error"] == "boom"
    assert run.info.status == "FAILED"
    assert registry._client.get_run(parent).info.status == "RUNNING"


def test_another_registry_of_the_same_workspace_sees_the_champion(registry, tmp_path):
    registry.promote(register(registry, tmp_path).version)
    assert Registry(Workspace(tmp_path / "root")).champion() == registry.champion()


def test_importing_the_registry_does_not_import_mlflow():
    code = "import sys, perso.registry; sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def _open_first_run(root: str) -> str:
    return Registry(Workspace(Path(root))).open_run("search")


@pytest.mark.slow
def test_processes_that_create_the_database_at_once_wait_for_each_other(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        run_ids = pool.map(_open_first_run, [str(tmp_path / "root")] * 3)
    assert len(set(run_ids)) == 3


def test_a_registration_does_not_redirect_other_workspaces(registry, tmp_path):
    register(registry, tmp_path)
    other = Registry(Workspace(tmp_path / "other"))
    assert str(tmp_path / "other") in other.tracking_uri
    assert other.champion() is None
