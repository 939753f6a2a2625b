import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.models import als_side
from perso.models.als import AlsConfig, fit_als, fold_in_items, fold_in_users
from perso.models.als_encoder import AlsEncoder, AlsObjective
from perso.models.factors import FactorModel
from perso.models.newton_encoder import NewtonEncoder
from perso.models.protocol import UserBatch, WeightedItems

SOLVERS = ("cholesky", "cg", "subspace")
NO_OFFSET = np.zeros(8, np.float32)


def exact(**settings):
    """A run that converges on these small worlds."""
    return AlsConfig(**{"num_factors": 8, "epochs": 60, "solver": "cholesky"} | settings)


def random_world(build, rng, *, num_users=30, num_items=20, share=0.3):
    pairs = np.argwhere(rng.random((num_users, num_items)) < share)
    weights = rng.uniform(0.5, 5.0, len(pairs))
    return build(pairs, num_users=num_users, num_items=num_items, weights=weights)


def solve_naively(objective, fixed_ND, places, weights, *, num_others, offset_D=None):
    """One row's vector by the normal equations over every row of the fixed side."""
    fixed_ND = np.asarray(fixed_ND, np.float64)
    num_factors = fixed_ND.shape[1]
    offset_D = np.zeros(num_factors) if offset_D is None else np.asarray(offset_D, np.float64)
    a, alpha = objective.confidence, objective.unobserved_weight
    matrix_DD = objective.l2 * (len(places) + alpha * num_others) ** objective.l2_exponent
    matrix_DD = matrix_DD * np.eye(num_factors)
    right_D = np.zeros(num_factors)
    for vector_D in fixed_ND:
        matrix_DD += alpha * np.outer(vector_D, vector_D)
        right_D -= alpha * (vector_D @ offset_D) * vector_D
    for place, weight in zip(places, weights, strict=True):
        confidence = (1 + a * weight / objective.weight_unit) / (1 + a)
        vector_D = fixed_ND[place]
        matrix_DD += confidence * np.outer(vector_D, vector_D)
        right_D += confidence * (1 - vector_D @ offset_D) * vector_D
    return np.linalg.solve(matrix_DD, right_D)


def objective_naively(interactions, objective, user_UD, item_ID):
    """The objective of the module's docstring over the dense matrix."""
    scores_UI = user_UD.astype(np.float64) @ item_ID.astype(np.float64).T
    users, items = interactions.user_indices, interactions.item_indices
    a, alpha = objective.confidence, objective.unobserved_weight
    confidence_P = (1 + a * interactions.weights / objective.weight_unit) / (1 + a)
    total = (confidence_P * (1 - scores_UI[users, items]) ** 2).sum()
    total += alpha * (scores_UI**2).sum()
    for own, other, vectors in ((users, items, user_UD), (items, users, item_ID)):
        scale = np.bincount(own, minlength=len(vectors)) + alpha * len(np.unique(other))
        total += (objective.l2 * scale**objective.l2_exponent * (vectors**2).sum(1)).sum()
    return total


def without_pairs(interactions, *, num_users=None, num_items=None):
    """The same pairs over vocabularies of another size."""
    return replace(
        interactions,
        num_users=num_users or interactions.num_users,
        num_items=num_items or interactions.num_items,
    )


@pytest.fixture(scope="module")
def world(build):
    return random_world(build, np.random.default_rng(3))


@pytest.fixture(scope="module")
def model(world):
    return fit_als(world, exact())


# What is solved


@pytest.mark.parametrize("num_factors", [3, 8, 40])  # fewer factors than pairs, and more
def test_user_vectors_solve_the_normal_equations(world, num_factors):
    config = AlsConfig(num_factors=num_factors, epochs=2, l2=0.02, l2_exponent=0.5)
    model = fit_als(world, config)
    for user in range(world.num_users):
        rows = world.user_indices == user
        expected_D = solve_naively(
            model.encoder.objective,
            model.item_factors_ID,
            world.item_indices[rows],
            world.weights[rows],
            num_others=len(np.unique(world.item_indices)),
        )
        np.testing.assert_allclose(model.user_factors_UD[user], expected_D, atol=2e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "cg", "cg_steps": 40},
        {"solver": "cg", "cg_steps": 3},
        {"solver": "subspace", "block_size": 1},
        {"solver": "subspace", "block_size": 3},
        {"solver": "subspace", "block_size": 8},
    ],
)
def test_every_solver_converges_to_the_exact_one(world, settings):
    model, expected = (
        fit_als(world, exact(**settings, epochs=300)),
        fit_als(world, exact(epochs=300)),
    )
    users = UserBatch(user_indices=np.arange(world.num_users))
    np.testing.assert_allclose(model.score(users), expected.score(users), atol=2e-3)


