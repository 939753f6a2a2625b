"""ALS: time and memory of an epoch beside implicit and irspack, quality on a fixed split.

    python tests/benchmarks/bench_als.py [--factors 64 128 256] [--scale 1 10 50]

All libraries train in this process, in turn, on the same pairs with the same number of threads.
CPU time is of all threads. An epoch's is what a run of several epochs takes beyond a run of one,
so that neither preparation nor a last step counts. irspack minimizes the same objective with the
same settings; implicit's has no unobserved weight of its own. A library that is not installed has
no row. Without the data the pairs are made up, and there is no table of quality.
"""

import argparse
import contextlib
import importlib.util
import io
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import psutil
import torch
from threadpoolctl import threadpool_limits

from perso.data.fixed_split import read_fixed_split
from perso.data.prepared import Interactions
from perso.evaluation.report import evaluate
from perso.models.als import AlsConfig, fit_als
from perso.models.factors import FactorModel

DATA: Final = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "gowalla.parquet"

Train = Callable[[int], object]
"""Runs so many epochs; what comes back depends on the library."""


def made_up_interactions(
    num_pairs: int, *, pairs_an_item: int = 100, seed: int = 0
) -> Interactions:
    """About 25 pairs a user, a few popular items; values do not matter here."""
    rng = np.random.default_rng(seed)
    num_users, num_items = num_pairs // 25, num_pairs // pairs_an_item
    users = rng.integers(0, num_users, num_pairs)
    keys = np.unique(users * num_items + (num_items * rng.random(num_pairs) ** 3).astype(np.int64))
    return Interactions(
        num_users=num_users,
        num_items=num_items,
        user_indices=(keys // num_items).astype(np.int32),
        item_indices=(keys % num_items).astype(np.int32),
        weights=np.ones(len(keys), np.float32),
        ratings=np.full(len(keys), np.nan, np.float32),
        last_at=np.zeros(len(keys), np.int64),
        context_names={},
        context_codes={},
    )


def cpu_s(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def libraries(train: Interactions, num_factors: int, num_threads: int) -> dict[str, Train]:
    """Training by so many epochs, per library and solver."""
    from scipy.sparse import csr_matrix

    pairs = (train.user_indices, train.item_indices)
    matrix = csr_matrix((train.weights, pairs), shape=(train.num_users, train.num_items))
    own = AlsConfig(num_factors=num_factors)

    def perso(solver: str) -> Train:
        return lambda epochs: fit_als(
            train, replace(own, epochs=epochs, solver=solver), num_threads=num_threads
        )

    def implicit(epochs: int) -> object:
        from implicit.cpu.als import AlternatingLeastSquares

        with threadpool_limits(1, user_api="blas"):  # it asks for that
            model = AlternatingLeastSquares(
                num_factors, iterations=epochs, num_threads=num_threads, random_state=0
            )
            model.fit(matrix, show_progress=False)
        return model

    def irspack(solver: str) -> Train:
        from irspack import IALSRecommender

        objective = fit_als(train, replace(own, num_factors=1, epochs=1)).encoder.objective

        def learn(epochs: int) -> object:
            model = IALSRecommender(
                matrix,
                n_components=num_factors,
                alpha0=objective.unobserved_weight,
                reg=objective.l2,
                nu=objective.l2_exponent,
                solver_type=solver,
                n_threads=num_threads,
                train_epochs=epochs,
            )
            with contextlib.redirect_stdout(io.StringIO()):  # a progress bar
                return model.learn()

        return learn

    found = {"perso cg": perso("cg"), "perso cholesky": perso("cholesky")}
    found["perso subspace"] = perso("subspace")
    if importlib.util.find_spec("implicit"):
        found["implicit cg"] = implicit
    if importlib.util.find_spec("irspack"):
        found |= {"irspack cg": irspack("CG"), "irspack subspace 64": irspack("IALSPP")}
    return found


def print_epochs(
    train: Interactions, widths: list[int], *, epochs: int, rounds: int, num_threads: int
) -> None:
    print(f"\nCPU seconds of an epoch, {len(train)} pairs, {num_threads} threads, best of {rounds}")
    print("| solver | d | CPU-s | perso cg / this |\n|---|---|---|---|")
    for num_factors in widths:
        runs = libraries(train, num_factors, num_threads)
        best = dict.fromkeys(runs, float("inf"))
        for _ in range(rounds):  # in turn: a busy machine slows all of them down
            for name, run in runs.items():
                seconds = [cpu_s(partial(run, count)) for count in (1, 1 + epochs)]
                best[name] = min(best[name], (seconds[1] - seconds[0]) / epochs)
        for name, seconds in best.items():
            ratio = best["perso cg"] / seconds
            print(f"| {name} | {num_factors} | {seconds:.3f} | {ratio:.2f} |", flush=True)


def print_quality(
    train: Interactions, test: Interactions, widths: list[int], *, num_threads: int
) -> None:
    epochs = AlsConfig().epochs
    print(f"\nfixed split, full catalogue, train left out, default settings, {epochs} epochs")
    print("| solver | d | Recall@20 | NDCG@20 | CPU-s to train |\n|---|---|---|---|---|")
    for num_factors in widths:
        for name, run in libraries(train, num_factors, num_threads).items():
            if name not in ("perso cg", "perso subspace", "irspack cg"):
                continue
            started = time.process_time()
            trained = run(epochs)
            seconds = time.process_time() - started
            if isinstance(trained, FactorModel):
                model = trained
            else:
                model = replace(
                    model,
                    user_factors_UD=np.array(trained.get_user_embedding()),
                    item_factors_ID=np.array(trained.get_item_embedding()),
                )
            metrics = evaluate(model, train=train, held_out=test, ks=(20,)).overall
            print(
                f"| {name} | {num_factors} | {metrics['recall@20']:.4f} "
                f"| {metrics['ndcg@20']:.4f} | {seconds:.1f} |",
                flush=True,
            )


def print_scale(millions: list[float], *, num_threads: int) -> None:
    print(f"\nmade-up pairs, 25 a user and 100 an item, 64 factors, {num_threads} threads")
    print("| million pairs | CPU-s an epoch | wall-s to train 3 epochs | MB beside the input |")
    print("|---|---|---|---|")
    for million in millions:
        print(scale_row(made_up_interactions(round(million * 1e6)), num_threads), flush=True)


def scale_row(train: Interactions, num_threads: int) -> str:
    config = AlsConfig(epochs=1)
    with PeakMemory() as used:
        short_s = cpu_s(lambda: fit_als(train, config, num_threads=num_threads))
    started = time.perf_counter()
    long_s = cpu_s(lambda: fit_als(train, replace(config, epochs=3), num_threads=num_threads))
    wall_s = time.perf_counter() - started
    epoch_s = (long_s - short_s) / 2
    return f"| {len(train) / 1e6:.1f} | {epoch_s:.2f} | {wall_s:.1f} | {used.bytes / 1e6:.0f} |"


class PeakMemory:
    """Most resident memory beyond what there was at the start, looked at every 5 ms."""

    def __enter__(self) -> "PeakMemory":
        self._stop = threading.Event()
        self._before = psutil.Process().memory_info().rss
        self.bytes = 0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(0.005):
            self.bytes = max(self.bytes, process.memory_info().rss - self._before)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="columns user, item, split")
    parser.add_argument("--factors", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scale", type=float, nargs="*", default=[1, 10], help="million pairs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for solver in ("cg", "cholesky", "subspace"):  # compile, or load what is compiled
        fit_als(made_up_interactions(10_000), AlsConfig(num_factors=8, epochs=1, solver=solver))
    # First, while the process holds no freed memory that would hide what a training takes.
    print_scale(arguments.scale, num_threads=arguments.threads)
    if arguments.data.exists():
        split = read_fixed_split(arguments.data)
        train, test = split.train, split.test
    else:
        print(f"{arguments.data} is absent: pairs are made up")
        train, test = made_up_interactions(800_000), None
    print_epochs(
        train,
        arguments.factors,
        epochs=arguments.epochs,
        rounds=arguments.rounds,
        num_threads=arguments.threads,
    )
    if test is not None:
        print_quality(train, test, arguments.factors, num_threads=arguments.threads)


if __name__ == "__main__":
    main()
