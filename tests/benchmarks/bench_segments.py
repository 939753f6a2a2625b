"""Segmentation beside DuckDB, growth with the number of events, and stability on a real shop.

``speed`` makes up the events of a shop, segments them, and lets DuckDB compute the measures that
both know (recency, orders, spend, visits, dayparts, device, carts left behind, top categories and
their entropy) from the same files; the numbers are compared before a figure is printed. perso
also scores, clusters, writes every view and sums up. ``stability`` reads the summaries of a
workspace that ``perso segments run --step 1w`` has filled. Run:
``python tests/benchmarks/bench_segments.py speed --events 1e6 1e7``, or ``… stability --root DIR``.
"""

import argparse
import itertools
import logging
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench_prepare import MemoryWatch

from perso.distributed.cluster import connect
from perso.distributed.segments import segment_customers
from perso.features.rows import FeatureRows
from perso.schema import CATALOG_SCHEMA, EVENT_SCHEMA
from perso.segments.spec import SegmentSpec
from perso.segments.standing import last_standing, read_summaries
from perso.workspace import Workspace

END = datetime(2026, 3, 1, tzinfo=UTC)
EVENTS_PER_CUSTOMER = 10
NUM_ITEMS = 5_000
NUM_CATEGORIES = 40
DAYS = 364
TYPES = ("view_item", "add_to_cart", "purchase")


