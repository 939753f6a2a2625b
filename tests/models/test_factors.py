import dataclasses

import numpy as np
import pytest

from perso.models.factors import FactorModel, popularity_bias
from perso.models.newton_encoder import NewtonEncoder
from perso.models.protocol import UserBatch, WeightedItems
from perso.models.request_features import RequestFeatures


def make_model(predicts="ratings"):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return FactorModel(
        user_factors_UD=draw(4, 3),
        user_bias_U=draw(4),
        user_weight_U=np.array([1, 2, 0, 0], np.float32),
        item_factors_ID=draw(5, 3),
        item_bias_I=draw(5),
        global_bias=3.25,
        encoder=NewtonEncoder(
            loss="softmax",
            weight_unit=2.0,
            l2=0.5,
            center_D=draw(3),
            curvature_DD=np.eye(3, dtype=np.float32),
            recent_boost=10.0,
        ),
        request_features=RequestFeatures(
            num_factors=3,
            columns={"segment": (("new", "old"), draw(2, 3)), "device": (("phone",), draw(1, 3))},
        ),
        predicts=predicts,
    )


RECENT = WeightedItems(
    item_indices=np.array([1, 4]), weights=np.array([2.0, 1.0]), ratings=np.full(2, np.nan)
)


def test_a_score_is_dot_product_plus_item_bias():
    model = make_model()
    scores = model.score(UserBatch(user_indices=np.array([2, 0])))
    for row, user in enumerate((2, 0)):
        for item in range(5):
            expected = model.user_factors_UD[user] @ model.item_factors_ID[item]
            assert scores[row, item] == pytest.approx(expected + model.item_bias_I[item], rel=1e-5)


def test_a_stranger_is_scored_by_the_item_biases():
    model = make_model()
    scores = model.score(UserBatch(user_indices=np.array([-1])))
    np.testing.assert_array_equal(scores[0], model.item_bias_I)


def test_segment_and_context_are_added_to_known_users_and_strangers():
    model = make_model()
    batch = UserBatch(
        user_indices=np.array([1, -1, 1]),
        segment_names=("old", "new", None),
        context={"device": ["phone", None, "fridge"], "daypart": ["night"] * 3},
    )
    segment_SD = model.request_features.columns["segment"][1]
    phone_D = model.request_features.columns["device"][1][0]
    own_D = model.user_factors_UD[1]
    expected_BD = np.stack([own_D + segment_SD[1] + phone_D, segment_SD[0], own_D])
    np.testing.assert_allclose(model.user_vectors(batch), expected_BD, rtol=1e-6)
    np.testing.assert_allclose(model.score(batch), model.score_vectors(expected_BD), rtol=1e-5)


def test_one_shopper_with_nothing_new_is_scored_as_in_a_batch():
    model = make_model()
    for user in (-1, 1):
        found_I = model.score_recent(
            user,
            WeightedItems.empty(),
            segment="old",
            context={"device": "phone", "daypart": "night"},
        )
        batch = UserBatch(
            user_indices=np.array([user]), segment_names=("old",), context={"device": ["phone"]}
        )
        np.testing.assert_allclose(found_I, model.score(batch)[0], rtol=1e-6)


def test_the_encoder_solves_what_is_left_beside_segment_and_context():
    model = make_model()
    offset_D = model.request_features.vector({"segment": "new"})
    own_D = model.encoder.solve(model, 0, RECENT, offset_D)
    expected_I = model.score_vectors((own_D + offset_D)[None])[0]
    np.testing.assert_allclose(model.score_recent(0, RECENT, segment="new"), expected_I, rtol=1e-5)


def test_known_is_who_has_a_history_or_a_vector():
    """A vector without a history is that of the user's features."""
    model = make_model()
    users_UD = model.user_factors_UD * np.array([[0], [1], [0], [1]], np.float32)
    model = dataclasses.replace(model, user_factors_UD=users_UD)
    assert [model.knows(user) for user in (-1, 0, 1, 2, 3)] == [False, True, True, False, True]


