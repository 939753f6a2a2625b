"""Several ranks train what one does, and agree with each other to the bit.

Here a rank is a thread or a process; across a cluster it is a worker of Ray Train.
"""

import itertools
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch

from perso.data.groups import UserGroups
from perso.models.hybrid import fit_hybrid
from perso.models.hybrid_config import HybridConfig
from perso.models.protocol import UserBatch
from perso.models.ranks import ALONE, Ranks
from perso.models.sgd import fit_sgd
from perso.models.sgd_config import SgdConfig
from perso.models.side_data import SideData

NUM_USERS, NUM_ITEMS = 120, 60
SMALL = {"num_factors": 6, "epochs": 3, "batch_size": 128, "seed": 3, "device": "cpu"}
COSINE = {"similarity": "cosine", "learning_rate": 0.5, "temperature": 0.5, "l2": 0.0}
SIDE = SideData(
    segments=UserGroups.from_names([("even", "odd", None)[u % 3] for u in range(NUM_USERS)]),
    user_features=pa.table({"region": [f"region {user % 4}" for user in range(NUM_USERS)]}),
    item_features=pa.table({"brand": [f"brand {item % 7}" for item in range(NUM_ITEMS)]}),
)
CONFIGS = {
    "softmax": SgdConfig(num_negatives=16, **SMALL),
    "contrasted": SgdConfig(loss="contrasted", negatives="popularity", num_negatives=16, **SMALL),
    "logistic": SgdConfig(loss="logistic", num_negatives=16, optimizer="adam", **SMALL),
    "bpr": SgdConfig(loss="bpr", dropout=0.2, num_negatives=16, **SMALL),
    "contrasted cosine": SgdConfig(
        loss="contrasted", history_weight=1.0, init="spectral", patience=1, **SMALL, **COSINE
    ),
    "contrastive": SgdConfig(loss="contrastive", margin=0.2, **SMALL, **COSINE),
    "squared": SgdConfig(loss="squared", target="weights", **SMALL),
    "hybrid": HybridConfig(patience=2, schedule="linear", **SMALL),
    "a user a step": SgdConfig(num_negatives=16, **{**SMALL, "batch_size": 1, "epochs": 1}),
}


@pytest.fixture(scope="module")
def world(build):
    """3 to 14 items a user, of which a part is to the user's taste."""
    rng = np.random.default_rng(0)
    pairs = [
        (user, item)
        for user in range(NUM_USERS)
        for item in rng.permutation(np.r_[0:NUM_ITEMS, user % 2 : NUM_ITEMS : 2]).tolist()[
            : rng.integers(3, 15)
        ]
    ]
    pairs = sorted(set(pairs))
    return build(
        pairs,
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
        weights=rng.uniform(0.5, 5.0, len(pairs)),
        context={"device": [("phone", "desktop", None)[pair % 3] for pair in range(len(pairs))]},
    )


def fit(world, config, ranks, losses=None):
    def on_epoch(progress):
        if losses is not None:
            losses.append(progress.loss)

    if isinstance(config, HybridConfig):
        return fit_hybrid(world, SIDE, config, ranks=ranks, on_epoch=on_epoch)
    return fit_sgd(world, config, ranks=ranks, on_epoch=on_epoch)


class _Meeting:
    """Adds tensors up over threads; all of them get one and the same sum."""

    def __init__(self, size):
        self._barrier = threading.Barrier(size, timeout=60)
        self._given = [None] * size
        self.num_numbers = 0

    def add_up(self, rank, tensor):
        self._given[rank] = tensor.clone()
        self._barrier.wait()
        tensor.copy_(sum(self._given[1:], self._given[0]))
        if rank == 0:
            self.num_numbers += tensor.numel()
        self._barrier.wait()


def fit_together(world, config, size):
    """The models of all ranks, the losses that each has reported, and how much was sent."""
    meeting, losses = _Meeting(size), [[] for _ in range(size)]
    with ThreadPoolExecutor(size) as threads:
        jobs = [
            threads.submit(
                fit,
                world,
                config,
                Ranks(rank=rank, size=size, all_reduce=partial(meeting.add_up, rank)),
                losses[rank],
            )
            for rank in range(size)
        ]
        return [job.result() for job in jobs], losses, meeting.num_numbers


