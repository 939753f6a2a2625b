"""Fixtures that several folders share: one Ray, one small shop, one workspace per test."""

import shutil

import pytest

from perso.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "root")


@pytest.fixture(scope="session")
def ray_cluster():
    import ray

    from perso.distributed.cluster import connect

    connect()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def small_shop():
    """A shop small enough for seconds and large enough to have every kind of event."""
    from perso.data.synthetic import ShopSpec

    return ShopSpec(seed=7, num_users=300, num_items=120, num_days=60)


@pytest.fixture(scope="session")
def shop_workspace(tmp_path_factory):
    return Workspace.open(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def prepared(ray_cluster, shop_workspace, small_shop):
    from perso.data.interactions import PrepareSpec
    from perso.distributed.interactions import prepare

    return prepare(PrepareSpec(shop=small_shop, num_partitions=4), shop_workspace)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """MLflow's migrations take seconds; each test starts from a copy of their result."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}")
    return path


@pytest.fixture
def registry(workspace, empty_database, monkeypatch):
    """The registry of a test's own workspace."""
    from perso.registry import Registry

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace.mlflow.mkdir(parents=True)
    shutil.copy(empty_database, workspace.mlflow / "mlflow.db")
    return Registry(workspace)


@pytest.fixture(scope="session")
def moto_address():
    """AWS in this process, over HTTP; a test that counts on an empty one resets it."""
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
