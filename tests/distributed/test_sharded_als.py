"""ALS in shards on Ray: the bytes of the plain loop, whoever is killed on the way."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
import ray

from perso.data.prepared import Interactions
from perso.distributed import sharded_als
from perso.distributed.sharded_als import fit_als_sharded
from perso.errors import ArtifactError, ClusterError
from perso.models.als import AlsConfig, fit_als, objective_of
from perso.models.als_checkpoint import CheckpointFolder
from perso.models.als_crew import ShardLoop
from perso.models.als_rounds import ShardedTraining, identity_of
from perso.models.als_shards import Shard, cut_shards
from perso.models.als_side import open_threads
from perso.models.protocol import UserBatch

pytestmark = pytest.mark.ray

CONFIG = AlsConfig(num_factors=8, epochs=4)
NUM_USERS, NUM_ITEMS = 8000, 90
"""A block of 4,000 users is above the 100 kB up to which Ray keeps results with their owner."""


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((NUM_USERS, NUM_ITEMS)) < 0.3 * rng.random(NUM_ITEMS) ** 3)
    return Interactions(
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
        user_indices=users.astype(np.int32),
        item_indices=items.astype(np.int32),
        weights=rng.uniform(0.5, 5.0, len(users)).astype(np.float32),
        ratings=np.full(len(users), np.nan, np.float32),
        last_at=np.zeros(len(users), np.int64),
        context_names={},
        context_codes={},
    )


def fit_by_loop(world, config, *, folder=None, on_epoch=None):
    """What two shards in this process learn."""
    objective, num_users, num_items = objective_of(world, config)
    shards = cut_shards(world, objective, num_users=num_users, num_items=num_items, num_shards=2)
    with open_threads(1) as threads:
        crew = ShardLoop(shards, config, threads)
        checkpoints = None
        if folder is not None:
            checkpoints = CheckpointFolder(folder, identity_of(world, config))
        training = ShardedTraining(crew, world, objective, config, checkpoints=checkpoints)
        return training.run(on_epoch)


@pytest.fixture(scope="module")
def by_loop(world):
    """The undisturbed model, and the loss of each epoch."""
    losses = []
    model = fit_by_loop(world, CONFIG, on_epoch=lambda progress: losses.append(progress.loss))
    return model, losses


def vectors(model):
    return model.user_factors_UD.tobytes() + model.item_factors_ID.tobytes()


def test_actors_learn_what_a_plain_loop_learns(ray_cluster, world, by_loop):
    losses = []
    model = fit_als_sharded(
        world, CONFIG, num_shards=2, on_epoch=lambda progress: losses.append(progress.loss)
    )
    assert vectors(model) == vectors(by_loop[0])
    assert losses == by_loop[1]
    users = UserBatch(user_indices=np.arange(world.num_users))
    expected = fit_als(world, CONFIG).score(users)
    np.testing.assert_allclose(model.score(users), expected, atol=1e-5)


class KillingCrew(sharded_als.RayCrew):
    """Kills the process of the first shard before one call of a step."""

    kill_before = ("solve_items", 2)
    killed: list[int]

    def make(self, step, *arguments, blocks=()):
        name, call = self.kill_before
        if step.__name__ == name:
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == call:
                pid = ray.get(super().make(pid_of))[0]
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)
        return super().make(step, *arguments, blocks=blocks)


def pid_of(shard: Shard) -> int:
    return os.getpid()


@pytest.mark.slow
def test_a_shard_whose_process_is_killed_comes_back_and_the_model_is_the_same(
    ray_cluster, world, by_loop, monkeypatch, caplog
):
    KillingCrew.killed = []
    monkeypatch.setattr(sharded_als, "RayCrew", KillingCrew)
    told = []
    model = fit_als_sharded(
        world, CONFIG, num_shards=2, on_epoch=lambda progress: told.append(progress.epoch)
    )
    assert len(KillingCrew.killed) == 1
    assert not psutil.pid_exists(KillingCrew.killed[0])
    assert vectors(model) == vectors(by_loop[0])
    assert told == [1, 2, 3, 4]
    # The blocks of the epoch before outlive the process that made them: no step back further.
    assert "a shard is lost" in caplog.text
    assert "are lost too" not in caplog.text


@pytest.mark.slow
def test_actors_go_on_where_a_checkpoint_stands_and_refuse_a_damaged_one(
    ray_cluster, world, by_loop, tmp_path
):
    fit_by_loop(world, replace(CONFIG, epochs=3), folder=tmp_path)
    told = []
    model = fit_als_sharded(
        world,
        CONFIG,
        num_shards=2,
        checkpoint_folder=tmp_path,
        on_epoch=lambda progress: told.append(progress.epoch),
    )
    assert told == [4]
    assert vectors(model) == vectors(by_loop[0])
    next(tmp_path.glob("epoch-00004/items-*")).unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        fit_als_sharded(world, CONFIG, num_shards=1, checkpoint_folder=tmp_path)


def test_shards_that_find_no_place_are_refused(ray_cluster, world, monkeypatch):
    monkeypatch.setattr(sharded_als, "_WAIT_S", 0.5)
    with pytest.raises(ClusterError, match=r"2 of 2 shards found no place.*128 CPUs"):
        fit_als_sharded(world, CONFIG, num_shards=2, cpus_per_shard=64)


def test_numbers_out_of_range_are_refused(world):
    with pytest.raises(ValueError, match="num_shards is 0"):
        fit_als_sharded(world, CONFIG, num_shards=0)
    with pytest.raises(ValueError, match="cpus_per_shard is 0"):
        fit_als_sharded(world, CONFIG, num_shards=1, cpus_per_shard=0)


DRIVER = """
import sys, time
from pathlib import Path

