import numpy as np
import pytest
import torch

from perso.models.protocol import UserBatch
from perso.models.sgd import SgdConfig, fit_sgd

SMALL = {"num_factors": 4, "epochs": 4, "batch_size": 64}
COSINE = {"similarity": "cosine", "loss": "contrasted", "learning_rate": 1.0, "l2": 0.0}


def test_the_loss_falls_and_every_epoch_is_reported(two_tastes):
    seen = []
    fit_sgd(two_tastes, SgdConfig(**SMALL), on_epoch=lambda p: seen.append((p.epoch, p.loss)))
    epochs, losses = zip(*seen, strict=True)
    assert epochs == (1, 2, 3, 4)
    assert losses[-1] < losses[0]


def test_another_seed_gives_another_model(two_tastes):
    one, two = (fit_sgd(two_tastes, SgdConfig(seed=seed, **SMALL)) for seed in (1, 2))
    assert not np.allclose(one.item_factors_ID, two.item_factors_ID)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_training_neither_reads_nor_sets_the_global_random_state(two_tastes, dropout):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    config = SgdConfig(dropout=dropout, negatives="popularity", num_negatives=4, **SMALL)
    one = fit_sgd(two_tastes, config)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    two = fit_sgd(two_tastes, config)
    np.testing.assert_array_equal(one.item_factors_ID, two.item_factors_ID)


@pytest.mark.parametrize(
    "setting",
    [
        {"loss": "softmax"},
        {"loss": "squared"},
        {"loss": "bpr", "dropout": 0.1},
        {"history_weight": 1.0, "init": "spectral", **COSINE},
    ],
)
def test_two_threads_repeat_themselves(stars, setting):
    config = SgdConfig(num_negatives=16, num_factors=16, epochs=2, batch_size=8192, **setting)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        one, two = (fit_sgd(stars[0], config) for _ in range(2))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(one.item_factors_ID, two.item_factors_ID)


def test_stronger_l2_gives_smaller_vectors(two_tastes):
    weak, strong = (
        np.linalg.norm(fit_sgd(two_tastes, SgdConfig(l2=l2, **SMALL)).user_factors_UD)
        for l2 in (0.01, 10.0)
    )
    assert strong < weak / 2


@pytest.mark.parametrize("setting", [{"loss": "softmax"}, {"loss": "squared"}, COSINE])
def test_no_l2_at_all_still_gives_finite_vectors_to_everyone(stars, setting):
    model = fit_sgd(stars[0], SgdConfig(**SMALL, **{**setting, "l2": 0.0}))
    assert np.isfinite(model.user_factors_UD).all()
    assert model.encoder.l2 > 0


def test_nothing_to_train_on_is_one_clear_sentence(build):
    with pytest.raises(ValueError, match="no interactions to train on"):
        fit_sgd(build([], num_users=3, num_items=3), SgdConfig(**SMALL))


def test_divergence_is_an_error_and_not_a_model(two_tastes):
    with pytest.raises(ValueError, match=r"training diverged in epoch 2 with learning_rate 1e\+30"):
        fit_sgd(two_tastes, SgdConfig(learning_rate=1e30, **SMALL))


@pytest.mark.parametrize("loss", ["softmax", "contrasted", "bpr", "logistic"])
@pytest.mark.parametrize("batch_size", [1, 8192])
def test_a_shopper_who_has_touched_everything_is_no_divergence(build, loss, batch_size):
    """There is nothing left to tell that shopper's items from."""
    world = build([(0, 0), (0, 1), (1, 0)], num_users=2, num_items=2)
    config = SgdConfig(loss=loss, num_factors=2, epochs=2, batch_size=batch_size)
    assert np.isfinite(fit_sgd(world, config).score(UserBatch(user_indices=np.arange(2)))).all()


def test_a_cosine_model_compares_directions_only(two_tastes):
    """Item vectors all have the length 1 / temperature, and biases tell no two scores apart."""
    model = fit_sgd(two_tastes, SgdConfig(temperature=0.2, **SMALL, **COSINE))
    np.testing.assert_allclose(np.linalg.norm(model.item_factors_ID, axis=1), 5.0, rtol=1e-5)
    assert 0 < model.item_bias_I.max() <= 1e-6
    demand_I = np.bincount(two_tastes.item_indices, two_tastes.weights, 24)
    assert model.item_bias_I.argmax() == demand_I.argmax()
    assert not model.user_factors_UD[40].any()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_without_a_device_is_refused(two_tastes):
    with pytest.raises(ValueError, match="PyTorch sees no CUDA device"):
        fit_sgd(two_tastes, SgdConfig(device="cuda", **SMALL))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "setting",
    [
        {"loss": "softmax"},
        {"loss": "softmax", "num_negatives": 8, "negatives": "popularity"},
        {"loss": "squared"},
        {"loss": "bpr"},
        {"patience": 2},
        {"history_weight": 1.0, "dropout": 0.1, **COSINE},
        {"init": "spectral", "schedule": "linear", "optimizer": "adam", **COSINE},
    ],
)
def test_cuda_learns_what_the_cpu_learns(stars, setting):
    losses, scores = {}, {}
    for device in ("cpu", "cuda"):
        losses[device] = []
        config = SgdConfig(device=device, **{**SMALL, **setting})
        model = fit_sgd(stars[0], config, on_epoch=lambda p, at=device: losses[at].append(p.loss))
        scores[device] = model.score(UserBatch(user_indices=np.arange(120)))
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=1e-2)
    for user in range(120):
        assert np.corrcoef(scores["cuda"][user], scores["cpu"][user])[0, 1] > 0.98