@pytest.mark.parametrize(
    "settings",
    [{"solver": "cholesky"}, {"solver": "cg", "cg_steps": 30}, {"solver": "subspace"}],
)
@pytest.mark.parametrize("num_factors", [6, 20])
def test_rows_longer_than_a_panel_are_solved_like_short_ones(build, settings, num_factors):
    lengths = {0: 2500, 1: 13, 2: 1024, 3: 1025, 4: 1}
    pairs = [(user, item) for user, length in lengths.items() for item in range(length)]
    rng = np.random.default_rng(0)
    world = build(pairs, num_users=5, num_items=2500, weights=rng.uniform(1.0, 2.0, len(pairs)))
    objective = AlsObjective(
        l2=0.1, l2_exponent=0.5, unobserved_weight=0.1, confidence=1.0, weight_unit=1.5
    )
    item_ID = rng.normal(size=(2500, num_factors)).astype(np.float32)
    user_UD = np.zeros((5, num_factors), np.float32)
    side = als_side.Side.users(world, objective, 2500)
    config = AlsConfig(num_factors=num_factors, block_size=5, **settings)
    with als_side.open_threads(1) as threads:
        gram_D = als_side.rotate(threads, item_ID)
        for _ in range(60):
            side.improve(threads, config, item_ID, gram_D, user_UD)
    for user, length in lengths.items():
        weights = world.weights[world.user_indices == user]
        expected_D = solve_naively(objective, item_ID, range(length), weights, num_others=2500)
        np.testing.assert_allclose(user_UD[user], expected_D, atol=1e-5)


def test_conjugate_gradients_are_exact_after_as_many_steps_as_interactions(build):
    rng = np.random.default_rng(0)
    pairs = [(user, item) for user in range(6) for item in rng.permutation(40)[: user + 1]]
    weights = rng.uniform(0.5, 5.0, len(pairs))
    world = build(pairs, num_users=6, num_items=40, weights=weights)
    objective = AlsObjective(
        l2=0.1, l2_exponent=1.0, unobserved_weight=0.1, confidence=4.0, weight_unit=2.0
    )
    item_ID = rng.normal(size=(40, 12)).astype(np.float32)
    user_UD = np.zeros((6, 12), np.float32)
    side = als_side.Side.users(world, objective, 40)
    with als_side.open_threads(1) as threads:
        gram_D = als_side.rotate(threads, item_ID)
        side.improve(threads, AlsConfig(num_factors=12, cg_steps=6), item_ID, gram_D, user_UD)
    for user in range(6):
        rows = world.user_indices == user
        expected_D = solve_naively(
            objective, item_ID, world.item_indices[rows], world.weights[rows], num_others=40
        )
        np.testing.assert_allclose(user_UD[user], expected_D, atol=1e-5)


def test_the_reported_loss_is_the_objective(world):
    objective = AlsObjective(
        l2=0.03, l2_exponent=0.7, unobserved_weight=0.2, confidence=2.0, weight_unit=1.7
    )
    rng = np.random.default_rng(1)
    user_UD = rng.normal(size=(world.num_users, 5)).astype(np.float32)
    item_ID = rng.normal(size=(world.num_items, 5)).astype(np.float32)
    users = als_side.Side.users(world, objective, len(np.unique(world.item_indices)))
    items = als_side.Side.items(world, objective, len(np.unique(world.user_indices)))
    with als_side.open_threads(1) as threads:
        loss = users.loss(threads, item_ID, user_UD) + items.penalty(item_ID)
    assert loss == pytest.approx(objective_naively(world, objective, user_UD, item_ID), rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    solver=st.sampled_from(SOLVERS),
    num_factors=st.integers(1, 12),
    l2=st.floats(1e-3, 1.0),
    unobserved_weight=st.floats(1e-3, 1.0),
    l2_exponent=st.floats(0.0, 1.0),
    confidence=st.floats(0.0, 20.0),
)
def test_an_epoch_never_increases_the_objective(build, seed, **settings):
    world = random_world(build, np.random.default_rng(seed), num_users=9, num_items=7)
    losses = []
    config = AlsConfig(epochs=6, block_size=3, init_std=1.0, seed=seed, **settings)
    fit_als(world, config, on_epoch=lambda p: losses.append(p.loss), num_threads=1)
    assert len(losses) == 6
    assert np.all(np.diff(losses) <= 1e-5 * losses[0])