import numpy as np

from perso.data.prepared import Interactions
from perso.distributed.cluster import connect
from perso.distributed.sharded_als import fit_als_sharded
from perso.models.als import AlsConfig

folder, address = Path(sys.argv[1]), sys.argv[2]
with np.load(folder / "world.npz") as arrays:
    world = Interactions(context_names={}, context_codes={}, **{
        name: array if array.ndim else int(array) for name, array in arrays.items()
    })


def tell(progress):
    (folder / f"epoch-{progress.epoch}").touch()
    while progress.epoch == 3 and not (folder / "go-on").exists():
        time.sleep(0.1)


connect(address)
model = fit_als_sharded(
    world,
    AlsConfig(num_factors=8, epochs=4),
    num_shards=2,
    checkpoint_folder=folder / "checkpoints",
    checkpoint_every=2,
    on_epoch=tell,
)
np.savez(folder / "model.npz", users=model.user_factors_UD, items=model.item_factors_ID)
"""


def write_world(world, folder):
    names = (
        "num_users",
        "num_items",
        "user_indices",
        "item_indices",
        "weights",
        "ratings",
        "last_at",
    )
    np.savez(folder / "world.npz", **{name: getattr(world, name) for name in names})


def wait_for(path, process, *, timeout_s):
    give_up_at = time.monotonic() + timeout_s
    while not path.exists():
        assert process.poll() is None, f"the driver ended with {process.returncode}"
        assert time.monotonic() < give_up_at, f"no {path.name}"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_training_whose_driver_is_killed_goes_on_at_its_checkpoint(
    ray_cluster, world, by_loop, tmp_path
):
    write_world(world, tmp_path)
    address = ray.get_runtime_context().gcs_address
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), address])
    try:
        wait_for(tmp_path / "epoch-3", driver, timeout_s=200)
    finally:
        driver.kill()
        driver.wait()
    told = []
    model = fit_als_sharded(
        world,
        CONFIG,
        num_shards=2,
        checkpoint_folder=tmp_path / "checkpoints",
        checkpoint_every=2,
        on_epoch=lambda progress: told.append(progress.epoch),
    )
    assert told == [3, 4]
    assert vectors(model) == vectors(by_loop[0])


@pytest.mark.slow
@pytest.mark.nodes
@pytest.mark.timeout(600)
def test_a_node_that_dies_under_a_training_changes_no_byte_of_the_model(
    cluster, world, by_loop, tmp_path
):
    cluster.start_head()
    survivor, victim = (cluster.add_worker("--num-cpus=2") for _ in range(2))
    write_world(world, tmp_path)
    with (tmp_path / "log").open("w") as log:
        driver = cluster.popen(
            [sys.executable, "-c", DRIVER, str(tmp_path), cluster.address], stdout=log, stderr=log
        )
    wait_for(tmp_path / "epoch-3", driver, timeout_s=200)
    assert survivor.is_busy() and victim.is_busy()
    victim.kill()
    (tmp_path / "go-on").touch()
    assert driver.wait(timeout=300) == 0, (tmp_path / "log").read_text()
    # From copies of its blocks on the other node, or from the checkpoint where there are none.
    assert "als: a shard is lost" in (tmp_path / "log").read_text()
    with np.load(tmp_path / "model.npz") as model:
        assert model["users"].tobytes() + model["items"].tobytes() == vectors(by_loop[0])
