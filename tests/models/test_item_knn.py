import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from perso.models.item_knn import ItemKnnModel, fit_item_knn
from perso.models.knn_config import ItemKnnConfig
from perso.models.nearest_items import find_nearest
from perso.models.protocol import UserBatch, WeightedItems
from perso.models.top_k import top_k
from perso.spec import parse_spec

PLAIN = ItemKnnConfig(user_exponent=0, item_exponent=0.5, shrinkage=0)
"""The cosine of two items' users."""


def dense(nearest):
    """Similarities as a matrix, 0 beyond the neighbours."""
    arrays = (nearest.similarities, nearest.item_indices, nearest.indptr_I1)
    return sparse.csr_array(arrays, shape=(nearest.num_items, nearest.num_items)).toarray()


def naive_cosine(matrix_UI, is_there_UI, config):
    degree_U, degree_I = (matrix_UI**2).sum(1), (matrix_UI**2).sum(0)
    num_items = matrix_UI.shape[1]
    similar_II = np.zeros((num_items, num_items))
    for i in range(num_items):
        for j in range(num_items):
            both = is_there_UI[:, i] & is_there_UI[:, j]
            if i == j or not both.any():
                continue
            products = matrix_UI[both, i] * matrix_UI[both, j]
            total = (products / degree_U[both] ** (2 * config.user_exponent)).sum()
            total /= (degree_I[i] * degree_I[j]) ** config.item_exponent
            similar_II[i, j] = total * both.sum() / (both.sum() + config.shrinkage)
    return similar_II


def naive_pearson(matrix_UI, is_there_UI, config):
    num_items = matrix_UI.shape[1]
    similar_II = np.zeros((num_items, num_items))
    for i in range(num_items):
        for j in range(num_items):
            both = is_there_UI[:, i] & is_there_UI[:, j]
            if i == j or not both.any():
                continue
            mine = matrix_UI[both, i] - matrix_UI[is_there_UI[:, i], i].mean()
            theirs = matrix_UI[both, j] - matrix_UI[is_there_UI[:, j], j].mean()
            lengths = np.sqrt((mine**2).sum() * (theirs**2).sum())
            if lengths > 1e-6:
                similar_II[i, j] = (mine * theirs).sum() / lengths
            similar_II[i, j] *= both.sum() / (both.sum() + config.shrinkage)
    return np.maximum(similar_II, 0)


