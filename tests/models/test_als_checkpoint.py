"""Vectors on disk: any range out of whichever files hold it, and clear refusals."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.errors import ArtifactError
from perso.models.als_checkpoint import Checkpoint, CheckpointFolder

TRAINING = {"seed": 1, "shape": [12, 5]}


def write(folder, vectors, cuts, *, epoch=3):
    """A checkpoint of both sides, by shards that were cut there."""
    checkpoints = CheckpointFolder(folder, TRAINING)
    place = checkpoints.begin(epoch)
    ranges = []
    for start, stop in pairwise(cuts):
        for side in ("users", "items"):
            Checkpoint.write(place, side, start, vectors[start:stop])
        ranges.append({"users": (start, stop), "items": (start, stop)})
    checkpoints.complete(epoch, ranges)
    return checkpoints


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 12), max_size=4).map(lambda inner: [0, *sorted(inner), 12]),
    own=st.tuples(st.integers(0, 12), st.integers(0, 12)).map(sorted),
)
def test_any_range_is_read_out_of_any_files(tmp_path_factory, cuts, own):
    vectors = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    checkpoint = write(tmp_path_factory.mktemp("checkpoint"), vectors, cuts).latest()
    for side in ("users", "items"):
        found = checkpoint.read(side, *own, num_factors=4)
        np.testing.assert_array_equal(found, vectors[slice(*own)])


def test_shards_without_rows_write_at_the_same_time(tmp_path):
    """They have one name for their file, as an actor and the one that replaced it do."""
    empty_MD = np.empty((0, 4), np.float32)

    def write_often(_):
        for _ in range(50):
            Checkpoint.write(tmp_path, "items", 12, empty_MD)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write_often, range(4)))
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


def test_before_the_first_checkpoint_there_is_none(tmp_path):
    checkpoints = CheckpointFolder(tmp_path / "new", TRAINING)
    assert checkpoints.latest() is None
    checkpoints.begin(1)
    assert checkpoints.latest() is None


def test_a_newer_checkpoint_replaces_the_older(tmp_path, vectors):
    write(tmp_path, vectors, [0, 12], epoch=3)
    checkpoints = write(tmp_path, vectors + 1, [0, 5, 12], epoch=5)
    assert checkpoints.latest().epoch == 5
    found = checkpoints.latest().read("items", 0, 12, num_factors=4)
    np.testing.assert_array_equal(found, vectors + 1)
    assert [place.name for place in tmp_path.glob("epoch-*")] == ["epoch-00005"]


def test_a_checkpoint_of_another_training_is_refused(tmp_path, vectors):
    write(tmp_path, vectors, [0, 12])
    with pytest.raises(ArtifactError, match=r"another training: seed 1 for 2; name another folder"):
        CheckpointFolder(tmp_path, TRAINING | {"seed": 2}).latest()


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "{}", json.dumps({"training": {}, "epoch": None})),
        json.dumps({"training": [1], "epoch": 1, "users": [], "items": []}),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, vectors, text):
    checkpoints = write(tmp_path, vectors, [0, 12])
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest\.json is no checkpoint's manifest.*anew"):
        checkpoints.latest()


@pytest.mark.parametrize("damage", ["missing", "short", "of another shape"])
def test_a_damaged_file_is_refused(tmp_path, vectors, damage):
    checkpoint = write(tmp_path, vectors, [0, 5, 12]).latest()
    path = next(checkpoint.folder.glob("users-000000000005-*"))
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        np.save(path, vectors[:2])
    with pytest.raises(ArtifactError, match="remove the checkpoint folder to start anew"):
        checkpoint.read("users", 0, 12, num_factors=4)


def test_checkpoints_are_due_every_so_many_epochs(tmp_path):
    checkpoints = CheckpointFolder(tmp_path, TRAINING, every=3)
    assert [epoch for epoch in range(1, 8) if checkpoints.is_due(epoch)] == [3, 6]
    with pytest.raises(ValueError, match="0 epochs from one checkpoint to the next"):
        CheckpointFolder(tmp_path, TRAINING, every=0)
