"""Diversity and calibration of lists, by hand and against naive code."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.evaluation.categories import ItemCategories
from perso.evaluation.diversity import SMOOTHING, calibration_error, intra_list_diversity

NAMES = [["tea"], ["tea", "gifts"], ["lamps"], [], None]
CATEGORIES = ItemCategories.from_lists(NAMES)


def indicator(names):
    """A vector of 0 and 1 per item."""
    columns = sorted({name for item in names for name in item or ()})
    return np.array([[column in (item or ()) for column in columns] for item in names], float)


@pytest.mark.parametrize(
    ("columns", "counts"),
    [
        ({"category": ["a", None, "a"]}, [1, 0, 1]),
        ({"category": [7, 7, 9], "categories": ["a|b", None, "c"]}, [1, 0, 1]),
        ({"category": [7, 7, 9]}, [1, 1, 1]),
    ],
)
def test_a_catalogue_may_name_one_category_an_item(columns, counts):
    assert ItemCategories.from_catalog(pa.table(columns)).counts_I.tolist() == counts


def test_a_catalogue_may_have_no_categories():
    assert ItemCategories.from_catalog(pa.table({"item_id": ["i1"]})) is None


def test_a_catalogue_becomes_categories_that_count_once():
    catalog = pa.table({"categories": pa.array([["a", "b", "a"], None, ["b", None]])})
    found = ItemCategories.from_catalog(catalog)
    assert (found.num_items, found.num_categories) == (3, 2)
    assert found.counts_I.tolist() == [2, 0, 1]
    keys, totals = found.totals(np.array([0, 0, 5]), np.array([0, 2, 1]), np.array([1.0, 3.0, 9.0]))
    assert keys.tolist() == [0, 1]
    assert totals.tolist() == [1.0, 4.0]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0, 2, -1, -1], 1.0),  # nothing in common
        ([0, 0, -1, -1], 0.0),
        ([0, 1, -1, -1], 1 - 1 / math.sqrt(2)),
        ([0, 1, 2, -1], 1 - 1 / math.sqrt(2) / 3),
        ([0, 3, 4, 2], 1.0),  # items without a category do not count
        ([0, 3, 4, -1], math.nan),
        ([-1, -1, -1, -1], math.nan),
    ],
)
def test_diversity_by_hand(row, expected):
    lists = np.array([row])
    assert intra_list_diversity(lists, CATEGORIES) == pytest.approx([expected], nan_ok=True)
    vectors = indicator(NAMES)
    assert intra_list_diversity(lists, vectors) == pytest.approx([expected], nan_ok=True)


def test_opposite_vectors_are_more_than_diverse():
    found = intra_list_diversity(np.array([[0, 1]]), np.array([[1.0, 0.0], [-2.0, 0.0]]))
    assert found == pytest.approx([2.0])


some_names = st.lists(st.lists(st.sampled_from("abcd"), max_size=3), min_size=1, max_size=6)


@st.composite
def described_lists(draw):
    names = draw(some_names)
    item = st.integers(-1, len(names) - 1)
    rows = draw(st.lists(st.lists(item, min_size=4, max_size=4), max_size=4))
    return names, np.array(rows, np.int64).reshape(-1, 4)


@given(described_lists())
def test_diversity_equals_a_loop_over_all_pairs_and_stays_within_its_bounds(world):
    names, lists = world
    vectors = indicator(names)
    found = intra_list_diversity(lists, ItemCategories.from_lists(names))
    for value, row in zip(found, lists.tolist(), strict=True):
        known = [vectors[i] for i in row if i >= 0 and vectors[i].any()]
        cosines = [
            a @ b / math.sqrt((a @ a) * (b @ b))
            for place, a in enumerate(known)
            for b in known[:place]
        ]
        expected = 1 - np.mean(cosines) if cosines else math.nan
        assert value == pytest.approx(expected, nan_ok=True, abs=1e-12)
        assert math.isnan(value) or -1e-12 <= value <= 1 + 1e-12
    if vectors.size:
        np.testing.assert_allclose(intra_list_diversity(lists, vectors), found, atol=1e-12)


def calibrate(lists, histories, names, weights=None):
    """Errors for histories given as lists of items."""
    counts = [len(history) for history in histories]
    return calibration_error(
        np.array(lists, np.int64),
        ItemCategories.from_lists(names),
        history_indptr_B1=np.cumsum([0, *counts]),
        history_items_P=np.concatenate([np.empty(0, int), *map(np.array, histories)]).astype(int),
        history_weights_P=np.ones(sum(counts)) if weights is None else np.array(weights),
    )


def test_a_list_with_the_mix_of_the_history_has_no_error():
    # 70 % of the weight on a, 30 % on b: Steck's example of a user with two genres.
    names = [["a"], ["b"]] + [["a"]] * 7 + [["b"]] * 3
    found = calibrate([range(2, 12)], [[0, 1]], names, weights=[0.7, 0.3])
    assert found == pytest.approx([0.0], abs=1e-12)


def test_calibration_by_hand():
    names = [["a"], ["b"], ["a", "b"], []]
    mixed = 0.5 * math.log(0.5 / 0.5) * 2
    only_a = 0.5 * math.log(0.5 / (0.99 + 0.005)) + 0.5 * math.log(0.5 / 0.005)
    assert calibrate([[0, 1], [0, 3]], [[2], [0, 1]], names) == pytest.approx([mixed, only_a])


def test_without_a_category_on_either_side_there_is_no_error_to_tell():
    names = [["a"], []]
    found = calibrate([[1, -1], [0, -1], [0, -1], [-1, -1]], [[0], [1], [], [0]], names)
    assert np.isnan(found).all()
    assert np.isnan(calibrate([[0]], [[0]], [[]])).all()


@given(world=described_lists(), data=st.data())
def test_calibration_equals_stecks_formula_and_stays_within_its_bounds(world, data):
    names, lists = world
    item = st.integers(0, len(names) - 1)
    histories = [data.draw(st.lists(item, max_size=3, unique=True)) for _ in lists]
    num_pairs = sum(map(len, histories))
    weights = data.draw(st.lists(st.floats(0.1, 5), min_size=num_pairs, max_size=num_pairs))
    found = calibrate(lists, histories, names, weights)
    remaining = iter(weights)
    for value, row, history in zip(found, lists.tolist(), histories, strict=True):
        had = mix(names, [(i, next(remaining)) for i in history])
        shown = mix(names, [(i, 1.0) for i in row if i >= 0])
        if not (had and shown):
            assert math.isnan(value)
            continue
        smoothed = {c: (1 - SMOOTHING) * shown.get(c, 0) + SMOOTHING * had[c] for c in had}
        expected = sum(p * math.log(p / smoothed[c]) for c, p in had.items())
        assert value == pytest.approx(expected, abs=1e-9)
        assert 0 <= value <= -math.log(SMOOTHING) + 1e-9


def mix(names, weighted_items):
    shares = {}
    for item, weight in weighted_items:
        for category in set(names[item]):
            shares[category] = shares.get(category, 0) + weight / len(set(names[item]))
    return {category: share / sum(shares.values()) for category, share in shares.items()}
