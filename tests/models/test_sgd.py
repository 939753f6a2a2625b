import subprocess
import sys

import numpy as np
import pytest
import torch

from perso.models.sgd import SgdConfig, fit_sgd

SMALL = {"num_factors": 4, "epochs": 4, "batch_size": 64}


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"num_factors": 0}, "num_factors is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"num_negatives": 0}, "num_negatives is 0"),
        ({"learning_rate": 0.0}, r"learning_rate is 0\.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"l2": -0.1}, r"l2 is -0\.1"),
        ({"seed": -1}, "seed is -1"),
        ({"loss": "bpr"}, "loss is 'bpr'.*softmax"),
        ({"device": "tpu"}, "device is 'tpu'.*auto"),
    ],
)
def test_a_wrong_setting_is_refused(setting, says):
    with pytest.raises(ValueError, match=says):
        SgdConfig(**setting)


def test_settings_load_without_torch():
    code = "import sys, perso.models.sgd_config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", ["factors", "popularity", "top_k", "seen", "bundle"])
def test_serving_modules_load_without_torch(module):
    code = f"import sys, perso.models.{module}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_loss_falls_and_every_epoch_is_reported(two_tastes):
    seen = []
    fit_sgd(two_tastes, SgdConfig(**SMALL), on_epoch=lambda *report: seen.append(report))
    epochs, losses = zip(*seen, strict=True)
    assert epochs == (1, 2, 3, 4)
    assert losses[-1] < losses[0]


def test_another_seed_gives_another_model(two_tastes):
    one, two = (fit_sgd(two_tastes, SgdConfig(seed=seed, **SMALL)) for seed in (1, 2))
    assert not np.allclose(one.item_factors_ID, two.item_factors_ID)


def test_training_neither_reads_nor_sets_the_global_random_state(two_tastes):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = fit_sgd(two_tastes, SgdConfig(**SMALL))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    two = fit_sgd(two_tastes, SgdConfig(**SMALL))
    np.testing.assert_array_equal(one.item_factors_ID, two.item_factors_ID)


@pytest.mark.parametrize("loss", ["softmax", "rating"])
def test_two_threads_repeat_themselves(stars, loss):
    config = SgdConfig(loss=loss, num_negatives=16, num_factors=16, epochs=2, batch_size=8192)
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


@pytest.mark.parametrize("loss", ["softmax", "rating"])
def test_no_l2_at_all_still_gives_finite_vectors_to_everyone(stars, loss):
    model = fit_sgd(stars[0], SgdConfig(loss=loss, l2=0.0, **SMALL))
    assert np.isfinite(model.user_factors_UD).all()
    assert model.fold_in.l2 > 0


def test_nothing_to_train_on_is_one_clear_sentence(build):
    with pytest.raises(ValueError, match="no interactions to train on"):
        fit_sgd(build([], num_users=3, num_items=3), SgdConfig(**SMALL))


def test_divergence_is_an_error_and_not_a_model(two_tastes):
    with pytest.raises(ValueError, match=r"training diverged in epoch 2 with learning_rate 1e\+30"):
        fit_sgd(two_tastes, SgdConfig(learning_rate=1e30, **SMALL))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_without_a_device_is_refused(two_tastes):
    with pytest.raises(ValueError, match="PyTorch sees no CUDA device"):
        fit_sgd(two_tastes, SgdConfig(device="cuda", **SMALL))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("loss", ["softmax", "rating"])
def test_cuda_learns_what_the_cpu_learns(stars, loss):
    losses = {"cpu": [], "cuda": []}
    for device, found in losses.items():
        config = SgdConfig(loss=loss, device=device, **SMALL)
        fit_sgd(stars[0], config, on_epoch=lambda _, value, found=found: found.append(value))
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=1e-2)
