import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from perso.data.rejects import MALFORMED_LINE
from perso.data.sources import SOURCE_NAMES, open_source
from perso.data.synthetic import ShopSpec, generate_shop, write_shop
from perso.errors import InputError
from perso.schema import CHECKED_SCHEMA, EVENT_SCHEMA


def test_every_source_has_its_name_and_survives_pickling():
    for name in SOURCE_NAMES:
        assert pickle.loads(pickle.dumps(open_source(name))).name == name


def test_an_unknown_source_is_refused_with_the_names_allowed():
    with pytest.raises(InputError, match="'kafka'; choose one of events, online-retail"):
        open_source("kafka")


def test_malformed_lines_are_rejects_among_the_events(tmp_path: Path):
    (tmp_path / "e.csv").write_text(
        "event_type,timestamp,item_id,user_id\nview_item,2024-01-01,i1,u1\nview_item,2024\n"
    )
    source = open_source("events")
    (chunk,) = source.chunks(str(tmp_path))
    checked = pa.concat_tables(source.read(chunk))
    assert checked.schema.equals(CHECKED_SCHEMA)
    assert checked["reject_reason"].to_pylist() == [None, MALFORMED_LINE]
    assert checked["reject_row"][1].as_py() == '"view_item,2024"'


def test_a_missing_column_names_the_file(tmp_path: Path):
    (tmp_path / "e.jsonl").write_text('{"event_type": "view_item"}\n')
    source = open_source("events")
    (chunk,) = source.chunks(str(tmp_path))
    with pytest.raises(InputError, match=r"e\.jsonl: column timestamp, item_id, user_id"):
        list(source.read(chunk))


def test_a_written_shop_is_read_back_whole(tmp_path: Path):
    spec = ShopSpec(num_users=600, num_items=60, num_days=20)
    write_shop(spec, tmp_path / "shop")
    shop = generate_shop(spec)
    source = open_source("synthetic")
    chunks = source.chunks(str(tmp_path / "shop"))
    assert len(chunks) == 2
    checked = pa.concat_tables([block for chunk in chunks for block in source.read(chunk)])
    assert pc.all(pc.is_null(checked["reject_reason"])).as_py()
    assert checked.select(EVENT_SCHEMA.names).to_pylist() == shop.events.to_pylist()
    assert source.catalog(str(tmp_path / "shop")).equals(shop.catalog)


def test_a_file_of_bad_lines_only_costs_its_lines(tmp_path: Path):
    event = '{"event_type": "view_item", "timestamp": "2024-01-01", "item_id": "i", "user_id": "u"}'
    (tmp_path / "1.jsonl").write_text("oops\n[1]\n")
    (tmp_path / "2.jsonl").write_text(event + "\n")
    source = open_source("events")
    chunks = source.chunks(str(tmp_path))
    checked = pa.concat_tables([block for chunk in chunks for block in source.read(chunk)])
    assert checked["reject_reason"].to_pylist() == [MALFORMED_LINE, MALFORMED_LINE, None]


def test_the_files_of_a_source_are_all_that_decide_its_result(tmp_path: Path):
    (tmp_path / "own").mkdir()
    for name in ("b.csv", "a.jsonl", "notes.txt"):
        (tmp_path / "own" / name).write_text("x\n")
    (tmp_path / "ml").mkdir()
    for name in ("ratings.csv", "movies.csv", "tags.csv"):
        (tmp_path / "ml" / name).write_text("x\n")
    write_shop(ShopSpec(num_users=600, num_items=60, num_days=20), tmp_path / "shop")
    found = {
        name: [file.removeprefix(f"{tmp_path}/") for file in open_source(name).files(folder)]
        for name, folder in {
            "events": f"{tmp_path}/own",
            "online-retail": f"{tmp_path}/own",
            "movielens": f"{tmp_path}/ml",
            "synthetic": f"{tmp_path}/shop",
        }.items()
    }
    events = sorted(str(p.relative_to(tmp_path)) for p in (tmp_path / "shop/events").iterdir())
    assert found == {
        "events": ["own/a.jsonl", "own/b.csv"],
        "online-retail": ["own/a.jsonl", "own/b.csv"],
        "movielens": ["ml/movies.csv", "ml/ratings.csv"],
        "synthetic": ["shop/catalog.parquet", *events],
    }
