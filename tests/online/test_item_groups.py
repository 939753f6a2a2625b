"""Which items have a category, brand, tag or price, against one line of Python each."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.online.item_groups import ItemGroups
from perso.schema import CATALOG_SCHEMA

NAMES = st.sampled_from(["a", "b", "c"])
ITEMS = st.lists(
    st.fixed_dictionaries(
        {
            "categories": st.none() | st.lists(NAMES, max_size=3),
            "tags": st.none() | st.lists(NAMES, max_size=3),
            "brand": st.none() | NAMES,
            "price": st.none() | st.floats(0, 100),
            "in_stock": st.none() | st.booleans(),
        }
    ),
    max_size=12,
)


def catalog_of(items):
    return pa.Table.from_pylist(
        [item | {"item_id": f"i{n}"} for n, item in enumerate(items)], CATALOG_SCHEMA
    )


@given(ITEMS, st.lists(st.sampled_from(["a", "b", "unheard of"]), max_size=2))
def test_masks_are_what_a_look_at_every_item_finds(items, names):
    groups = ItemGroups(catalog_of(items))
    wanted = set(names)
    assert groups.in_categories(names).tolist() == [
        bool(wanted & set(item["categories"] or ())) for item in items
    ]
    assert groups.with_tags(names).tolist() == [
        bool(wanted & set(item["tags"] or ())) for item in items
    ]
    assert groups.of_brands(names).tolist() == [item["brand"] in wanted for item in items]
    assert groups.in_stock_I.tolist() == [item["in_stock"] is not False for item in items]
    prices = [np.nan if item["price"] is None else item["price"] for item in items]
    np.testing.assert_array_equal(groups.prices_I, prices)


def test_a_catalogue_in_several_pieces_is_one():
    items = [
        {"brand": brand, "categories": [brand], "tags": [brand], "price": None, "in_stock": None}
        for brand in "abca"
    ]
    pieces = pa.concat_tables([catalog_of(items[:1]), catalog_of(items[1:])])
    assert pieces["brand"].num_chunks == 2
    groups = ItemGroups(pieces)
    for mask in (groups.in_categories("a"), groups.with_tags("a"), groups.of_brands("a")):
        assert mask.tolist() == [True, False, False, True]


def test_no_catalogue_has_no_items():
    groups = ItemGroups(CATALOG_SCHEMA.empty_table())
    assert len(groups.of_brands(["a"])) == len(groups.prices_I) == 0


def test_a_mask_is_the_callers_own():
    groups = ItemGroups(catalog_of([{"brand": "a"}]))
    groups.of_brands("a")[0] = False
    assert groups.of_brands("a")[0]
    assert groups.of_brands("a") is not groups.of_brands("a")


@pytest.mark.parametrize("bound", [0.0, 5.0])
def test_an_unknown_price_meets_no_bound(bound):
    prices_I = ItemGroups(catalog_of([{"price": None}, {"price": 5.0}])).prices_I
    assert (prices_I >= bound).tolist() == [False, True]
    assert (prices_I <= bound).tolist() == [False, bound == 5.0]
