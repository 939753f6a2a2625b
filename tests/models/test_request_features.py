import numpy as np
import pytest

from perso.models.request_features import RequestFeatures

SEGMENTS_SD = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
DEVICE_SD = np.array([[0.5, 0.5]], np.float32)


@pytest.fixture
def features():
    columns = {"segment": (("é", "old"), SEGMENTS_SD), "device": (("phone",), DEVICE_SD)}
    return RequestFeatures(num_factors=2, columns=columns)


def test_known_values_add_up(features):
    found_D = features.vector({"segment": "old", "device": "phone"})
    np.testing.assert_array_equal(found_D, [0.5, 2.5])
    assert found_D.dtype == np.float32


@pytest.mark.parametrize(
    "values",
    [{}, {"segment": None}, {"segment": "gold"}, {"planet": "mars"}, {"device": "old"}],
)
def test_what_training_has_not_seen_adds_nothing(features, values):
    assert features.vector(values).tolist() == [0.0, 0.0]


def test_many_shoppers_get_what_each_would_get_alone(features):
    values = {
        "segment": ["old", None, "é", "gold"],
        "device": ["phone", "phone", None, "fridge"],
        "daypart": ["night"] * 4,
    }
    together = features.vectors(values, 4)
    for row in range(4):
        alone = features.vector({column: of_each[row] for column, of_each in values.items()})
        np.testing.assert_array_equal(together[row], alone)


def test_without_columns_there_is_nothing_to_add():
    features = RequestFeatures(num_factors=3)
    assert features.vectors({"segment": ["a", "b"]}, 2).tolist() == [[0.0] * 3] * 2
    assert features.vectors({}, 0).shape == (0, 3)


def test_vectors_are_the_callers_own(features):
    features.vector({"segment": "old"})[:] = 9.0
    assert features.vector({"segment": "old"}).tolist() == [0.0, 2.0]


def test_saved_features_load_again(features, tmp_path):
    features.save(tmp_path)
    loaded = RequestFeatures.load(tmp_path)
    assert loaded.num_factors == 2
    assert {column: names for column, (names, _) in loaded.columns.items()} == {
        "segment": ("é", "old"),
        "device": ("phone",),
    }
    for column, (_, vectors_SD) in features.columns.items():
        np.testing.assert_array_equal(loaded.columns[column][1], vectors_SD)
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".json"}


def test_no_features_are_saved_and_loaded_too(tmp_path):
    RequestFeatures(num_factors=5).save(tmp_path)
    assert RequestFeatures.load(tmp_path) == RequestFeatures(num_factors=5)


@pytest.mark.parametrize("shape", [(1, 2), (2, 3)])
def test_vectors_that_do_not_fit_their_values_are_refused(shape):
    with pytest.raises(ValueError, match=r"vectors of 'segment' have shape .*ask for \(2, 2\)"):
        RequestFeatures(
            num_factors=2, columns={"segment": (("a", "b"), np.zeros(shape, np.float32))}
        )
