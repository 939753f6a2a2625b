import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.models.baskets import Baskets, cut_baskets
from perso.models.knn_config import ItemKnnConfig
from perso.models.related_items import RelatedItems, fit_bought_together

HOUR = 3_600_000_000
COSINE = ItemKnnConfig(user_exponent=0, shrinkage=0)


def baskets_of(*lists, num_items):
    return Baskets(
        num_items=num_items,
        indptr_K1=np.cumsum([0, *map(len, lists)]),
        item_indices=np.array([item for items in lists for item in items], np.int32),
    )


def at(build, events, **shape):
    """Interactions of (user, item, hour)."""
    world = build([(user, item) for user, item, _ in events], **shape)
    hours = {(user, item): hour for user, item, hour in events}
    pairs = zip(world.user_indices.tolist(), world.item_indices.tolist(), strict=True)
    last_at = np.array([round(hours[pair] * HOUR) for pair in pairs], np.int64)
    return dataclasses.replace(world, last_at=last_at)


def listed(baskets):
    return [part.tolist() for part in np.split(baskets.item_indices, baskets.indptr_K1[1:-1])]


def test_a_basket_ends_where_its_window_does_and_with_its_user(build):
    events = [(0, 3, 0), (0, 1, 10), (0, 2, 24), (0, 0, 25), (0, 4, 48.9), (1, 2, 25), (3, 0, 25)]
    world = at(build, events, num_users=4, num_items=5)
    assert listed(cut_baskets(world)) == [[3, 1, 2], [0, 4], [2], [0]]
    assert listed(cut_baskets(world, window_hours=0)) == [[3], [1], [2], [0], [4], [2], [0]]
    assert listed(cut_baskets(world, window_hours=100)) == [[3, 1, 2, 0, 4], [2], [0]]


def test_baskets_that_are_too_large_are_left_out_and_counted(build):
    events = [(0, item, 0) for item in range(5)] + [(1, 0, 0), (1, 1, 0), (2, 4, 0)]
    baskets = cut_baskets(at(build, events, num_users=3, num_items=5), max_items=2)
    assert listed(baskets) == [[0, 1], [4]]
    assert (baskets.num_left_out, baskets.num_pairs_left_out) == (1, 5)


@given(
    events=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 30)),
        unique_by=lambda event: event[:2],
        max_size=40,
    ),
    window=st.integers(0, 12),
)
def test_baskets_are_those_of_a_clerk_who_goes_through_the_events(build, events, window):
    expected = []
    opened: dict = {}
    for user, hour, item in sorted((user, hour, item) for user, item, hour in events):
        if user not in opened or hour > opened[user] + window:
            opened[user] = hour
            expected.append([])
        expected[-1].append(item)
    world = at(build, events, num_users=4, num_items=10)
    baskets = cut_baskets(world, window_hours=window)
    assert len(baskets) == len(expected)
    assert [list(part) for part in listed(baskets) if len(part)] == expected


def test_bought_together_is_the_cosine_of_basket_incidence():
    baskets = baskets_of([0, 1], [0, 1, 2], [0], [0, 3], [4], num_items=6)
    related = fit_bought_together(baskets, COSINE, num_related=3)
    items, scores = related.of(0)
    assert items.tolist() == [1, 2, 3]  # 2 and 3 are equal: the lower index first
    np.testing.assert_allclose(scores, [2 / np.sqrt(4 * 2), 0.5, 0.5], rtol=1e-6)
    assert related.item_indices_IN[3].tolist() == [0, -1, -1]
    assert related.scores_IN[3].tolist() == [0.5, 0, 0]
    assert [len(related.of(item)[0]) for item in (4, 5)] == [0, 0]


def test_a_pair_that_belongs_together_beats_the_bestseller_and_a_chance_pair_does_not():
    # Item 0 is in every basket; 1 and 2 go together; 3 and 2 met once.
    baskets = baskets_of(*[[0, 1, 2]] * 20, *[[0, 4]] * 300, *[[0, 1]] * 4, [0, 2, 3], num_items=5)
    items, _ = fit_bought_together(baskets, num_related=3).of(2)
    assert items.tolist() == [1, 0, 3]


@given(seed=st.integers(0, 1000), num_related=st.integers(1, 12))
def test_a_short_list_is_the_start_of_a_long_one(build, seed, num_related):
    rng = np.random.default_rng(seed)
    pairs = {(int(u), int(i)) for u, i in rng.integers(0, 10, (40, 2))}
    world = build(sorted(pairs), num_users=10, num_items=10)
    baskets = cut_baskets(world)
    long, short = (fit_bought_together(baskets, num_related=n) for n in (12, num_related))
    np.testing.assert_array_equal(short.item_indices_IN, long.item_indices_IN[:, :num_related])
    np.testing.assert_array_equal(short.scores_IN, long.scores_IN[:, :num_related])


def test_saved_lists_are_mapped_and_the_same(two_tastes, tmp_path):
    related = fit_bought_together(cut_baskets(two_tastes))
    related.save(tmp_path)
    loaded = RelatedItems.load(tmp_path)
    assert isinstance(loaded.scores_IN, np.memmap)
    for item in range(24):
        for one, other in zip(related.of(item), loaded.of(item), strict=True):
            np.testing.assert_array_equal(one, other)


def test_nothing_bought_gives_empty_lists(build):
    world = build([], num_users=2, num_items=3)
    baskets = cut_baskets(world)
    assert (len(baskets), baskets.num_left_out) == (0, 0)
    related = fit_bought_together(baskets)
    assert related.num_items == 3
    assert (related.item_indices_IN == -1).all()


def test_wrong_arguments_are_named(build, two_tastes):
    with pytest.raises(ValueError, match="window_hours is -1"):
        cut_baskets(two_tastes, window_hours=-1)
    with pytest.raises(ValueError, match="max_items is 0"):
        cut_baskets(two_tastes, max_items=0)
    with pytest.raises(ValueError, match="num_related is 0"):
        fit_bought_together(cut_baskets(two_tastes), num_related=0)
    with pytest.raises(ValueError, match=r"item_indices_IN has shape \(2, 3\), scores_IN \(2, 2\)"):
        RelatedItems(
            item_indices_IN=np.zeros((2, 3), np.int32), scores_IN=np.zeros((2, 2), np.float32)
        )