class MadeUpData:
    """As much of a prepared dataset as segmentation reads."""

    def __init__(self, folder: Path, num_events: int) -> None:
        self.folder = folder
        self.key = folder.name
        (folder / "events").mkdir(parents=True)
        rng = np.random.default_rng(1)
        cards = [
            {"item_id": f"i{i:05d}", "categories": [f"c{i % NUM_CATEGORIES:02d}"]}
            for i in range(NUM_ITEMS)
        ]
        catalog = pa.Table.from_pylist(cards, schema=CATALOG_SCHEMA)
        pq.write_table(catalog, folder / "catalog.parquet")
        num_customers = num_events // EVENTS_PER_CUSTOMER
        num_files = max(4, num_events // 150_000)
        bounds = np.linspace(0, num_customers, num_files + 1).astype(int)
        for part, (first, last) in enumerate(itertools.pairwise(bounds)):
            events = _events(rng, first, last)
            pq.write_table(events, folder / "events" / f"part-{part:05d}.parquet")
        self.event_files = sorted((folder / "events").glob("*.parquet"))
        self.num_events = sum(pq.read_metadata(file).num_rows for file in self.event_files)
        self.num_customers = num_customers


def _events(rng: np.random.Generator, first: int, last: int) -> pa.Table:
    """Customers come in bursts; each burst is a visit of views, some carts, some purchases."""
    num_events = (last - first) * EVENTS_PER_CUSTOMER
    user = np.repeat(np.arange(first, last), EVENTS_PER_CUSTOMER)
    visit_day = rng.integers(0, DAYS, (last - first, 3))
    day = visit_day[user - first, rng.integers(0, 3, num_events)]
    at_us = int(END.timestamp() * 1e6) - (day + 1) * 86_400_000_000
    at_us = at_us + rng.integers(0, 7_200, num_events) * 1_000_000 + (user % 4) * 21_600_000_000
    kind = rng.choice(3, num_events, p=[0.75, 0.15, 0.1])
    price = rng.integers(2, 80, num_events).astype(float)
    columns = {field.name: pa.nulls(num_events, field.type) for field in EVENT_SCHEMA}
    columns |= {
        "event_id": pa.array(np.arange(num_events)).cast(pa.string()),
        "event_type": pa.array(TYPES).take(pa.array(kind)),
        "user_id": pa.array([f"u{i:08d}" for i in range(first, last)]).take(pa.array(user - first)),
        "item_id": pa.array([f"i{i:05d}" for i in range(NUM_ITEMS)]).take(
            pa.array((NUM_ITEMS * rng.random(num_events) ** 2).astype(int))
        ),
        "timestamp": pa.array(at_us).cast(EVENT_SCHEMA.field("timestamp").type),
        "value": pa.array(price, mask=kind != 2),
        "quantity": pa.array(np.ones(num_events, np.int64)),
        "device": pa.array(["desktop", "mobile"]).take(pa.array(rng.integers(0, 2, num_events))),
        "price": pa.array(price),
    }
    order = np.lexsort((at_us, user))
    return pa.table(columns).cast(EVENT_SCHEMA).take(pa.array(order))


def duckdb_measures(data: MadeUpData, out: Path, threads: int, *, window_days: int) -> None:
    """The measures of every customer by SQL, to one Parquet file."""
    start = END - timedelta(days=window_days)
    half_year = END - timedelta(days=182)
    dayparts = ", ".join(
        f"avg((hour(timestamp) // 6 = {code})::INT) AS {name}_share"
        for code, name in enumerate(("night", "morning", "afternoon", "evening"))
    )
    with duckdb.connect() as connection:
        connection.execute(f"SET threads = {threads}; SET TimeZone = 'UTC'")
        connection.execute(
            f"""
            CREATE VIEW events AS SELECT * FROM read_parquet('{data.folder}/events/*.parquet')
                WHERE timestamp < '{END}';
            CREATE VIEW recent AS SELECT * FROM events WHERE timestamp >= '{start}';
            CREATE TABLE lifetime AS
                SELECT user_id,
                    epoch('{END}'::TIMESTAMPTZ - max(timestamp)
                        FILTER (event_type = 'purchase')) / 86400 AS recency_days,
                    count(DISTINCT date_trunc('minute', timestamp)) FILTER (
                        event_type = 'purchase' AND timestamp >= '{half_year}') AS frequency,
                    coalesce(sum(value) FILTER (event_type = 'purchase'), 0) AS monetary,
                    arg_max(item_id, timestamp) AS last_item_id
                FROM events GROUP BY user_id;
            CREATE TABLE habits AS
                SELECT user_id, count(*) AS num_events,
                    sum(begins::INT) AS num_sessions,
                    count(*) FILTER (event_type = 'view_item') AS num_views,
                    count(DISTINCT date_trunc('minute', timestamp)) FILTER (
                        event_type = 'purchase') AS num_orders,
                    coalesce(sum(value) FILTER (event_type = 'purchase'), 0) AS spend,
                    avg((device = 'mobile')::INT) AS mobile_share, mode(device) AS device,
                    {dayparts}
                FROM (SELECT *, coalesce(timestamp - lag(timestamp) OVER (
                        PARTITION BY user_id ORDER BY timestamp) > INTERVAL 30 MINUTE, true)
                        AS begins FROM recent)
                GROUP BY user_id;
            CREATE TABLE carts AS
                SELECT user_id, avg((NOT bought)::INT) AS cart_abandonment_rate FROM (
                    SELECT user_id, item_id, bool_or(event_type = 'purchase') AS bought
                    FROM recent GROUP BY ALL HAVING bool_or(event_type = 'add_to_cart'))
                GROUP BY user_id;
            CREATE TABLE tastes AS
                SELECT user_id, category, sum(CASE event_type WHEN 'view_item' THEN 1
                    WHEN 'add_to_cart' THEN 3 ELSE 5 END) AS weight
                FROM recent JOIN (SELECT item_id, unnest(categories) AS category
                    FROM read_parquet('{data.folder}/catalog.parquet')) USING (item_id)
                GROUP BY ALL;
            CREATE TABLE interests AS
                SELECT user_id, list(category ORDER BY weight DESC, category)[:5] AS top_categories,
                    log2(sum(weight)) - sum(weight * log2(weight)) / sum(weight)
                        AS category_entropy
                FROM tastes GROUP BY user_id;
            COPY (SELECT * FROM lifetime LEFT JOIN habits USING (user_id)
                LEFT JOIN carts USING (user_id) LEFT JOIN interests USING (user_id)
                ORDER BY user_id) TO '{out}' (FORMAT parquet)
            """
        )


class MeasuringTime(logging.Handler):
    """Seconds of the pass over the events, as the library logs them."""

    seconds = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if "event files measured" in record.msg:
            self.seconds = record.args[-1]


def compare(rows: FeatureRows, peer: Path) -> float:
    """The largest relative difference of the measures that both computed."""
    theirs = pq.read_table(peer)
    worst = 0.0
    for view, names in {
        "user_activity": ("num_events", "num_sessions", "num_orders", "spend", "mobile_share",
                          "evening_share", "cart_abandonment_rate", "category_entropy"),
        "user_rfm": ("recency_days", "frequency", "monetary"),
    }.items():  # fmt: skip
        ours = rows.read_rows(view, END, columns=["user_id", *names]).sort_by("user_id")
        assert ours["user_id"].equals(theirs["user_id"].cast(pa.string()))
        for name in names:
            a, b = (np.nan_to_num(t[name].cast(pa.float64()).to_numpy()) for t in (ours, theirs))
            worst = max(worst, float(np.max(np.abs(a - b) / np.maximum(np.abs(b), 1.0))))
    return worst


def speed(sizes: list[int], threads: int) -> None:
    connect()
    spec = SegmentSpec()
    measuring = MeasuringTime()
    logging.getLogger("perso.segments.history").addHandler(measuring)
    before: tuple[int, float] | None = None
    for size in sizes:
        with tempfile.TemporaryDirectory() as place:
            data = MadeUpData(Path(place) / "data", size)
            workspace = Workspace.open(Path(place) / "root")
            with MemoryWatch() as memory:
                started = time.perf_counter()
                segment_customers(data, workspace, as_ofs=[END], spec=spec)  # type: ignore[arg-type]
                ours_s = time.perf_counter() - started
            peer = Path(place) / "peer.parquet"
            with MemoryWatch() as theirs:
                started = time.perf_counter()
                duckdb_measures(data, peer, threads, window_days=7 * spec.measures.window_weeks)
                peer_s = time.perf_counter() - started
            worst = compare(FeatureRows(workspace), peer)
        growth = (
            ""
            if before is None
            else (f", x{data.num_events / before[0]:.1f} events take x{ours_s / before[1]:.1f}")
        )
        print(
            f"{data.num_events} events, {data.num_customers} customers: perso {ours_s:.1f} s "
            f"({data.num_events / ours_s:,.0f} events/s), of it {measuring.seconds:.1f} s "
            f"measures; DuckDB {peer_s:.1f} s (measures only), ratio of measures "
            f"{measuring.seconds / peer_s:.2f}, of all {ours_s / peer_s:.2f}{growth}; MiB: driver "
            f"{memory.driver >> 20}, largest worker {memory.worker >> 20}, DuckDB in the driver "
            f"{theirs.driver >> 20}; largest relative difference {worst:.1e}"
        )
        before = data.num_events, ours_s


def stability(root: Path) -> None:
    weeks = read_summaries(Workspace.open(root).segments)
    for name in ("segment", "cluster"):
        moves = [getattr(week, f"{name}_migration") for week in weeks]
        for figure in ("adjusted_rand", "share_kept"):
            values = [v for m in moves if m is not None and (v := getattr(m, figure)) is not None]
            if values:
                low, middle, high = np.quantile(values, [0.0, 0.5, 1.0])
                print(
                    f"{name}: {figure} from week to week, {len(values)} pairs: "
                    f"median {middle:.3f}, from {low:.3f} to {high:.3f}"
                )
    standing = last_standing(Workspace.open(root).segments)
    if standing is not None and standing.clusters is not None:
        scores = {name: round(value, 3) for name, value in standing.clusters.scores.items()}
        print(f"newest clusters: {standing.clusters.algorithm}, {scores} (stability: bootstraps)")
    for week in weeks:
        for alert in week.alerts:
            print(f"{week.as_of:%Y-%m-%d}: {alert.sentence}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command")
    fast = commands.add_parser("speed")
    fast.add_argument("--events", type=float, nargs="+", default=[1e6, 1e7])
    fast.add_argument("--threads", type=int, default=2)
    commands.add_parser("stability").add_argument("--root", type=Path, required=True)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if given.command == "stability":
        stability(given.root)
    elif given.command == "speed":
        speed([int(size) for size in given.events], given.threads)
    else:
        speed([100_000, 1_000_000], threads=2)


if __name__ == "__main__":
    main()
