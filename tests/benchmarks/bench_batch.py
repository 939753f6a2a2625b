"""Everybody's lists: the courier on Ray against one process that only multiplies and selects.

    python tests/benchmarks/bench_batch.py [--users 200000] [--items 20000] [--cpus 2] [--rounds 2]

All sides have the same made-up bundle (random vectors, 27 seen items a user) on the same machine in
one run; sides take turns in every round, and the best round of each counts, in wall seconds and in
CPU seconds of all processes. The first side is :func:`perso.models.top_k.top_k_factors` on one
thread, which writes nothing; the courier opens the bundle, makes tables and writes Parquet beside.
implicit's ``recommend`` joins in where it is installed. The service's own path, one question a
user, and lists under a rule for everybody are measured on a sample, on one thread. Before a figure
is printed the written lists are compared with the first side's.
"""

import argparse
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.dataset as ds
from threadpoolctl import threadpool_limits

from perso.data.groups import UserGroups
from perso.data.vocabulary import Vocabulary
from perso.models.bundle import Bundle, load_bundle, save_bundle
from perso.models.factors import FactorModel
from perso.models.popularity import PopularityModel
from perso.models.related_items import RelatedItems
from perso.models.request_features import RequestFeatures
from perso.models.seen import SeenItems
from perso.models.sum_encoder import SumEncoder
from perso.models.top_k import top_k_factors
from perso.online.audience import Audience
from perso.online.batch import BatchRecommender
from perso.online.list_folder import ListPlan
from perso.online.ranking import Query, Ranker
from perso.online.strategies import StrategyRule, StrategySpec
from perso.schema import CATALOG_SCHEMA

VERSION = "1"
SAMPLE = 2000
EVERYBODY = StrategySpec(
    rules=(
        StrategyRule(
            name="premium",
            segments=("loyal", "new"),
            price="higher",
            price_quantile=0.8,
            boost=0.5,
        ),
    )
)


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--part-size", type=int, default=25_000)
    parser.add_argument("--cpus", type=int, default=os.cpu_count(), help="Ray's worker processes")
    parser.add_argument("--rounds", type=int, default=2)
    return parser.parse_args()


@dataclass(frozen=True)
class Cost:
    """The best of several rounds."""

    wall_s: float
    cpu_s: float


