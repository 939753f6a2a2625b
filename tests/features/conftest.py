import os
import shutil
import signal
import socket
import subprocess
import time
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from perso.dictionary import CREATED, EVENT_TIMESTAMP, VIEWS
from perso.features.store import open_features

POSTGRES = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture
def features(workspace, monkeypatch):
    """An applied local feature store with no rows."""
    monkeypatch.delenv("PERSO_FEATURE_STORE", raising=False)
    store = open_features(workspace)
    store.apply()
    return store


@pytest.fixture
def day():
    """The days of one month as aware instants."""
    return lambda number: datetime(2026, 3, number, tzinfo=UTC)


# ---------------------------------------------------------------------------------- rows


def default_value(feature, entity_id, as_of):
    """Depends on who and what, so a mix-up of customers or columns shows."""
    number = zlib.crc32(f"{entity_id} {feature.name}".encode()) % 1000
    if feature.null is not None and number % 4 == 0:
        return None
    kind = feature.type
    if pa.types.is_list(kind):
        words = [f"{feature.name}{place}" for place in range(number % 3)]
        return words if pa.types.is_string(kind.value_type) else [0.1 * len(w) for w in words]
    if pa.types.is_timestamp(kind):
        return as_of - timedelta(seconds=number)
    if pa.types.is_string(kind):
        return f"{feature.name} {number}"
    if pa.types.is_boolean(kind):
        return number % 2 == 0
    return number if pa.types.is_integer(kind) else number / 7


@pytest.fixture
def make_rows():
    """Rows of a view as of an instant: make_rows("user_rfm", at, ann={"segment": "new"})."""

    def make(view, as_of, *, created=None, **by_id):
        view = VIEWS[view]
        rows = [
            {
                view.entity: entity_id,
                EVENT_TIMESTAMP: as_of,
                CREATED: created or as_of,
                **{f.name: default_value(f, entity_id, as_of) for f in view.features},
                **given,
            }
            for entity_id, given in by_id.items()
        ]
        return pa.Table.from_pylist(rows, schema=view.schema)

    return make


@pytest.fixture
def make_all(make_rows):
    """Tables of all eight views: make_all(at, users=[...], items=[...], segment="new")."""

    def make(as_of, *, users, items=("i1",), created=None, segment=None):
        given = {} if segment is None else {"segment": segment, "cluster": segment}
        return {
            view.name: make_rows(
                view.name,
                as_of,
                created=created,
                **{
                    entity_id: {k: v for k, v in given.items() if k in view.feature_names}
                    for entity_id in (users if view.entity == "user_id" else items)
                },
            )
            for view in VIEWS.values()
        }

    return make


@pytest.fixture
def recent_rows(make_rows):
    """What the service pushes: recent_rows(at, ann="item", ...)."""

    def make(at, **items):
        given = {
            user: {"last_event_at": at, "last_event_type": "view", "last_item_id": item}
            for user, item in items.items()
        }
        return make_rows("user_recent_events", at, **given)

    return make


# ---------------------------------------------------------------------------------- servers


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, process=None):
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            ended = process is not None and process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory):
    """A Redis server of our own on a free port."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed (Debian: redis-server)")
    port = free_port()
    process = subprocess.Popen(
        [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        cwd=tmp_path_factory.mktemp("redis"),
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture(scope="session")
def postgres_port():
    """A PostgreSQL server of our own on a free port; it refuses to run as root."""
    if not (POSTGRES / "initdb").exists():
        pytest.skip("PostgreSQL 15 is not installed (Debian: postgresql-15)")
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    # Below /tmp: pytest's own folders are closed to other users.
    folder = subprocess.run(
        [*prefix, "mktemp", "-d", "/tmp/perso-postgres.XXXXXX"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    port = free_port()

    def run(*command):
        done = subprocess.run(
            [*prefix, *command], cwd="/tmp", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    try:
        data = f"{folder}/data"
        run(
            f"{POSTGRES}/initdb",
            "-D",
            data,
            "-U",
            "perso",
            "--auth=trust",
            "--no-sync",
            "-E",
            "UTF8",
        )
        options = (
            f"-F -p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} "
            "-c max_connections=200"
        )
        log = f"{folder}/log"
        run(f"{POSTGRES}/pg_ctl", "-D", data, "-w", "-s", "-l", log, "-o", options, "start")
        pid = int(Path(data, "postmaster.pid").read_text().split()[0])
        try:
            yield port
        finally:
            os.kill(pid, signal.SIGQUIT)
            deadline = time.monotonic() + 20
            while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def use_store(request, monkeypatch):
    """Sets the variables of a store, emptied: use_store("redis")."""

    def use(name):
        monkeypatch.setenv("PERSO_FEATURE_STORE", name)
        if name == "redis":
            port = request.getfixturevalue("redis_port")
            import redis

            redis.Redis(port=port).flushall()
            monkeypatch.setenv("PERSO_REDIS", f"127.0.0.1:{port}")
        elif name == "postgres":
            import psycopg

            port = request.getfixturevalue("postgres_port")
            database = f"perso_{time.monotonic_ns()}"
            address = f"host=127.0.0.1 port={port} user=perso dbname=postgres"
            with psycopg.connect(address, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {database}")
            for variable, value in {
                "HOST": "127.0.0.1",
                "PORT": str(port),
                "DATABASE": database,
                "USER": "perso",
                "PASSWORD": "secret",
                "SSLMODE": "prefer",
            }.items():
                monkeypatch.setenv(f"PERSO_POSTGRES_{variable}", value)
        return name

    return use


@pytest.fixture(params=["local", "redis", "postgres"])
def store_name(request, use_store):
    """Each store in turn, real and empty."""
    return use_store(request.param)


@pytest.fixture
def any_features(store_name, workspace):
    """An applied feature store with no rows, over each store in turn."""
    store = open_features(workspace)
    store.apply()
    yield store
    pool = getattr(store.feast._get_provider().online_store, "_conn_pool", None)
    if pool is not None:
        pool.close(timeout=1)
