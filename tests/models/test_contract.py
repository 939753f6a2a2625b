"""What every model owes, whatever its family."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from perso.data.groups import UserGroups
from perso.models.als_config import AlsConfig
from perso.models.blend_config import BlendConfig
from perso.models.families import FAMILIES, fit_model, load_personal_model
from perso.models.hybrid_config import HybridConfig
from perso.models.knn_config import ItemKnnConfig
from perso.models.popularity import PopularityModel
from perso.models.popularity_config import PopularityConfig
from perso.models.protocol import UserBatch, WeightedItems
from perso.models.sgd_config import SgdConfig
from perso.models.side_data import SideData
from perso.models.spectral_config import SpectralConfig
from perso.models.top_k import top_k

NUM_USERS, NUM_ITEMS = 41, 24
SEGMENTS = UserGroups.from_names(
    [["even", "odd", None][min(u % 2 + u // 40 * 2, 2)] for u in range(NUM_USERS)]
)
SIDE = SideData(
    segments=SEGMENTS,
    item_features=pa.table({"brand": [f"brand {item % 4}" for item in range(NUM_ITEMS)]}),
)
DEVICES = [["phone", "desktop", None][pair % 3] for pair in range(280)]
SMALL = {"num_factors": 6, "epochs": 5, "batch_size": 64, "seed": 3, "device": "cpu"}
COSINE = {"similarity": "cosine", "learning_rate": 0.5, "temperature": 0.5, "l2": 0.0}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model under contract."""

    config: Any
    overlap: float | None
    """Least share of the best 5 that a user's history folded into a stranger must give as the
    trained vector does, on average; 1 where scores agree to rounding, None where there is no
    fold-in."""


CASES = {
    "popularity": Case(config=PopularityConfig(), overlap=None),
    "item_knn": Case(config=ItemKnnConfig(num_neighbors=10), overlap=1.0),
    "als": Case(config=AlsConfig(num_factors=6, epochs=5, seed=3), overlap=1.0),
    "spectral": Case(config=SpectralConfig(num_factors=6, seed=3, device="cpu"), overlap=1.0),
    "softmax": Case(config=SgdConfig(**SMALL), overlap=1.0),
    "sampled softmax": Case(config=SgdConfig(num_negatives=8, **SMALL), overlap=1.0),
    "contrasted": Case(config=SgdConfig(loss="contrasted", **SMALL), overlap=1.0),
    "bpr": Case(config=SgdConfig(loss="bpr", **SMALL), overlap=1.0),
    "logistic": Case(config=SgdConfig(loss="logistic", **SMALL), overlap=1.0),
    # The trained direction is better than the closed form that the request path has.
    "contrastive cosine": Case(
        config=SgdConfig(loss="contrastive", margin=0.2, **SMALL, **COSINE), overlap=0.75
    ),
    "contrasted cosine": Case(
        config=SgdConfig(loss="contrasted", history_weight=1.0, **SMALL, **COSINE), overlap=0.75
    ),
    # A ridge with the average curvature in place of each user's own.
    "squared ratings": Case(config=SgdConfig(loss="squared", **SMALL), overlap=0.9),
    "squared weights": Case(
        config=SgdConfig(loss="squared", target="weights", **SMALL), overlap=0.7
    ),
    # A stranger's segment and affinities are unknown; what is folded in has to make up for them.
    "hybrid": Case(config=HybridConfig(**SMALL), overlap=0.9),
    "blend": Case(
        config=BlendConfig(
            spectral=SpectralConfig(num_factors=4, device="cpu"),
            learned=SgdConfig(loss="contrasted", history_weight=1.0, **SMALL, **COSINE),
            als=AlsConfig(num_factors=4, epochs=3),
        ),
        overlap=0.8,
    ),
}


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="module")
def world(build, two_tastes):
    """The two tastes, rated and with devices, so that every family can learn from them."""
    stars = 1.0 + two_tastes.item_indices % 5
    pairs = np.stack([two_tastes.user_indices, two_tastes.item_indices], 1)
    return build(
        pairs,
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
        weights=two_tastes.weights,
        ratings=stars,
        context={"device": DEVICES},
    )


def fit(case, interactions):
    return fit_model(interactions, case.config, SIDE)


@pytest.fixture(scope="module")
def model(case, world):
    return fit(case, world)


@pytest.fixture(scope="module")
def personal(model):
    """The model, of the families that serve."""
    if isinstance(model, PopularityModel):
        pytest.skip("popularity is a fallback: it is not personal")
    return model


def load(model, folder):
    return (
        PopularityModel.load(folder)
        if isinstance(model, PopularityModel)
        else (load_personal_model(folder))
    )


