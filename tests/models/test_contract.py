"""What every model owes, whatever it is."""

import copy

import numpy as np
import pytest

from perso.data.groups import UserGroups
from perso.models.factors import FactorModel
from perso.models.popularity import PopularityModel, fit_popularity
from perso.models.protocol import UserBatch
from perso.models.sgd import SgdConfig, fit_sgd
from perso.models.top_k import top_k

SEGMENTS = UserGroups.from_names(
    [["even", "odd", None][min(u % 2 + u // 40 * 2, 2)] for u in range(41)]
)
SMALL = {"num_factors": 6, "epochs": 5, "batch_size": 64, "seed": 3}


def softmax(interactions):
    return fit_sgd(interactions, SgdConfig(**SMALL))


def sampled_softmax(interactions):
    return fit_sgd(interactions, SgdConfig(num_negatives=8, **SMALL))


def rating(interactions):
    return fit_sgd(interactions, SgdConfig(loss="rating", **SMALL))


def popularity(interactions):
    return fit_popularity(interactions, SEGMENTS)


FITS = [popularity, softmax, sampled_softmax, rating]
CLASS_OF = {popularity: PopularityModel}


@pytest.fixture(scope="module", params=FITS, ids=lambda fit: fit.__name__)
def fit(request):
    return request.param


@pytest.fixture(scope="module")
def world(build, two_tastes):
    """The two tastes, rated, so that every loss can learn from them."""
    stars = 1.0 + two_tastes.item_indices % 5
    pairs = np.stack([two_tastes.user_indices, two_tastes.item_indices], 1)
    return build(pairs, num_users=41, num_items=24, weights=two_tastes.weights, ratings=stars)


@pytest.fixture(scope="module")
def model(fit, world):
    return fit(world)


def batch_of(*users):
    names = tuple(
        None if u < 0 or SEGMENTS.codes_U[u] < 0 else SEGMENTS.names[SEGMENTS.codes_U[u]]
        for u in users
    )
    return UserBatch(user_indices=np.array(users, np.int64), segment_names=names)


def test_scores_have_a_row_per_user_and_a_column_per_item(model):
    scores = model.score(batch_of(0, 5, -1))
    assert scores.shape == (3, model.num_items) == (3, 24)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_the_same_seed_gives_the_same_scores(fit, model, world):
    users = batch_of(*range(41))
    np.testing.assert_array_equal(fit(world).score(users), model.score(users))


def test_a_saved_model_loads_with_the_same_scores(fit, model, tmp_path):
    model.save(tmp_path)
    loaded = CLASS_OF.get(fit, FactorModel).load(tmp_path)
    users = batch_of(*range(-1, 41))
    np.testing.assert_array_equal(loaded.score(users), model.score(users))


def test_a_saved_model_holds_no_code(model, tmp_path):
    model.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".json"}
    for path in tmp_path.glob("*.npy"):
        np.load(path, allow_pickle=False)


def test_one_user_scores_as_in_a_batch(model):
    together = model.score(batch_of(*range(41)))
    alone = np.concatenate([model.score(batch_of(user)) for user in range(41)])
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-6)


def test_users_without_segments_are_scored_too(model):
    bare = UserBatch(user_indices=np.array([0, -1], np.int64))
    assert np.isfinite(model.score(bare)).all()


def test_a_stranger_gets_what_a_user_without_interactions_gets(model):
    stranger, newcomer = model.score(batch_of(-1, 40))
    np.testing.assert_array_equal(stranger, newcomer)


def test_no_users_give_no_rows(model):
    assert model.score(batch_of()).shape == (0, 24)


def test_a_list_longer_than_the_catalogue_is_the_catalogue(model):
    indices, _ = top_k(model.score(batch_of(0, -1)), 30)
    assert (indices[:, 24:] == -1).all()
    assert sorted(indices[0, :24]) == sorted(indices[1, :24]) == list(range(24))


def test_fitting_and_scoring_leave_their_inputs_alone(fit, world):
    before = copy.deepcopy(world)
    users = batch_of(3, -1)
    asked = users.user_indices.copy()
    fit(world).score(users)
    for field in ("user_indices", "item_indices", "weights", "ratings"):
        np.testing.assert_array_equal(getattr(world, field), getattr(before, field))
    np.testing.assert_array_equal(users.user_indices, asked)
