"""Trainings in shards that are disturbed: by shards and blocks that go, and by their own end."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.errors import ArtifactError
from perso.models.als import AlsConfig, objective_of
from perso.models.als_checkpoint import CheckpointFolder
from perso.models.als_crew import ShardLoop
from perso.models.als_rounds import ShardedTraining, identity_of
from perso.models.als_shards import Shard, cut_shards
from perso.models.als_side import open_threads

CONFIG = AlsConfig(num_factors=4, epochs=4)


class ShardLostError(Exception):
    pass


class LosingLoop(ShardLoop):
    """Loses the first shard, and the blocks it has made if told so, before some of its calls."""

    lost = (ShardLostError,)

    def __init__(self, shards, config, threads, *, lose_at=(), with_blocks=False):
        self._make_shards = lambda: [Shard(data, config, threads) for data in shards]
        self._shards = self._make_shards()
        self._lose_at = set(lose_at)
        self._with_blocks = with_blocks
        self._is_lost = False
        self._made = []
        self._gone = set()
        self.steps = []

    def tell(self, step, *arguments, blocks=()):
        if len(self.steps) in self._lose_at:
            self._shards[0] = None
            self._is_lost = True
            if self._with_blocks:
                self._gone = {id(block) for block in self._made}
        self.steps.append(step.__name__)
        if self._is_lost or any(id(b) in self._gone for of_shards in blocks for b in of_shards):
            raise ShardLostError(step.__name__)
        return super().tell(step, *arguments, blocks=blocks)

    def make(self, step, *arguments, blocks=()):
        made = super().make(step, *arguments, blocks=blocks)
        self._made += made  # kept, so that no id is used twice
        return made

    def mend(self):
        if self._is_lost:
            self._shards[0] = self._make_shards()[0]
            self._is_lost = False


@pytest.fixture(scope="module")
def world(build):
    rng = np.random.default_rng(3)
    pairs = np.argwhere(rng.random((30, 20)) < 0.3)
    weights = rng.uniform(0.5, 5.0, len(pairs))
    return build(pairs, num_users=30, num_items=20, weights=weights)


def train(world, *, folder=None, every=1, num_shards=3, on_epoch=None, config=CONFIG, **crew):
    """The model's bytes, and the steps that the crew was told."""
    objective, num_users, num_items = objective_of(world, config)
    shards = list(
        cut_shards(
            world, objective, num_users=num_users, num_items=num_items, num_shards=num_shards
        )
    )
    with open_threads(1) as threads:
        loop = LosingLoop(shards, config, threads, **crew)
        checkpoints = None
        if folder is not None:
            checkpoints = CheckpointFolder(folder, identity_of(world, config), every=every)
        training = ShardedTraining(loop, world, objective, config, checkpoints=checkpoints)
        model = training.run(on_epoch)
    return model.user_factors_UD.tobytes() + model.item_factors_ID.tobytes(), loop.steps


@pytest.fixture(scope="module")
def undisturbed(world):
    return train(world)


# Shards that go


@settings(max_examples=12, deadline=None)
@given(lose_at=st.sets(st.integers(0, 30), max_size=2), with_blocks=st.booleans())
def test_whenever_a_shard_is_lost_the_model_is_the_undisturbed_one(
    world, undisturbed, lose_at, with_blocks
):
    found, _ = train(world, lose_at=lose_at, with_blocks=with_blocks)
    assert found == undisturbed[0]


@settings(max_examples=12, deadline=None)
@given(lose_at=st.sets(st.integers(0, 30), max_size=2), every=st.integers(1, 3))
def test_whenever_a_node_is_lost_the_model_is_the_undisturbed_one(
    tmp_path_factory, world, undisturbed, lose_at, every
):
    folder = tmp_path_factory.mktemp("checkpoints")
    found, _ = train(world, folder=folder, every=every, lose_at=lose_at, with_blocks=True)
    assert found == undisturbed[0]


def test_a_lost_shard_costs_no_more_than_its_epoch(undisturbed, world):
    _, steps = undisturbed
    third_epoch = [n for n, name in enumerate(steps) if name == "solve_users"][2]
    found, steps = train(world, lose_at={third_epoch})
    assert found == undisturbed[0]
    assert steps.count("start") == 1
    assert steps.count("restore") == 1
    assert steps.count("solve_users") == 4 + 1


