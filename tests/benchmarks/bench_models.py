"""Quality and cost of the model families on three kinds of data.

    python tests/benchmarks/bench_models.py [gowalla] [shop] [ratings]

- ``gowalla``: the fixed split of the NGCF and LightGCN papers, each family with its defaults or
  at the stated size; implicit and irspack stand beside ALS in ``bench_als.py``.
- ``shop``: Online Retail, cut by time; each family as the search would train it, EASE from a few
  lines as one more peer; new customers and new items beside the overall figures.
- ``ratings``: planted ratings in MovieLens' shape; RMSE against a plain loop of the biased matrix
  factorization that scikit-surprise calls SVD, with its default settings.

Data are read from ``--data`` (default ``../shared/data``); a part without its file is skipped and
says so. Seconds are CPU seconds of all threads; compare rows of one run, not runs.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from perso.data.fixed_split import read_fixed_split
from perso.data.prepared import Interactions
from perso.evaluation.report import evaluate
from perso.models.als_config import AlsConfig
from perso.models.blend_config import BlendConfig
from perso.models.factors import FactorModel
from perso.models.families import OneOfTheConfigs, fit_model, load_personal_model
from perso.models.hybrid_config import HybridConfig
from perso.models.knn_config import ItemKnnConfig
from perso.models.popularity_config import PopularityConfig
from perso.models.protocol import PersonalModel
from perso.models.request_features import RequestFeatures
from perso.models.sgd_config import SgdConfig
from perso.models.side_data import SideData
from perso.models.spectral_config import SpectralConfig
from perso.models.sum_encoder import SumEncoder

GOWALLA: dict[str, OneOfTheConfigs] = {
    "item k-NN": ItemKnnConfig(num_neighbors=100),
    "ALS 64": AlsConfig(num_factors=64),
    "ALS 128": AlsConfig(num_factors=128),
    "ALS 256": AlsConfig(num_factors=256),
    "spectral 256": SpectralConfig(num_factors=256),
    "spectral 512": SpectralConfig(num_factors=512),
    "cosine SGD 128": BlendConfig().learned,
    "blend 512 + 128 + 128": BlendConfig(),
}


def main() -> None:
    """Run the asked parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["gowalla", "shop", "ratings"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(args.threads))
    import torch

    torch.set_num_threads(args.threads)
    for part in args.parts:
        {"gowalla": bench_gowalla, "shop": bench_shop, "ratings": bench_ratings}[part](args)


def bench_gowalla(args: argparse.Namespace) -> None:
    """One row per model on the fixed split."""
    path = args.data / "gowalla.parquet"
    if not path.exists():
        print(f"gowalla: {path} is not here, skipped")
        return
    split = read_fixed_split(path)
    columns = ("Recall@20", "NDCG@20", "CPU s to train", "MiB on disk", "ms to load")
    print_header("Gowalla, fixed split", *columns)

    def row(name: str, fit: Callable[[], FactorModel]) -> None:
        started = time.process_time()
        model = fit()
        seconds = time.process_time() - started
        report = evaluate(model, train=split.train, held_out=split.test, ks=(20,))
        overall = report.overall
        print_row(name, overall["recall@20"], overall["ndcg@20"], seconds, *artifact_cost(model))

    for name, config in GOWALLA.items():
        row(name, lambda config=config: fit_model(split.train, config))


