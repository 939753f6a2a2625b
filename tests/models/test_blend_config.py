import pytest

from perso.models.blend_config import BlendConfig
from perso.models.sgd_config import SgdConfig


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_positive_number_is_refused(weight):
    with pytest.raises(ValueError, match=f"spectral_weight is {weight}"):
        BlendConfig(spectral_weight=weight)


def test_a_part_whose_scores_are_ratings_is_refused():
    with pytest.raises(ValueError, match=r"learned\.similarity is 'dot'"):
        BlendConfig(learned=SgdConfig(loss="softmax"))


def test_two_blends_by_default_are_alike():
    assert BlendConfig() == BlendConfig()
    assert BlendConfig().learned.similarity == "cosine"
