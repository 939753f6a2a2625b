"""Online reads and loads of the feature store, beside the raw store and Feast's own ways.

Makes up customers, brings them online in SQLite and (where ``redis-server`` is installed) Redis,
and prints, for one customer's ``recommender_v1``: p50 and p99 of the raw store's own get (SQL by
key, HGETALL), of the thin reader that the service uses, and of Feast's ``get_online_features``, in
turns within one loop; what the thin reader adds to the raw get; and rows a second of ``sync`` and
of Feast's ``materialize`` for the same view. Run: ``python tests/benchmarks/bench_features.py
[--customers 20000] [--reads 3000]``.
"""

import argparse
import contextlib
import io
import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from perso.dictionary import RECOMMENDER_V1, USER_RFM, VIEWS, View
from perso.features.encoding import entity_keys
from perso.features.store import Features, open_features
from perso.workspace import Workspace

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
SERVICE = RECOMMENDER_V1.name


def made_up_rows(view: View, num_rows: int) -> pa.Table:
    """Rows of a view with values of every type, all different."""
    rng = np.random.default_rng(3)
    columns: dict[str, pa.Array] = {}
    for field in view.schema:
        kind = field.type
        if field.name == view.entity:
            columns[field.name] = pa.array([f"u{i:08d}" for i in range(num_rows)])
        elif pa.types.is_timestamp(kind):
            columns[field.name] = pa.array([AS_OF] * num_rows, kind)
        elif pa.types.is_list(kind):
            flat = (
                pa.array([f"t{i}" for i in rng.integers(0, 50, 5 * num_rows)])
                if pa.types.is_string(kind.value_type)
                else pa.array(rng.random(5 * num_rows), kind.value_type)
            )
            offsets = pa.array(np.arange(num_rows + 1, dtype=np.int32) * 5)
            columns[field.name] = pa.ListArray.from_arrays(offsets, flat)
        elif pa.types.is_string(kind):
            columns[field.name] = pa.array([f"v{i}" for i in rng.integers(0, 12, num_rows)])
        elif pa.types.is_boolean(kind):
            columns[field.name] = pa.array(rng.random(num_rows) < 0.5)
        else:
            columns[field.name] = pa.array(rng.random(num_rows) * 100).cast(kind, safe=False)
    return pa.table(columns).cast(view.schema)


@contextmanager
def redis_server() -> Iterator[int]:
    """A Redis of its own on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with tempfile.TemporaryDirectory() as place:
        process = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait()


def percentiles(reads: dict[str, Callable[[str], object]], users: list[str]) -> dict[str, tuple]:
    """p50 and p99 in milliseconds of each way, every user asked in all ways in turn."""
    taken: dict[str, list[float]] = {name: [] for name in reads}
    for user in users:
        for name, read in reads.items():
            started = time.perf_counter()
            read(user)
            taken[name].append(time.perf_counter() - started)
    return {name: tuple(1e3 * np.quantile(times, (0.5, 0.99))) for name, times in taken.items()}


def by_feast(features: Features) -> Callable[[str], object]:
    service = features.feast.get_feature_service(SERVICE)
    return lambda user: features.feast.get_online_features(service, {"user_id": [user]}).to_dict()


def sqlite_get(features: Features) -> Callable[[str], object]:
    """Every view of the service by primary key, no decoding."""
    connection = sqlite3.connect(features.feast.config.online_store.path)
    project = features.feast.config.project
    statements = [
        f'SELECT feature_name, value, event_ts FROM "{project}_{view}" WHERE entity_key = ?'
        for view, _ in RECOMMENDER_V1.columns
    ]

    def get(user: str) -> list[object]:
        (key,) = entity_keys("user_id", [user])
        return [connection.execute(statement, (key,)).fetchall() for statement in statements]

    return get


def redis_get(features: Features, port: int) -> Callable[[str], object]:
    """The whole hash of a customer, no decoding."""
    import redis

    client = redis.Redis(port=port)
    suffix = features.feast.config.project.encode()
    return lambda user: client.hgetall(entity_keys("user_id", [user])[0] + suffix)


def measure(name: str, raw: Callable[[Features], Callable[[str], object]], given) -> None:
    with tempfile.TemporaryDirectory() as place:
        workspace = Workspace.open(Path(place))
        features = open_features(workspace)
        features.apply()
        views = [view for view in VIEWS.values() if view.entity == "user_id"]
        features.rows.write_rows(AS_OF, {v.name: made_up_rows(v, given.customers) for v in views})
        report = features.sync()
        users = [
            f"u{i:08d}" for i in np.random.default_rng(1).integers(0, given.customers, given.reads)
        ]
        reads = {
            "raw get": raw(features),
            "thin reader": lambda user: features.read_online([user]),
            "Feast": by_feast(features),
        }
        for read in reads.values():
            for user in users[:50]:
                read(user)
        found = percentiles(reads, users)
        for way, (p50, p99) in found.items():
            print(f"{name}: {way}: p50 {p50:.3f} ms, p99 {p99:.3f} ms")
        added = found["thin reader"][0] - found["raw get"][0]
        print(f"{name}: the thin reader adds {added:.3f} ms to the raw get (p50)")
        print(f"{name}: sync: {report.rows_per_s:,.0f} rows/s, {len(report.num_rows)} views")
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            features.feast.materialize(
                AS_OF - timedelta(seconds=1), AS_OF + timedelta(seconds=1), [USER_RFM.name]
            )
        theirs = given.customers / (time.perf_counter() - started)
        print(f"{name}: Feast's materialize of {USER_RFM.name}: {theirs:,.0f} rows/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=20_000)
    parser.add_argument("--reads", type=int, default=3_000)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["PERSO_FEATURE_STORE"] = "local"
    measure("SQLite", sqlite_get, given)
    if shutil.which("redis-server") is None:
        print("Redis: redis-server is not installed, skipped")
        return
    with redis_server() as port:
        os.environ |= {"PERSO_FEATURE_STORE": "redis", "PERSO_REDIS": f"127.0.0.1:{port}"}
        measure("Redis", lambda features: redis_get(features, port), given)


if __name__ == "__main__":
    main()