def artifact_cost(model: PersonalModel) -> tuple[float, float]:
    """MiB of the model's folder, and milliseconds to load it again."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        started = time.perf_counter()
        load_personal_model(Path(folder))
        return size / 2**20, (time.perf_counter() - started) * 1000


def bench_shop(args: argparse.Namespace) -> None:
    """One row per family on a year of a real shop."""
    from perso.data.interactions import PrepareSpec
    from perso.distributed.cluster import connect
    from perso.distributed.interactions import prepare
    from perso.workspace import Workspace

    path = args.data / "online_retail.parquet"
    if not path.exists():
        print(f"shop: {path} is not here, skipped")
        return
    connect()
    workspace = Workspace.open(Path(".perso-bench"))
    data = prepare(PrepareSpec(source="online-retail", path=str(path)), workspace)
    known, test = data.interactions("train", "validation"), data.interactions("test")
    side = SideData(item_features=data.catalog())
    columns = ("Recall@20", "NDCG@20", "NDCG new customers", "NDCG new items", "CPU s")
    print_header("Online Retail, last tenth of the events", *columns)
    families: dict[str, Callable[[], FactorModel]] = {
        name: lambda config=config: fit_model(known, config, side)
        for name, config in {
            "popularity": PopularityConfig(),
            "item k-NN": ItemKnnConfig(),
            "ALS": AlsConfig(num_factors=64),
            "spectral": SpectralConfig(num_factors=128),
            "SGD": SgdConfig(),
            "hybrid": HybridConfig(),
        }.items()
    }
    families["EASE (peer)"] = lambda: fit_ease(known)
    for name, fit in families.items():
        started = time.process_time()
        model = fit()
        seconds = time.process_time() - started
        report = evaluate(model, train=known, held_out=test, ks=(20,), catalog=data.catalog())
        slices = report.per_segment
        print_row(
            name,
            report.overall["recall@20"],
            report.overall["ndcg@20"],
            slices.get("(newcomers)", {}).get("ndcg@20", float("nan")),
            slices.get("(new items)", {}).get("ndcg@20", float("nan")),
            seconds,
        )


def fit_ease(interactions: Interactions, *, l2: float = 300.0) -> FactorModel:
    """Steck, Embarrassingly shallow autoencoders, WWW 2019, as a model of as many factors as items.

    The user vector is the history itself: only for catalogues of some thousand items.
    """
    matrix = to_csr(interactions)
    gram = (matrix.T @ matrix).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += l2
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return to_model(matrix.toarray(), weights.T, matrix)


def bench_ratings(args: argparse.Namespace) -> None:
    """RMSE of the biased model beside the reference's."""
    print_header("planted ratings, MovieLens' shape", "RMSE", "CPU s")
    train, test = planted_ratings(seed=0)
    # Pace and penalty were chosen on a tenth of train; the reference has its own defaults.
    config = SgdConfig(
        loss="squared", num_factors=100, epochs=20, learning_rate=0.05, l2=0.15, batch_size=4096
    )
    started = time.process_time()
    model = fit_model(train, config)
    seconds = time.process_time() - started
    report = evaluate(model, train=train, held_out=test, ks=(20,))
    print_row("perso, squared loss", report.overall["rmse"], seconds)
    started = time.process_time()
    error = funk_rmse(train, test)
    print_row("reference (Funk SVD)", error, time.process_time() - started)


def planted_ratings(*, seed: int) -> tuple[Interactions, Interactions]:
    """6,000 users, 3,500 items, half a million stars: biases, eight tastes, noise, half steps."""
    rng = np.random.default_rng(seed)
    num_users, num_items, num_pairs = 6_000, 3_500, 500_000
    users = (num_users * rng.power(0.7, num_pairs)).astype(np.int64)
    items = (num_items * rng.power(0.5, num_pairs)).astype(np.int64)
    keys = np.unique(users * num_items + items)
    users, items = keys // num_items, keys % num_items
    user_UD, item_ID = rng.normal(size=(num_users, 8)), rng.normal(size=(num_items, 8))
    stars = 3.55 + 0.4 * rng.normal(size=num_users)[users] + 0.5 * rng.normal(size=num_items)[items]
    stars += 0.15 * (user_UD[users] * item_ID[items]).sum(1) + 0.8 * rng.normal(size=len(keys))
    stars = np.clip(np.round(2 * stars) / 2, 0.5, 5.0)
    whole = Interactions(
        num_users=num_users,
        num_items=num_items,
        user_indices=users.astype(np.int32),
        item_indices=items.astype(np.int32),
        weights=np.ones(len(keys), np.float32),
        ratings=stars.astype(np.float32),
        last_at=np.zeros(len(keys), np.int64),
        context_names={},
        context_codes={},
    )
    is_test = rng.random(len(keys)) < 0.1
    return whole.take(~is_test), whole.take(is_test)


