"""Grid overhead: wall time of 12 trials on Ray Tune over the sum of their bare times.

    python tests/benchmarks/bench_grid.py [--users 20000]

Both sides train and evaluate the same 12 points on the same arrays in one run. The bare side is a
loop in this process with one thread, the grid has a worker of one core per core of the machine:
without any overhead the ratio would be 1 / cores. Starting Ray and making MLflow's database happen
once per cluster and workspace, not per grid; they are printed beside the ratio.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from perso.data.prepared import Interactions
from perso.distributed.cluster import connect
from perso.distributed.trials import run_trials
from perso.models.side_data import SideData
from perso.registry import Registry
from perso.tuning.spec import GridSpec, SearchSpec
from perso.tuning.trial import run_trial
from perso.workspace import Workspace

SPEC = SearchSpec(
    grids=(
        GridSpec(
            fixed={"epochs": 10},
            grid={"num_factors": (32, 64), "learning_rate": (0.05, 0.1), "l2": (0.03, 0.1, 0.3)},
        ),
    )
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20_000)
    num_users = parser.parse_args().users
    rng = np.random.default_rng(0)
    train = made_up_interactions(num_users, num_users, 2_000, rng)
    validation = made_up_interactions(num_users, num_users // 4, 2_000, rng)
    points = range(len(SPEC.points()))
    cores = os.cpu_count() or 1
    print(f"{len(train)} pairs, {len(points)} trials, {cores} cores")

    torch.set_num_threads(1)
    bare_s = 0.0
    for number in points:
        trial = run_trial(SPEC, number, train=train, validation=validation)
        assert trial.error is None, trial.error
        bare_s += trial.train_s + trial.evaluate_s
    print(f"bare loop: {bare_s:.1f} s of training and evaluation")

    started = time.perf_counter()
    connect()
    print(f"starting Ray: {time.perf_counter() - started:.1f} s")
    with tempfile.TemporaryDirectory() as root:
        workspace = Workspace(Path(root))
        registry = Registry(workspace)
        started = time.perf_counter()
        run_id = registry.open_run("benchmark")
        print(f"importing MLflow and making its database: {time.perf_counter() - started:.1f} s")
        started = time.perf_counter()
        trials = run_trials(
            SPEC,
            train,
            validation,
            SideData(),
            registry=registry,
            parent_run_id=run_id,
            storage=workspace.searches,
        )
        wall_s = time.perf_counter() - started
        registry.close_run(run_id)
    inside_s = sum(trial.train_s + trial.evaluate_s for trial in trials)
    print(f"grid: {wall_s:.1f} s of wall time, {inside_s:.1f} s inside its trials")
    print(f"grid overhead: {wall_s / bare_s:.2f} (wall / bare; {1 / cores:.2f} if all were free)")


if __name__ == "__main__":
    main()