def test_penalties_grow_with_a_power_of_the_interactions():
    objective = AlsObjective(
        l2=0.1, l2_exponent=0.5, unobserved_weight=0.04, confidence=1.0, weight_unit=1.0
    )
    penalty_M = objective.penalty(np.array([0, 5, 12]), 100)  # 0 + 4, 5 + 4, 12 + 4
    np.testing.assert_allclose(penalty_M, [0.2, 0.3, 0.4])


def test_confidence_0_forgets_weights_and_a_high_one_is_all_weight(world):
    alike = replace(world, weights=np.ones(len(world), np.float32))
    config = exact(epochs=3, confidence=0.0)
    np.testing.assert_allclose(
        fit_als(world, config).user_factors_UD, fit_als(alike, config).user_factors_UD, atol=1e-5
    )
    objective = fit_als(world, exact(epochs=1, confidence=1e6)).encoder.objective
    base, scale = objective.confidence_line
    mean = world.weights.mean()
    assert base + scale * mean == pytest.approx(1.0)
    assert base + scale * 3 * mean == pytest.approx(3.0, rel=1e-5)


def test_by_default_all_pairs_count_20_times_the_interactions(build):
    sparse = build([(n, n % 50) for n in range(100)], num_users=120, num_items=60)
    objective = fit_als(sparse, exact(epochs=1)).encoder.objective
    assert objective.unobserved_weight * 100 * 50 == pytest.approx(20 * 100)


def test_by_default_no_unobserved_pair_counts_more_than_an_interaction(world, model):
    assert model.encoder.objective.unobserved_weight == 1.0


# What comes out


@pytest.mark.parametrize("solver", SOLVERS)
def test_each_user_is_recommended_the_rest_of_the_own_taste(two_tastes, solver):
    model = fit_als(two_tastes, AlsConfig(num_factors=2, solver=solver, block_size=1))
    scores_UI = model.score(UserBatch(user_indices=np.arange(40)))
    seen_UI = np.zeros((40, 24), bool)
    seen_UI[two_tastes.user_indices, two_tastes.item_indices] = True
    scores_UI[seen_UI] = -np.inf
    best_UK = np.argsort(-scores_UI, axis=1)[:, :5]
    assert np.all(best_UK % 2 == np.arange(40)[:, None] % 2)


def test_rows_without_interactions_have_no_vector_and_strangers_get_what_is_popular(build):
    world = build([(0, 0), (0, 2), (2, 0)], num_users=4, num_items=5)
    model = fit_als(world, exact())
    np.testing.assert_array_equal(model.user_factors_UD[[1, 3]], 0)
    np.testing.assert_array_equal(model.item_factors_ID[[1, 3, 4]], 0)
    np.testing.assert_array_equal(model.user_weight_U, [2, 0, 1, 0])
    assert model.score(UserBatch(user_indices=np.array([-1]))).argmax() == 0


