import pytest

from perso.models.sgd_config import SgdConfig


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"num_factors": 0}, "num_factors is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"num_negatives": 0}, "num_negatives is 0"),
        ({"negatives_per_pair": 0}, "negatives_per_pair is 0"),
        ({"learning_rate": 0.0}, r"learning_rate is 0\.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"temperature": 0.0}, r"temperature is 0\.0"),
        ({"negative_weight": -1.0}, r"negative_weight is -1\.0"),
        ({"l2": -0.1}, r"l2 is -0\.1"),
        ({"l2": float("inf")}, "l2 is inf"),
        ({"dropout": 1.0}, r"dropout is 1\.0"),
        ({"margin": 1.5}, r"margin is 1\.5"),
        ({"patience": 0}, "patience is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"loss": "rating"}, "loss is 'rating'.*softmax.*squared"),
        ({"target": "stars"}, "target is 'stars'.*ratings"),
        ({"similarity": "euclid"}, "similarity is 'euclid'.*cosine"),
        ({"schedule": "steps"}, "schedule is 'steps'.*linear"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'.*adagrad"),
        ({"init": "zeros"}, "init is 'zeros'.*spectral"),
        ({"negatives": "hard"}, "negatives is 'hard'.*in_batch"),
        ({"device": "tpu"}, "device is 'tpu'.*auto"),
        ({"family": "als"}, "family is 'als'"),
        ({"history_weight": -1.0}, "history_weight is -1"),
        ({"history_weight": 1.0}, "history_weight needs similarity 'cosine'"),
        ({"loss": "contrastive"}, "'contrastive' needs similarity 'cosine', not 'dot'"),
        (
            {"loss": "squared", "similarity": "cosine"},
            "'squared' needs similarity 'dot', not 'cosine'",
        ),
    ],
)
def test_a_wrong_setting_is_refused(setting, says):
    with pytest.raises(ValueError, match=says):
        SgdConfig(**setting)


@pytest.mark.parametrize(
    "setting",
    [
        {"loss": "contrasted", "similarity": "cosine", "history_weight": 1.0},
        {"loss": "bpr", "similarity": "cosine"},
        {"loss": "contrastive", "similarity": "cosine", "margin": -1.0},
        {"loss": "squared", "target": "weights"},
        {"l2": 0.0, "dropout": 0.0, "patience": 1},
    ],
)
def test_what_is_allowed_is_taken(setting):
    config = SgdConfig(**setting)
    assert all(getattr(config, name) == value for name, value in setting.items())
