import dataclasses

import numpy as np
import pytest

from perso.models.factors import FactorModel
from perso.models.fold_in_params import FoldInParams
from perso.models.protocol import UserBatch


def make_model(loss="rating"):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return FactorModel(
        user_factors_UD=draw(4, 3),
        user_bias_U=draw(4),
        user_weight_U=np.ones(4, np.float32),
        item_factors_ID=draw(5, 3),
        item_bias_I=draw(5),
        global_bias=3.25,
        fold_in=FoldInParams(
            loss=loss,
            weight_unit=2.0,
            l2=0.5,
            center_D=draw(3),
            curvature_DD=draw(3, 3),
            recent_boost=10.0,
        ),
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


def test_a_predicted_rating_adds_all_biases():
    model = make_model()
    predicted = model.predict(np.array([1, 3]), np.array([4, 0]))
    for value, user, item in zip(predicted, (1, 3), (4, 0), strict=True):
        expected = model.user_factors_UD[user] @ model.item_factors_ID[item]
        expected += 3.25 + model.user_bias_U[user] + model.item_bias_I[item]
        assert value == pytest.approx(expected, rel=1e-5)


def test_a_ranking_model_refuses_to_predict_ratings():
    with pytest.raises(ValueError, match="'softmax' ranks and predicts no ratings"):
        make_model("softmax").predict(np.array([0]), np.array([0]))


def test_pairs_must_align():
    with pytest.raises(ValueError, match="2 users but 1 items"):
        make_model().predict(np.array([0, 1]), np.array([0]))


def test_loaded_arrays_are_mapped_and_read_only(tmp_path):
    make_model().save(tmp_path)
    loaded = FactorModel.load(tmp_path)
    assert isinstance(loaded.item_factors_ID, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        loaded.item_factors_ID[0, 0] = 1.0


@pytest.mark.parametrize("positive_rating", [4.5, float("nan")])
def test_fold_in_parameters_survive_saving(tmp_path, positive_rating):
    model = make_model()
    params = dataclasses.replace(model.fold_in, positive_rating=positive_rating)
    params.save(tmp_path)
    loaded = FoldInParams.load(tmp_path)
    for field in dataclasses.fields(params):
        expected, found = getattr(params, field.name), getattr(loaded, field.name)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("field", ["user_bias_U", "user_weight_U", "item_factors_ID"])
def test_parts_that_do_not_fit_are_refused(field):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(make_model(), **{field: np.zeros((9, 9), np.float32)})
