import pytest

from perso.models.spectral_config import SpectralConfig


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"num_factors": 0}, "num_factors is 0"),
        ({"num_iterations": 0}, "num_iterations is 0"),
        ({"user_exponent": -0.1}, r"user_exponent is -0\.1"),
        ({"item_exponent": 1.1}, r"item_exponent is 1\.1"),
        ({"input_exponent": float("nan")}, "input_exponent is nan"),
        ({"output_exponent": 2.0}, r"output_exponent is 2\.0"),
        ({"spectrum_exponent": -2.0}, r"spectrum_exponent is -2\.0"),
        ({"weight_exponent": 3.0}, r"weight_exponent is 3\.0"),
        ({"seed": -1}, "seed is -1"),
        ({"device": "tpu"}, "device is 'tpu'; give auto, cpu or cuda"),
    ],
)
def test_a_wrong_setting_is_refused(setting, says):
    with pytest.raises(ValueError, match=says):
        SpectralConfig(**setting)


def test_the_ends_of_the_ranges_are_allowed():
    SpectralConfig(user_exponent=0.0, item_exponent=1.0, spectrum_exponent=-1.0)
