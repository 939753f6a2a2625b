import json
import time
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perso.data.events import REASONS, check_event, check_events
from perso.errors import InputError
from perso.schema import CHECKED_SCHEMA, EVENT_SCHEMA, TIMESTAMP

NOON = datetime(2024, 3, 5, 12, tzinfo=UTC)
VIEW = {
    "event_id": "e1",
    "event_type": "view_item",
    "timestamp": "2024-03-05T12:00:00Z",
    "item_id": "i1",
    "user_id": "u1",
}


def check_rows(*rows: dict) -> list[dict]:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: pa.array([row.get(name) for row in rows]) for name in names}
    return check_events(pa.table(columns)).to_pylist()


def check_column(name: str, values: pa.Array) -> pa.Table:
    base = {key: pa.array([value] * len(values)) for key, value in VIEW.items()}
    base["event_id"] = pa.array([str(i) for i in range(len(values))])
    return check_events(pa.table(base | {name: values}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"event_type": ""}, "no_event_type"),
        ({"event_type": "shared_by_mail"}, None),
        ({"user_id": None}, "no_user_or_session"),
        ({"user_id": "", "session_id": ""}, "no_user_or_session"),
        ({"user_id": None, "session_id": "s1"}, None),
        ({"item_id": ""}, "no_item"),
        ({"timestamp": "yesterday"}, "bad_timestamp"),
        ({"timestamp": None}, "bad_timestamp"),
        ({"timestamp": "2024-02-30"}, "bad_timestamp"),
        ({"timestamp": "1889-01-01"}, "bad_timestamp"),
        ({"timestamp": "9999-01-01"}, "bad_timestamp"),
        ({"value": "cheap"}, "bad_value"),
        ({"value": "inf"}, "bad_value"),
        ({"value": "nan"}, "bad_value"),
        ({"value": "-2.5"}, None),
        ({"event_type": "rate_item"}, "no_value"),
        ({"event_type": "dwell", "value": ""}, "no_value"),
        ({"event_type": "dwell", "value": "3"}, None),
        ({"quantity": "0"}, "bad_quantity"),
        ({"quantity": "-1"}, "bad_quantity"),
        ({"quantity": "1.5"}, "bad_quantity"),
        ({"quantity": "1e99"}, "bad_quantity"),
        ({"quantity": "2.0"}, None),
        ({"price": "-1"}, "bad_price"),
        ({"price": "free"}, "bad_price"),
        ({"price": "0"}, None),
        ({"consent": "maybe"}, "bad_consent"),
        ({"consent": "TRUE"}, None),
        ({"context": "{"}, "bad_context"),
        ({"context": "[1]"}, "bad_context"),
        ({"context": "[" * 200_000}, "bad_context"),
        ({"context": '{"device": "\\ud800"}'}, "bad_context"),
        ({"context": "{}"}, None),
        ({"unknown": "column"}, None),
    ],
)
def test_each_rule_names_its_reason(change, reason):
    assert check_event(VIEW | change) == reason
    assert reason is None or reason in REASONS
    # The same row among good ones: no verdict depends on the neighbours.
    neighbours = {"timestamp": "2024-03-05", "value": "1", "quantity": "1", "price": "1"}
    checked = check_rows(VIEW | neighbours, VIEW | change, VIEW | neighbours)
    assert [row["reject_reason"] for row in checked if row["reject_reason"]] == [reason] * bool(
        reason
    )


def test_every_reason_is_a_sentence():
    assert all(text.endswith(".") and text[0].isupper() for text in REASONS.values())


@pytest.mark.parametrize("missing", ["event_type", "timestamp", "item_id", "user_id"])
def test_a_missing_column_is_an_error_that_names_found_and_required_ones(missing):
    row = {name: value for name, value in VIEW.items() if name != missing}
    with pytest.raises(InputError, match=f"{missing}.*is missing; found event_id.*events need"):
        check_rows(row)


@pytest.mark.parametrize(
    "stamp",
    [
        pa.array(["2024-03-05T12:00:00Z"]),
        pa.array(["2024-03-05 12:00"]),
        pa.array(["2024-03-05T13:00:00+01:00"]),
        pa.array(["2024-03-05T12:00:00.000000000Z"]),
        pa.array(["1709640000"]),
        pa.array(["1709640000.0"]),
        pa.array([1709640000]),
        pa.array([1709640000.0]),
        pa.array([1709640000_000]),
        pa.array([1709640000_000_000]),
        pa.array([1709640000_000_000_000]),
        pa.array([datetime(2024, 3, 5, 12)]),
        pa.array([NOON], pa.timestamp("ns", "UTC")),
        pa.array([NOON], pa.timestamp("s", "Asia/Tokyo")),
        pa.array(pd.Series(["2024-03-05T12:00:00Z"], dtype="category")),
    ],
)
def test_the_same_instant_in_any_spelling(stamp):
    assert check_column("timestamp", stamp)["timestamp"].to_pylist() == [NOON]


def test_dates_are_midnights_and_microseconds_are_exact():
    stamps = pa.array([date(2024, 3, 5)])
    assert check_column("timestamp", stamps)["timestamp"][0].as_py() == NOON.replace(hour=0)
    exact = 1_709_640_000_123_457
    assert check_column("timestamp", pa.array([exact]))["timestamp"].cast(pa.int64())[
        0
    ].as_py() == (exact)