def segment_of(user):
    code = SEGMENTS.codes_U[user] if user >= 0 else -1
    return None if code < 0 else SEGMENTS.names[code]


def batch_of(*users):
    return UserBatch(
        user_indices=np.array(users, np.int64),
        segment_names=tuple(segment_of(user) for user in users),
        context={"device": [("phone", None, "fridge")[user % 3] for user in users]},
    )


def alone(personal, user, recent=None):
    """Scores of one user in the same segment and context as in :func:`batch_of`."""
    device = ("phone", None, "fridge")[user % 3]
    context = {} if device is None else {"device": device}
    recent = WeightedItems.empty() if recent is None else recent
    return personal.score_recent(user, recent, segment=segment_of(user), context=context)


def history_of(interactions, user):
    mine = interactions.user_indices == user
    return WeightedItems(
        item_indices=interactions.item_indices[mine].astype(np.int64),
        weights=interactions.weights[mine].astype(np.float64),
        ratings=interactions.ratings[mine].astype(np.float64),
    )


RECENT = WeightedItems(
    item_indices=np.array([1, 4, 6]),
    weights=np.array([30.0, 1.0, 2.5]),
    ratings=np.array([np.nan, 5.0, np.nan]),
)


def test_every_family_is_under_contract():
    assert {case.config.family for case in CASES.values()} == set(FAMILIES)


def test_scores_have_a_row_per_user_and_a_column_per_item(model):
    scores = model.score(batch_of(0, 5, -1))
    assert scores.shape == (3, model.num_items) == (3, NUM_ITEMS)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_the_same_seed_gives_the_same_scores(case, model, world):
    users = batch_of(*range(NUM_USERS))
    np.testing.assert_array_equal(fit(case, world).score(users), model.score(users))


def test_a_saved_model_loads_with_the_same_scores(model, tmp_path):
    model.save(tmp_path)
    users = batch_of(*range(-1, NUM_USERS))
    np.testing.assert_array_equal(load(model, tmp_path).score(users), model.score(users))


def test_a_saved_model_folds_in_and_compares_items_alike(personal, tmp_path):
    personal.save(tmp_path)
    loaded = load_personal_model(tmp_path)
    for user in (-1, 0, 7, 40):
        np.testing.assert_array_equal(alone(loaded, user, RECENT), alone(personal, user, RECENT))
    np.testing.assert_array_equal(loaded.similarity(3), personal.similarity(3))
    np.testing.assert_array_equal(loaded.has_signal_I, personal.has_signal_I)
    assert loaded.recent_boost == personal.recent_boost
    assert (loaded.num_users, loaded.num_items) == (NUM_USERS, NUM_ITEMS)
    assert [loaded.knows(user) for user in range(-1, 41)] == [
        personal.knows(user) for user in range(-1, 41)
    ]


def test_a_saved_model_holds_no_code(model, tmp_path):
    model.save(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".npy", ".json"}
    for path in tmp_path.rglob("*.npy"):
        np.load(path, allow_pickle=False)


def test_one_user_scores_as_in_a_batch(model):
    together = model.score(batch_of(*range(NUM_USERS)))
    one_by_one = np.concatenate([model.score(batch_of(user)) for user in range(NUM_USERS)])
    np.testing.assert_allclose(one_by_one, together, rtol=1e-5, atol=1e-6)


def test_users_without_segments_are_scored_too(model):
    bare = UserBatch(user_indices=np.array([0, -1], np.int64))
    assert np.isfinite(model.score(bare)).all()


def test_a_stranger_gets_what_a_user_without_interactions_gets(model):
    bare = UserBatch(user_indices=np.array([-1, 40], np.int64))
    stranger, newcomer = model.score(bare)
    np.testing.assert_array_equal(stranger, newcomer)


def test_no_users_give_no_rows(model):
    assert model.score(batch_of()).shape == (0, NUM_ITEMS)


def test_a_list_longer_than_the_catalogue_is_the_catalogue(model):
    indices, _ = top_k(model.score(batch_of(0, -1)), 30)
    assert (indices[:, NUM_ITEMS:] == -1).all()
    assert sorted(indices[0, :NUM_ITEMS]) == sorted(indices[1, :NUM_ITEMS]) == list(range(24))


