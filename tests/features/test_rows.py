import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perso.dictionary import VIEWS
from perso.errors import FeatureStoreError
from perso.features.rows import FeatureRows, format_instant, parse_instant


@pytest.fixture
def rows(workspace):
    return FeatureRows(workspace)


def users(rows, as_of, view="user_rfm"):
    return rows.read_rows(view, as_of)["user_id"].to_pylist()


def test_every_view_reads_back_as_it_was_written(rows, make_all, day):
    tables = make_all(day(1), users=["ann", "bob"], items=["i1", "i2", "i3"])
    rows.write_rows(day(1), tables)
    assert rows.views(day(1)) == list(VIEWS)
    for view, table in tables.items():
        assert rows.read_rows(view, day(1)).equals(table), view
        assert rows.count(view, day(1)) == len(table)


def test_parts_are_read_by_number_not_by_name(rows, make_rows, day):
    numbers = [100_000, 2, 99_999, 10]
    for number in numbers:
        rows.write_part(
            "user_rfm", day(1), number, make_rows("user_rfm", day(1), **{f"u{number}": {}})
        )
    rows.commit(day(1), ["user_rfm"])
    expected = [f"u{number}" for number in sorted(numbers)]
    assert users(rows, day(1)) == expected
    batches = rows.batches("user_rfm", day(1), size=1)
    assert [batch["user_id"][0].as_py() for batch in batches] == expected


def test_batches_hold_every_row_once_in_order(rows, make_rows, day):
    names = [f"u{i:03d}" for i in range(25)]
    rows.write_rows(
        day(1), {"user_rfm": make_rows("user_rfm", day(1), **{name: {} for name in names})}
    )
    batches = list(rows.batches("user_rfm", day(1), size=10))
    assert [len(batch) for batch in batches] == [10, 10, 5]
    assert [name for batch in batches for name in batch["user_id"].to_pylist()] == names
    assert all(batch.schema.names == VIEWS["user_rfm"].schema.names for batch in batches)


def test_nothing_is_readable_before_the_commit(rows, make_rows, day):
    rows.write_part("user_rfm", day(1), 0, make_rows("user_rfm", day(1), ann={}))
    assert rows.written() == []
    assert rows.views(day(1)) == []
    with pytest.raises(FeatureStoreError, match=r"perso segments run.*Written: none"):
        rows.read_rows("user_rfm", day(1))
    rows.commit(day(1), ["user_rfm"])
    assert rows.written() == [day(1)]
    assert users(rows, day(1)) == ["ann"]


def test_parts_of_workers_are_committed_together(rows, make_rows, day):
    """Pickled to other processes, the object writes into the same run."""
    import pickle

    worker = pickle.loads(pickle.dumps(rows))
    rows.write_part("user_rfm", day(1), 1, make_rows("user_rfm", day(1), bob={}))
    worker.write_part("user_rfm", day(1), 0, make_rows("user_rfm", day(1), ann={}))
    rows.commit(day(1), ["user_rfm"])
    assert users(rows, day(1)) == ["ann", "bob"]


def test_a_part_written_twice_is_replaced(rows, make_rows, day):
    rows.write_part("user_rfm", day(1), 0, make_rows("user_rfm", day(1), ann={}, bob={}))
    rows.write_part("user_rfm", day(1), 0, make_rows("user_rfm", day(1), cem={}))
    rows.commit(day(1), ["user_rfm"])
    assert users(rows, day(1)) == ["cem"]


def test_a_view_written_again_is_replaced_and_the_others_stay(rows, workspace, make_rows, day):
    for view in ("user_rfm", "user_profile"):
        rows.write_part(view, day(1), 0, make_rows(view, day(1), ann={}))
        rows.write_part(view, day(1), 1, make_rows(view, day(1), bob={}))
    rows.commit(day(1), ["user_rfm", "user_profile"])
    again = FeatureRows(workspace)
    again.write_part("user_rfm", day(1), 0, make_rows("user_rfm", day(1), cem={}))
    again.commit(day(1), ["user_rfm"])
    assert users(rows, day(1)) == ["cem"]
    assert users(rows, day(1), "user_profile") == ["ann", "bob"]
    assert rows.views(day(1)) == ["user_profile", "user_rfm"]
    folders = [path.name for path in (workspace.features / "rows").iterdir()]
    assert sorted(folders) == [".building", "as_of=20260301T000000Z"]
    assert list((workspace.features / "rows" / ".building").iterdir()) == []


def test_one_object_commits_again_and_again(rows, make_rows, day):
    for names in (["ann", "bob"], ["cem"]):
        table = make_rows("user_rfm", day(1), **{name: {} for name in names})
        rows.write_rows(day(1), {"user_rfm": table})
        assert users(rows, day(1)) == names


def test_parts_of_views_that_are_not_named_are_dropped(rows, make_rows, day):
    for view in ("user_rfm", "user_profile"):
        rows.write_part(view, day(1), 0, make_rows(view, day(1), ann={}))
    rows.commit(day(1), ["user_rfm"])
    assert rows.views(day(1)) == ["user_rfm"]