def funk_rmse(train: Interactions, test: Interactions) -> float:
    """One rating at a time, 100 factors, 20 epochs, rate 0.005, penalty 0.02, N(0, 0.1) start.

    The algorithm and defaults of scikit-surprise's SVD.
    """
    import numba

    rng = np.random.default_rng(0)
    user_UD = rng.normal(0, 0.1, (train.num_users, 100))
    item_ID = rng.normal(0, 0.1, (train.num_items, 100))
    user_U, item_I = np.zeros(train.num_users), np.zeros(train.num_items)
    mean = float(train.ratings.mean(dtype=np.float64))

    @numba.njit
    def epoch(users, items, ratings, user_UD, item_ID, user_U, item_I):
        for n in range(len(users)):
            u, i = users[n], items[n]
            error = ratings[n] - mean - user_U[u] - item_I[i] - user_UD[u] @ item_ID[i]
            user_U[u] += 0.005 * (error - 0.02 * user_U[u])
            item_I[i] += 0.005 * (error - 0.02 * item_I[i])
            for d in range(user_UD.shape[1]):
                p, q = user_UD[u, d], item_ID[i, d]
                user_UD[u, d] += 0.005 * (error * q - 0.02 * p)
                item_ID[i, d] += 0.005 * (error * p - 0.02 * q)

    for _ in range(20):
        order = rng.permutation(len(train))
        epoch(
            train.user_indices[order],
            train.item_indices[order],
            train.ratings[order].astype(np.float64),
            user_UD,
            item_ID,
            user_U,
            item_I,
        )
    users, items = test.user_indices, test.item_indices
    predicted = mean + user_U[users] + item_I[items] + (user_UD[users] * item_ID[items]).sum(1)
    return float(np.sqrt(np.mean((np.clip(predicted, 0.5, 5.0) - test.ratings) ** 2)))


def to_csr(interactions: Interactions) -> sp.csr_matrix:
    """Binary user-item matrix."""
    ones = np.ones(len(interactions), np.float32)
    places = (interactions.user_indices, interactions.item_indices)
    return sp.csr_matrix((ones, places), (interactions.num_users, interactions.num_items))


def to_model(user_UD: np.ndarray, item_ID: np.ndarray, matrix: sp.csr_matrix) -> FactorModel:
    """A peer's vectors as a model that perso measures."""
    user_UD, item_ID = user_UD.astype(np.float32), item_ID.astype(np.float32)
    counts = np.diff(matrix.indptr).astype(np.float32)
    popular_I = np.asarray(matrix.sum(0)).ravel()
    return FactorModel(
        user_factors_UD=user_UD,
        user_bias_U=np.zeros(len(user_UD), np.float32),
        user_weight_U=counts,
        item_factors_ID=item_ID,
        item_bias_I=(1e-6 * popular_I / popular_I.max()).astype(np.float32),
        global_bias=0.0,
        encoder=SumEncoder(input_ID=item_ID, weight_unit=1.0, weight_exponent=1.0, recent_boost=1),
        request_features=RequestFeatures(num_factors=user_UD.shape[1]),
    )


def print_header(title: str, *columns: str) -> None:
    """A Markdown table's head."""
    print(f"\n| {title} | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}", flush=True)


def print_row(name: str, *values: float) -> None:
    """A Markdown table's row: shares with four places, seconds with one."""
    cells = [f"{v:.4f}" if v < 1.5 else f"{v:.1f}" for v in values]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
