"""Preparation against DuckDB computing the same interactions from the same files.

Prints rows per second of both at each size, their ratio, the growth from the smallest to the
largest size, and the peak private memory of the driver and of the largest worker. Both read the
Parquet files of one synthetic shop, fold duplicate event ids, weight, decay and add up pairs per
split, number users and items and write Parquet; the weights are compared before a figure is
printed. Run: ``python tests/benchmarks/bench_prepare.py [--events 1e6 1e7]``.
"""

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import duckdb
import psutil
import pyarrow.parquet as pq

from perso.data.interactions import PrepareSpec
from perso.data.prepared import PreparedData
from perso.data.synthetic import ShopSpec, write_shop
from perso.distributed.cluster import connect
from perso.distributed.interactions import latest, prepare
from perso.schema import SPLITS
from perso.workspace import Workspace

EVENTS_PER_USER = 100
"""Of the default shop, roughly; the printed sizes are counted, not assumed."""


class MemoryWatch:
    """Peak private memory (bytes) of this process and of its largest child, while it runs."""

    def __enter__(self) -> "MemoryWatch":
        self.driver = self.worker = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.3):
            self.driver = max(self.driver, _private(me))
            workers = [p for p in me.children(recursive=True) if _is_worker(p)]
            self.worker = max([self.worker, *map(_private, workers)])


def _is_worker(process: psutil.Process) -> bool:
    try:
        return process.name().startswith("ray::")
    except psutil.Error:
        return False


def _private(process: psutil.Process) -> int:
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0
    return int(memory.rss - memory.shared)


def duckdb_prepare(events: Path, out: Path, data: PreparedData, threads: int) -> None:
    """The interactions of ``data``, by SQL; the cuts are given, finding them is cheap."""
    spec = data.manifest["spec"]
    ends = [data.split_end(split) for split in SPLITS]
    weight = " ".join(f"WHEN '{t}' THEN {w}" for t, w in spec["event_weights"].items())
    weight += " ".join(f" WHEN '{t}' THEN {w} * value" for t, w in spec["value_weights"].items())
    with duckdb.connect() as connection:
        connection.execute(f"SET threads = {threads}; SET TimeZone = 'UTC'")
        connection.execute(
            f"""
            CREATE TABLE pairs AS
            WITH once AS (
                SELECT event_id, user_id, item_id, event_type, value, device, region, timestamp
                FROM read_parquet('{events}/*.parquet')
                QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY timestamp) = 1
            ), weighted AS (
                SELECT *, CASE event_type {weight} ELSE 0 END AS weight,
                    CASE WHEN timestamp < '{ends[0]}' THEN 0
                         WHEN timestamp < '{ends[1]}' THEN 1 ELSE 2 END AS split
                FROM once
            )
            SELECT user_id, item_id, split,
                sum(weight * 0.5 ** (epoch(
                    CASE split WHEN 0 THEN TIMESTAMPTZ '{ends[0]}'
                               WHEN 1 THEN TIMESTAMPTZ '{ends[1]}'
                               ELSE TIMESTAMPTZ '{ends[2]}' END - timestamp
                ) / 86400 / {spec["half_life_days"]})) AS weight,
                last(value ORDER BY timestamp) FILTER (event_type = 'rate_item') AS rating,
                count(*) AS num_events, min(timestamp) AS first_at, max(timestamp) AS last_at,
                arg_max(device, timestamp) AS device, arg_max(region, timestamp) AS region
            FROM weighted WHERE weight > 0 AND user_id IS NOT NULL
            GROUP BY ALL
            """
        )
        connection.execute(
            f"""
            COPY (SELECT dense_rank() OVER (ORDER BY user_id) - 1 AS user_index,
                         dense_rank() OVER (ORDER BY item_id) - 1 AS item_index,
                         * EXCLUDE (user_id, item_id)
                  FROM pairs ORDER BY split, user_index, item_index)
            TO '{out}' (FORMAT parquet, COMPRESSION zstd)
            """
        )


def timed(function: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def assert_same_result(data: PreparedData, peer: Path) -> None:
    """Both sides hold the same pairs and weights."""
    other = pq.read_table(peer, columns=["split", "weight"]).to_pandas()
    for code, split in enumerate(SPLITS):
        ours = data.interactions(split)
        theirs = other[other["split"] == code]
        assert len(ours) == len(theirs), f"{split}: {len(ours)} pairs, DuckDB has {len(theirs)}"
        total = float(ours.weights.sum(dtype="float64"))
        assert abs(total / float(theirs["weight"].sum()) - 1) < 1e-4, f"{split}: weights differ"


@dataclass(frozen=True)
class Run:
    """What one preparation took, in a process of its own."""

    seconds: float
    driver_bytes: int
    worker_bytes: int
    threads: int


def prepare_alone(job: PrepareSpec, workspace: Workspace) -> Run:
    """Prepare in this process, which did nothing before; starting Ray is not counted."""
    import ray

    connect()
    with MemoryWatch() as memory:
        seconds = timed(lambda: prepare(job, workspace))
    threads = int(ray.cluster_resources()["CPU"])
    ray.shutdown()
    return Run(seconds, memory.driver, memory.worker, threads)


def main() -> None:
    """Print one line per size and the growth between the first and the last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=float, nargs="+", default=[1e6, 1e7])
    sizes = [int(n) for n in parser.parse_args().events]
    root = Path(tempfile.mkdtemp(prefix="perso-bench-"))
    seconds: dict[int, float] = {}
    try:
        for size in sizes:
            shop = root / f"shop-{size}"
            spec = ShopSpec(num_users=max(100, size // EVENTS_PER_USER), num_items=5_000)
            write_shop(spec, shop)
            rows = sum(pq.read_metadata(f).num_rows for f in (shop / "events").glob("*.parquet"))
            workspace = Workspace.open(root / f"workspace-{size}")
            job = PrepareSpec(source="events", path=str(shop / "events"))
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                run = process.submit(prepare_alone, job, workspace).result()
            data, peer = latest(workspace), root / f"duckdb-{size}.parquet"
            theirs = timed(partial(duckdb_prepare, shop / "events", peer, data, run.threads))
            assert_same_result(data, peer)
            seconds[rows] = run.seconds
            print(
                f"{rows:>11,} events: perso {rows / run.seconds:>9,.0f} rows/s, DuckDB "
                f"{rows / theirs:>10,.0f} rows/s on {run.threads} cores, time ratio "
                f"{run.seconds / theirs:.1f}; peak private memory: driver "
                f"{run.driver_bytes / 2**20:.0f} MiB, largest worker "
                f"{run.worker_bytes / 2**20:.0f} MiB",
                flush=True,
            )
        if len(seconds) > 1:
            few, many = min(seconds), max(seconds)
            growth = (seconds[many] / many) / (seconds[few] / few)
            print(f"seconds per event at {many:,} over those at {few:,}: {growth:.2f}")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
