"""Data-parallel SGD: an epoch by one process, and by workers of Ray Train.

    python tests/benchmarks/bench_data_parallel.py [--pairs 1000000] [--workers 1 2]

The pairs are made up: about 25 a user, a few popular items. Every process has one thread. Seconds
an epoch are the median of what passes between two reports, the first epoch aside; starting the
workers is told apart. Megabytes are what each rank hands to the sum over the ranks in an epoch.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from bench_als import made_up_interactions

from perso.data.prepared import Interactions
from perso.distributed.cluster import connect
from perso.distributed.data_parallel import fit_data_parallel
from perso.models.progress import OnEpoch, Progress
from perso.models.ranks import Ranks
from perso.models.sgd import fit_sgd
from perso.models.sgd_config import SgdConfig

EPOCHS: Final = 4
COSINE: Final = {"similarity": "cosine", "learning_rate": 1.0, "l2": 0.0}
CONFIGS: Final = {
    "softmax, 1,024 drawn": SgdConfig(epochs=EPOCHS, device="cpu"),
    "contrasted cosine, 8,192 drawn": SgdConfig(
        loss="contrasted", num_negatives=8192, epochs=EPOCHS, device="cpu", **COSINE
    ),
    "squared": SgdConfig(loss="squared", target="weights", epochs=EPOCHS, device="cpu"),
}


def seconds(train: Callable[[OnEpoch], object]) -> tuple[float, float]:
    """Until the first epoch has ended, and of a later one."""
    ends = [time.perf_counter()]
    train(lambda _: ends.append(time.perf_counter()))
    first, *later = np.diff(ends).tolist()
    return first, statistics.median(later)


def megabytes_of_an_epoch(train: Interactions, config: SgdConfig) -> float:
    """What one rank hands to the sum, told by a rank that is alone but does not know it."""
    sent: list[int] = []
    counts: list[int] = []

    def on_epoch(progress: Progress) -> None:
        counts.append(sum(sent))
        if progress.epoch == 2:
            raise InterruptedError

    ranks = Ranks(all_reduce=lambda message: sent.append(message.nbytes))
    with contextlib.suppress(InterruptedError):
        fit_sgd(train, config, on_epoch=on_epoch, ranks=ranks)
    return (counts[1] - counts[0]) / 1e6


def main() -> None:
    """Run it and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train = made_up_interactions(arguments.pairs, pairs_an_item=50)
    print(f"{len(train):,} pairs, {train.num_users:,} users, {train.num_items:,} items, 64 factors")
    connect()
    for name, config in CONFIGS.items():
        _, alone_s = seconds(lambda on_epoch, c=config: fit_sgd(train, c, on_epoch=on_epoch))
        sent = megabytes_of_an_epoch(train, config)
        print(f"\n{name}: one process {alone_s:.2f} s an epoch; {sent:,.0f} MB summed an epoch")
        for num_workers in arguments.workers:
            with tempfile.TemporaryDirectory() as folder:
                first_s, epoch_s = seconds(
                    lambda on_epoch, c=config, n=num_workers, at=folder: fit_data_parallel(
                        train, c, num_workers=n, storage=Path(at), on_epoch=on_epoch
                    )
                )
            print(
                f"  {num_workers} workers {epoch_s:.2f} s an epoch: {alone_s / epoch_s:.2f} times "
                f"as fast; the first ends after {first_s:.0f} s"
            )


if __name__ == "__main__":
    main()