def test_vectors_that_are_lost_with_a_node_are_read_from_the_last_checkpoint(
    tmp_path, undisturbed, world
):
    _, steps = train(world, folder=tmp_path / "undisturbed", every=2)
    fourth_epoch = [n for n, name in enumerate(steps) if name == "solve_items"][3]
    found, steps = train(
        world, folder=tmp_path / "lost", every=2, lose_at={fourth_epoch}, with_blocks=True
    )
    assert found == undisturbed[0]
    assert steps.count("start") == 1
    assert steps.count("load") == 1
    assert steps.count("solve_users") == 4 + 2  # the third epoch again, and the fourth


def test_what_kills_a_shard_three_times_ends_the_training(world):
    with pytest.raises(ShardLostError):
        train(world, lose_at=range(5, 100))


def test_an_error_of_a_callback_ends_the_training(world):
    def stop(progress):
        raise KeyError(progress.epoch)

    with pytest.raises(KeyError, match="1"):
        train(world, on_epoch=stop)


# Drivers that go


class KilledError(Exception):
    pass


def killed_after(epoch, world, folder, **settings):
    def kill(progress):
        if progress.epoch == epoch:
            raise KilledError

    with pytest.raises(KilledError):
        train(world, folder=folder, on_epoch=kill, **settings)


def test_a_killed_training_goes_on_at_the_last_checkpoint(tmp_path, undisturbed, world):
    killed_after(3, world, tmp_path, every=2)
    told = []
    found, steps = train(
        world, folder=tmp_path, every=2, on_epoch=lambda progress: told.append(progress.epoch)
    )
    assert found == undisturbed[0]
    assert told == [3, 4]
    assert "start" not in steps


def test_a_finished_training_is_repeated_from_its_last_checkpoint(tmp_path, undisturbed, world):
    train(world, folder=tmp_path)
    found, steps = train(world, folder=tmp_path)
    assert found == undisturbed[0]
    assert "solve_users" not in steps


def test_a_training_goes_on_for_more_epochs_and_with_another_number_of_shards(
    tmp_path, undisturbed, world
):
    train(world, folder=tmp_path, config=replace(CONFIG, epochs=2), num_shards=3)
    found, steps = train(world, folder=tmp_path, num_shards=5)
    assert "start" not in steps
    np.testing.assert_allclose(
        np.abs(np.frombuffer(found, np.float32)),
        np.abs(np.frombuffer(undisturbed[0], np.float32)),
        atol=1e-4,
    )


def test_half_a_checkpoint_counts_for_nothing(tmp_path, undisturbed, world):
    killed_after(2, world, tmp_path)
    (tmp_path / "epoch-00003").mkdir()
    for file in (tmp_path / "epoch-00002").iterdir():
        (tmp_path / "epoch-00003" / file.name).write_bytes(b"half")
    assert train(world, folder=tmp_path)[0] == undisturbed[0]
    assert [place.name for place in tmp_path.glob("epoch-*")] == ["epoch-00004"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"l2": 0.5}, "l2 0.003 for 0.5"),
        ({"num_factors": 5}, "num_factors 4 for 5"),
        ({"seed": 8}, "seed 0 for 8"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, world, change, message):
    train(world, folder=tmp_path)
    with pytest.raises(ArtifactError, match=message):
        train(world, folder=tmp_path, config=replace(CONFIG, **change))


def test_a_checkpoint_of_other_interactions_is_refused(tmp_path, world):
    train(world, folder=tmp_path)
    weights = world.weights.copy()
    weights[5] += 1
    with pytest.raises(ArtifactError, match="checksum of pairs"):
        train(replace(world, weights=weights), folder=tmp_path)


def test_a_checkpoint_of_more_epochs_is_refused(tmp_path, world):
    train(world, folder=tmp_path)
    with pytest.raises(ArtifactError, match="after epoch 4, and epochs is 2"):
        train(world, folder=tmp_path, config=replace(CONFIG, epochs=2))
