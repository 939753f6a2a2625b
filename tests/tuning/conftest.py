"""Small worlds of interactions in which the right lists follow by construction."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perso.data.prepared import FORMAT_VERSION, Interactions, PreparedData
from perso.data.vocabulary import Vocabulary
from perso.schema import CATALOG_SCHEMA, INTERACTION_SCHEMA, SPLITS
from perso.tuning.grid import GridSpec
from perso.tuning.spec import SearchSpec

QUICK = {"epochs": 8, "batch_size": 64, "device": "cpu"}
GRID = {"num_factors": (4, 8), "learning_rate": (0.1,), "l2": (0.03, 0.1)}
NUM_USERS, NUM_ITEMS = 40, 20
STARTED_AT = datetime(2026, 1, 1, tzinfo=UTC)


def _build(pairs, *, num_users=NUM_USERS, num_items=NUM_ITEMS, ratings=None):
    """Pairs (user, item) of weight 1 as the arrays that every stage reads."""
    ordered = np.array(sorted(pairs), np.int32).reshape(-1, 2)
    stars = [(ratings or {}).get(pair, np.nan) for pair in sorted(pairs)]
    arrays = {
        "user_indices": np.ascontiguousarray(ordered[:, 0]),
        "item_indices": np.ascontiguousarray(ordered[:, 1]),
        "weights": np.ones(len(ordered), np.float32),
        "ratings": np.array(stars, np.float32),
        "last_at": np.zeros(len(ordered), np.int64),
    }
    for array in arrays.values():  # as they come out of Ray's object store
        array.flags.writeable = False
    return Interactions(
        num_users=num_users, num_items=num_items, context_names={}, context_codes={}, **arrays
    )


def _likes():
    """Even users like even items, odd users odd ones, each in an order of their own."""
    rng = np.random.default_rng(0)
    return {
        user: rng.permutation(np.arange(user % 2, NUM_ITEMS, 2)).tolist()
        for user in range(NUM_USERS)
    }


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Steps this small take a hundred times longer where threads wait for a busy core."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def build():
    return _build


@pytest.fixture(scope="session")
def two_tastes():
    """Train, and a later period in which each user meets the rest of its own taste."""
    likes = _likes()
    train = {(user, item) for user, liked in likes.items() for item in liked[:7]}
    held_out = {(user, item) for user, liked in likes.items() for item in liked[7:]}
    return _build(train), _build(held_out)


@pytest.fixture(scope="session")
def search():
    """Makes a search over one quick grid, or over given ones."""

    def search(*, grids=None, family="sgd", fixed=None, grid=None, **settings):
        one = GridSpec(
            family=family,
            fixed=QUICK if fixed is None else fixed,
            grid=GRID if grid is None else grid,
        )
        settings = {"k": (5, 10), "objective": "ndcg@5"} | settings
        return SearchSpec(grids=(one,) if grids is None else grids, **settings)

    return search


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """The two tastes as a prepared dataset: six items in train, two more in each later period."""
    folder = tmp_path_factory.mktemp("dataset")
    likes = _likes()
    parts = {"train": slice(0, 6), "validation": slice(6, 8), "test": slice(8, 10)}
    ends = {split: STARTED_AT + timedelta(days=30 * n) for n, split in enumerate(SPLITS, start=1)}
    for split in SPLITS:
        at = ends[split] - timedelta(days=1)
        rows = [
            {
                "user_index": user,
                "item_index": item,
                "weight": 1.0,
                "rating": None,
                "num_events": 1,
                "first_at": at,
                "last_at": at,
                "device": "mobile",
                "region": None,
                "daypart": "night",
            }
            for user, liked in likes.items()
            for item in sorted(liked[parts[split]])
        ]
        (folder / "interactions" / split).mkdir(parents=True)
        table = pa.Table.from_pylist(rows, INTERACTION_SCHEMA)
        pq.write_table(table, folder / "interactions" / split / "part.parquet")
    Vocabulary(pa.array([f"u{n}" for n in range(NUM_USERS)])).save(folder / "users.arrow")
    Vocabulary(pa.array([f"i{n}" for n in range(NUM_ITEMS)])).save(folder / "items.arrow")
    cards = [
        {"item_id": f"i{n}", "title": f"The i{n}", "categories": [("even", "odd")[n % 2]]}
        for n in range(NUM_ITEMS)
    ]
    pq.write_table(pa.Table.from_pylist(cards, CATALOG_SCHEMA), folder / "catalog.parquet")
    manifest = {
        "format_version": FORMAT_VERSION,
        "key": "two-tastes",
        "spec": {"half_life_days": None},
        "split_ends": {split: end.isoformat() for split, end in ends.items()},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return PreparedData(folder)
