from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from perso.data.movielens import GENRES_100K
from perso.data.sources import open_source
from perso.errors import InputError
from perso.schema import CATALOG_SCHEMA

RATED_AT = datetime(1997, 12, 4, 15, 55, 49, tzinfo=UTC)
STAMP = int(RATED_AT.timestamp())


def write_100k(folder: Path) -> None:
    (folder / "u.data").write_text(f"196\t242\t3\t{STAMP}\n186\t302\t5\t{STAMP}\n1\t2\n")
    flags = {"Comedy": "1", "Animation": "1"}
    marks = "|".join(flags.get(genre, "0") for genre in GENRES_100K)
    none = "|".join(["1"] + ["0"] * 18)
    (folder / "u.item").write_text(
        f"242|Misérables, Les (1995)|01-Jan-1995||http://x|{marks}\n302|unknown||||{none}\n",
        encoding="latin-1",
    )


def write_1m(folder: Path) -> None:
    (folder / "ratings.dat").write_text(f"196::242::3::{STAMP}\n186::302::5::{STAMP}\n1::2\n")
    (folder / "movies.dat").write_text(
        '242::Misérables, Les (1995)::Animation|Comedy\n302::Plan: 9 "B" (1959)::Horror\n',
        encoding="latin-1",
    )


def write_latest(folder: Path) -> None:
    (folder / "ratings.csv").write_text(
        f"userId,movieId,rating,timestamp\n196,242,3.0,{STAMP}\n186,302,5.0,{STAMP}\n1,2\n"
    )
    (folder / "movies.csv").write_text(
        'movieId,title,genres\n242,"Misérables, Les (1995)",Animation|Comedy\n'
        "302,Short,(no genres listed)\n"
    )
    (folder / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,2,x,3\n")


@pytest.mark.parametrize("write", [write_100k, write_1m, write_latest])
def test_every_layout_gives_ratings_and_titles(tmp_path: Path, write):
    write(tmp_path)
    source = open_source("movielens")
    (chunk,) = source.chunks(str(tmp_path))
    rows = pa.concat_tables(source.read(chunk)).to_pylist()
    ratings = [row for row in rows if row["reject_reason"] is None]
    assert [(r["user_id"], r["item_id"], r["value"], r["timestamp"]) for r in ratings] == [
        ("196", "242", 3.0, RATED_AT),
        ("186", "302", 5.0, RATED_AT),
    ]
    assert {r["event_type"] for r in ratings} == {"rate_item"}
    assert len({r["event_id"] for r in ratings}) == 2
    assert [r["reject_reason"] for r in rows[2:]] == ["malformed_line"]

    catalog = source.catalog(str(tmp_path))
    assert catalog.schema.equals(CATALOG_SCHEMA)
    first, second = catalog.to_pylist()
    assert first["item_id"] == "242"
    assert first["title"] == "Misérables, Les (1995)"
    assert first["categories"] == ["Animation", "Comedy"]
    assert second["title"]


def test_titles_with_colons_and_quotes_survive(tmp_path: Path):
    write_1m(tmp_path)
    assert open_source("movielens").catalog(str(tmp_path))["title"][1].as_py() == (
        'Plan: 9 "B" (1959)'
    )


def test_another_folder_is_refused_with_the_layouts(tmp_path: Path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")
    with pytest.raises(InputError, match=r"no MovieLens folder.*u\.data and u\.item"):
        open_source("movielens").chunks(str(tmp_path))


def test_a_ratings_file_without_a_column_is_refused(tmp_path: Path):
    write_latest(tmp_path)
    (tmp_path / "ratings.csv").write_text("userId,movieId,stars,timestamp\n1,2,3,4\n")
    source = open_source("movielens")
    with pytest.raises(InputError, match="column rating is missing; found userId"):
        list(source.read(source.chunks(str(tmp_path))[0]))
