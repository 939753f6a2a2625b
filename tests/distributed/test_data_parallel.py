"""Workers of Ray Train train what one process does, also where one of them is killed midway."""

import os
import signal

import numpy as np
import psutil
import pyarrow as pa
import pytest
import ray

from perso.data.groups import UserGroups
from perso.data.prepared import Interactions
from perso.distributed.data_parallel import fit_data_parallel
from perso.models.families import fit_model
from perso.models.hybrid_config import HybridConfig
from perso.models.protocol import UserBatch
from perso.models.sgd_config import SgdConfig
from perso.models.side_data import SideData

pytestmark = pytest.mark.ray

NUM_USERS, NUM_ITEMS, EPOCHS = 90, 40, 6
SMALL = {"num_factors": 4, "epochs": EPOCHS, "batch_size": 128, "device": "cpu"}
SIDE = SideData(
    segments=UserGroups.from_names([("even", "odd")[user % 2] for user in range(NUM_USERS)]),
    item_features=pa.table({"brand": [f"brand {item % 5}" for item in range(NUM_ITEMS)]}),
)
WORKERS = {"num_workers": 2, "cpus_per_worker": 0.5}


@pytest.fixture(scope="module")
def world():
    """Even users have 9 of 20 even items, odd users 9 of 20 odd ones."""
    rng = np.random.default_rng(0)
    items = [np.sort(rng.permutation(20)[:9]) * 2 + user % 2 for user in range(NUM_USERS)]
    num_pairs = 9 * NUM_USERS
    return Interactions(
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
        user_indices=np.repeat(np.arange(NUM_USERS, dtype=np.int32), 9),
        item_indices=np.concatenate(items).astype(np.int32),
        weights=rng.uniform(0.5, 5.0, num_pairs).astype(np.float32),
        ratings=np.full(num_pairs, np.nan, np.float32),
        last_at=np.zeros(num_pairs, np.int64),
        context_names={},
        context_codes={},
    )


def assert_agree(found, expected):
    """Numbers to 1 in 1,000 of the largest, and the same best 10 items for 99 % of the users."""
    for part in ("user_factors_UD", "item_factors_ID", "item_bias_I"):
        error = np.abs(getattr(found, part) - getattr(expected, part)).max()
        assert error <= 1e-3 * np.abs(getattr(expected, part)).max(), part
    best = [
        np.argsort(-model.score(UserBatch(user_indices=np.arange(NUM_USERS))), axis=1)[:, :10]
        for model in (found, expected)
    ]
    assert (best[0] == best[1]).all(1).mean() >= 0.99


def worker_pids():
    """Processes of Ray Train's workers below this one's Ray."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_worker_is_replaced_and_the_training_goes_on(ray_cluster, world, tmp_path):
    """The hybrid, so that features and context travel too; every epoch is told once."""
    config, told, killed = HybridConfig(**SMALL), [], []

    def on_epoch(progress):
        told.append((progress.epoch, progress.loss))
        if progress.epoch == 2:
            killed.append(worker_pids()[-1])
            os.kill(killed[0], signal.SIGKILL)

    found = fit_data_parallel(world, config, SIDE, storage=tmp_path, on_epoch=on_epoch, **WORKERS)
    losses = []
    expected = fit_model(world, config, SIDE, on_epoch=lambda p: losses.append(p.loss))
    assert killed
    assert [epoch for epoch, _ in told] == list(range(1, EPOCHS + 1))
    assert [loss for _, loss in told] == pytest.approx(losses, rel=1e-4)
    assert_agree(found, expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_whose_caller_gave_up_goes_on_where_it_stood(ray_cluster, world, tmp_path):
    config = SgdConfig(loss="bpr", patience=EPOCHS, **SMALL)
    fit = {"storage": tmp_path, **WORKERS}

    def give_up(progress):
        if progress.epoch == 4:
            raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        fit_data_parallel(world, config, on_epoch=give_up, **fit)
    psutil.wait_procs([psutil.Process(pid) for pid in worker_pids()], timeout=60)
    assert worker_pids() == []
    ray.get(
        ray.remote(num_cpus=2)(lambda: None).remote(), timeout=60
    )  # what they held is free again
    told = []
    found = fit_data_parallel(world, config, on_epoch=lambda p: told.append(p.epoch), **fit)
    assert told[0] > 1
    assert told == list(range(told[0], EPOCHS + 1))
    assert_agree(found, fit_model(world, config))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_that_diverges_says_so_at_once(ray_cluster, world, tmp_path):
    config = SgdConfig(**{**SMALL, "learning_rate": 1e30})
    with pytest.raises(ValueError, match=r"diverged in epoch \d with learning_rate 1e\+30"):
        fit_data_parallel(world, config, storage=tmp_path, **WORKERS)


@pytest.mark.parametrize("setting", ["num_workers", "checkpoint_every"])
def test_less_than_one_worker_or_epoch_is_refused(world, tmp_path, setting):
    settings = {"storage": tmp_path, **WORKERS, setting: 0}
    with pytest.raises(ValueError, match=f"{setting} is 0; give 1 or more"):
        fit_data_parallel(world, SgdConfig(**SMALL), **settings)


def test_half_a_gpu_is_refused(world, tmp_path):
    settings = {"storage": tmp_path, **WORKERS, "gpus_per_worker": 0.5}
    with pytest.raises(ValueError, match=r"gpus_per_worker is 0\.5; .* take whole GPUs"):
        fit_data_parallel(world, SgdConfig(**SMALL), **settings)