def cpu_seconds() -> float:
    """Of this process and all below it: Ray's workers are among them."""
    total = 0.0
    for process in (own := psutil.Process(), *own.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def measure(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, Cost]:
    """Each side's cost; a first round only warms up."""
    found = {name: Cost(np.inf, np.inf) for name in sides}
    for number in range(rounds + 1):
        for name, run in sides.items():
            cpu, wall = cpu_seconds(), time.perf_counter()
            run()
            cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
            if number:
                best = found[name]
                found[name] = Cost(min(best.wall_s, wall), min(best.cpu_s, cpu))
    return found


def made_up_bundle(flags: argparse.Namespace, folder: Path) -> Bundle:
    """Random vectors; 27 seen items a user."""
    rng = np.random.default_rng(0)
    num_users, num_items, num_factors = flags.users, flags.items, flags.factors
    items_ID = rng.normal(size=(num_items, num_factors)).astype(np.float32)
    item_ids = [f"item-{n:07d}" for n in range(num_items)]
    seen_U27 = np.sort(rng.integers(num_items, size=(num_users, 27), dtype=np.int32), axis=1)
    demand_I = rng.random(num_items).astype(np.float32)
    save_bundle(
        folder,
        users=Vocabulary(pa.array([f"customer-{n:08d}" for n in range(num_users)])),
        items=Vocabulary(pa.array(item_ids)),
        model=FactorModel(
            user_factors_UD=rng.normal(size=(num_users, num_factors)).astype(np.float32),
            user_bias_U=np.zeros(num_users, np.float32),
            user_weight_U=np.ones(num_users, np.float32),
            item_factors_ID=items_ID,
            item_bias_I=np.zeros(num_items, np.float32),
            global_bias=0.0,
            encoder=SumEncoder(
                input_ID=items_ID, weight_unit=1.0, weight_exponent=1.0, recent_boost=1.0
            ),
            request_features=RequestFeatures(num_factors=num_factors),
        ),
        popularity=PopularityModel(global_scores_I=demand_I, slices={}),
        catalog=pa.Table.from_pylist(
            [{"item_id": item_id, "price": float(n)} for n, item_id in enumerate(item_ids)],
            CATALOG_SCHEMA,
        ),
        seen=SeenItems(indptr_U1=np.arange(num_users + 1) * 27, item_indices=seen_U27.reshape(-1)),
        bought_together=RelatedItems(
            item_indices_IN=np.full((num_items, 1), -1, np.int32),
            scores_IN=np.zeros((num_items, 1), np.float32),
        ),
        data_key="made-up",
        spec={},
        metrics={},
        trained_until=datetime(2026, 1, 1, tzinfo=UTC),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return load_bundle(folder)


def bench(flags: argparse.Namespace, folder: Path) -> None:
    import ray

    from perso.distributed.batch import write_lists

    ray.init(num_cpus=flags.cpus, include_dashboard=False, log_to_driver=False)
    bundle = made_up_bundle(flags, folder / "bundle")
    segments = UserGroups.from_names([("loyal", "new")[n % 2] for n in range(flags.users)])
    audience = Audience.of(np.arange(flags.users), segments=segments)
    plan = ListPlan(
        model_version=VERSION,
        data_key="made-up",
        trained_at=bundle.manifest["created_at"],
        k=flags.k,
        num_users=flags.users,
        part_size=flags.part_size,
        audience=audience.fingerprint(),
    )
    out, lists, manifests = folder / "lists", {}, []

    def loop() -> None:
        lists["loop"], _ = top_k_factors(
            bundle.model.user_factors_UD,
            bundle.model.item_factors_ID,
            bundle.model.item_bias_I,
            flags.k,
            seen_indptr=bundle.seen.indptr_U1,
            seen_indices=bundle.seen.item_indices,
        )

    def courier() -> None:
        written = write_lists(
            plan, audience, bundle_folder=folder / "bundle", out=str(out), overwrite=True
        )
        manifests.append(written)

    sides: dict[str, Callable[[], object]] = {"loop": loop, "courier": courier}
    if importlib.util.find_spec("implicit"):
        sides["implicit"] = implicit_side(bundle, flags)
    costs = measure(sides, flags.rounds)
    check(out, bundle, lists["loop"])
    for name, cost in costs.items():
        print(
            f"{name:9} {flags.users / cost.wall_s:>9,.0f} users/s "
            f"{1e6 * cost.cpu_s / flags.users:>6.0f} us CPU a user"
        )
    for name in sorted(costs.keys() - {"courier"}):
        mine, theirs = costs["courier"], costs[name]
        print(
            f"courier on {flags.cpus} cores over {name}: {theirs.wall_s / mine.wall_s:.2f} wall, "
            f"{theirs.cpu_s / mine.cpu_s:.2f} CPU (above 1: the courier is cheaper)"
        )
    size, rows = manifests[-1]["bytes"], manifests[-1]["rows"]
    print(f"written   {size / 2**20:,.0f} MiB, {size / rows:.1f} bytes a place of {rows:,}")
    bench_sample(bundle, audience, flags.k)


def implicit_side(bundle: Bundle, flags: argparse.Namespace) -> Callable[[], object]:
    import scipy.sparse as sp
    from implicit.als import AlternatingLeastSquares

    peer = AlternatingLeastSquares(factors=flags.factors, num_threads=1)
    peer.user_factors = np.array(bundle.model.user_factors_UD)
    peer.item_factors = np.array(bundle.model.item_factors_ID)
    ones = np.ones(len(bundle.seen.item_indices), np.float32)
    seen = sp.csr_matrix(
        (ones, bundle.seen.item_indices, bundle.seen.indptr_U1), (flags.users, flags.items)
    )
    everyone = np.arange(flags.users)
    return lambda: peer.recommend(everyone, seen, N=flags.k)


def check(out: Path, bundle: Bundle, expected_UK: np.ndarray) -> None:
    """The files hold the lists of the loop, user after user."""
    table = ds.dataset(out, format="parquet").to_table(columns=["user_id", "rank", "item_id"])
    number = {item_id: n for n, item_id in enumerate(bundle.items.ids.to_pylist())}
    encoded = table["item_id"].combine_chunks().dictionary_encode()
    names = np.array([number[name] for name in encoded.dictionary.to_pylist()])
    items_UK = names[encoded.indices.to_numpy()].reshape(expected_UK.shape)
    assert table["user_id"].to_pylist()[:: expected_UK.shape[1]] == bundle.users.ids.to_pylist()
    same = float((items_UK == expected_UK).mean())
    assert same > 0.999, f"only {same:.4f} of the places agree"  # rounding decides near ties


def bench_sample(bundle: Bundle, audience: Audience, k: int) -> None:
    """What the courier spares, and what rules cost, one thread, Parquet aside."""
    few = audience.rows(0, min(SAMPLE, len(audience)))
    plain, ruled = (
        BatchRecommender(VERSION, bundle),
        BatchRecommender(VERSION, bundle, strategies=EVERYBODY),
    )
    ranker = Ranker(bundle)

    def one_by_one() -> None:
        for place, user in enumerate(few.user_indices_B.tolist()):
            ranker.recommend(Query(k=k, user_index=user, segment=few.segment_of(place)))

    costs = measure(
        {
            "batch": lambda: plain.lists(few, k=k),
            "batch, a rule for everybody": lambda: ruled.lists(few, k=k),
            "one question a user": one_by_one,
        },
        1,
    )
    for name, cost in costs.items():
        print(f"sample    {1e6 * cost.cpu_s / len(few):>6.0f} us CPU a user: {name}")


def main() -> None:
    """Print the table."""
    flags = parse_flags()
    os.environ["OMP_NUM_THREADS"] = "1"  # what top_k_factors and Ray's workers go by
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {flags.users:,} users x "
        f"{flags.items:,} items x {flags.factors} factors, k {flags.k}"
    )
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        bench(flags, Path(folder))


if __name__ == "__main__":
    main()
