import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.data.catalog import (
    PARTIAL_SCHEMA,
    derive_partial,
    merge_partials,
    read_catalog,
    title_words,
)
from perso.errors import InputError
from perso.schema import CATALOG_SCHEMA, EVENT_SCHEMA


def seen(day: int, item_id: str, **fields) -> dict:
    return dict.fromkeys(EVENT_SCHEMA.names) | {
        "event_id": f"{day}",
        "event_type": "view_item",
        "item_id": item_id,
        "timestamp": datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=day),
        **fields,
    }


def derive(*rows: dict) -> pa.Table:
    return derive_partial(pa.Table.from_pylist(list(rows), schema=EVENT_SCHEMA))


def card(catalog: pa.Table, item_id: str) -> dict:
    (row,) = (row for row in catalog.to_pylist() if row["item_id"] == item_id)
    return {name: value for name, value in row.items() if value not in (None, [], item_id)}


def test_the_most_frequent_title_and_the_last_price_win():
    one = derive(
        seen(1, "i1", item_name="LAMP", price=1.0, currency="EUR"),
        seen(2, "i1", item_name="LAMP OLD", price=2.0, currency="EUR"),
        seen(9, "i1"),
    )
    other = derive(
        seen(3, "i1", item_name="LAMP", price=3.0, currency="GBP"),
        seen(3, "i1", item_name="LAMP", price=2.5, currency="GBP"),
        seen(0, "i0"),
    )
    catalog = merge_partials([one, other])
    assert catalog.schema.equals(CATALOG_SCHEMA)
    assert catalog["item_id"].to_pylist() == ["i0", "i1"]
    assert card(catalog, "i1") == {"title": "LAMP", "price": 3.0, "currency": "GBP"}
    assert card(catalog, "i0") == {}


def test_of_equally_frequent_titles_the_first_in_the_alphabet_wins():
    parts = [derive(seen(1, "i1", item_name=name)) for name in ("b", "c", "a")]
    assert card(merge_partials(parts), "i1") == {"title": "a"}


def test_declared_fields_win_and_unseen_items_are_kept():
    declared = pa.Table.from_pylist(
        [
            {"item_id": "i1", "title": "Declared", "categories": ["x"], "in_stock": False},
            {"item_id": "i2", "title": "Unseen"},
        ],
        schema=CATALOG_SCHEMA,
    )
    part = derive(seen(1, "i1", item_name="seen", price=4.0, item_category="a|b"))
    catalog = merge_partials([part], declared)
    assert card(catalog, "i1") == {
        "title": "Declared",
        "price": 4.0,
        "categories": ["x"],
        "in_stock": False,
    }
    assert card(catalog, "i2") == {"title": "Unseen"}
    assert card(merge_partials([part]), "i1")["categories"] == ["a", "b"]


def test_nothing_gives_an_empty_catalogue():
    assert merge_partials([]).equals(CATALOG_SCHEMA.empty_table())
    assert derive().equals(PARTIAL_SCHEMA.empty_table())


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(["i1", "i2"]),
        st.sampled_from([None, "a", "b"]),
        st.sampled_from([None, 1.0, 2.0]),
        st.sampled_from([None, "EUR", "GBP"]),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.integers(0, 12), st.randoms(use_true_random=False))
def test_neither_row_order_nor_partitioning_changes_the_catalogue(events, cut, random):
    rows = [
        seen(day, item, item_name=name, price=price, currency=currency)
        for day, item, name, price, currency in events
    ]
    whole = merge_partials([derive(*rows)])
    random.shuffle(rows)
    assert merge_partials([derive(*rows[cut:]), derive(*rows[:cut])]).equals(whole)


def test_category_words_are_shared_by_enough_but_not_by_most_titles():
    lamps = [f"RED SHOP LAMP {chr(97 + i) * 4}" for i in range(8)]
    bags = [f"shop jute bags {chr(97 + i) * 5}" for i in range(6)] + ["SHOP BAG"]
    others = [f"SHOP {chr(97 + i) * 6}{chr(97 + j) * 6}" for i in range(8) for j in range(8)]
    words = title_words([*lamps, *bags, *others, None])
    assert words[0] == ["lamp"]  # red is a colour, shop is everywhere, aaaa is alone
    assert words[8] == ["bag", "jute"]
    assert words[14] == ["bag"]
    assert words[-1] == words[20] == []


def test_words_become_categories_only_where_there_are_no_categories_at_all():
    rows = [seen(i, f"i{i}", item_name=f"LAMP {chr(97 + i) * 4}") for i in range(5)]
    assert card(merge_partials([derive(*rows)]), "i1")["categories"] == ["lamp"]
    rows[0]["item_category"] = "light"
    catalog = merge_partials([derive(*rows)])
    assert card(catalog, "i0")["categories"] == ["light"]
    assert "categories" not in card(catalog, "i1")


def test_a_declared_catalogue_is_the_same_in_every_format(tmp_path: Path):
    rows = [
        {"item_id": "1", "title": "A", "price": 2.5, "categories": ["x", "y"], "in_stock": True},
        {"item_id": "2", "title": None, "price": None, "categories": None, "in_stock": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows, CATALOG_SCHEMA), tmp_path / "c.parquet")
    (tmp_path / "c.csv").write_text(
        "item_id,title,price,categories,in_stock,more\n1,A,2.5,x|y,true,z\n2,,,,,z\n"
    )
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = pa.Table.from_pylist(rows, CATALOG_SCHEMA).to_pylist()
    for path in tmp_path.iterdir():
        assert read_catalog(str(path)).to_pylist() == expected, path.name


def test_bad_cells_are_unknown_and_rows_without_or_with_repeated_ids_are_left_out(
    tmp_path: Path, caplog
):
    (tmp_path / "c.csv").write_text("item_id,price\n1,cheap\n,3\n2,1\n2,9\nbad\n")
    with caplog.at_level("WARNING"):
        catalog = read_catalog(str(tmp_path / "c.csv"))
    assert list(zip(catalog["item_id"].to_pylist(), catalog["price"].to_pylist(), strict=True)) == [
        ("1", None),
        ("2", 9.0),
    ]
    assert "1 malformed lines and 2 rows" in caplog.text
    assert "1 bad cells of column price" in caplog.text


def test_a_catalogue_without_item_ids_is_refused(tmp_path: Path):
    (tmp_path / "c.csv").write_text("sku,price\n1,2\n")
    with pytest.raises(InputError, match="column item_id is missing; found sku, price"):
        read_catalog(str(tmp_path / "c.csv"))


def test_a_catalogue_file_of_bad_lines_only_adds_no_item(tmp_path: Path):
    (tmp_path / "1.jsonl").write_text("oops\n")
    (tmp_path / "2.jsonl").write_text('{"item_id": "i1"}\n')
    assert read_catalog(str(tmp_path))["item_id"].to_pylist() == ["i1"]