def test_a_request_is_known_by_a_value_that_has_a_vector():
    model = make_model()
    assert model.knows_request(segment="old", context={})
    assert model.knows_request(segment=None, context={"device": "phone"})
    assert not model.knows_request(segment="other", context={"device": "fridge", "hour": "3"})
    assert not model.knows_request(segment=None, context={})


def test_similarity_is_the_cosine_of_item_vectors():
    model = make_model()
    items_ID = model.item_factors_ID.copy()
    items_ID[3] = 0.0
    model = dataclasses.replace(model, item_factors_ID=items_ID)
    for item in range(5):
        for other in range(5):
            lengths = np.linalg.norm(items_ID[item]) * np.linalg.norm(items_ID[other])
            expected = items_ID[item] @ items_ID[other] / lengths if lengths else 0.0
            assert model.similarity(item)[other] == pytest.approx(expected, abs=1e-6)
    assert model.has_signal_I.tolist() == [True, True, True, False, True]


def test_a_predicted_rating_adds_all_biases():
    model = make_model()
    predicted = model.predict(np.array([1, 3]), np.array([4, 0]))
    for value, user, item in zip(predicted, (1, 3), (4, 0), strict=True):
        expected = model.user_factors_UD[user] @ model.item_factors_ID[item]
        expected += 3.25 + model.user_bias_U[user] + model.item_bias_I[item]
        assert value == pytest.approx(expected, rel=1e-5)


def test_a_ranking_model_refuses_to_predict_ratings():
    with pytest.raises(ValueError, match=r"ranks and predicts no ratings.*'squared'"):
        make_model(None).predict(np.array([0]), np.array([0]))


def test_pairs_must_align():
    with pytest.raises(ValueError, match="2 users but 1 items"):
        make_model().predict(np.array([0, 1]), np.array([0]))


def test_a_user_outside_the_vocabulary_is_an_error():
    with pytest.raises(IndexError):
        make_model().score(UserBatch(user_indices=np.array([4])))


def test_loaded_arrays_are_mapped_and_read_only(tmp_path):
    make_model().save(tmp_path)
    loaded = FactorModel.load(tmp_path)
    assert isinstance(loaded.item_factors_ID, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        loaded.item_factors_ID[0, 0] = 1.0


@pytest.mark.parametrize("predicts", ["ratings", "weights", None])
def test_a_saved_model_comes_back_whole(tmp_path, predicts):
    model = make_model(predicts)
    model.save(tmp_path)
    loaded = FactorModel.load(tmp_path)
    assert loaded.predicts == predicts
    assert loaded.global_bias == 3.25
    found_I = loaded.score_recent(1, RECENT, segment="old", context={"device": "phone"})
    expected_I = model.score_recent(1, RECENT, segment="old", context={"device": "phone"})
    np.testing.assert_array_equal(found_I, expected_I)


@pytest.mark.parametrize("field", ["user_bias_U", "user_weight_U", "item_factors_ID"])
def test_parts_that_do_not_fit_are_refused(field):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(make_model(), **{field: np.zeros((9, 9), np.float32)})


def test_request_features_of_another_width_are_refused():
    with pytest.raises(ValueError, match="request features have 7 factors, users have 3"):
        dataclasses.replace(make_model(), request_features=RequestFeatures(num_factors=7))


def test_popularity_bias_orders_by_demand_and_stays_below_what_tells_vectors_apart(build):
    world = build([(0, 0), (0, 2), (1, 2)], num_users=2, num_items=3, weights=[4.0, 1.0, 2.0])
    bias_I = popularity_bias(world)
    assert np.argsort(-bias_I).tolist() == [0, 2, 1]
    assert bias_I[1] == 0
    assert bias_I.max() == pytest.approx(1e-6)
    assert bias_I.dtype == np.float32
    assert not popularity_bias(build([], num_users=1, num_items=3)).any()
