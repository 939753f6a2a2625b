import numpy as np
import pytest
import torch

from perso.models import early_stopping
from perso.models.early_stopping import EarlyStopping
from perso.models.sgd import SgdConfig, fit_sgd
from perso.models.tables import AdagradTable


@pytest.fixture(scope="module")
def crowd(build):
    """300 users with 10 of 60 items each, drawn by chance: there is nothing to learn."""
    rng = np.random.default_rng(0)
    pairs = [(u, i) for u in range(300) for i in rng.permutation(60)[:10].tolist()]
    return build(pairs, num_users=300, num_items=60, weights=rng.uniform(0.5, 2.0, len(pairs)))


def pairs_of(interactions):
    return set(
        zip(interactions.user_indices.tolist(), interactions.item_indices.tolist(), strict=True)
    )


def aside_of(interactions, stopping):
    return pairs_of(interactions) - pairs_of(stopping.kept)


def table_of(value):
    return AdagradTable(torch.full((2, 3), value), learning_rate=0.1)


def test_without_patience_nothing_is_set_aside_and_nothing_stops(crowd):
    stopping = EarlyStopping.of(crowd, SgdConfig())
    assert stopping.kept is crowd
    values = np.arange(len(crowd))
    assert stopping.keep(values) is values
    table = table_of(1.0)
    for _ in range(5):
        stopping.watch(lambda: pytest.fail("nothing to measure"), {"table": table})
        assert not stopping.is_over
    with stopping.best({"table": table}):
        assert (table.values == 1.0).all()


def test_a_twentieth_is_set_aside_and_every_user_keeps_the_first_pair(crowd):
    stopping = EarlyStopping.of(crowd, SgdConfig(patience=1))
    aside = aside_of(crowd, stopping)
    assert len(stopping.kept) + len(aside) == len(crowd)
    assert 0.02 < len(aside) / len(crowd) < 0.08
    rows = np.searchsorted(crowd.user_indices, np.arange(300))
    firsts = {(user, int(crowd.item_indices[row])) for user, row in enumerate(rows)}
    assert firsts <= pairs_of(stopping.kept)
    assert stopping.kept.num_users == 300
    kept = stopping.keep(np.arange(len(crowd)))
    np.testing.assert_array_equal(crowd.item_indices[kept], stopping.kept.item_indices)
    assert stopping.keep(None) is None


def test_what_is_set_aside_follows_from_the_seed(crowd):
    one, same, other = (
        EarlyStopping.of(crowd, SgdConfig(patience=1, seed=seed)) for seed in (1, 1, 2)
    )
    assert aside_of(crowd, one) == aside_of(crowd, same) != aside_of(crowd, other)


def factors_that_rank(aside, place):
    """Vectors that put every pair set aside behind ``place`` - 1 other items, of all 60."""
    user_UD, item_ID = torch.eye(300), torch.zeros(60, 300)
    for user in range(300):
        mine = sorted(item for u, item in aside if u == user)
        others = [item for item in range(60) if item not in mine]
        item_ID[others, user] = torch.linspace(1.0, 0.5, len(others))
        item_ID[mine, user] = 2.0 if place == 1 else -1.0
    return user_UD, item_ID, torch.zeros(60)


def test_the_best_epoch_is_put_back_once_patience_is_used_up(crowd):
    stopping = EarlyStopping.of(crowd, SgdConfig(patience=2))
    aside = aside_of(crowd, stopping)
    tables, is_over = {"one": table_of(0.0), "two": table_of(0.0)}, []
    for epoch, place in enumerate([2, 1, 2, 2]):
        for table in tables.values():
            table.values = torch.full((2, 3), float(epoch))
        stopping.watch(lambda at=place: factors_that_rank(aside, at), tables)
        is_over.append(stopping.is_over)
    assert is_over == [False, False, False, True]
    with stopping.best(tables):
        assert all((table.values == 1.0).all() for table in tables.values())
    assert all((table.values == 3.0).all() for table in tables.values())