def best_20(model):
    scores = model.score(UserBatch(user_indices=np.arange(NUM_USERS)))
    return np.argsort(-scores, axis=1, kind="stable")[:, :20]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_several_ranks_train_what_one_does(world, config, size):
    """Numbers to 1 in 1,000 of the largest, and the same 20 items for 99 % of the users."""
    losses = []
    alone = fit(world, config, ALONE, losses)
    models, told, _ = fit_together(world, config, size)
    for part in ("user_factors_UD", "item_factors_ID", "item_bias_I"):
        expected = getattr(alone, part)
        error = np.abs(getattr(models[0], part) - expected).max()
        assert error <= 1e-3 * np.abs(expected).max(), part
        for other in models[1:]:
            assert getattr(other, part).tobytes() == getattr(models[0], part).tobytes()
    assert told[0] == pytest.approx(losses, rel=1e-4)
    assert told[1:] == [told[0]] * (size - 1)
    same = (best_20(models[0]) == best_20(alone)).all(1)
    assert same.mean() >= 0.99


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("num_rows", [0, 1, 5, 100])
def test_every_row_is_one_ranks_and_shares_are_even(size, num_rows):
    ranks = [Ranks(rank=rank, size=size) for rank in range(size)]
    shares = [list(range(num_rows))[one.share(num_rows)] for one in ranks]
    assert list(itertools.chain(*shares)) == list(range(num_rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_rank_starts_where_the_first_one_does():
    """A machine of another kind may round a spectral start differently."""
    meeting = _Meeting(2)
    first, second = torch.ones(3), torch.full((3,), 1.5)
    with ThreadPoolExecutor(2) as threads:
        jobs = []
        for rank, start in enumerate((first, second)):
            ranks = Ranks(rank=rank, size=2, all_reduce=partial(meeting.add_up, rank))
            jobs.append(threads.submit(ranks.align_, [start]))
        for job in jobs:
            job.result()
    assert first.tolist() == second.tolist() == [1.0, 1.0, 1.0]


def test_a_step_sends_the_slopes_of_the_rows_that_it_has_met_and_no_more(world):
    """At the start all tables; in each of an epoch's steps its users, the items, and the loss."""
    config = SgdConfig(**{**SMALL, "epochs": 1})  # the catalogue is small: every step has it whole
    _, _, sent = fit_together(world, config, 2)
    width, num_steps = 6, -(-NUM_USERS // round(128 * NUM_USERS / len(world)))
    tables = (NUM_USERS + NUM_ITEMS) * width + NUM_ITEMS
    assert sent == tables + NUM_USERS * width + num_steps * (NUM_ITEMS * (width + 1) + 1)


PROCESS = """
import sys
from pathlib import Path
import numpy as np, torch
from torch import distributed
from perso.data.prepared import Interactions
from perso.models.ranks import Ranks
from perso.models.sgd import fit_sgd
from perso.models.sgd_config import SgdConfig
folder, rank = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
)
arrays = np.load(folder / "world.npz")
world = Interactions(
    num_users=120, num_items=60, context_names={}, context_codes={}, **arrays
)
config = SgdConfig(num_factors=6, epochs=3, batch_size=128, device="cpu", loss="bpr")
model = fit_sgd(world, config, ranks=Ranks.of_process_group())
np.save(folder / f"items {rank}.npy", model.item_factors_ID)
"""


@pytest.mark.slow
def test_two_processes_train_what_one_does(world, tmp_path):
    columns = ("user_indices", "item_indices", "weights", "ratings", "last_at")
    np.savez(tmp_path / "world.npz", **{name: getattr(world, name) for name in columns})
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(tmp_path), str(rank)])
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    first, second = (np.load(tmp_path / f"items {rank}.npy") for rank in range(2))
    assert first.tobytes() == second.tobytes()
    config = SgdConfig(num_factors=6, epochs=3, batch_size=128, device="cpu", loss="bpr")
    expected = fit_sgd(world, config).item_factors_ID
    assert np.abs(first - expected).max() <= 1e-3 * np.abs(expected).max()