def test_untouched_rows_change_nothing(build):
    pairs = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0)]
    config = exact(epochs=1, init_std=1.0)
    small = fit_als(build(pairs, num_users=3, num_items=3), config)
    large = fit_als(build(pairs, num_users=9, num_items=7), config)
    users = UserBatch(user_indices=np.arange(3))
    np.testing.assert_allclose(large.score(users)[:, :3], small.score(users), atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_number_of_threads_changes_no_byte(world, solver, monkeypatch):
    monkeypatch.setattr(als_side, "_PAIRS_AT_ONCE", 16)
    monkeypatch.setattr(als_side, "_VECTORS_AT_ONCE", 7)
    config = AlsConfig(num_factors=8, epochs=3, solver=solver, block_size=3)
    one, two, three = (fit_als(world, config, num_threads=n) for n in (1, 2, 3))
    for other in (two, three):
        assert other.user_factors_UD.tobytes() == one.user_factors_UD.tobytes()
        assert other.item_factors_ID.tobytes() == one.item_factors_ID.tobytes()


def test_another_seed_starts_elsewhere(world):
    first, second = (fit_als(world, exact(epochs=1, seed=seed)) for seed in (0, 1))
    assert np.abs(first.item_factors_ID - second.item_factors_ID).max() > 1e-3


def test_a_warm_start_goes_on_where_the_model_stopped(world):
    losses = []
    config = AlsConfig(num_factors=8, epochs=4)
    first = fit_als(world, config, on_epoch=lambda p: losses.append(p.loss))
    before = first.item_factors_ID.copy()
    fit_als(world, config, warm_start=first, on_epoch=lambda p: losses.append(p.loss))
    assert len(losses) == 8
    assert np.all(np.diff(losses) < 1e-6)
    np.testing.assert_array_equal(first.item_factors_ID, before)


def test_read_only_arrays_are_left_as_they_are(world):
    assert not world.weights.flags.writeable
    before = [array.copy() for array in (world.user_indices, world.item_indices, world.weights)]
    fit_als(world, AlsConfig(num_factors=4, epochs=1), on_epoch=lambda _: None)
    after = (world.user_indices, world.item_indices, world.weights)
    for array, expected in zip(after, before, strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_hopeless_penalty_gives_finite_vectors(world, solver):
    model = fit_als(world, exact(solver=solver, epochs=5, l2=1e-12, unobserved_weight=1e-9))
    assert np.isfinite(model.user_factors_UD).all()
    assert np.isfinite(model.item_factors_ID).all()


# Fold-in


def test_folding_the_training_history_in_gives_the_trained_users(world, model):
    np.testing.assert_allclose(fold_in_users(model, world), model.user_factors_UD, atol=1e-6)


def test_folding_the_training_history_in_gives_the_trained_items(world):
    model = fit_als(world, exact(epochs=500))
    np.testing.assert_allclose(fold_in_items(model, world), model.item_factors_ID, atol=2e-3)


def test_a_new_item_is_solved_from_who_touched_it(build, world, model):
    pairs = [(0, 0), (4, 0), (5, 0), (7, 1)]
    new = build(pairs, num_users=world.num_users, num_items=3, weights=[1.0, 2.0, 3.0, 4.0])
    item_ND = fold_in_items(model, new, num_threads=1)
    expected_D = solve_naively(
        model.encoder.objective,
        model.user_factors_UD,
        [0, 4, 5],
        [1.0, 2.0, 3.0],
        num_others=len(np.unique(world.user_indices)),
    )
    np.testing.assert_allclose(item_ND[0], expected_D, atol=2e-5)
    np.testing.assert_array_equal(item_ND[2], 0)


def test_new_users_fold_in_whatever_their_number(build, world, model):
    rows = world.user_indices == 3
    pairs = [(1, item) for item in world.item_indices[rows]]
    new = build(pairs, num_users=2, num_items=world.num_items, weights=world.weights[rows])
    user_ND = fold_in_users(model, new)
    np.testing.assert_array_equal(user_ND[0], 0)
    np.testing.assert_allclose(user_ND[1], model.user_factors_UD[3], atol=1e-6)


# The encoder


def items_of(pairs):
    """What a user did, as the request path says it."""
    items, weights = zip(*pairs, strict=True)
    return WeightedItems(
        item_indices=np.array(items, np.int64),
        weights=np.array(weights, np.float64),
        ratings=np.full(len(items), np.nan),
    )


def history_of(world, user):
    rows = world.user_indices == user
    return list(zip(world.item_indices[rows].tolist(), world.weights[rows].tolist(), strict=True))


@pytest.mark.parametrize("num_factors", [4, 8, 24])
def test_a_stranger_with_a_users_history_gets_that_users_vector(world, num_factors):
    model = fit_als(world, exact(num_factors=num_factors, epochs=5))
    for user in range(0, world.num_users, 5):
        solved_D = model.encoder.solve(
            model, -1, items_of(history_of(world, user)), np.zeros(num_factors, np.float32)
        )
        np.testing.assert_allclose(solved_D, model.user_factors_UD[user], atol=1e-5)


def test_new_events_are_solved_together_with_the_history(world, model):
    past = history_of(world, 2)
    new_items = np.setdiff1d(np.arange(world.num_items), [item for item, _ in past])[:3].tolist()
    recent = [(item, 4.0 + item) for item in new_items]
    solved_D = model.encoder.solve(model, 2, items_of(recent), NO_OFFSET)
    places, weights = zip(*(past + recent), strict=True)
    expected_D = solve_naively(
        model.encoder.objective, model.item_factors_ID, places, weights, num_others=20
    )
    np.testing.assert_allclose(solved_D, expected_D, atol=1e-5)


def test_weights_of_an_item_touched_before_add_up(world, model):
    past = history_of(world, 2)
    item, weight = past[1]
    solved_D = model.encoder.solve(model, 2, items_of([(item, 2.5)]), NO_OFFSET)
    whole = [*past[:1], (item, weight + 2.5), *past[2:]]
    expected_D = model.encoder.solve(model, -1, items_of(whole), NO_OFFSET)
    np.testing.assert_allclose(solved_D, expected_D, atol=1e-6)
    assert np.abs(solved_D - model.user_factors_UD[2]).max() > 1e-4


@pytest.mark.parametrize("num_items", [2, 15])  # fewer than factors, and more
def test_the_own_vector_explains_what_the_offset_does_not(world, model, num_items):
    offset_D = np.random.default_rng(4).normal(size=8).astype(np.float32) * 0.3
    events = [(item, 1.0 + item / 4) for item in range(num_items)]
    solved_D = model.encoder.solve(model, -1, items_of(events), offset_D)
    expected_D = solve_naively(
        model.encoder.objective,
        model.item_factors_ID,
        *zip(*events, strict=True),
        num_others=20,
        offset_D=offset_D,
    )
    np.testing.assert_allclose(solved_D, expected_D, atol=1e-5)


def test_scores_after_a_click_move_to_what_was_clicked(two_tastes):
    model = fit_als(two_tastes, AlsConfig(num_factors=2))
    scores_I = model.score_recent(-1, items_of([(2, 10.0), (6, 10.0)]))
    assert scores_I[::2].min() > scores_I[1::2].max() + 0.1


def test_a_loaded_model_answers_as_the_saved_one(world, model, tmp_path):
    model.save(tmp_path)
    loaded = FactorModel.load(tmp_path)
    assert isinstance(loaded.encoder, AlsEncoder)
    recent = items_of([(1, 2.0), (5, 1.0)])
    for user in (-1, 4):
        np.testing.assert_array_equal(
            loaded.score_recent(user, recent), model.score_recent(user, recent)
        )
    np.testing.assert_array_equal(fold_in_users(loaded, world), fold_in_users(model, world))
    np.testing.assert_array_equal(fold_in_items(loaded, world), fold_in_items(model, world))


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_factors": 0}, "num_factors is 0; give 1 or more"),
        ({"epochs": 0}, "epochs is 0"),
        ({"cg_steps": 0}, "cg_steps is 0"),
        ({"block_size": -3}, "block_size is -3"),
        ({"l2": 0.0}, "l2 is 0.0; give a number above 0"),
        ({"l2": float("nan")}, "l2 is nan"),
        ({"unobserved_weight": 0.0}, "unobserved_weight is 0.0"),
        ({"init_std": float("inf")}, "init_std is inf"),
        ({"l2_exponent": 1.5}, "l2_exponent is 1.5; give 0 to 1"),
        ({"confidence": -1.0}, "confidence is -1.0; give 0 or more"),
        ({"solver": "qr"}, "solver is 'qr'; give one of cholesky, cg, subspace"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AlsConfig(**settings)


def test_no_interactions_are_refused(build):
    with pytest.raises(ValueError, match="no interactions"):
        fit_als(build([], num_users=3, num_items=3), AlsConfig())


def test_a_warm_start_of_another_shape_is_refused(world, model):
    with pytest.raises(ValueError, match=r"\(30, 8\).*\(30, 9\)"):
        fit_als(world, exact(num_factors=9), warm_start=model)


def test_no_threads_are_refused(world):
    with pytest.raises(ValueError, match="num_threads is 0"):
        fit_als(world, AlsConfig(), num_threads=0)


def test_interactions_over_other_vocabularies_do_not_fold_in(world, model):
    with pytest.raises(ValueError, match="21 items, the model 20"):
        fold_in_users(model, without_pairs(world, num_items=21))
    with pytest.raises(ValueError, match="31 users, the model 30"):
        fold_in_items(model, without_pairs(world, num_users=31))


def test_rows_do_not_fold_into_a_model_of_another_family(world, model):
    encoder = NewtonEncoder(
        loss="softmax",
        weight_unit=1.0,
        l2=1.0,
        center_D=np.zeros(8, np.float32),
        curvature_DD=np.eye(8, dtype=np.float32),
        recent_boost=1.0,
    )
    with pytest.raises(ValueError, match="encoder is NewtonEncoder"):
        fold_in_users(replace(model, encoder=encoder), world)


def test_settings_and_serving_load_neither_numba_nor_torch():
    code = (
        "import sys; import perso.models.als_config, perso.models.als, perso.models.factors;"
        "assert not {'numba', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
