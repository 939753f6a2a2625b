"""What a search costs beside its trials, and beside a plain process pool.

    python tests/benchmarks/bench_grid.py [--users 6000] [--trials 48] [--memory 1000]

Both train and evaluate the same points on the same arrays in one run. Held against each other is
wall time x cores over what the trials took inside: the pool's says how well as many processes as
cores fill them. Starting Ray and making MLflow's database happen once per cluster and workspace;
the first is printed beside it, the second is inside.

``--memory N`` runs N trials of no work and prints how the driver's memory grows.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from perso.data.prepared import Interactions
from perso.distributed.cluster import connect
from perso.distributed.trials import run_trials
from perso.models.side_data import SideData
from perso.registry import Registry
from perso.tuning.grid import GridSpec
from perso.tuning.journal import SearchJournal
from perso.tuning.points import Point, planned_points
from perso.tuning.spec import SearchSpec
from perso.tuning.trial import Trial, run_trial
from perso.workspace import Workspace


def search_of(num_trials: int) -> SearchSpec:
    """Points that cost about the same."""
    rates = tuple(round(0.05 + 0.001 * n, 4) for n in range(num_trials))
    grid = {"learning_rate": rates}
    return SearchSpec(
        grids=(GridSpec(fixed={"epochs": 10, "num_factors": 64, "device": "cpu"}, grid=grid),)
    )


def made_up_interactions(
    num_users: int, num_active: int, num_items: int, rng: np.random.Generator
) -> Interactions:
    """About 24 items an active user, some more popular; the values do not matter here."""
    items = (num_items * rng.power(3, size=(num_active, 24))).astype(np.int64)
    users = np.repeat(np.arange(num_active), 24)
    pairs = np.unique(users * num_items + items.ravel())
    return Interactions(
        num_users=num_users,
        num_items=num_items,
        user_indices=(pairs // num_items).astype(np.int32),
        item_indices=(pairs % num_items).astype(np.int32),
        weights=np.ones(len(pairs), np.float32),
        ratings=np.full(len(pairs), np.nan, np.float32),
        last_at=np.zeros(len(pairs), np.int64),
        context_names={},
        context_codes={},
    )


_given: dict[str, Any] = {}
"""What a process of the pool works on."""


def _begin(spec: SearchSpec, train: Interactions, validation: Interactions) -> None:
    import torch

    torch.set_num_threads(1)
    _given.update(spec=spec, train=train, validation=validation)


def _run_in_pool(point: Point) -> Trial:
    spec, train, validation = _given["spec"], _given["train"], _given["validation"]
    return run_trial(spec, point, train=train, validation=validation)


def run_pool(spec: SearchSpec, train: Interactions, validation: Interactions) -> list[Trial]:
    """The trials in processes of one thread each, one per core, without anything else."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(os.cpu_count(), _begin, (spec, train, validation)) as pool:
        return pool.map(_run_in_pool, planned_points(spec), chunksize=1)


def run_search(
    spec: SearchSpec, train: Interactions, validation: Interactions, root: Path
) -> list[Trial]:
    """The trials as `perso tune` runs them, recorded in MLflow and the journal."""
    workspace = Workspace(root)
    registry = Registry(workspace)
    run_id = registry.open_run("benchmark")
    journal = SearchJournal.begin(
        workspace.searches, spec, key="benchmark", run_id=run_id, now=datetime.now(UTC)
    )
    trials = run_trials(spec, train, validation, SideData(), registry=registry, journal=journal)
    registry.close_run(run_id)
    return trials


def timed(run: Callable[[], list[Trial]]) -> tuple[float, list[Trial]]:
    """Wall seconds, and the trials, none of which failed."""
    started = time.perf_counter()
    trials = run()
    wall_s = time.perf_counter() - started
    assert all(trial.error is None for trial in trials), [t.error for t in trials]
    return wall_s, trials


def report(name: str, wall_s: float, trials: list[Trial]) -> float:
    """Print and return wall time x cores over what the trials themselves took."""
    cores = os.cpu_count() or 1
    inside_s = sum(trial.train_s + trial.evaluate_s for trial in trials)
    ratio = wall_s * cores / inside_s
    print(
        f"{name}: {wall_s:.1f} s of wall time, {inside_s:.1f} s inside {len(trials)} trials "
        f"({inside_s / len(trials):.1f} s each): wall x {cores} cores / inside = {ratio:.3f}"
    )
    return ratio


def measure_memory(num_trials: int, root: Path) -> None:
    """How much the driver holds per trial that is over."""
    rng = np.random.default_rng(0)
    train, validation = (made_up_interactions(50, 50, 40, rng) for _ in range(2))
    grid = {"shrinkage": tuple(float(n) for n in range(num_trials))}
    spec = SearchSpec(grids=(GridSpec(family="item_knn", grid=grid),))
    before = psutil.Process().memory_info().rss
    wall_s, trials = timed(lambda: run_search(spec, train, validation, root))
    grown = psutil.Process().memory_info().rss - before
    print(
        f"{num_trials} trials of no work: {wall_s / num_trials * 1e3:.0f} ms and "
        f"{grown / num_trials / 1024:.0f} KiB of the driver each"
    )
    assert len(trials) == num_trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=6_000)
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--memory", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        if given.memory:
            connect()
            measure_memory(given.memory, Path(root))
            return
        rng = np.random.default_rng(0)
        train = made_up_interactions(given.users, given.users, 2_000, rng)
        validation = made_up_interactions(given.users, given.users // 4, 2_000, rng)
        spec = search_of(given.trials)
        print(f"{len(train)} pairs, {given.trials} trials, {os.cpu_count()} cores")
        pool = report("process pool", *timed(lambda: run_pool(spec, train, validation)))
        started = time.perf_counter()
        connect()
        print(f"starting Ray: {time.perf_counter() - started:.1f} s")
        search = report("search", *timed(lambda: run_search(spec, train, validation, Path(root))))
        print(f"the search over the pool: {search / pool:.3f}")


if __name__ == "__main__":
    main()
