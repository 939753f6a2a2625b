"""What a recommendation costs on top of an empty answer: same Serve, same client, one replica.

``python tests/benchmarks/bench_serving.py`` builds its own model, features and events, deploys
the service from ``serve_app/config.yaml`` and an empty FastAPI endpoint beside it, and asks both
in turn from another process: closed loop, keep-alive connections, one question outstanding on
each. Every round measures both, so that a loaded machine slows both; medians over rounds are
printed. The feature store and the event log are real and every tenth user is a stranger; with
``--strategies serve_app/strategies.yaml`` rules move the lists of all others.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

NUM_ITEMS, NUM_USERS, NUM_FACTORS = 20_000, 20_000, 64
NUM_ASKING = 500
"""Users in the benchmark's traffic, each with ten recent events."""
K = 20


def main() -> None:
    """Parse flags; run the benchmark or, in the other process, the client."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--strategies", type=Path, help="file of segment rules to serve with")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        run_client(args.client, args.rounds, args.seconds, args.concurrency)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), args)


def measure(folder: Path, args: argparse.Namespace) -> None:
    """Deploy both endpoints and let a client process ask them."""
    from perso.distributed.cluster import connect
    from perso.workspace import Workspace
    from serve_app import deploy as serving

    workspace = Workspace.open(folder / "root")
    build_model(workspace, folder / "bundle")
    build_features(workspace)
    build_events(workspace)
    connect()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fix_one_replica(serving)
    url = serving.deploy(workspace, host="127.0.0.1", port=port, strategies=args.strategies)
    deploy_noop()
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {NUM_ITEMS} items x "
        f"{NUM_FACTORS} factors, k {K}, 10 recent events a user, {args.rounds} rounds of "
        f"{args.seconds:g} s"
    )
    try:
        flags = ["--rounds", str(args.rounds), "--seconds", str(args.seconds)]
        flags += ["--concurrency", *map(str, args.concurrency)]
        subprocess.run([sys.executable, __file__, "--client", url, *flags], check=True)
        print_feature_reads(url)
    finally:
        serving.stop()


def print_feature_reads(url: str) -> None:
    """How the replica's reads of the feature store went, by its own count."""
    import httpx

    time.sleep(15)  # Ray's processes report every 10 s
    page = httpx.get(f"{url}/metrics", trust_env=False).text
    counted = re.findall(r'perso_feature_reads_total\{.*outcome="(\w+)".*\} ([\d.e+]+)', page)
    reads = {outcome: float(number) for outcome, number in counted}
    shares = [f"{outcome} {n / sum(reads.values()):.2%}" for outcome, n in sorted(reads.items())]
    print(f"\nreads of the feature store: {', '.join(shares)}")


def fix_one_replica(serving) -> None:
    """One replica, whatever the load: the benchmark is about a replica, not about scaling."""
    load_config = serving.load_config

    def load_fixed():
        config = load_config()
        for deployment in config.applications[0].deployments:
            if deployment.name == "Recommender":
                deployment.autoscaling_config = {"min_replicas": 1, "max_replicas": 1}
        return config

    serving.load_config = load_fixed


def deploy_noop() -> None:
    """The same stack without the work: proxy, replica, FastAPI, a JSON body in and out."""
    from ray import serve

    @serve.deployment(max_ongoing_requests=64)
    @serve.ingress()
    class Noop:
        def __serve_build_asgi_app__(self):
            from fastapi import FastAPI

            app = FastAPI()

            @app.post("/")
            async def nothing() -> dict[str, str]:
                return {}

            return app

    serve.run(
        Noop.bind(),
        name="noop",
        route_prefix="/noop",
        logging_config={"enable_access_log": False},
    )