def test_mixed_spellings_of_time_in_one_column_are_all_read():
    stamps = pa.array(
        ["2024-03-05T12:00:00Z", "2024-03-05 12:00:00", "1709640000", "soon", "2024-03-05T14+02"]
    )
    checked = check_column("timestamp", stamps)
    assert checked["timestamp"].to_pylist() == [NOON, NOON, NOON, NOON, None]
    assert checked["reject_reason"].to_pylist() == [None] * 4 + ["bad_timestamp"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([17, 2**60]), ["17", str(2**60)]),
        (pa.array([17.0, 1.5]), ["17", "1.5"]),
        (pa.array([b"a", b"b"]), ["a", "b"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        (pa.array([17, 18], pa.uint8()), ["17", "18"]),
    ],
)
def test_ids_of_any_type_become_text(ids, expected):
    assert check_column("item_id", ids)["item_id"].to_pylist() == expected


def test_a_float_id_that_is_nan_is_missing():
    checked = check_column("item_id", pa.array([float("nan"), 3.0]))
    assert checked["reject_reason"].to_pylist() == [None, "no_item"]


@pytest.mark.parametrize(
    "columns",
    [
        {"device": pa.array(["mobile"]), "region": pa.array(["north"])},
        {"context_device": pa.array(["mobile"]), "context.region": pa.array(["north"])},
        {"context": pa.array([{"device": "mobile", "region": "north", "other": 1}])},
        {"context": pa.array(['{"device": "mobile", "region": "north", "other": 1}'])},
        {"context": pa.array([{"device": "tablet", "region": "north"}]), "device": ["mobile"]},
    ],
)
def test_context_is_read_from_any_of_its_shapes(columns):
    table = pa.table({name: [value] for name, value in VIEW.items()} | columns)
    event = check_events(table).to_pylist()[0]
    assert (event["device"], event["region"], event["campaign"]) == ("mobile", "north", None)


def test_missing_event_ids_depend_on_content_not_on_place_or_file_type():
    rows = [{k: v for k, v in VIEW.items() if k != "event_id"} | {"value": v} for v in (1.0, 2.0)]
    first, second, again = (row["event_id"] for row in check_rows(rows[0], rows[1], rows[0]))
    assert first == again != second
    as_text = rows[1] | {"value": "2", "timestamp": "1709640000"}
    assert check_rows(as_text)[0]["event_id"] == second
    assert len(first) == 32


def test_derived_event_ids_are_the_same_on_every_machine():
    row = {k: v for k, v in VIEW.items() if k != "event_id"}
    assert check_rows(row)[0]["event_id"] == "0bad93de9e3976af1de539505ce8568e"


def test_given_event_ids_are_kept_beside_missing_ones():
    ids = [row["event_id"] for row in check_rows(VIEW, VIEW | {"event_id": ""})]
    assert ids[0] == "e1"
    assert len(ids[1]) == 32


def test_refused_rows_come_last_with_the_row_as_it_came():
    bad = VIEW | {"timestamp": "soon", "extra": [1, float("nan")]}
    checked = check_rows(bad, VIEW | {"extra": None})
    assert [row["reject_reason"] for row in checked] == [None, "bad_timestamp"]
    assert json.loads(checked[1]["reject_row"]) == bad | {"extra": [1, "nan"]}
    assert all(checked[1][name] is None for name in EVENT_SCHEMA.names)


def test_empty_input_gives_an_empty_table_of_the_schema():
    table = pa.table({name: pa.array([], pa.string()) for name in VIEW})
    checked = check_events(table)
    assert checked.schema.equals(CHECKED_SCHEMA)
    assert checked.num_rows == 0


CELLS = st.one_of(
    st.none(),
    st.sampled_from(["", "1", "x", "2024-03-05", "nan", "1e400", "{}", "true", "1709640000"]),
    st.text(max_size=8),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(dict.fromkeys((*EVENT_SCHEMA.names, "context"), CELLS)),
        min_size=1,
        max_size=6,
    )
)
def test_any_text_is_an_event_or_a_reject_and_never_an_exception(rows):
    names = rows[0].keys()
    table = pa.table({name: pa.array([r[name] for r in rows], pa.string()) for name in names})
    checked = check_events(table)
    assert checked.schema.equals(CHECKED_SCHEMA)
    assert checked.num_rows == len(rows)
    alone = [row for i in range(len(rows)) for row in check_events(table.slice(i, 1)).to_pylist()]
    assert sorted(map(str, alone)) == sorted(map(str, checked.to_pylist()))
    for row in checked.to_pylist():
        if row["reject_reason"] is None:
            assert row["event_id"] and row["event_type"] and row["item_id"] and row["timestamp"]
            assert row["user_id"] or row["session_id"]
        else:
            json.loads(row["reject_row"])


def test_clean_events_pass_at_half_a_million_rows_a_second_at_least():
    n = 200_000
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "event_id": pa.array(np.arange(n)).cast(pa.string()),
            "event_type": pa.array(rng.choice(["view_item", "purchase"], n)),
            "user_id": pa.array(rng.integers(0, 9999, n)).cast(pa.string()),
            "item_id": pa.array(rng.integers(0, 999, n)).cast(pa.string()),
            "timestamp": pa.array(rng.integers(1.7e15, 1.71e15, n)).cast(TIMESTAMP),
            "value": rng.random(n),
            "quantity": rng.integers(1, 5, n),
        }
    )
    started = time.process_time()
    checked = check_events(table)
    assert time.process_time() - started < n / 500_000
    assert checked.num_rows == n - pc.sum(pc.is_valid(checked["reject_reason"])).as_py()
