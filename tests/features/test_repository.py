"""Feast is told exactly what the dictionary says."""

import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from perso.dictionary import SERVICES, VIEWS
from perso.errors import FeatureStoreError
from perso.features.repository import declared_objects, repository_folder, settings
from perso.features.store import FEATURE_SERVICE, open_features
from perso.schema import TIMESTAMP
from perso.workspace import Workspace

ARROW_TYPES = {
    "String": pa.string(),
    "Int64": pa.int64(),
    "Float32": pa.float32(),
    "Float64": pa.float64(),
    "Bool": pa.bool_(),
    "UnixTimestamp": TIMESTAMP,
    "Array(String)": pa.list_(pa.string()),
    "Array(Float32)": pa.list_(pa.float32()),
}
CONTEXT = "recommender_context_v1"


@pytest.fixture
def declared(workspace):
    by_kind = {}
    for declared in declared_objects(workspace):
        by_kind.setdefault(type(declared).__name__, {})[declared.name] = declared
    return by_kind


def test_the_views_are_those_of_the_dictionary(declared):
    assert set(declared["FeatureView"]) == set(VIEWS)


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_the_dictionarys_to_the_last_field(name, declared, workspace):
    view, known = declared["FeatureView"][name], VIEWS[name]
    assert (view.description, view.owner) == (known.description, "perso")
    assert view.ttl == timedelta(days=known.ttl_days)
    assert view.online
    assert [column.name for column in view.entity_columns] == [known.entity]
    assert view.entities == [known.entity.removesuffix("_id")]
    assert view.tags["source"] == known.source
    assert (view.stream_source is not None) == (known.source == "push")
    source = view.batch_source
    assert source.path == f"{workspace.root}/features/rows/as_of=*/{name}/*.parquet"
    assert source.timestamp_field == "event_timestamp"
    assert source.created_timestamp_column == "created"
    fields = {field.name: field for field in view.features}
    assert set(fields) == set(known.feature_names)
    for feature in known.features:
        field = fields[feature.name]
        assert ARROW_TYPES[str(field.dtype)] == feature.type, feature.name
        assert field.tags == {
            "unit": feature.unit,
            "window": feature.window,
            "owner": feature.owner,
        }
        for words in (feature.description, feature.unit, feature.null or "Never null"):
            assert words in field.description, feature.name


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_gives_the_columns_of_the_dictionary(name, declared):
    service, known = declared["FeatureService"][name], SERVICES[name]
    assert (service.description, service.owner) == (known.description, "perso")
    assert service.tags["audience"] == known.audience
    assert name.endswith(f"_v{service.tags['version']}")
    given = {
        projection.name: {feature.name for feature in projection.features}
        for projection in service.feature_view_projections
    }
    assert given == {view.name: set(columns) for view, columns in known.views()}


def test_only_the_service_for_requests_is_not_in_the_dictionary(declared):
    assert set(declared["FeatureService"]) == {*SERVICES, CONTEXT}
    assert FEATURE_SERVICE in SERVICES
    views = [p.name for p in declared["FeatureService"][CONTEXT].feature_view_projections]
    assert views == ["user_recent_events", "user_event_age"]


def test_everything_declared_says_what_it_is_and_whose(declared):
    assert {"Entity", "FileSource", "PushSource", "Project", "OnDemandFeatureView"} <= set(declared)
    for kind, objects in declared.items():
        for name, declaration in objects.items():
            if name == "__dummy":  # Feast's own
                continue
            assert declaration.description, (kind, name)
            assert declaration.owner == "perso", (kind, name)
            assert declaration.tags, (kind, name)


def test_the_age_of_the_last_event_is_that_of_the_request(features, recent_rows, day):
    features.push_recent(recent_rows(day(1), ann="i1"))
    at = day(1) + timedelta(hours=1)
    feast = features.feast
    answer = feast.get_online_features(
        feast.get_feature_service(CONTEXT),
        [{"user_id": "ann", "asked_at": at}, {"user_id": "nobody", "asked_at": at}],
    ).to_dict()
    assert answer["last_event_age_s"] == [3600.0, None]
    assert answer["last_item_id"] == ["i1", None]


def test_reading_the_declarations_leaves_the_process_as_it_was(workspace, monkeypatch):
    monkeypatch.setenv("PERSO_ROOT", "/elsewhere")
    before = (Path.cwd(), list(sys.path), dict(os.environ))
    declared_objects(workspace)
    assert (Path.cwd(), list(sys.path), dict(os.environ)) == before
    assert not {"entities", "data_sources", "feature_views", "feature_repo"} & set(sys.modules)


def test_settings_name_files_below_the_root_only(workspace):
    found = settings(workspace)
    assert found["online_store"]["path"] == f"{workspace.root}/features/online.db"
    assert found["registry"]["path"] == f"sqlite:///{workspace.root}/features/registry.db"


def test_apply_again_changes_nothing_and_leaves_the_settings_for_plain_feast(features, workspace):
    def registered():
        feast = features.feast
        feast.refresh_registry()
        views = {view.name: len(view.features) for view in feast.list_feature_views()}
        return views, sorted(service.name for service in feast.list_feature_services())

    before = registered()
    features.apply()
    assert registered() == before
    left = yaml.safe_load((workspace.features / "feature_store.yaml").read_text())
    assert left == settings(workspace)


def test_an_overlay_replaces_the_settings_and_keeps_its_secrets_out_of_files(
    workspace, tmp_path, monkeypatch
):
    overlay = tmp_path / "overlay.yaml"
    text = (repository_folder() / "feature_store.yaml").read_text()
    overlay.write_text(text.replace("online.db", "${SECRET_NAME}.db"))
    monkeypatch.setenv("FEAST_FS_YAML_FILE_PATH", str(overlay))
    monkeypatch.setenv("SECRET_NAME", "hush")
    open_features(workspace).apply()
    assert (workspace.features / "hush.db").exists()
    assert not (workspace.features / "online.db").exists()
    assert "hush" not in (workspace.features / "feature_store.yaml").read_text()


@pytest.mark.parametrize("content", [None, "a: [", "- a", "project: perso\nprovider: nowhere\n"])
def test_unusable_settings_are_one_sentence(content, workspace, tmp_path, monkeypatch):
    overlay = tmp_path / "overlay.yaml"
    if content is not None:
        overlay.write_text(content)
    monkeypatch.setenv("FEAST_FS_YAML_FILE_PATH", str(overlay))
    with pytest.raises(FeatureStoreError) as caught:
        open_features(workspace).apply()
    assert "\n" not in str(caught.value)


def test_the_plain_feast_command_line_works_in_the_folder(tmp_path, make_all, day, monkeypatch):
    """A checkout whose default root perso has filled: no variable set, no option given."""
    monkeypatch.delenv("PERSO_FEATURE_STORE", raising=False)
    folder = tmp_path / "feature_repo"
    shutil.copytree(repository_folder(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    features = open_features(Workspace(tmp_path / ".perso"))
    features.apply()
    features.rows.write_rows(day(3), make_all(day(3), users=["ann"], segment="champions"))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
    }

    def feast(*arguments):
        command = [sys.executable, "-m", "feast.cli.cli", *arguments]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    feast("apply")
    features.sync()
    online = feast("get-online-features", "-e", "user_id=ann", "-f", "user_rfm:segment")
    assert "champions" in online