def test_an_improvement_renews_the_patience(crowd):
    stopping = EarlyStopping.of(crowd, SgdConfig(patience=2))
    aside = aside_of(crowd, stopping)
    bad, good = factors_that_rank(aside, 2), factors_that_rank(aside, 1)
    halves = (good[0], good[1] * 1.0, good[2])
    halves[1][:, ::2] = bad[1][:, ::2]  # right for every other user
    found = []
    for factors in (bad, bad, halves, bad, bad):
        stopping.watch(lambda f=factors: f, {})
        found.append(stopping.is_over)
    assert found == [False, False, False, False, True]


def test_items_that_a_user_has_in_training_do_not_count_as_rivals(crowd):
    """Every kept item scores above what was set aside, and nothing else does."""
    stopping = EarlyStopping.of(crowd, SgdConfig(patience=1))
    user_UD, item_ID, bias_I = torch.eye(300), torch.zeros(60, 300), torch.zeros(60)
    for user, item in pairs_of(stopping.kept):
        item_ID[item, user] = 5.0
    for user, item in aside_of(crowd, stopping):
        item_ID[item, user] = 1.0
    stopping.watch(lambda: (user_UD, item_ID, bias_I), {})
    perfect = factors_that_rank(aside_of(crowd, stopping), 1)
    stopping.watch(lambda: perfect, {})
    assert stopping.is_over  # no better than the one before


def test_the_check_is_the_same_in_small_blocks_of_users(crowd, monkeypatch):
    """Ranks of 300 users at once, and of 7 at once."""
    generator = torch.Generator().manual_seed(0)
    user_UD = torch.randn(300, 4, generator=generator)
    item_ID = torch.randn(60, 4, generator=generator)
    gains = []
    for scores_at_once in (1 << 24, 60 * 7):
        monkeypatch.setattr(early_stopping, "_SCORES_AT_ONCE", scores_at_once)
        stopping = EarlyStopping.of(crowd, SgdConfig(patience=1))
        stopping.watch(lambda: (user_UD, item_ID, torch.zeros(60)), {})
        gains.append(stopping._best)
    scores_UI = user_UD @ item_ID.T
    kept, aside = pairs_of(stopping.kept), aside_of(crowd, stopping)
    naive = [
        1
        / np.log2(
            2.0
            + sum(
                bool(scores_UI[user, other] > scores_UI[user, item])
                for other in range(60)
                if (user, other) not in kept
            )
        )
        for user, item in aside
    ]
    assert gains == pytest.approx([np.mean(naive)] * 2, rel=1e-5)


def test_training_on_noise_stops_early_and_returns_the_epoch_that_was_best(crowd):
    reports = []
    config = SgdConfig(num_factors=8, epochs=60, patience=3, batch_size=512, l2=0.0)
    stopped = fit_sgd(crowd, config, on_epoch=lambda p: reports.append(p.epoch))
    assert 3 < len(reports) < 60
    best = len(reports) - 3
    at_best = fit_sgd(
        crowd, SgdConfig(num_factors=8, epochs=best, patience=60, batch_size=512, l2=0.0)
    )
    np.testing.assert_array_equal(stopped.item_factors_ID, at_best.item_factors_ID)


def test_an_item_whose_only_pairs_were_set_aside_has_no_vector(build):
    """It stands where chance has put it: training has not seen it."""
    pairs = [(user, item) for user in range(40) for item in (0, 1, 2)]
    pairs += [(user, 3 + user) for user in range(40)]
    world = build(pairs, num_users=40, num_items=43)
    for similarity in ("dot", "cosine"):
        config = SgdConfig(num_factors=4, epochs=2, patience=2, similarity=similarity)
        kept = EarlyStopping.of(world, config).kept
        lost = sorted(set(range(43)) - set(kept.item_indices.tolist()))
        assert lost
        model = fit_sgd(world, config)
        assert np.abs(model.item_factors_ID[lost]).max() == 0
        assert np.isfinite(model.user_factors_UD).all()
