import pyarrow as pa

from perso.dictionary import ITEM_POPULARITY, ITEM_PROFILE
from perso.segments.items import popularity_rows, profile_rows
from perso.segments.measures import ITEM_COUNTS_SCHEMA


def counts(**by_item):
    names = ITEM_COUNTS_SCHEMA.names
    rows = [
        dict(zip(names, (item_id, views, 0, bought, bought, 2.0 * bought), strict=True))
        for item_id, (views, bought) in by_item.items()
    ]
    return pa.Table.from_pylist(rows, schema=ITEM_COUNTS_SCHEMA)


def test_counts_of_partitions_add_up_and_ranks_share_places(as_of):
    parts = [counts(mug=(5, 2), lamp=(1, 1)), counts(mug=(1, 1), new=(9, 1), cup=(9, 1))]
    items = pa.array(["cup", "lamp", "mug", "never"])
    rows = popularity_rows(parts, items, as_of=as_of, created=as_of)
    assert rows.schema == ITEM_POPULARITY.schema
    found = {
        r["item_id"]: (r["item_views"], r["item_buyers"], r["item_rank"]) for r in rows.to_pylist()
    }
    assert found == {
        "mug": (6, 3, 1),
        "cup": (9, 1, 2),
        "new": (9, 1, 2),
        "lamp": (1, 1, 4),
        "never": (0, 0, 5),
    }
    assert rows["item_revenue"].to_pylist()[2] == 6.0


def test_no_items_give_no_rows(as_of):
    rows = popularity_rows([], pa.array([], pa.string()), as_of=as_of, created=as_of)
    assert rows.schema == ITEM_POPULARITY.schema
    assert len(rows) == 0


def test_a_card_without_categories_has_an_empty_list(catalog, as_of):
    rows = profile_rows(catalog, as_of=as_of, created=as_of)
    assert rows.schema == ITEM_PROFILE.schema
    thing = rows.to_pylist()[-1]
    assert (thing["item_id"], thing["categories"], thing["tags"]) == ("x", [], [])
    assert thing["brand"] is None
