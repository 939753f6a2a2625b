"""Training that stops after any epoch and goes on elsewhere, to the same bytes."""

import numpy as np
import pyarrow as pa
import pytest

from perso.data.groups import UserGroups
from perso.models.als_config import AlsConfig
from perso.models.blend_config import BlendConfig
from perso.models.families import fit_model
from perso.models.hybrid_config import HybridConfig
from perso.models.popularity_config import PopularityConfig
from perso.models.progress import load_state, save_state
from perso.models.sgd_config import SgdConfig
from perso.models.side_data import SideData
from perso.models.spectral_config import SpectralConfig

NUM_USERS, NUM_ITEMS, EPOCHS = 41, 24, 4
SMALL = {"num_factors": 4, "epochs": EPOCHS, "batch_size": 64, "seed": 3, "device": "cpu"}
COSINE = {"similarity": "cosine", "learning_rate": 0.5, "temperature": 0.5, "l2": 0.0}
SIDE = SideData(
    segments=UserGroups.from_names([("even", "odd")[user % 2] for user in range(NUM_USERS)]),
    user_features=pa.table({"region": [f"region {user % 3}" for user in range(NUM_USERS)]}),
    item_features=pa.table({"brand": [f"brand {item % 4}" for item in range(NUM_ITEMS)]}),
)

CONFIGS = {
    "als cg": AlsConfig(num_factors=4, epochs=EPOCHS),
    "als cholesky": AlsConfig(num_factors=4, epochs=EPOCHS, solver="cholesky"),
    "als subspace": AlsConfig(num_factors=4, epochs=EPOCHS, solver="subspace", block_size=2),
    "softmax": SgdConfig(num_negatives=8, negatives="popularity", **SMALL),
    "bpr": SgdConfig(loss="bpr", optimizer="adam", schedule="linear", dropout=0.2, **SMALL),
    "contrasted cosine": SgdConfig(
        loss="contrasted",
        history_weight=1.0,
        init="spectral",
        schedule="cosine",
        patience=2,
        **SMALL,
        **COSINE,
    ),
    "squared": SgdConfig(loss="squared", **SMALL),
    "squared adam": SgdConfig(loss="squared", target="weights", optimizer="adam", **SMALL),
    "hybrid": HybridConfig(**SMALL),
    "hybrid, early stopping": HybridConfig(patience=1, optimizer="adam", **SMALL),
}


@pytest.fixture(scope="module")
def world(build, two_tastes):
    """The two tastes with ratings and devices, so that every family has something to read."""
    pairs = np.stack([two_tastes.user_indices, two_tastes.item_indices], 1)
    return build(
        pairs,
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
        weights=two_tastes.weights,
        ratings=1.0 + two_tastes.item_indices % 5,
        context={"device": [("phone", "desktop", None)[pair % 3] for pair in range(280)]},
    )


@pytest.fixture(scope="module", params=CONFIGS, ids=str)
def config(request):
    return CONFIGS[request.param]


@pytest.fixture(scope="module")
def in_one_go(world, config, tmp_path_factory):
    """Files of the model trained undisturbed, and each epoch's loss and state."""
    losses, states = [], []

    def on_epoch(progress):
        losses.append(progress.loss)
        states.append(progress.state())

    model = fit_model(world, config, SIDE, on_epoch=on_epoch)
    return files_of(model, tmp_path_factory.mktemp("model")), losses, states


def files_of(model, folder):
    folder.mkdir(exist_ok=True)
    model.save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_training_resumed_after_any_epoch_gives_the_bytes_of_one_go(
    world, config, in_one_go, tmp_path
):
    expected, losses, states = in_one_go
    for epoch, state in enumerate(states, start=1):
        save_state(tmp_path / f"state {epoch}", state)
        reports = []
        resumed = fit_model(
            world,
            config,
            SIDE,
            resume=load_state(tmp_path / f"state {epoch}"),
            on_epoch=lambda p, to=reports: to.append((p.epoch, p.loss)),
        )
        assert reports == list(enumerate(losses, start=1))[epoch:]
        assert files_of(resumed, tmp_path / f"model {epoch}") == expected


def test_looking_at_the_model_midway_leaves_training_as_it_is(world, config, in_one_go, tmp_path):
    """And training leaves the model as it was: the two share no memory."""
    expected, losses, _ = in_one_go
    models, before = [], []

    def on_epoch(progress):
        models.append(progress.model())
        before.append(files_of(models[-1], tmp_path / f"before {progress.epoch}"))

    last = fit_model(world, config, SIDE, on_epoch=on_epoch)
    assert files_of(last, tmp_path / "last") == expected == before[-1]
    assert len(models) == len(losses)
    for epoch, model in enumerate(models):
        assert files_of(model, tmp_path / f"after {epoch}") == before[epoch]


def test_a_state_is_a_copy_that_training_does_not_write_to(world, config):
    states, copies = [], []

    def on_epoch(progress):
        states.append(progress.state())
        copies.append({name: array.copy() for name, array in states[-1].items()})

    fit_model(world, config, SIDE, on_epoch=on_epoch)
    for state, copied in zip(states, copies, strict=True):
        for name, array in copied.items():
            np.testing.assert_array_equal(state[name], array)


@pytest.mark.parametrize("name", ["als cg", "softmax", "squared", "hybrid"])
def test_the_model_midway_is_that_of_a_training_of_so_many_epochs(world, tmp_path, name):
    """Where no schedule looks ahead to the last epoch."""
    config, models = CONFIGS[name], []
    fit_model(world, config, SIDE, on_epoch=lambda p: models.append(p.model()))
    short = fit_model(world, type(config)(**{**vars(config), "epochs": 2}), SIDE)
    assert files_of(models[1], tmp_path / "midway") == files_of(short, tmp_path / "short")


