"""Versions: kept once, never changed, and named by aliases."""

import json
import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from perso.errors import ArtifactError, InputError
from perso.registry import Registry
from perso.workspace import Workspace


def test_reading_an_unused_workspace_answers_none_and_creates_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    registry = Registry(Workspace(tmp_path / "root"))
    assert registry.champion() is None
    assert registry.versions() == []
    assert not (tmp_path / "root").exists()


def test_a_registered_version_is_no_champion_until_it_is_promoted(registry, register, tmp_path):
    version = register()
    assert version.aliases == ("challenger",)
    assert registry.champion() is None
    promoted = registry.promote(version.version)
    assert promoted.aliases == ("champion",)
    assert registry.champion() == promoted


def test_the_registry_keeps_its_own_copy_of_the_whole_bundle(registry, register, tmp_path):
    version = register()
    shutil.rmtree(tmp_path / "bundle")
    assert json.loads((version.folder / "manifest.json").read_text()) == {"format": "perso-bundle"}
    assert (version.folder / "factors" / "items.npy").read_bytes() == b"\x00\x01"


def test_a_folder_without_a_manifest_is_refused(registry, register, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        registry.register(tmp_path / "empty", run_id=registry.open_run("search"))


def test_versions_come_newest_first_with_tags_and_overall_metrics(registry, register, tmp_path):
    register(metrics={"ndcg@20": 0.25}, tags={"data_key": "abc"})
    register(metrics={"ndcg@20": 0.5})
    versions = registry.versions()
    assert [v.version for v in versions] == ["2", "1"]
    assert versions[1].metrics == {"ndcg@20": 0.25}
    assert versions[1].tags == {"data_key": "abc"}
    assert versions[1].folder.is_dir()


def test_what_is_told_of_a_version_later_replaces_what_stood_there(registry, register):
    version = register(tags={"gate": "yes", "data_key": "k"})
    registry.tag(version.version, {"gate": "no"})
    assert registry.version(version.version).tags == {"gate": "no", "data_key": "k"}
    with pytest.raises(InputError, match="no model version '9'"):
        registry.tag("9", {"gate": "no"})


def test_metric_names_survive_and_unmeasured_values_are_left_out(registry, register, tmp_path):
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


def test_another_registry_of_the_same_workspace_sees_the_champion(registry, register, tmp_path):
    registry.promote(register().version)
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


def test_a_registration_does_not_redirect_other_workspaces(registry, register, tmp_path):
    register()
    other = Registry(Workspace(tmp_path / "other"))
    assert str(tmp_path / "other") in other.tracking_uri
    assert other.champion() is None
