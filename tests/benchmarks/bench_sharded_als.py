"""ALS in shards: seconds of an epoch beside one process, vectors moved, memory of every process.

    python tests/benchmarks/bench_sharded_als.py [--millions 10 30] [--shards 1 2 4] [--factors 64]

Made-up pairs, 25 a user and 100 an item. Every shard has one thread, and is compared with one
process of one thread; one process with a thread a core is there as well. Wall seconds are of the
quickest epoch after the first, which loads the kernels. Where shards outnumber the cores they
wait for each other: CPU seconds, of all processes, say what they cost without that. Into the store
go the users' vectors once an epoch and the items' twice, to be read and to go back to. Memory is
private: pages that processes share through the object store are not counted.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterable
from threading import Event, Thread
from typing import Final

import numpy as np
import psutil
from bench_als import made_up_interactions

from perso.data.prepared import Interactions
from perso.distributed.cluster import connect
from perso.distributed.sharded_als import RayCrew
from perso.models.als import AlsConfig, fit_als, objective_of
from perso.models.als_problem import Floats
from perso.models.als_rounds import Standing, run_epoch, sum_of
from perso.models.als_shards import Shard, cut_shards
from perso.models.als_side import Side, open_threads
from perso.models.als_training import AlsTraining

COMPARED_USERS: Final = 1000


class PeakMemory:
    """Most private memory of some processes, each for itself, looked at every 20 ms."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._processes = [psutil.Process(pid) for pid in pids]
        self.bytes = [0] * len(self._processes)

    def __enter__(self) -> "PeakMemory":
        self._stop = Event()
        self._thread = Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            for number, process in enumerate(self._processes):
                now = process.memory_info()
                self.bytes[number] = max(self.bytes[number], now.rss - now.shared)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def __str__(self) -> str:
        return f"{max(self.bytes) / 1e6:.0f}"


def pid_of(shard: Shard) -> int:
    return os.getpid()


def cpu_s(pids: Iterable[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(t.user + t.system for t in times)


def time_epochs(epochs: int, run: Callable[[], object], pids: list[int]) -> tuple[float, float]:
    """Wall and CPU seconds of the quickest epoch."""
    wall, cpu = [], []
    for _ in range(epochs):
        before, started = cpu_s(pids), time.perf_counter()
        run()
        wall.append(time.perf_counter() - started)
        cpu.append(cpu_s(pids) - before)
    return min(wall), min(cpu)


def in_one_process(
    train: Interactions,
    config: AlsConfig,
    num_threads: int,
    one: tuple[float, float, Floats] | None = None,
) -> tuple[float, float, Floats]:
    """Wall and CPU seconds of an epoch, and scores of some users; prints a row."""
    objective, num_users, num_items = objective_of(train, config)
    item_ID = np.random.default_rng(config.seed).standard_normal(
        (train.num_items, config.num_factors), np.float32
    )
    item_ID *= np.float32(config.init_std / np.sqrt(config.num_factors))
    item_ID[np.bincount(train.item_indices, minlength=train.num_items) == 0] = 0
    before = psutil.Process().memory_info()
    with PeakMemory([os.getpid()]) as memory, open_threads(num_threads) as threads:
        training = AlsTraining(
            interactions=train,
            config=config,
            users=Side.users(train, objective, num_items),
            items=Side.items(train, objective, num_users),
            user_UD=np.zeros((train.num_users, config.num_factors), np.float32),
            item_ID=item_ID,
            threads=threads,
        )
        training.run_epoch()
        wall, cpu = time_epochs(config.epochs - 1, training.run_epoch, [os.getpid()])
    beside = max(memory.bytes) - (before.rss - before.shared)
    one_wall, one_cpu = (one or (wall, cpu))[:2]
    print(
        f"| one process, {num_threads} threads | {wall:.2f} | {one_wall / wall:.2f} | {cpu:.2f} | "
        f"{cpu / one_cpu:.2f} | 0 | 0 | "
        f"{beside / 1e6:.0f} beside the input | | |",
        flush=True,
    )
    return wall, cpu, training.user_UD[:COMPARED_USERS] @ training.item_ID.T


def in_shards(
    train: Interactions,
    config: AlsConfig,
    num_shards: int,
    one: tuple[float, float, Floats],
) -> None:
    """Prints a row."""
    objective, num_users, num_items = objective_of(train, config)
    shards = cut_shards(
        train, objective, num_users=num_users, num_items=num_items, num_shards=num_shards
    )
    cpus_per_shard = min(1.0, (os.cpu_count() or 1) / num_shards)
    with RayCrew(shards, config, cpus_per_shard=cpus_per_shard) as crew, open_threads(1):
        del shards
        pids = crew.tell(pid_of)
        standing: Standing = Standing(epoch=0, item_gram_DD=sum_of(crew.tell(Shard.start)))

        def go_on() -> None:
            nonlocal standing
            standing = run_epoch(crew, standing, objective, with_loss=False)

        with PeakMemory([os.getpid()]) as driver, PeakMemory(pids) as workers:
            before = psutil.Process().memory_info()
            go_on()
            wall, cpu = time_epochs(config.epochs - 1, go_on, [os.getpid(), *pids])
        scores = (
            np.array(crew.fetch(standing.user_blocks[0])[:COMPARED_USERS])
            @ np.concatenate([crew.fetch(block) for block in standing.item_blocks]).T
        )
    stored = 4 * config.num_factors * (train.num_users + 2 * train.num_items)
    grown = max(driver.bytes) - (before.rss - before.shared)
    print(
        f"| {num_shards} shards | {wall:.2f} | {one[0] / wall:.2f} | {cpu:.2f} | "
        f"{cpu / one[1]:.2f} | {stored / 1e6:.0f} | {standing.copied_bytes / 1e6:.0f} | "
        f"{workers} | {grown / 1e6:.0f} | {np.abs(scores - one[2]).max():.1e} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=float, nargs="+", default=[10], help="million pairs")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    config = AlsConfig(num_factors=arguments.factors, epochs=arguments.epochs)
    fit_als(made_up_interactions(10_000), AlsConfig(num_factors=8, epochs=1))  # load the kernels
    connect()
    for millions in arguments.millions:
        train = made_up_interactions(round(millions * 1e6))
        print(
            f"\n{len(train)} pairs, {train.num_users} users, {train.num_items} items, "
            f"{arguments.factors} factors, {os.cpu_count()} cores\n"
            "| | wall-s an epoch | one / this | CPU-s an epoch | this / one | MB into the store "
            "| MB copied | MB of a worker | MB of the driver's epochs | score differs |\n"
            "|---|---|---|---|---|---|---|---|---|---|"
        )
        one = in_one_process(train, config, 1)
        if (os.cpu_count() or 1) > 1:
            in_one_process(train, config, os.cpu_count() or 1, one)
        for num_shards in arguments.shards:
            in_shards(train, config, num_shards, one)


if __name__ == "__main__":
    main()
