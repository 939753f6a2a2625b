"""One variable chooses the store; every overlay is settings that Feast takes."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from perso.errors import FeatureStoreError
from perso.features.feast_import import import_feast
from perso.features.repository import (
    filled_settings,
    repository_folder,
    settings,
    settings_file,
)
from perso.features.store import open_features

OVERLAYS = {path.stem: path for path in (repository_folder() / "overlays").glob("*.yaml")}
CONFIG_CLASSES = {
    "bigtable": ("bigtable", "BigtableOnlineStoreConfig"),
    "cassandra": ("cassandra_online_store.cassandra_online_store", "CassandraOnlineStoreConfig"),
}
VALUES = {"PERSO_POSTGRES_PORT": "5432", "PERSO_POSTGRES_SSLMODE": "prefer"}


@pytest.fixture(autouse=True)
def no_store_is_chosen(monkeypatch):
    for variable in ("PERSO_FEATURE_STORE", "FEAST_FS_YAML_FILE_PATH"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def choose(monkeypatch):
    """Chooses a store and sets every variable that its overlay names."""

    def choose(name):
        monkeypatch.setenv("PERSO_FEATURE_STORE", name)
        for variable in variables(OVERLAYS[name]):
            monkeypatch.setenv(variable, VALUES.get(variable, "here"))

    return choose


def variables(path):
    return re.findall(r"\$\{(\w+)\}", path.read_text())


def test_there_is_an_overlay_for_each_store_that_is_promised():
    assert set(OVERLAYS) == {"redis", "postgres", "dynamodb", "bigtable", "cassandra"}


@pytest.mark.parametrize("name", ["local", ""])
def test_the_local_store_is_the_default(name, monkeypatch):
    assert settings_file().name == "feature_store.yaml"
    monkeypatch.setenv("PERSO_FEATURE_STORE", name)
    assert settings_file() == repository_folder() / "feature_store.yaml"


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_variable_chooses_the_overlay(name, choose, workspace):
    choose(name)
    assert settings_file() == OVERLAYS[name]
    found = filled_settings(workspace)
    assert found["online_store"]["type"] == name
    assert "${" not in str(found)
    assert str(workspace.root) in str(found) or name == "postgres"


def test_an_unknown_store_is_named_with_those_there_are(monkeypatch, workspace):
    monkeypatch.setenv("PERSO_FEATURE_STORE", "oracle")
    with pytest.raises(FeatureStoreError, match=r"'oracle'; set one of local, bigtable, cassandra"):
        open_features(workspace)


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_variable_that_is_not_set_is_named(name, choose, workspace, monkeypatch):
    choose(name)
    for missing in set(variables(OVERLAYS[name])):
        with monkeypatch.context() as patch:
            patch.delenv(missing)
            with pytest.raises(FeatureStoreError, match=rf"{name}.yaml needs {missing}, .*not set"):
                open_features(workspace)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_variable_is_explained_at_the_head_of_the_file(name):
    head = "".join(
        line for line in OVERLAYS[name].read_text().splitlines(True) if line.startswith("#")
    )
    assert set(variables(OVERLAYS[name])) <= set(re.findall(r"PERSO_\w+", head))


def test_a_file_that_feast_is_told_of_wins(monkeypatch, tmp_path, workspace):
    mine = tmp_path / "mine.yaml"
    mine.write_text("project: mine\nonline_store: {type: redis, hosts: ['${A}', '${B}']}\n")
    monkeypatch.setenv("PERSO_FEATURE_STORE", "redis")
    monkeypatch.setenv("FEAST_FS_YAML_FILE_PATH", str(mine))
    assert settings_file() == mine
    assert settings(workspace)["project"] == "mine"
    with pytest.raises(FeatureStoreError, match=r"mine\.yaml needs A, B, which is not set"):
        filled_settings(workspace)


def test_a_password_is_taken_as_it_is(choose, monkeypatch, workspace):
    choose("postgres")
    odd = "a: [b] # ${HOME} 'c' \"d\" \\e"
    monkeypatch.setenv("PERSO_POSTGRES_PASSWORD", odd)
    assert filled_settings(workspace)["online_store"]["password"] == odd


@pytest.mark.parametrize("name", sorted(set(OVERLAYS) - set(CONFIG_CLASSES)))
def test_feast_takes_the_settings(name, choose, workspace):
    choose(name)
    store = open_features(workspace).feast
    assert store.config.online_store.type == name
    assert store.config.offline_store.type == "duckdb"
    assert store.config.registry.serve_features_while_materializing


@pytest.mark.parametrize("name", CONFIG_CLASSES)
def test_feast_knows_every_setting_of_a_store_whose_driver_is_not_here(name, choose, workspace):
    """Read from the source of Feast's settings class: importing it needs the cloud's driver."""
    import_feast()
    import feast

    module, class_name = CONFIG_CLASSES[name]
    folder = Path(feast.__file__).parent / "infra" / "online_stores"
    tree = ast.parse((folder / f"{module.replace('.', '/')}.py").read_text())
    (found,) = (n for n in ast.walk(tree) if getattr(n, "name", None) == class_name)
    fields = {n.target.id for n in found.body if isinstance(n, ast.AnnAssign)}
    choose(name)
    given = filled_settings(workspace)["online_store"]
    assert set(given) <= fields
    driver = {"bigtable": "google.cloud.bigtable", "cassandra": "cassandra"}[name]
    try:
        is_here = importlib.util.find_spec(driver) is not None
    except ModuleNotFoundError:
        is_here = False
    if is_here:
        assert open_features(workspace).feast.config.online_store.type == name


def test_only_the_registry_and_the_online_store_differ_between_overlays():
    def rest(path):
        document = yaml.safe_load(path.read_text())
        del document["online_store"], document["registry"]["path"]
        return document

    local = rest(repository_folder() / "feature_store.yaml")
    for name, path in OVERLAYS.items():
        assert rest(path) == local, name
