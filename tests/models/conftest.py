"""Small worlds of interactions."""

import numpy as np
import pytest

from perso.data.prepared import Interactions


def _build(
    pairs, *, num_users, num_items, weights=None, ratings=None, context=None, read_only=True
):
    """Interactions of (user, item) pairs, sorted as they come out of a prepared dataset."""
    pairs = np.array(list(pairs), np.int32).reshape(-1, 2)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))

    def column(values, default, dtype):
        filled = np.full(len(pairs), default) if values is None else np.asarray(values)
        return filled.astype(dtype)[order]

    names, codes = {}, {}
    for kind, values in (context or {}).items():
        names[kind] = tuple(sorted({v for v in values if v is not None}))
        found = [-1 if v is None else names[kind].index(v) for v in values]
        codes[kind] = np.array(found, np.int32)[order]
    arrays = {
        "user_indices": pairs[order, 0].copy(),
        "item_indices": pairs[order, 1].copy(),
        "weights": column(weights, 1.0, np.float32),
        "ratings": column(ratings, np.nan, np.float32),
        "last_at": np.zeros(len(pairs), np.int64),
    }
    if read_only:  # as they come out of a shared object store
        for array in (*arrays.values(), *codes.values()):
            array.flags.writeable = False
    return Interactions(
        num_users=num_users,
        num_items=num_items,
        context_names=names,
        context_codes=codes,
        **arrays,
    )


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
    """Even users have 7 of 12 even items, odd users 7 of 12 odd ones; user 40 has none."""
    rng = np.random.default_rng(0)
    pairs = [
        (user, item)
        for user in range(40)
        for item in rng.permutation(np.arange(user % 2, 24, 2))[:7].tolist()
    ]
    weights = rng.uniform(0.5, 5.0, len(pairs))
    return _build(pairs, num_users=41, num_items=24, weights=weights)


@pytest.fixture(scope="session")
def stars():
    """Planted ratings: biases and two tastes, a little noise; 10 % of them are kept aside."""
    rng = np.random.default_rng(1)
    user_U2, item_I2 = rng.normal(size=(120, 2)), rng.normal(size=(80, 2))
    user_bias_U, item_bias_I = rng.normal(size=120) * 0.3, rng.normal(size=80) * 0.4
    rated = rng.random((120, 80)) < 0.5
    users, items = np.nonzero(rated)
    ratings = (
        3.5
        + user_bias_U[users]
        + item_bias_I[items]
        + 0.5 * (user_U2[users] * item_I2[items]).sum(1)
        + rng.normal(size=len(users)) * 0.3
    )
    aside = rng.random(len(users)) < 0.1
    shape = {"num_users": 120, "num_items": 80}
    pairs = np.stack([users, items], 1)
    return (
        _build(pairs[~aside], ratings=ratings[~aside], **shape),
        _build(pairs[aside], ratings=ratings[aside], **shape),
    )
