"""Retrieval: perso's exact top-k against implicit's, one user against NumPy, FAISS against exact.

    python tests/benchmarks/bench_top_k.py [--data gowalla.parquet] [--threads 2] [--rounds 3]

Without ``--data`` vectors and seen items are random, of Gowalla's size; with a file of columns
user, item and split, vectors are a truncated SVD of its train part and seen items that part. All
sides have the same vectors, the same threads and the same machine in one run; sides take turns in
every round, and the best round of each counts, in CPU and in wall seconds. The lists are compared
before a figure is printed.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

K = 20


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="Parquet with user, item, split")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--factors", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--users", type=int, default=29_858, help="of the random world")
    parser.add_argument("--items", type=int, default=40_981, help="of the random world")
    return parser.parse_args()


FLAGS = parse_flags()
# Before NumPy is loaded: BLAS reads it once.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(FLAGS.threads)

import numpy as np  # noqa: E402
import scipy.sparse as sp  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from perso.models.top_k import top_k_factors  # noqa: E402


@dataclass(frozen=True)
class Cost:
    """The best of several rounds."""

    cpu_s: float
    wall_s: float


def measure(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, Cost]:
    """Each side's cost; a first round only warms up."""
    found = {name: Cost(np.inf, np.inf) for name in sides}
    for number in range(rounds + 1):
        for name, run in sides.items():
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if number:
                best = found[name]
                found[name] = Cost(min(best.cpu_s, cpu), min(best.wall_s, wall))
    return found


def random_world(num_factors: int) -> tuple[np.ndarray, np.ndarray, sp.csr_matrix]:
    """Random users, items, and 27 seen items a user."""
    rng = np.random.default_rng(0)
    users = rng.normal(size=(FLAGS.users, num_factors)).astype(np.float32)
    items = rng.normal(size=(FLAGS.items, num_factors)).astype(np.float32)
    pairs = rng.integers((FLAGS.users, FLAGS.items), size=(27 * FLAGS.users, 2))
    return users, items, seen_matrix(pairs[:, 0], pairs[:, 1], FLAGS.users, FLAGS.items)


def read_world(num_factors: int) -> tuple[np.ndarray, np.ndarray, sp.csr_matrix]:
    """Users and items of a truncated SVD of the train part, and that part."""
    import pyarrow.parquet as pq
    from sklearn.utils.extmath import randomized_svd

    table = pq.read_table(FLAGS.data, columns=["user", "item", "split"]).to_pandas()
    users, user_names = table["user"].factorize()
    items, item_names = table["item"].factorize()
    is_train = (table["split"] == "train").to_numpy()
    seen = seen_matrix(users[is_train], items[is_train], len(user_names), len(item_names))
    left, values, right = randomized_svd(seen, num_factors, n_iter=2, random_state=0)
    return (left * values).astype(np.float32), right.T.astype(np.float32).copy(), seen


def seen_matrix(
    users: np.ndarray, items: np.ndarray, num_users: int, num_items: int
) -> sp.csr_matrix:
    matrix = sp.csr_matrix(
        (np.ones(len(users), np.float32), (users, items)), shape=(num_users, num_items)
    )
    matrix.sum_duplicates()
    return matrix


def bench_batch(num_factors: int) -> None:
    """Lists for all users: perso and implicit."""
    from implicit.als import AlternatingLeastSquares

    users, items, seen = read_world(num_factors) if FLAGS.data else random_world(num_factors)
    bias = np.zeros(len(items), np.float32)
    peer = AlternatingLeastSquares(factors=num_factors, num_threads=FLAGS.threads)
    peer.user_factors, peer.item_factors = users, items
    everyone = np.arange(len(users))
    lists = {}

    def perso() -> None:
        lists["perso"], _ = top_k_factors(
            users, items, bias, K, seen_indptr=seen.indptr, seen_indices=seen.indices
        )

    def implicit() -> None:
        with threadpool_limits(1, user_api="blas"):  # as its documentation asks for
            lists["implicit"], _ = peer.recommend(everyone, seen, N=K)

    costs = measure({"perso": perso, "implicit": implicit}, FLAGS.rounds)
    same = float((lists["perso"] == lists["implicit"]).mean())
    assert same > 0.999, f"only {same:.4f} of the places agree"  # rounding decides near ties
    for name, cost in costs.items():
        print(
            f"all users, d {num_factors:>3}  {name:9} {len(users) / cost.wall_s:>9,.0f} users/s"
            f"  {1e6 * cost.cpu_s / len(users):>6.0f} us CPU a user"
        )
    ours, theirs = costs["perso"], costs["implicit"]
    print(
        f"all users, d {num_factors:>3}  ratio     {theirs.wall_s / ours.wall_s:>9.2f} wall"
        f"     {theirs.cpu_s / ours.cpu_s:>6.2f} CPU (above 1: perso is quicker)"
    )


def bench_single() -> None:
    """One user over 50,000 items x 64, as in a request."""
    rng = np.random.default_rng(1)
    items = rng.normal(size=(50_000, 64)).astype(np.float32)
    users = rng.normal(size=(200, 1, 64)).astype(np.float32)
    bias = np.zeros(len(items), np.float32)

    def perso() -> None:
        for user in users:
            top_k_factors(user, items, bias, K)

    def partition() -> None:
        for user in users:
            scores = (user @ items.T)[0]
            best = np.argpartition(scores, -K)[-K:]
            best[np.argsort(-scores[best])]

    with threadpool_limits(1):
        costs = measure({"perso": perso, "argpartition": partition}, FLAGS.rounds)
    for name, cost in costs.items():
        print(
            f"one user, 50,000 x 64, one thread  {name:12} "
            f"{1000 * cost.wall_s / len(users):.2f} ms wall, "
            f"{1000 * cost.cpu_s / len(users):.2f} ms CPU"
        )


def bench_ann(num_factors: int) -> None:
    """FAISS against exact lists of 2,000 users."""
    import faiss

    from perso.models.ann import AnnIndex

    faiss.omp_set_num_threads(FLAGS.threads)
    users, items, _ = read_world(num_factors) if FLAGS.data else random_world(num_factors)
    users = users[np.random.default_rng(2).permutation(len(users))[:2000]]
    bias = np.zeros(len(items), np.float32)
    started = time.perf_counter()
    index = AnnIndex.build(items, bias)
    print(
        f"FAISS, d {num_factors}: {index.num_cells} cells in {time.perf_counter() - started:.1f} s"
    )
    for divisor in (16, 6, 3):
        part = replace(index, num_probes=max(1, index.num_cells // divisor))
        costs = measure(
            {
                "exact": lambda: top_k_factors(users, items, bias, K),
                "faiss": lambda part=part: part.search(users, K),
            },
            FLAGS.rounds,
        )
        print(
            f"FAISS, d {num_factors}: {part.num_probes:>4} cells read, recall "
            f"{part.measured_recall(users, K):.4f}, {1e6 * costs['faiss'].cpu_s / len(users):.0f} "
            f"us CPU a user, exact takes {costs['exact'].cpu_s / costs['faiss'].cpu_s:.1f} times "
            "as long"
        )


def main() -> None:
    """Print the tables."""
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {FLAGS.threads} threads, k {K}, "
        f"{FLAGS.data or 'random vectors'}"
    )
    for num_factors in FLAGS.factors:
        bench_batch(num_factors)
    bench_single()
    if FLAGS.data:
        bench_ann(FLAGS.factors[0])
    else:
        print("FAISS: random vectors have no neighbourhoods to index; give --data")


if __name__ == "__main__":
    main()
