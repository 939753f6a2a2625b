"""A training midway as a folder, and which of several folders is taken up."""

import numpy as np
import pytest

from perso.tuning.points import Point
from perso.tuning.snapshots import load_snapshot, newest_snapshot, save_snapshot
from perso.tuning.spec import SearchSpec
from perso.tuning.trial import Snapshot, Trial


def snapshot(epochs):
    point = Point(number=4, grid=0, searched={"l2": 0.1}, seed=2)
    begun = Trial.begin(point, SearchSpec()).to_dict()
    losses = [1.0 / epoch for epoch in range(1, epochs + 1)]
    so_far = Trial.of(begun | {"status": "stopped", "epochs": epochs, "losses": losses})
    state = {"factors": np.full((3, 2), epochs, np.float32), "epoch": np.array(epochs)}
    return Snapshot(state=state, so_far=so_far)


@pytest.fixture
def folders(tmp_path):
    """Three snapshots, oldest first."""
    made = [tmp_path / f"checkpoint_{n:06d}" for n in range(3)]
    for epochs, folder in enumerate(made, start=1):
        save_snapshot(folder, snapshot(epochs))
    return made


def test_a_snapshot_survives_its_folder(folders):
    found, saved = load_snapshot(folders[1]), snapshot(2)
    assert found.so_far == saved.so_far
    assert found.state.keys() == saved.state.keys()
    for name, array in saved.state.items():
        np.testing.assert_array_equal(found.state[name], array)
        assert found.state[name].dtype == array.dtype


def test_the_first_whole_folder_is_taken(folders):
    assert newest_snapshot(reversed(folders)).so_far.epochs == 3
    assert newest_snapshot(folders).so_far.epochs == 1


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "no trial": lambda folder: (folder / "trial.json").unlink(),
    "half a trial": lambda folder: cut(folder / "trial.json"),
    "an empty trial": lambda folder: (folder / "trial.json").write_text(""),
    "another trial": lambda folder: (folder / "trial.json").write_text('{"curve": []}'),
    "no state": lambda folder: (folder / "state.npz").unlink(),
    "half a state": lambda folder: cut(folder / "state.npz"),
    "an empty state": lambda folder: (folder / "state.npz").write_bytes(b""),
    "nothing": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_one_is_skipped(folders, damage):
    damage(folders[2])
    with pytest.raises((OSError, ValueError)):
        load_snapshot(folders[2])
    assert newest_snapshot(reversed(folders)).so_far.epochs == 2
    damage(folders[1])
    damage(folders[0])
    assert newest_snapshot(reversed(folders)) is None


def test_where_there_is_no_folder_there_is_no_snapshot(tmp_path):
    assert newest_snapshot([]) is None
    assert newest_snapshot([tmp_path / "nowhere"]) is None