def build_model(workspace, folder: Path) -> None:
    """A random model of the stated size, registered and promoted."""
    import pyarrow as pa

    from perso.data.vocabulary import Vocabulary
    from perso.models.bundle import save_bundle
    from perso.models.factors import FactorModel
    from perso.models.newton_encoder import NewtonEncoder
    from perso.models.popularity import PopularityModel
    from perso.models.related_items import RelatedItems
    from perso.models.request_features import RequestFeatures
    from perso.models.seen import SeenItems
    from perso.registry import Registry
    from perso.schema import CATALOG_SCHEMA

    rng = np.random.default_rng(2)
    items_ID = rng.normal(scale=0.1, size=(NUM_ITEMS, NUM_FACTORS)).astype(np.float32)
    popularity_I = np.sort(rng.pareto(1.0, NUM_ITEMS))[::-1].astype(np.float32)
    popularity_I /= popularity_I.sum()
    segments_SI = rng.dirichlet(np.ones(NUM_ITEMS), size=8).astype(np.float32)
    names = ("champions", "at_risk", "new", *(f"segment{n}" for n in range(5)))
    item_ids = [f"i{n}" for n in range(NUM_ITEMS)]
    save_bundle(
        folder,
        users=Vocabulary(pa.array([f"u{n}" for n in range(NUM_USERS)])),
        items=Vocabulary(pa.array(item_ids)),
        model=FactorModel(
            user_factors_UD=rng.normal(size=(NUM_USERS, NUM_FACTORS)).astype(np.float32),
            user_bias_U=np.zeros(NUM_USERS, np.float32),
            user_weight_U=np.full(NUM_USERS, 20.0, np.float32),
            item_factors_ID=items_ID,
            item_bias_I=np.log(popularity_I),
            global_bias=0.0,
            encoder=NewtonEncoder(
                loss="softmax",
                weight_unit=2.0,
                l2=1.0,
                center_D=items_ID.mean(axis=0),
                curvature_DD=np.cov(items_ID.T).astype(np.float32),
                recent_boost=10.0,
            ),
            request_features=RequestFeatures(num_factors=NUM_FACTORS),
        ),
        popularity=PopularityModel(
            global_scores_I=popularity_I, slices={"segment": (names, segments_SI)}
        ),
        catalog=pa.Table.from_pydict(
            {
                "item_id": item_ids,
                "title": [f"The item number {n}" for n in range(NUM_ITEMS)],
                "price": rng.uniform(1, 100, NUM_ITEMS),
                "currency": ["EUR"] * NUM_ITEMS,
                "categories": [[f"category {n % 50}"] for n in range(NUM_ITEMS)],
                "brand": [None] * NUM_ITEMS,
                "tags": [[]] * NUM_ITEMS,
                "in_stock": [True] * NUM_ITEMS,
            },
            CATALOG_SCHEMA,
        ),
        seen=SeenItems(
            indptr_U1=np.arange(NUM_USERS + 1, dtype=np.int64) * 20,
            item_indices=rng.integers(NUM_ITEMS, size=20 * NUM_USERS).astype(np.int32),
        ),
        bought_together=RelatedItems(
            item_indices_IN=rng.integers(NUM_ITEMS, size=(NUM_ITEMS, 20)).astype(np.int32),
            scores_IN=np.tile(np.linspace(1, 0.05, 20, dtype=np.float32), (NUM_ITEMS, 1)),
        ),
        data_key="bench",
        spec={},
        metrics={},
        trained_until=datetime.now(UTC) - timedelta(days=1),
        created_at=datetime.now(UTC),
    )
    registry = Registry(workspace)
    run_id = registry.open_run("bench")
    registry.close_run(run_id)
    registry.promote(registry.register(folder, run_id=run_id).version)