KILLED = """
import os, pickle, signal, sys
from perso.features.rows import FeatureRows
workspace, as_of, table = pickle.loads(sys.stdin.buffer.read())
rows = FeatureRows(workspace)
rows.write_part("user_rfm", as_of, 0, table)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_leaves_nothing_readable_and_mixes_into_no_later_run(
    rows, workspace, make_rows, day
):
    import pickle

    sent = pickle.dumps((workspace, day(1), make_rows("user_rfm", day(1), ghost={})))
    killed = subprocess.run([sys.executable, "-c", KILLED], input=sent, check=False)
    assert killed.returncode == -9
    building = workspace.features / "rows" / ".building"
    (left,) = building.iterdir()
    assert list(left.rglob("part-*.parquet")), "the run was killed before it wrote"
    assert rows.written() == []
    rows.write_part("user_rfm", day(1), 1, make_rows("user_rfm", day(1), ann={}))
    rows.commit(day(1), ["user_rfm"])
    assert users(rows, day(1)) == ["ann"]
    assert left.exists(), "it may still be at work"
    a_month_ago = time.time() - 30 * 24 * 3600
    os.utime(left, (a_month_ago, a_month_ago))
    rows.write_rows(day(2), {"user_rfm": make_rows("user_rfm", day(2), ann={})})
    assert not left.exists()


def test_the_newest_instant_is_told_per_view(rows, make_rows, day):
    assert rows.newest("user_rfm") is None
    for number, view in ((3, "user_rfm"), (1, "user_rfm"), (2, "user_profile")):
        rows.write_rows(day(number), {view: make_rows(view, day(number), ann={})})
    assert rows.written() == [day(1), day(2), day(3)]
    assert rows.newest("user_rfm") == day(3)
    assert rows.newest("user_profile") == day(2)
    assert rows.newest("item_profile") is None


def test_an_empty_part_is_a_view_without_rows(rows, make_rows, day):
    rows.write_rows(day(1), {"user_rfm": make_rows("user_rfm", day(1))})
    assert rows.read_rows("user_rfm", day(1)).equals(VIEWS["user_rfm"].schema.empty_table())
    assert rows.count("user_rfm", day(1)) == 0
    assert rows.newest("user_rfm") == day(1)


def test_chosen_columns_come_in_the_order_asked(rows, make_rows, day):
    rows.write_rows(day(1), {"user_rfm": make_rows("user_rfm", day(1), ann={"segment": "new"})})
    found = rows.read_rows("user_rfm", day(1), columns=["segment", "user_id"])
    assert found.to_pylist() == [{"segment": "new", "user_id": "ann"}]
    assert found.column_names == ["segment", "user_id"]


def test_what_the_dictionary_does_not_allow_is_refused_by_name(rows, make_rows, day):
    good = make_rows("user_rfm", day(1), ann={})
    with pytest.raises(ValueError, match="no feature view 'rfm'; there are: user_activity"):
        rows.write_part("rfm", day(1), 0, good)
    with pytest.raises(ValueError, match="rows of user_rfm have schema"):
        rows.write_part("user_rfm", day(1), 0, good.drop_columns("segment"))
    as_text = good.set_column(5, good.field(5).with_type(pa.float64()), good[5].cast(pa.float64()))
    with pytest.raises(ValueError, match="rows of user_rfm have schema"):
        rows.write_part("user_rfm", day(1), 0, as_text)
    with pytest.raises(ValueError, match=r"event timestamps .* write those of 2026-03-02"):
        rows.write_part("user_rfm", day(2), 0, good)
    mixed = pa.concat_tables([good, make_rows("user_rfm", day(2), bob={})])
    with pytest.raises(ValueError, match="event timestamps"):
        rows.write_part("user_rfm", day(1), 0, mixed)
    with pytest.raises(ValueError, match="no time zone"):
        rows.write_part("user_rfm", datetime(2026, 3, 1), 0, good.slice(0, 0))
    nameless = make_rows("user_rfm", day(1), ann={"segment": None})
    with pytest.raises(ValueError, match=r"user_rfm.segment is null in 1 rows"):
        rows.write_part("user_rfm", day(1), 0, nameless)
    assert rows.written() == []


def test_a_commit_of_what_was_not_written_is_refused_and_changes_nothing(rows, make_rows, day):
    with pytest.raises(ValueError, match="views is empty"):
        rows.commit(day(1), [])
    with pytest.raises(ValueError, match="no feature view 'rfm'"):
        rows.commit(day(1), ["rfm"])
    rows.write_part("user_rfm", day(1), 0, make_rows("user_rfm", day(1), ann={}))
    with pytest.raises(FeatureStoreError, match="no part of user_profile"):
        rows.commit(day(1), ["user_rfm", "user_profile"])
    assert rows.written() == []
    rows.commit(day(1), ["user_rfm"])
    assert users(rows, day(1)) == ["ann"]


def test_a_reader_is_told_which_instants_there_are(rows, make_rows, day):
    rows.write_rows(day(1), {"user_rfm": make_rows("user_rfm", day(1), ann={})})
    for read in (rows.read_rows, rows.count):
        with pytest.raises(FeatureStoreError, match=r"Written: 2026-03-01"):
            read("user_rfm", day(2))
    with pytest.raises(ValueError, match="no feature view"):
        rows.read_rows("rfm", day(1))


@given(
    st.datetimes(
        min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)
    )
)
def test_an_instant_survives_being_a_file_name(instant):
    assert parse_instant(format_instant(instant)) == instant
    assert "/" not in format_instant(instant)


def test_one_instant_has_one_name_whatever_its_time_zone():
    from datetime import timezone

    berlin = timezone(timedelta(hours=1))
    assert format_instant(datetime(2026, 3, 1, 1, tzinfo=berlin)) == "20260301T000000Z"
