import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from perso.errors import FeatureStoreError
from perso.features.repository import declared_objects, repository_folder, settings
from perso.features.store import FEATURE_SERVICE, FEATURE_VIEW, open_features
from perso.schema import USER_RFM_SCHEMA

ARROW_TYPES = {
    "String": pa.string(),
    "Int64": pa.int64(),
    "Float32": pa.float32(),
    "Float64": pa.float64(),
}


@pytest.fixture
def declared(workspace):
    by_kind = {}
    for declared in declared_objects(workspace):
        by_kind.setdefault(type(declared).__name__, {})[declared.name] = declared
    return by_kind


def test_the_view_has_exactly_the_columns_of_the_schema(declared):
    view = declared["FeatureView"][FEATURE_VIEW]
    source = view.batch_source
    assert [column.name for column in view.entity_columns] == ["user_id"]
    assert (source.timestamp_field, source.created_timestamp_column) == (
        "event_timestamp",
        "created",
    )
    found = {field.name: ARROW_TYPES[str(field.dtype)] for field in view.schema}
    keys = {"event_timestamp", "created"}
    assert found == {f.name: f.type for f in USER_RFM_SCHEMA if f.name not in keys}


def test_both_services_carry_every_feature(declared):
    services = declared["FeatureService"]
    assert set(services) == {"user_segments_v1", FEATURE_SERVICE}
    features = {f.name for f in declared["FeatureView"][FEATURE_VIEW].features}
    for service in services.values():
        (projection,) = service.feature_view_projections
        assert {f.name for f in projection.features} == features


def test_everything_declared_says_what_it_is_and_whose(declared):
    for objects in declared.values():
        for name, declaration in objects.items():
            if name == "__dummy":  # Feast's own
                continue
            assert declaration.description, name
            assert declaration.owner == "perso", name
            assert declaration.tags, name
    for field in declared["FeatureView"][FEATURE_VIEW].schema:
        assert field.description, field.name


def test_rows_are_looked_for_below_the_workspace_root(declared, workspace):
    source = declared["FileSource"]["user_rfm_source"]
    assert source.path == f"{workspace.root}/features/user_rfm/*/*.parquet"


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


@pytest.mark.parametrize("content", [None, "a: [", "project: perso\nprovider: nowhere\n"])
def test_unusable_settings_are_one_sentence(content, workspace, tmp_path, monkeypatch):
    overlay = tmp_path / "overlay.yaml"
    if content is not None:
        overlay.write_text(content)
    monkeypatch.setenv("FEAST_FS_YAML_FILE_PATH", str(overlay))
    with pytest.raises(FeatureStoreError) as caught:
        open_features(workspace).apply()
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_plain_feast_command_line_works_in_the_folder(tmp_path, rfm_rows, day):
    """A checkout whose default root perso has filled: no variable set, no option given."""
    import shutil

    from perso.workspace import Workspace

    folder = tmp_path / "feature_repo"
    shutil.copytree(repository_folder(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    features = open_features(Workspace(tmp_path / ".perso"))
    features.apply()
    features.write_rfm(rfm_rows(day(3), ann="champions"))
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def feast(*arguments):
        command = [sys.executable, "-m", "feast.cli.cli", *arguments]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    assert FEATURE_VIEW in feast("feature-views", "list")
    feast("apply")
    feast("materialize", "2026-03-01T00:00:00", "2026-03-05T00:00:00", "-v", FEATURE_VIEW)
    assert features.read_online(["ann"])[0]["segment"] == "champions"
    online = feast("get-online-features", "-e", "user_id=ann", "-f", f"{FEATURE_VIEW}:segment")
    assert "champions" in online
    asked = '[{"user_id": "ann", "event_timestamp": "2026-03-04T00:00:00"}]'
    assert "champions" in feast(
        "get-historical-features", "-d", asked, "-f", f"{FEATURE_VIEW}:segment"
    )