def build_features(workspace) -> None:
    """Segment, cluster, likes and recent events of every asking user, online."""
    import pyarrow as pa

    from perso.dictionary import VIEWS
    from perso.features.store import open_features

    as_of = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    of_view = {
        "user_rfm": {
            "recency_days": 3.0,
            "recency_score": 98,
            "frequency": 4,
            "frequency_quartile": 4,
            "monetary": 99.5,
            "monetary_tier": 3,
            "rfm_score": 90.0,
            "composite_score": 0.7,
            "score_dimensions": ["recency", "purchase_volume", "engagement_depth"],
            "score_contributions": [0.4, 0.2, 0.1],
        },
        "user_clusters": {
            "cluster": "c01",
            "cluster_label": "Frequent evening buyers",
            "cluster_membership": 0.9,
            "member_of": ["c01", "c02"],
            "memberships": [0.9, 0.1],
            "cluster_fit": "0123456789abcdef",
        },
        "user_affinities": {
            "top_categories": [f"category {n}" for n in range(5)],
            "top_categories_weights": [0.4, 0.2, 0.1, 0.1, 0.1],
            "top_brands": [],
            "top_brands_weights": [],
            "top_lifestyle_tags": [],
            "top_lifestyle_tags_weights": [],
            "engagement": 0.6,
            "engagement_level": "high",
        },
        "user_recent_events": {
            "last_event_at": as_of,
            "last_event_type": "view_item",
            "last_item_id": "i0",
            "recent_item_ids": [f"i{n}" for n in range(20)],
        },
    }
    segments = ("champions", "at_risk", "new")
    rows = {
        view: [
            {"user_id": f"u{n}", "event_timestamp": as_of, "created": as_of, **values}
            | ({"segment": segments[n % 3]} if view == "user_rfm" else {})
            for n in range(NUM_ASKING)
        ]
        for view, values in of_view.items()
    }
    features = open_features(workspace)
    features.apply()
    features.rows.write_rows(
        as_of,
        {view: pa.Table.from_pylist(of, VIEWS[view].schema) for view, of in rows.items()},
    )
    features.sync()


def build_events(workspace) -> None:
    """Ten events of the last hour for every asking user."""
    from perso.stream.event import Event
    from perso.stream.event_log import EventLog

    rng = np.random.default_rng(0)
    now = datetime.now(UTC)
    EventLog(workspace.event_log).append(
        [
            Event(
                event_id=f"{user}-{n}",
                event_type=("view_item", "view_item", "add_to_cart")[n % 3],
                user_id=f"u{user}",
                item_id=f"i{item}",
                timestamp=now - timedelta(minutes=6 * n),
            )
            for user in range(NUM_ASKING)
            for n, item in enumerate(rng.integers(NUM_ITEMS, size=10))
        ]
    )


def run_client(url: str, rounds: int, seconds: float, concurrency: list[int]) -> None:
    """Ask both endpoints in turn and print one table."""
    rng = np.random.default_rng(1)
    users = [
        f"u{n}" if rng.random() < 0.9 else f"stranger{n}"
        for n in rng.integers(NUM_ASKING, size=2000)
    ]
    bodies = {
        "noop": ("/noop/", [{"user_id": user, "k": K} for user in users]),
        "recommendations": ("/v1/recommendations", [{"user_id": user, "k": K} for user in users]),
    }
    host, port = url.removeprefix("http://").split(":")
    requests = {
        name: [_request(path, host, body) for body in questions]
        for name, (path, questions) in bodies.items()
    }
    for load in concurrency:
        results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in requests}
        for round_number in range(rounds + 1):
            for name, raw in requests.items():
                latencies = asyncio.run(_closed_loop(host, int(port), raw, load, seconds))
                if round_number:  # the first round only warms up
                    p50, p99 = np.percentile(latencies, [50, 99]) * 1000
                    results[name].append((len(latencies) / seconds, p50, p99))
        print(f"\n{load} at a time      requests/s   p50 ms   p99 ms")
        medians = {}
        for name, measured in results.items():
            medians[name] = [statistics.median(column) for column in zip(*measured, strict=True)]
            rate, p50, p99 = medians[name]
            print(f"{name:16} {rate:12.0f} {p50:8.2f} {p99:8.2f}")
        ratios = [
            mine / empty
            for mine, empty in zip(medians["recommendations"], medians["noop"], strict=True)
        ]
        print(f"{'ratio':16} {ratios[0]:12.2f} {ratios[1]:8.2f} {ratios[2]:8.2f}")


def _request(path: str, host: str, body: dict) -> bytes:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def _closed_loop(
    host: str, port: int, requests: list[bytes], load: int, seconds: float
) -> list[float]:
    """Latencies in seconds; any answer but 200 ends the benchmark."""
    latencies: list[float] = []
    deadline = time.perf_counter() + seconds
    questions = iter(requests * 1000)

    async def ask() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        while (started := time.perf_counter()) < deadline:
            writer.write(next(questions))
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"not answered: {head[:200]!r}")
            length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
            await reader.readexactly(int(length))
            latencies.append(time.perf_counter() - started)
        writer.close()

    await asyncio.gather(*(ask() for _ in range(load)))
    return latencies


if __name__ == "__main__":
    main()