def test_the_model_midway_is_the_best_so_far_where_training_stops_early(world):
    """The first epoch ranks what is set aside best, so it stays until patience is used up."""
    config = SgdConfig(**{**SMALL, "epochs": 40, "patience": 3})
    models = []
    last = fit_model(world, config, on_epoch=lambda p: models.append(p.model()))
    assert 3 < len(models) < 40
    for model in models[-4:]:
        np.testing.assert_array_equal(model.item_factors_ID, last.item_factors_ID)
    assert (models[0].item_factors_ID != models[-1].item_factors_ID).any()


@pytest.mark.parametrize(
    ("saved", "resumed", "says"),
    [
        (
            AlsConfig(num_factors=3, epochs=1),
            AlsConfig(num_factors=4),
            r"item_ID: \(24, 3\) in place of \(24, 4\)",
        ),
        (
            AlsConfig(num_factors=4, epochs=1),
            SgdConfig(**SMALL),
            r"bias.own.squares: none in place of \(24,\)",
        ),
        (
            SgdConfig(**SMALL),
            HybridConfig(**SMALL),
            r"bias.features.squares: none in place of \(4,\)",
        ),
        (
            SgdConfig(**SMALL),
            SgdConfig(loss="squared", **SMALL),
            r"bias.own.values: \(24, 1\) in place of none.* and \d+ more",
        ),
        (
            SgdConfig(**SMALL),
            SgdConfig(optimizer="adam", **SMALL),
            r"bias.own.mean: none in place of \(24, 1\)",
        ),
        (SgdConfig(**SMALL), SgdConfig(patience=1, **SMALL), r"best.gain: none in place of \(\)"),
    ],
    ids=["size", "family", "hybrid", "squared", "optimizer", "patience"],
)
def test_a_state_of_another_training_is_refused_by_its_shapes(world, saved, resumed, says):
    states = []
    fit_model(world, saved, SIDE, on_epoch=lambda p: states.append(p.state()))
    with pytest.raises(ValueError, match=rf"does not fit.*{says}.*resume with"):
        fit_model(world, resumed, SIDE, resume=states[0])


def test_a_state_goes_on_under_another_pace(world):
    """As population-based training does."""
    states, losses = [], {}
    fit_model(world, SgdConfig(**SMALL), on_epoch=lambda p: states.append(p.state()))
    for learning_rate in (1e-9, 0.3):
        config = SgdConfig(learning_rate=learning_rate, **SMALL)
        found = losses[learning_rate] = []
        fit_model(world, config, resume=states[0], on_epoch=lambda p, to=found: to.append(p.loss))
    assert len(losses[0.3]) == EPOCHS - 1
    assert losses[1e-9] == pytest.approx([losses[1e-9][0]] * (EPOCHS - 1), rel=1e-3)
    assert losses[0.3][-1] < losses[1e-9][-1]


@pytest.mark.parametrize("name", ["als cg", "softmax", "squared", "hybrid"])
def test_what_is_raised_in_the_report_of_an_epoch_ends_the_training(world, name):
    epochs = []

    def on_epoch(progress):
        epochs.append(progress.epoch)
        if progress.epoch == 2:
            raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        fit_model(world, CONFIGS[name], SIDE, on_epoch=on_epoch)
    assert epochs == [1, 2]


def test_a_blend_tells_its_epochs_but_can_neither_stop_nor_go_on(two_tastes):
    config = BlendConfig(
        spectral=SpectralConfig(num_factors=2, device="cpu"),
        learned=SgdConfig(loss="contrasted", **SMALL, **COSINE),
    )
    found = []
    fit_model(two_tastes, config, on_epoch=found.append)
    assert [progress.epoch for progress in found] == [1, 2, 3, 4]
    assert {(progress.model, progress.state) for progress in found} == {(None, None)}


@pytest.mark.parametrize("config", [BlendConfig(), SpectralConfig(), PopularityConfig()])
def test_families_that_cannot_go_on_say_so(two_tastes, config):
    with pytest.raises(ValueError, match=f"'{config.family}' cannot be resumed; resume als, sgd"):
        fit_model(two_tastes, config, resume={})


def test_a_saved_state_replaces_the_one_before_and_leaves_nothing_else(tmp_path):
    for epoch in (1, 2):
        save_state(tmp_path, {"epoch": np.array(epoch), "a.b": np.ones((2, 3), np.float32)})
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]
    state = load_state(tmp_path)
    assert int(state["epoch"]) == 2
    assert state["a.b"].dtype == np.float32


def test_a_state_that_cannot_be_written_leaves_the_one_before(tmp_path):
    save_state(tmp_path, {"epoch": np.array(1)})
    with pytest.raises(ValueError, match=r"[Oo]bject arrays"):
        save_state(tmp_path, {"epoch": np.array([object()])})
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]
    assert int(load_state(tmp_path)["epoch"]) == 1


def test_a_damaged_state_is_refused(tmp_path):
    with pytest.raises(OSError, match=r"state\.npz"):
        load_state(tmp_path)
    save_state(tmp_path, {"users": np.arange(1000)})
    path = tmp_path / "state.npz"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (whole[:-100], bytes(flipped), b"", b"no state"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="no whole training state"):
            load_state(tmp_path)
