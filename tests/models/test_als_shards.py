"""Shards of ALS in a plain loop: cut without loss, and the model of one process."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.models import als_shards
from perso.models.als import AlsConfig, fit_als, fold_in_items, fold_in_users, objective_of
from perso.models.als_crew import ShardLoop
from perso.models.als_rounds import ShardedTraining
from perso.models.als_shards import Shard, cut_shards
from perso.models.als_side import open_threads
from perso.models.protocol import UserBatch, WeightedItems

SOLVERS = ("cholesky", "cg", "subspace")


def cut(world, num_shards):
    objective, num_users, num_items = objective_of(world, AlsConfig())
    return list(
        cut_shards(
            world, objective, num_users=num_users, num_items=num_items, num_shards=num_shards
        )
    )


def fit_in_shards(world, config, num_shards, *, on_epoch=None):
    with open_threads(1) as threads:
        crew = ShardLoop(cut(world, num_shards), config, threads)
        training = ShardedTraining(crew, world, objective_of(world, config)[0], config)
        return training.run(on_epoch)


def random_world(build, seed, *, num_users=300, num_items=80, share=0.15):
    """Few popular items and many rare ones, as in a shop."""
    rng = np.random.default_rng(seed)
    popularity_I = share * 2 * rng.random(num_items) ** 3
    pairs = np.argwhere(rng.random((num_users, num_items)) < popularity_I)
    weights = rng.uniform(0.5, 5.0, len(pairs))
    return build(pairs, num_users=num_users, num_items=num_items, weights=weights)


@pytest.fixture(scope="module")
def world(build):
    return random_world(build, 3)


def all_scores(model):
    return model.score(UserBatch(user_indices=np.arange(model.num_users)))


# What is cut


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), num_shards=st.integers(1, 12))
def test_every_pair_is_in_one_shard_by_user_and_in_one_by_item(build, seed, num_shards):
    world = random_world(build, seed, num_users=25, num_items=9, share=0.3)
    if not len(world):
        return
    pairs, weights = {"users": [], "items": []}, {"users": [], "items": []}
    for shard in cut(world, num_shards):
        for side, cuts in (("users", shard.user_cuts_S1), ("items", shard.item_cuts_S1)):
            own = getattr(shard, side)
            start, stop = cuts[shard.number : shard.number + 2]
            rows = np.repeat(np.arange(start, stop), np.diff(own.indptr_M1))
            pairs[side] += zip(rows, own.indices, strict=True)
            weights[side] += own.weights.tolist()
    expected = list(zip(world.user_indices, world.item_indices, strict=True))
    assert pairs["users"] == expected
    assert weights["users"] == world.weights.tolist()
    assert sorted((user, item) for item, user in pairs["items"]) == expected
    weight_of = dict(zip(expected, world.weights.tolist(), strict=True))
    assert weights["items"] == [weight_of[user, item] for item, user in pairs["items"]]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), num_shards=st.integers(1, 6))
def test_no_shard_has_more_than_its_share_of_work_and_one_row(build, seed, num_shards):
    world = random_world(build, seed, num_users=60, num_items=30, share=0.4)
    if not len(world):
        return
    for side in ("users", "items"):
        work = [int(getattr(shard, side).work_M1[-1]) for shard in cut(world, num_shards)]
        rows = getattr(cut(world, 1)[0], side)
        longest = int(np.diff(rows.work_M1).max())
        assert sum(work) == rows.work_M1[-1]
        assert max(work) <= sum(work) / num_shards + longest


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (2, 9), (7, 8), (5, 5), (8, 10)])
def test_a_range_of_items_starts_as_it_does_in_one_process(monkeypatch, start, stop):
    monkeypatch.setattr(als_shards, "_VECTORS_DRAWN_AT_ONCE", 3)
    config = AlsConfig(num_factors=5, seed=4)
    every_ID = np.random.default_rng(4).standard_normal((10, 5), np.float32)
    every_ID *= np.float32(config.init_std / np.sqrt(5))
    found_MD = als_shards._draw_rows(config, start, stop)
    np.testing.assert_array_equal(found_MD, every_ID[start:stop])


def test_a_shard_copies_only_the_rows_that_its_pairs_name(build):
    # Users 0 and 1 like items 0 and 1, users 2 and 3 like items 2 and 3.
    pairs = [(user, item) for user in range(4) for item in range(4) if user // 2 == item // 2]
    world = build(pairs, num_users=4, num_items=4)
    config = AlsConfig(num_factors=8)
    with open_threads(1) as threads:
        for data in cut(world, 2):
            shard = Shard(data, config, threads)
            shard.start()
            blocks = [np.ones((2, 8), np.float32), np.ones((2, 8), np.float32)]
            solved = shard.solve_users(blocks, np.ones(8, np.float32))
            assert solved.copied_bytes == 2 * 8 * 4


# What comes out


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_shard_gives_the_same_bytes_as_one_process(world, solver):
    config = AlsConfig(num_factors=8, epochs=4, solver=solver, block_size=3, seed=1)
    expected, found = fit_als(world, config, num_threads=1), fit_in_shards(world, config, 1)
    assert found.user_factors_UD.tobytes() == expected.user_factors_UD.tobytes()
    assert found.item_factors_ID.tobytes() == expected.item_factors_ID.tobytes()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("num_shards", [2, 5])
def test_shards_score_and_rank_as_one_process(world, solver, num_shards):
    config = AlsConfig(num_factors=8, epochs=8, solver=solver, block_size=3)
    expected, found = (
        all_scores(model)
        for model in (fit_als(world, config), fit_in_shards(world, config, num_shards))
    )
    # Only the order of sums differs; the random start's spread is a thousand times that.
    np.testing.assert_allclose(found, expected, atol=1e-5)
    top_20, expected_top_20 = (np.argsort(-scores)[:, :20] for scores in (found, expected))
    assert (top_20 == expected_top_20).all(axis=1).mean() >= 0.99
    assert (
        np.abs(all_scores(fit_als(world, AlsConfig(num_factors=8, seed=9))) - expected).max() > 0.01
    )


def test_all_that_a_model_has_beside_vectors_is_as_in_one_process(world):
    config = AlsConfig(num_factors=8, epochs=3)
    expected, found = fit_als(world, config), fit_in_shards(world, config, 3)
    np.testing.assert_array_equal(found.user_weight_U, expected.user_weight_U)
    np.testing.assert_array_equal(found.item_bias_I, expected.item_bias_I)
    np.testing.assert_allclose(found.encoder.gram_D, expected.encoder.gram_D, rtol=1e-5)
    assert found.encoder.objective == expected.encoder.objective
    assert found.encoder.num_items == expected.encoder.num_items
    for user in (0, 7):
        for ours, theirs in zip(
            found.encoder.history.of(user), expected.encoder.history.of(user), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(fold_in_users(found, world), found.user_factors_UD, atol=1e-6)
    recent = WeightedItems(
        item_indices=np.array([1, 5]), weights=np.array([2.0, 1.0]), ratings=np.full(2, np.nan)
    )
    np.testing.assert_allclose(
        found.score_recent(3, recent), expected.score_recent(3, recent), atol=1e-5
    )
    scores_of_new_items = [
        model.user_factors_UD @ fold_in_items(model, world).T for model in (found, expected)
    ]
    np.testing.assert_allclose(*scores_of_new_items, atol=1e-4)


def test_every_epoch_tells_the_objective_of_one_process(world):
    losses = {"one": [], "shards": []}
    config = AlsConfig(num_factors=8, epochs=5)
    fit_als(world, config, on_epoch=lambda p: losses["one"].append((p.epoch, p.loss)))
    fit_in_shards(world, config, 3, on_epoch=lambda p: losses["shards"].append((p.epoch, p.loss)))
    np.testing.assert_allclose(losses["shards"], losses["one"], rtol=1e-6)


def test_a_model_taken_midway_is_that_of_as_many_epochs_and_changes_nothing(world):
    taken = {}

    def take(progress):
        if progress.epoch == 2:
            taken[2] = progress.model()

    config = AlsConfig(num_factors=8, epochs=4)
    found = fit_in_shards(world, config, 3, on_epoch=take)
    undisturbed = fit_in_shards(world, config, 3)
    short = fit_in_shards(world, AlsConfig(num_factors=8, epochs=2), 3)
    assert taken[2].user_factors_UD.tobytes() == short.user_factors_UD.tobytes()
    assert found.user_factors_UD.tobytes() == undisturbed.user_factors_UD.tobytes()
    assert found.item_factors_ID.tobytes() == undisturbed.item_factors_ID.tobytes()


def test_more_shards_than_rows_leave_some_empty(build):
    pairs = [(0, 0), (0, 2), (2, 0), (5, 2), (5, 3)]
    world = build(pairs, num_users=7, num_items=5)
    config = AlsConfig(num_factors=4, epochs=3)
    expected, found = fit_als(world, config), fit_in_shards(world, config, 12)
    np.testing.assert_allclose(all_scores(found), all_scores(expected), atol=1e-5)
    np.testing.assert_array_equal(found.user_factors_UD[[1, 3, 4, 6]], 0)
    np.testing.assert_array_equal(found.item_factors_ID[[1, 4]], 0)