def test_fitting_and_scoring_leave_their_inputs_alone(case, world):
    before = copy.deepcopy(world)
    users, recent = batch_of(3, -1), copy.deepcopy(RECENT)
    asked = users.user_indices.copy()
    model = fit(case, world)
    model.score(users)
    if not isinstance(model, PopularityModel):
        model.score_recent(3, recent)
    for field in ("user_indices", "item_indices", "weights", "ratings", "last_at"):
        np.testing.assert_array_equal(getattr(world, field), getattr(before, field))
    np.testing.assert_array_equal(users.user_indices, asked)
    for field in ("item_indices", "weights", "ratings"):
        np.testing.assert_array_equal(getattr(recent, field), getattr(RECENT, field))


def test_scores_handed_out_are_the_callers_own(personal):
    before = alone(personal, 0).copy()
    alone(personal, 0)[:] = 9.0
    personal.similarity(0)[:] = 9.0
    personal.score(batch_of(0))[:] = 9.0
    np.testing.assert_array_equal(alone(personal, 0), before)


def test_with_nothing_recent_the_scores_are_those_of_the_batch(personal):
    together = personal.score(batch_of(*range(-1, NUM_USERS)))
    for row, user in enumerate(range(-1, NUM_USERS)):
        found_I = alone(personal, user)
        assert (found_I.shape, found_I.dtype) == ((NUM_ITEMS,), np.float32)
        np.testing.assert_allclose(found_I, together[row], rtol=1e-5, atol=1e-6)


def test_a_whole_history_folded_into_a_stranger_ranks_as_the_trained_user(case, personal, world):
    shares = []
    for user in range(40):
        bare = UserBatch(user_indices=np.array([user]))
        trained_I = personal.score(bare)[0]
        folded_I = personal.score_recent(-1, history_of(world, user))
        best = [set(np.argsort(-scores_I)[:5]) for scores_I in (trained_I, folded_I)]
        shares.append(len(best[0] & best[1]) / 5)
        if case.overlap == 1.0:
            scale = np.abs(trained_I).max()
            np.testing.assert_allclose(folded_I, trained_I, rtol=5e-3, atol=5e-3 * scale)
    # Two numbers that agree to rounding may still change places.
    assert np.mean(shares) >= min(case.overlap, 0.98)


@pytest.mark.parametrize("user", [-1, 0, 1, 40])
def test_what_was_just_done_moves_the_scores_to_its_like(personal, user):
    """The session is of items of one taste."""
    if getattr(personal, "predicts", None) is not None:
        pytest.skip("which items somebody touched says nothing of the numbers they give")
    evens = WeightedItems(
        item_indices=np.array([0, 2, 4, 6]),
        weights=np.full(4, 2.0 * personal.recent_boost),
        ratings=np.full(4, np.nan),
    )
    before_I, after_I = alone(personal, user), alone(personal, user, evens)
    assert np.isfinite(after_I).all()
    rank_before_I, rank_after_I = (np.argsort(np.argsort(s)) for s in (before_I, after_I))
    gain_I = rank_after_I - rank_before_I
    assert gain_I[::2].mean() >= gain_I[1::2].mean()
    assert rank_after_I[::2].mean() > rank_after_I[1::2].mean()


def test_the_order_of_recent_items_carries_no_meaning(personal):
    flipped = WeightedItems(
        item_indices=RECENT.item_indices[::-1],
        weights=RECENT.weights[::-1],
        ratings=RECENT.ratings[::-1],
    )
    for user in (-1, 0):
        np.testing.assert_allclose(
            alone(personal, user, flipped), alone(personal, user, RECENT), rtol=1e-4, atol=1e-5
        )


def test_an_item_is_most_similar_to_itself(personal):
    assert personal.has_signal_I.shape == (NUM_ITEMS,)
    assert personal.has_signal_I.any()
    for item in range(NUM_ITEMS):
        alike_I = personal.similarity(item)
        assert (alike_I.shape, alike_I.dtype) == ((NUM_ITEMS,), np.float32)
        assert np.isfinite(alike_I).all()
        if personal.has_signal_I[item]:
            assert alike_I[item] >= alike_I.max() - 1e-5
            assert alike_I[item] > 0
        else:
            assert not alike_I.any()


def test_a_session_outweighs_the_past(personal):
    assert personal.recent_boost >= 1


def test_known_is_who_has_done_something(personal):
    assert [personal.knows(user) for user in (-1, 0, 39, 40)] == [False, True, True, False]


def test_a_request_is_known_where_segment_or_context_move_a_strangers_scores(personal):
    bare_I = personal.score_recent(-1, WeightedItems.empty())
    for segment, context in (("even", {}), ("none such", {}), (None, {"device": "phone"})):
        asked_I = personal.score_recent(-1, WeightedItems.empty(), segment=segment, context=context)
        moved = bool(np.abs(asked_I - bare_I).max() > 1e-6)
        assert personal.knows_request(segment=segment, context=context) == moved
