from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perso.errors import InputError
from perso.segments.attributes import demographics, read_attributes

USERS = pa.array(["7", "8", "9"])
AS_OF = datetime(2026, 6, 1, tzinfo=UTC)


def bands(table):
    return demographics(table, as_of=AS_OF)["age_band"].to_pylist()


def test_numeric_ids_are_the_same_ids_and_order_is_the_callers(tmp_path):
    pq.write_table(pa.table({"user_id": [9, 7, 1], "age": [41, 18, 5]}), tmp_path / "c.parquet")
    assert bands(read_attributes(str(tmp_path / "c.parquet"), USERS)) == ["10-19", None, "40-49"]


def test_a_given_band_wins_over_the_year_and_the_year_over_the_age(tmp_path):
    table = pa.table(
        {
            "user_id": ["7", "8", "9"],
            "age_band": ["adult", None, None],
            "birth_year": [1990, 1990, None],
            "age": [20, 20, 20],
        }
    )
    pq.write_table(table, tmp_path / "c.parquet")
    assert bands(read_attributes(str(tmp_path / "c.parquet"), USERS)) == [
        "adult",
        "30-39",
        "20-29",
    ]


def test_of_repeated_rows_the_last_one_stays(tmp_path):
    table = pa.table({"user_id": ["7", "7"], "gender": ["f", "x"]})
    pq.write_table(table, tmp_path / "c.parquet")
    found = read_attributes(str(tmp_path / "c.parquet"), USERS)
    assert found["gender"].to_pylist() == ["x", None, None]


@pytest.mark.parametrize("age", [-1, 121, 1e9])
def test_an_age_that_cannot_be_is_unknown(tmp_path, age):
    pq.write_table(pa.table({"user_id": ["7"], "age": [float(age)]}), tmp_path / "c.parquet")
    assert bands(read_attributes(str(tmp_path / "c.parquet"), USERS))[0] is None


def test_a_missing_file_and_a_missing_column_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot read customer file"):
        read_attributes(str(tmp_path / "none.parquet"), USERS)
    pq.write_table(pa.table({"customer": ["7"]}), tmp_path / "c.parquet")
    with pytest.raises(InputError, match="no column user_id"):
        read_attributes(str(tmp_path / "c.parquet"), USERS)