@st.composite
def worlds(draw):
    """A sparse matrix of whole weights or stars, and where it has cells."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    is_there_UI = rng.random((draw(st.integers(1, 12)), draw(st.integers(1, 9)))) < 0.5
    values = rng.integers(1, 6, is_there_UI.shape).astype(float)
    return np.where(is_there_UI, values, 0.0), is_there_UI


def to_csr(matrix_UI, is_there_UI):
    users, items = np.nonzero(is_there_UI)
    values = matrix_UI[users, items]
    return sparse.csr_array((values, (users, items)), shape=matrix_UI.shape)


@given(
    world=worlds(),
    user_exponent=st.sampled_from([0.0, 0.3, 0.5]),
    item_exponent=st.sampled_from([0.0, 0.5, 1.0]),
    shrinkage=st.sampled_from([0.0, 3.0]),
)
def test_cosine_similarities_equal_the_formula(world, user_exponent, item_exponent, shrinkage):
    config = ItemKnnConfig(
        user_exponent=user_exponent, item_exponent=item_exponent, shrinkage=shrinkage
    )
    found_II = dense(find_nearest(to_csr(*world), config))
    np.testing.assert_allclose(found_II, naive_cosine(*world, config), rtol=1e-5, atol=1e-7)


@given(world=worlds(), shrinkage=st.sampled_from([0.0, 3.0]))
def test_pearson_correlates_those_who_rated_both(world, shrinkage):
    config = ItemKnnConfig(similarity="pearson", shrinkage=shrinkage)
    found_II = dense(find_nearest(to_csr(*world), config))
    np.testing.assert_allclose(found_II, naive_pearson(*world, config), rtol=1e-5, atol=1e-6)


@given(world=worlds(), k=st.integers(1, 9), block_entries=st.integers(1, 60))
@pytest.mark.parametrize("similarity", ["cosine", "pearson"])
def test_the_nearest_are_kept_whatever_the_block_size_and_ties_keep_the_lower_index(
    similarity, world, k, block_entries
):
    every = ItemKnnConfig(similarity=similarity)
    few = dataclasses.replace(every, num_neighbors=k)
    all_II = dense(find_nearest(to_csr(*world), every))
    expected_II = np.zeros_like(all_II)
    for row, similar in enumerate(all_II):
        kept = sorted(np.flatnonzero(similar), key=lambda item, s=similar: (-s[item], item))[:k]
        expected_II[row, kept] = similar[kept]
    found_II = dense(find_nearest(to_csr(*world), few, block_entries=block_entries))
    np.testing.assert_array_equal(found_II, expected_II)


def test_symmetric_normalization_divides_by_both_degrees(build):
    # User 0 has items 0 and 1, user 1 has items 1, 2 and 3.
    world = build([(0, 0), (0, 1), (1, 1), (1, 2), (1, 3)], num_users=2, num_items=4)
    config = ItemKnnConfig(user_exponent=0.5, item_exponent=0.5, shrinkage=0)
    model = fit_item_knn(world, config)
    np.testing.assert_allclose(
        model.similarity(1), [1 / 2 / np.sqrt(2), 1, *[1 / 3 / np.sqrt(2)] * 2], rtol=1e-6
    )


def test_shrinkage_lowers_the_similarity_of_rare_pairs(build):
    often = [(user, item) for user in range(9) for item in (2, 3)]
    world = build([(9, 0), (9, 1), *often], num_users=10, num_items=4)

    def pair_similarities(shrinkage):
        model = fit_item_knn(world, dataclasses.replace(PLAIN, shrinkage=shrinkage))
        return [float(model.similarity(0)[1]), float(model.similarity(2)[3])]

    assert pair_similarities(0) == pytest.approx([1, 1])
    assert pair_similarities(9) == pytest.approx([0.1, 0.5])


def test_weights_count_only_where_asked(build):
    pairs = [(0, 0), (0, 1), (1, 0), (1, 2)]
    world = build(pairs, num_users=2, num_items=3, weights=[1, 4, 3, 1])
    even = fit_item_knn(world, PLAIN).similarity(0)
    weighted = fit_item_knn(world, dataclasses.replace(PLAIN, weighted=True)).similarity(0)
    assert even[1] == even[2] == pytest.approx(np.sqrt(0.5))
    np.testing.assert_allclose(weighted[1:], [1 / np.sqrt(10), 3 / np.sqrt(10)], rtol=1e-6)


def test_pearson_takes_ratings_where_every_pair_has_one(build):
    pairs = [(user, item) for user in range(3) for item in (0, 1)]
    agree, differ = [1, 1, 2, 2, 3, 3], [1, 3, 2, 2, 3, 1]
    config = ItemKnnConfig(similarity="pearson", shrinkage=0)

    def similar(weights, ratings):
        world = build(pairs, num_users=3, num_items=2, weights=weights, ratings=ratings)
        return fit_item_knn(world, config).similarity(0)[1]

    assert similar(differ, agree) == pytest.approx(1)
    assert similar(agree, differ) == 0
    assert similar(agree, [np.nan, *differ[1:]]) == pytest.approx(1)


def test_an_item_that_everybody_rates_alike_correlates_with_none():
    # 0.1 + 0.1 + 0.1 is not 3 · 0.1: what rounding leaves of the mean is no opinion.
    ratings = np.array([[0.1, 1.0], [0.1, 2.0], [0.1, 1.0], [0.0, 5.0]])
    config = ItemKnnConfig(similarity="pearson", shrinkage=0)
    assert ratings[:3, 0].sum() / 3 != 0.1
    assert len(find_nearest(to_csr(ratings, ratings > 0), config).item_indices) == 0


CONFIGS = [
    ItemKnnConfig(),
    PLAIN,
    ItemKnnConfig(weighted=True, user_exponent=0.25, num_neighbors=5),
    ItemKnnConfig(similarity="pearson", shrinkage=1),
]


@pytest.fixture(params=CONFIGS, ids=str)
def model(request, two_tastes):
    return fit_item_knn(two_tastes, request.param)


@pytest.mark.parametrize("config", CONFIGS[:3], ids=str)
def test_the_rest_of_a_users_taste_comes_first(two_tastes, config):
    model = fit_item_knn(two_tastes, dataclasses.replace(config, num_neighbors=11))
    users = np.arange(40)
    seen = [two_tastes.item_indices[two_tastes.user_indices == user] for user in users]
    best_BK, _ = top_k(model.score(UserBatch(user_indices=users)), 5, seen=seen)
    np.testing.assert_array_equal(best_BK % 2, np.repeat(users[:, None] % 2, 5, axis=1))


def test_a_score_adds_up_weight_times_similarity(model, two_tastes):
    similar_II = dense(model.nearest)
    weights_UI = np.zeros((41, 24))
    weights_UI[two_tastes.user_indices, two_tastes.item_indices] = two_tastes.weights
    expected_UI = weights_UI @ similar_II
    scores_UI = model.score(UserBatch(user_indices=np.arange(41)))
    assert scores_UI.dtype == np.float32
    has_UI = expected_UI > 0
    np.testing.assert_allclose(scores_UI[has_UI], expected_UI[has_UI], rtol=1e-5)


def test_what_no_neighbour_speaks_for_follows_by_popularity(model, two_tastes):
    demand_I = np.bincount(two_tastes.item_indices, two_tastes.weights, 24)
    similar_II = dense(model.nearest)
    for user in range(41):
        scores_I = model.score(UserBatch(user_indices=np.array([user])))[0]
        items, _ = model.history.of(user)
        personal_I = (similar_II[items] > 0).any(0)
        rest = np.flatnonzero(~personal_I)
        assert (scores_I > 0).all()
        assert scores_I[rest].max(initial=0) < scores_I[personal_I].min(initial=np.inf)
        assert sorted(rest, key=lambda i, s=scores_I: s[i]) == sorted(
            rest, key=demand_I.__getitem__
        )


def test_strangers_get_the_shares_of_demand(model, two_tastes):
    demand_I = np.bincount(two_tastes.item_indices, two_tastes.weights, 24)
    scores_BI = model.score(UserBatch(user_indices=np.array([-1, 40])))
    np.testing.assert_allclose(scores_BI[0], demand_I / demand_I.sum(), rtol=1e-6)
    np.testing.assert_array_equal(scores_BI[0], scores_BI[1])
    np.testing.assert_array_equal(model.score_recent(-1, WeightedItems.empty()), scores_BI[0])
    assert not model.knows(-1)
    assert not model.knows(40)
    assert model.knows(0)


def recent(items, weights):
    return WeightedItems(
        item_indices=np.asarray(items, np.int64),
        weights=np.asarray(weights, np.float64),
        ratings=np.full(len(items), np.nan),
    )


def test_a_whole_history_folded_into_a_stranger_scores_as_its_user(model):
    for user in range(40):
        row_I = model.score(UserBatch(user_indices=np.array([user])))[0]
        folded_I = model.score_recent(-1, recent(*model.history.of(user)), segment="any")
        np.testing.assert_array_equal(folded_I, row_I)
        np.testing.assert_array_equal(model.score_recent(user, WeightedItems.empty()), row_I)


def test_new_events_add_to_what_a_user_did(two_tastes):
    model = fit_item_knn(two_tastes, PLAIN)
    old = model.score(UserBatch(user_indices=np.array([0])))[0]  # a user of even items
    items, _ = model.history.of(0)
    new = model.score_recent(0, recent([1, items[0]], [9.0, 2.0]))
    similar_II = dense(model.nearest)
    added = 9 * similar_II[1] + 2 * similar_II[items[0]]
    even, odd = np.arange(0, 24, 2), np.arange(3, 24, 2)
    np.testing.assert_allclose(new[even], old[even] + added[even], rtol=1e-5)
    np.testing.assert_allclose(new[odd], added[odd], rtol=1e-5)
    assert new[odd].min() > old[odd].max()


def test_an_item_is_most_like_itself_and_a_lonely_one_like_none(build):
    world = build([(0, 0), (0, 1), (1, 2)], num_users=2, num_items=4)
    model = fit_item_knn(world)
    assert np.argmax(model.similarity(0)) == 0
    assert not model.similarity(2).any()
    assert model.has_signal_I.tolist() == [True, True, False, False]


def test_a_saved_model_is_mapped_and_scores_the_same(model, tmp_path):
    model.save(tmp_path)
    loaded = ItemKnnModel.load(tmp_path)
    users = UserBatch(user_indices=np.arange(-1, 41))
    np.testing.assert_array_equal(loaded.score(users), model.score(users))
    assert (loaded.num_users, loaded.num_items) == (41, 24)
    assert loaded.recent_boost == model.recent_boost
    assert isinstance(loaded.nearest.similarities, np.memmap)
    assert np.shares_memory(loaded._similarity_II.data, loaded.nearest.similarities)
    assert np.shares_memory(loaded._similarity_II.indices, loaded.nearest.item_indices)


def test_without_interactions_every_score_is_0(build):
    model = fit_item_knn(build([], num_users=2, num_items=3))
    assert not model.score(UserBatch(user_indices=np.array([0, -1]))).any()
    assert not model.has_signal_I.any()


def test_wrong_arguments_are_named(two_tastes):
    model = fit_item_knn(two_tastes)
    with pytest.raises(IndexError, match="user_index 41 is outside the model's 41 users"):
        model.score(UserBatch(user_indices=np.array([41])))
    with pytest.raises(ValueError, match="neighbours of 24 items, popularity of 3"):
        dataclasses.replace(model, popularity_I=np.ones(3, np.float32))
    for wrong, message in (
        ({"similarity": "jaccard"}, "similarity is 'jaccard'; give 'cosine' or 'pearson'"),
        ({"num_neighbors": 0}, "num_neighbors is 0; give 1 or more"),
        ({"shrinkage": -1.0}, r"shrinkage is -1\.0; give 0 or more"),
        ({"item_exponent": float("nan")}, "item_exponent is nan"),
        ({"family": "als"}, "family is 'als'; this is 'item_knn'"),
    ):
        with pytest.raises(ValueError, match=message):
            ItemKnnConfig(**wrong)


def test_a_config_can_be_read_from_a_spec():
    document = {"family": "item_knn", "num_neighbors": 20, "similarity": "pearson"}
    assert parse_spec(ItemKnnConfig, document) == ItemKnnConfig(
        num_neighbors=20, similarity="pearson"
    )
